//! Broken configurations and the exact words about them.

use super::*;

fn errors(text: &str) -> Vec<String> {
    load_text(text, Sections::All, &[]).unwrap_err()
}

#[test]
fn all_errors_come_at_once_each_with_its_place() {
    assert_eq!(
        errors(
            "\
pipeline_id: My.Shop
topic_prefix: cdc
souce:
  x: 1
source:
  port: 70000
  source_type: oracle
  tables: [customers, public.orders, public.orders]
max_buffered_messages: many
stop_on_incompatible_schema: yes
sinks:
  - sink_id: hook
    sink_type: webhook
    tables: [public.order]
    webhook:
      url: localhost:8000
      methd: POST
      timeout_seconds: .inf
  - sink_id: hook
    sink_type: postgres
    postgres:
      host: [a]
      database:
  - sink_type: webhook
    webhook: 5
"
        ),
        [
            "p.yaml:1: pipeline_id: `My.Shop` may only have lower case letters, digits, `_` and \
             `-`, and begin with a letter or digit; a dot would let names of groups and topics \
             collide",
            "p.yaml:3: souce: unknown setting; did you mean `source`?",
            "p.yaml:5: source.database: is required",
            "p.yaml:6: source.port: must be from 1 to 65535, is 70000",
            "p.yaml:7: source.source_type: expected one of postgres, mysql, mariadb, found \
             `oracle`",
            "p.yaml:8: source.tables[0]: `customers` has no schema: write schema.table, such as \
             public.customers",
            "p.yaml:8: source.tables[2]: `public.orders` is there twice",
            "p.yaml:9: max_buffered_messages: expected a whole number, found `many`",
            "p.yaml:10: stop_on_incompatible_schema: expected true or false, found `yes`",
            "p.yaml:14: sinks[0].tables[0]: `public.order` is not in source.tables; did you mean \
             `public.orders`?",
            "p.yaml:16: sinks[0].webhook.url: expected an address with http:// or https://, found \
             localhost:",
            "p.yaml:17: sinks[0].webhook.methd: unknown setting; did you mean `method`?",
            "p.yaml:18: sinks[0].webhook.timeout_seconds: expected a number, found `.inf`",
            "p.yaml:19: sinks[1].sink_id: `hook` is also the id of sinks[0]",
            "p.yaml:21: sinks[1].postgres.database: is required",
            "p.yaml:22: sinks[1].postgres.host: expected a text, found a list",
            "p.yaml:24: sinks[2].sink_id: is required",
            "p.yaml:25: sinks[2].webhook: expected settings, found a single value",
        ]
    );
}

/// Lines added to a good file, and the one message about them; one that ends in a colon is only
/// the beginning.
const SETTINGS: &[(&str, &str)] = &[
    ("sinks: []", "p.yaml:10: sinks: given twice, first in line 5"),
    ("pipeline_id: x", "p.yaml:10: pipeline_id: given twice, first in line 1"),
    ("zzz: 1", "p.yaml:10: zzz: unknown setting; known here: "),
    (
        "kafka: {bootstrap_servers: 'k'}",
        "p.yaml:10: kafka.bootstrap_servers: `k` is no host:port: the port is missing",
    ),
    (
        "kafka: {bootstrap_servers: 'a:1,b:0'}",
        "p.yaml:10: kafka.bootstrap_servers: `b:0` is no host:port: the port must be from 1 to 65535",
    ),
    (
        "kafka: {schema_registry_url: 'ftp://x'}",
        "p.yaml:10: kafka.schema_registry_url: expected an address with http:// or https://, found ftp:",
    ),
    (
        "kafka: {schema_registry_url: 'http://u:hunter2@x'}",
        "p.yaml:10: kafka.schema_registry_url: must not hold user and password: they have settings of their own",
    ),
    (
        "kafka:\n  properties:\n    group.id: x",
        "p.yaml:12: kafka.properties.group.id: cannot be set here: the group is named by group_id and sink_id",
    ),
    (
        "kafka: {security_protocol: sasl_ssl, sasl: {username: u}}",
        "p.yaml:10: kafka.sasl.password: is required by sasl_ssl",
    ),
    (
        "kafka: {tls: {ca_file: /x}}",
        "p.yaml:10: kafka.tls: has no effect: set kafka.security_protocol to ssl or sasl_ssl",
    ),
    (
        "kafka: {security_protocol: ssl, tls: {cert_file: /x}}",
        "p.yaml:10: kafka.tls.key_file: is required with cert_file",
    ),
    (
        "kafka: {topics: {retention_ms: 1000}}",
        "p.yaml:10: kafka.topics.retention_ms: must be -1 (for ever) or at least 604800000 (seven days), is 1000: a sink that is away for longer would lose changes",
    ),
    ("connector: {username: u}", "p.yaml:10: connector.password: is required with username"),
    (
        "coordinator: {bind: '0.0.0.0:8090'}",
        "p.yaml:10: coordinator.bind: `0.0.0.0:8090` can be reached from elsewhere: set coordinator.tokens",
    ),
    (
        "redis: {url: localhost}",
        "p.yaml:10: redis.url: is no address: expected redis:// or rediss:// with host and port",
    ),
    (
        "log_level: loud",
        "p.yaml:10: log_level: expected one of ERROR, WARN, INFO, DEBUG, TRACE or a filter such as info,rdkafka=debug, found `loud`",
    ),
    ("partition_concurrency: 4", "p.yaml:10: partition_concurrency: must be 0, is 4"),
    ("drain_seconds: -1", "p.yaml:10: drain_seconds: must be from 0 to 3600, is -1"),
    (
        "retry: {initial_wait_seconds: 90}",
        "p.yaml:10: sinks[0].retry.max_wait_seconds: must not be less than initial_wait_seconds (90)",
    ),
    (
        "group_id: a.b",
        "p.yaml:10: group_id: `a.b` may only have lower case letters, digits, `_` and `-`, and begin with a letter or digit; a dot would let names of groups and topics collide",
    ),
    ("redis: {password: '${NOPE}'}", "p.yaml:10: redis.password: the variable NOPE is not set"),
    (
        "max_buffered_messages: ${NOPE:-x}",
        "p.yaml:10: max_buffered_messages: expected a whole number, found `${NOPE:-x}`",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 'file:///x', table_name: '{table}', write_mode: upsert, truncate: apply}",
        "p.yaml:12: sinks[1].iceberg.truncate: not built yet is apply: use stop or ignore, or set enabled: false",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 'file:///x', table_name: t, write_mode: upsert}",
        "p.yaml:12: sinks[1].iceberg.table_name: `t` would be the table of every source table, which only write_mode: append fills: write {table} into it",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 'file:///x', table_name: '{table}', write_mode: upsert, partition_by: [id]}",
        "p.yaml:12: sinks[1].iceberg.partition_by: not built yet is a partitioned table of rows: leave it out, or set enabled: false",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 'file:///x', table_name: t, partition_by: [id, 'week(at)']}",
        "p.yaml:12: sinks[1].iceberg.partition_by[1]: `week(at)`: expected a column, identity(c), year(c), month(c), day(c), hour(c), bucket(16, c) or truncate(10, c)",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'thrift://x:9083', warehouse: 'file:///x', table_name: t}",
        "p.yaml:12: sinks[1].iceberg.catalog_uri: is no catalog: write sqlite:////path/to/catalog.db, postgresql://user@host/database or the http(s):// address of a REST catalog",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 'gs://x', table_name: t}",
        "p.yaml:12: sinks[1].iceberg.warehouse: is neither a local folder nor S3, and others are not built yet: write file:///path/to/warehouse or s3://bucket/path, or set enabled: false",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 's3://x', catalog_properties: {s3.acces-key-id: k}, table_name: t}",
        "p.yaml:12: sinks[1].iceberg.catalog_properties.s3.acces-key-id: is no property that the sink knows; did you mean `s3.access-key-id`?",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 'file:///x', catalog_properties: {token: t}, table_name: t}",
        "p.yaml:12: sinks[1].iceberg.catalog_properties.token: has no effect with this catalog and this warehouse: leave it out",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'http://x', warehouse: w, catalog_properties: {credential: 'a:b', token: t}, table_name: t}",
        "p.yaml:12: sinks[1].iceberg.catalog_properties.credential: excludes token: give one kind of credentials",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'postgresql://u@h', warehouse: 'file:///x', table_name: t}",
        "p.yaml:12: sinks[1].iceberg.catalog_uri: names no database: expected postgresql://user@host:5432/database",
    ),
    (
        "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 'file:///x', table_name: '{topic}'}",
        "p.yaml:12: sinks[1].iceberg.table_name: `{topic}`: only {schema} and {table} are replaced",
    ),
    (
        "  - sink_id: db\n    sink_type: postgres\n    on_reject: dlq\n    postgres: {database: d, write_mode: replica, consistency: transaction}",
        "p.yaml:13: sinks[1].postgres.consistency: transaction excludes on_reject: dlq: without one of its changes a transaction is not whole",
    ),
    (
        "  - sink_id: db\n    sink_type: postgres\n    operations: [c, u, d, r]\n    postgres: {database: d, write_mode: replica, consistency: transaction}",
        "p.yaml:13: sinks[1].postgres.consistency: transaction needs every operation: each is counted",
    ),
    (
        "  - sink_id: db\n    sink_type: postgres\n    postgres: {database: d, write_mode: replica, consistency: transaction}\nstop_on_incompatible_schema: true",
        "p.yaml:12: sinks[1].postgres.consistency: stop_on_incompatible_schema does not hold whole transactions yet: set on_incompatible: continue for this sink, whose mirrors stop by themselves at a change that they cannot follow",
    ),
    (
        "  - sink_id: db\n    sink_type: postgres\n    postgres: {database: d, write_mode: replica, truncate: apply}",
        "p.yaml:12: sinks[1].postgres.truncate: apply needs kafka.topics.partitions: 1, which is 4: with more, the order of a truncate and the changes around it is not known; use stop or ignore",
    ),
    (
        "  - sink_id: db\n    sink_type: postgres\n    postgres: {database: d, write_mode: replica, target_table: 'm.{topic}'}",
        "p.yaml:12: sinks[1].postgres.target_table: `{topic}`: only {schema} and {table} are replaced",
    ),
    (
        "  - sink_id: db\n    sink_type: postgres\n    postgres: {database: d, write_mode: replica, target_table: m.all}",
        "p.yaml:12: sinks[1].postgres.target_table: `m.all` would be the mirror of every table: write {table} into it",
    ),
    (
        "  - sink_id: db\n    sink_type: postgres\n    postgres: {database: d, target_table: a.b.c}",
        "p.yaml:12: sinks[1].postgres.target_table: `a.b.c` is no table: write table or schema.table",
    ),
];

/// Lines added to the section of the file's webhook.
const WEBHOOK_SETTINGS: &[(&str, &str)] = &[
    (
        "headers: {Webhook-Id: x}",
        "p.yaml:10: sinks[0].webhook.headers.Webhook-Id: is set by the sink itself",
    ),
    ("headers: {a b: x}", "p.yaml:10: sinks[0].webhook.headers.a b: is no header name"),
    (
        "headers: {X: \"a\\nb\"}",
        "p.yaml:10: sinks[0].webhook.headers.X: has a character that no header may have",
    ),
    (
        "signing_secrets: [hunter2]",
        "p.yaml:10: sinks[0].webhook.signing_secrets[0]: must be `whsec_` and base64",
    ),
    (
        "signing_secrets: [whsec_MTIz]",
        "p.yaml:10: sinks[0].webhook.signing_secrets[0]: must hold 24 to 64 bytes, holds 3",
    ),
];

/// Lines added to the file's sink.
const SINK_SETTINGS: &[(&str, &str)] = &[
    (
        "operations: [c, x]",
        "p.yaml:10: sinks[0].operations[1]: expected one of c, u, d, r, t, found `x`",
    ),
    ("operations: []", "p.yaml:10: sinks[0].operations: is empty: nothing would be delivered"),
    (
        "on_incompatible: skip",
        "p.yaml:10: sinks[0].on_incompatible: expected one of stop, dlq, continue, found `skip`",
    ),
    (
        "on_incompatible: dlq\ndlq: {enabled: false}",
        "p.yaml:10: sinks[0].on_incompatible: dlq needs dlq.enabled: true",
    ),
    (
        "postgres: {database: x}",
        "p.yaml:10: sinks[0].postgres: does not belong to sink_type: webhook; remove one of the two",
    ),
];

/// What is replaced in a good file by what.
const REPLACEMENTS: &[(&str, &str, &str)] = &[
    (
        "tables: [",
        "connector_properties: {slot.name: x}\n  tables: [",
        "p.yaml:4: source.connector_properties.slot.name: cannot be set here: set source.slot_name",
    ),
    (
        "tables: [",
        "slot_name: My-Slot\n  tables: [",
        "p.yaml:4: source.slot_name: `My-Slot` is no slot name: PostgreSQL allows lower case letters, digits and `_`",
    ),
    (
        "tables: [",
        "tables: ['', ",
        "p.yaml:4: source.tables[0]: `` is no table: write schema.table, such as public.customers",
    ),
];

#[test]
fn every_mistake_is_named() {
    let added = SETTINGS.iter().map(|(line, expected)| (format!("{GOOD}{line}\n"), expected));
    let webhook =
        WEBHOOK_SETTINGS.iter().map(|(line, expected)| (format!("{GOOD}      {line}\n"), expected));
    let sink =
        SINK_SETTINGS.iter().map(|(line, expected)| (format!("{GOOD}    {line}\n"), expected));
    let replaced =
        REPLACEMENTS.iter().map(|(old, new, expected)| (GOOD.replace(old, new), expected));
    for (text, expected) in added.chain(webhook).chain(sink).chain(replaced) {
        let found = errors(&text);
        let fits = |found: &str| {
            found == *expected || (expected.ends_with(": ") && found.starts_with(expected))
        };
        assert!(
            found.len() == 1 && fits(&found[0]),
            "{text}\nexpected: {expected}\nfound: {found:#?}"
        );
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn a_section_of_another_type_is_refused() {
    assert_eq!(
        errors(&GOOD.replace("sink_type: webhook", "sink_type: postgres")),
        [
            "p.yaml:6: sinks[0].postgres: is required by sink_type: postgres",
            "p.yaml:8: sinks[0].webhook: does not belong to sink_type: postgres; remove one of the \
             two",
        ]
    );
}

#[test]
fn mistakes_in_variables_are_named() {
    let found = load_text(
        GOOD,
        Sections::All,
        &[
            ("CDC_KAFKA__BOOTSTRAP_SERVER", "k:1"),
            ("CDC_SOURCE__PORT", "x"),
            ("CDC_SINKS", "x"),
            ("CDC_KAFKA", "x"),
        ],
    )
    .unwrap_err();
    assert_eq!(
        found,
        [
            "CDC_KAFKA: is a group of settings: name one of them, as CDC_KAFKA__…",
            "CDC_KAFKA__BOOTSTRAP_SERVER: no such setting; did you mean \
             CDC_KAFKA__BOOTSTRAP_SERVERS?",
            "CDC_SINKS: cannot be set by a variable: refer to one in the file as ${VAR}",
            "CDC_SOURCE__PORT: source.port: expected a whole number, found `x`",
        ]
    );
    let referred = GOOD.replace("cdc_demo", "${CDC_DB_NAME}");
    let loaded = load_text(&referred, Sections::All, &[("CDC_DB_NAME", "x")]).unwrap();
    assert_eq!(loaded.config.source.database, "x");
}

#[test]
fn a_missing_or_broken_file_is_one_error() {
    let missing = load(&options("/nowhere/p.yaml".into(), Sections::All, &[])).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "/nowhere/p.yaml:1: cannot be read: No such file or directory (os error 2)"
    );
    let found = errors("pipeline_id: [\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(": not YAML: "), "{found:?}");
}

#[test]
fn a_file_is_text_of_a_bounded_size() {
    let folder = tempfile::tempdir().unwrap();
    let told = |bytes: &[u8]| {
        let path = folder.path().join("p.yaml");
        std::fs::write(&path, bytes).unwrap();
        let errors = load(&options(path, Sections::All, &[])).unwrap_err().to_string();
        errors.replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(
        told(b"pipeline_id: demo\nsource:\n  database: d\xe9mo\n"),
        "p.yaml:3: is not UTF-8: save it as UTF-8"
    );
    let sparse = std::fs::File::create(folder.path().join("p.yaml")).unwrap();
    sparse.set_len(17 * 1024 * 1024).unwrap();
    let errors = load(&options(folder.path().join("p.yaml"), Sections::All, &[])).unwrap_err();
    assert!(errors.to_string().ends_with(":1: is larger than 16777216 bytes"), "{errors}");
}

#[test]
fn a_value_that_yaml_would_drop_is_refused() {
    for value in ["!hunter2", "&hunter2"] {
        let text =
            GOOD.replace("database: cdc_demo", &format!("database: cdc_demo\n  password: {value}"));
        let found = errors(&text);
        assert_eq!(
            found,
            [format!(
                "p.yaml:4: source.password: YAML takes a `{}` at the beginning for itself: put the \
                 value in quotes",
                &value[..1]
            )]
        );
    }
    let two = errors(&format!("{GOOD}---\n{GOOD}"));
    assert_eq!(two, ["p.yaml:11: not YAML: multiple YAML documents detected"]);
}
