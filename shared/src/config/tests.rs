//! Loading as a whole: what users write, and what they are told.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const GOOD: &str = "\
pipeline_id: demo
source:
  database: cdc_demo
  tables: [public.customers, public.orders]
sinks:
  - sink_id: hook
    sink_type: webhook
    webhook:
      url: http://localhost:8000/events
";

fn config_file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../config")).join(name)
}

fn options(pipeline: PathBuf, sections: Sections, variables: &[(&str, &str)]) -> LoadOptions {
    let variables =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    LoadOptions { pipeline, platform: None, variables, sections }
}

/// Loads a text; errors come without the folder of the file.
fn load_text(
    text: &str,
    sections: Sections,
    variables: &[(&str, &str)],
) -> Result<Loaded, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.yaml");
    std::fs::write(&path, text).unwrap();
    load(&options(path, sections, variables)).map_err(|errors| {
        let prefix = format!("{}/", folder.path().display());
        errors.to_string().lines().map(|line| line.replace(&prefix, "")).collect()
    })
}

fn errors(text: &str) -> Vec<String> {
    load_text(text, Sections::All, &[]).unwrap_err()
}

#[test]
fn the_sample_of_the_specification_loads() {
    let loaded = load(&options(config_file("demo.yaml"), Sections::All, &[])).unwrap();
    let config = &loaded.config;
    assert_eq!(config.group_id, "cdc-demo");
    assert_eq!(config.sink_group("analytics-db"), "cdc-demo.analytics-db");
    assert_eq!(config.connector_name(), "cdc-demo");
    assert_eq!(config.topic("public.orders"), "cdc.public.orders");
    assert_eq!(config.source.port, 5432);
    let enabled: Vec<_> = config.sinks.iter().map(|sink| sink.enabled).collect();
    assert_eq!(enabled, [true, false, false]);
    let webhook = config.sinks[0].webhook.as_ref().unwrap();
    assert!((webhook.timeout_seconds - 10.0).abs() < f64::EPSILON);
    assert_eq!(webhook.headers["X-Source"].expose(), "cdc-platform");
    let postgres = config.sinks[1].postgres.as_ref().unwrap();
    assert_eq!((postgres.port, postgres.batch_size, postgres.upsert), (5433, 50, true));
    let iceberg = config.sinks[2].iceberg.as_ref().unwrap();
    assert_eq!(iceberg.catalog_uri, "sqlite:////tmp/cdc_catalog.db");
    assert!(iceberg.auto_create_table);
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_demo_loads_with_the_variables_of_the_local_stack() {
    let loaded = load(&options(
        config_file("demo-local.yaml"),
        Sections::All,
        &[
            ("CDC_LOCAL_POSTGRES_PORT", "25432"),
            ("CDC_LOCAL_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:29092"),
            ("CDC_LOCAL_REGISTRY_URL", "http://127.0.0.1:28081/apis/ccompat/v7"),
            ("CDC_LOCAL_CONNECT_URL", "http://127.0.0.1:28083"),
            ("CDC_LOCAL_REDIS_URL", "redis://127.0.0.1:26379"),
            ("CDC_LOCAL_WORKER_PORT", "28091"),
        ],
    ))
    .unwrap();
    assert_eq!(loaded.config.source.port, 25432);
    assert_eq!(loaded.config.worker.port_base, 28091);
    assert_eq!(loaded.config.coordinator.base_url(), "http://127.0.0.1:8090");
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let loaded = load_text(GOOD, Sections::All, &[]).unwrap();
    let config = loaded.config;
    let source = &config.source;
    assert_eq!(
        (source.source_type, source.host.as_str(), source.username.as_str()),
        (SourceType::Postgres, "localhost", "cdc_user")
    );
    assert_eq!(source.password.expose(), "cdc_password");
    assert_eq!((source.slot_name.as_str(), source.snapshot_mode.name()), ("cdc_slot", "initial"));
    assert_eq!((config.max_buffered_messages, config.partition_concurrency), (1000, 0));
    assert_eq!(
        [config.schema_monitor_interval_seconds, config.lag_monitor_interval_seconds],
        [30.0, 15.0]
    );
    assert!(!config.stop_on_incompatible_schema);
    assert_eq!(config.sinks[0].retry, RetryConfig::default());
    let retry = &config.retry;
    assert_eq!((retry.max_attempts, retry.jitter), (5, true));
    assert_eq!(
        [retry.initial_wait_seconds, retry.max_wait_seconds, retry.multiplier],
        [1.0, 60.0, 2.0]
    );
    assert_eq!(source.connector_properties["plugin.name"], "pgoutput");
    assert_eq!(config.sinks[0].reject_policy(), OnReject::Dlq);
}

#[test]
fn every_source_type_has_its_template() {
    for (name, port, property) in [
        ("mysql", 3306, "schema.history.internal.skip.unparseable.ddl"),
        ("mariadb", 3306, "inconsistent.schema.handling.mode"),
        ("postgres", 5432, "plugin.name"),
    ] {
        let text = GOOD.replace("source:", &format!("source:\n  source_type: {name}"));
        let source = load_text(&text, Sections::All, &[]).unwrap().config.source;
        assert_eq!((source.source_type.name(), source.port), (name, port));
        assert!(source.connector_properties.contains_key(property));
        assert_eq!(source.connector_properties["skipped.operations"], "none");
    }
}

#[test]
fn later_layers_win_key_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let platform = folder.path().join("platform.yaml");
    std::fs::write(
        &platform,
        "kafka:\n  bootstrap_servers: k:1\n  commit_interval_ms: 500\nretry: {max_attempts: 9}\n\
         source: {connector_properties: {max.batch.size: 1, extra: 2}}\n",
    )
    .unwrap();
    let pipeline = folder.path().join("pipeline.yaml");
    let text = format!(
        "{GOOD}    retry: {{jitter: false}}\nkafka: {{bootstrap_servers: 'k:2'}}\nconnector:\n",
    )
    .replace(
        "  database:",
        "  connector_properties: {plugin.name: ~, max.batch.size: 7}\n  database:",
    );
    std::fs::write(&pipeline, text).unwrap();
    let mut options = options(
        pipeline,
        Sections::All,
        &[
            ("CDC_KAFKA__BOOTSTRAP_SERVERS", "k:3"),
            ("CDC_SOURCE__TABLES", "public.a, public.b"),
            ("CDC_KAFKA__PROPERTIES__FETCH_MIN_BYTES", "10"),
            ("CDC_KAFKA__SECURITY_PROTOCOL", "SSL"),
            ("CDC_REDIS__PASSWORD", ""),
            ("CDC_LOCAL_KAFKA_PORT", "1"),
            ("CDC_LOG_LEVEL", "DEBUG"),
        ],
    );
    options.platform = Some(platform);
    let config = load(&options).unwrap().config;
    assert_eq!(config.kafka.bootstrap_servers, "k:3");
    assert_eq!(config.kafka.commit_interval_ms, 500);
    assert_eq!(config.kafka.properties["fetch.min.bytes"], "10");
    assert_eq!(config.kafka.security_protocol, SecurityProtocol::Ssl);
    assert_eq!(config.source.tables, ["public.a", "public.b"]);
    assert_eq!((config.redis.password, config.log_level.as_str()), (None, "DEBUG"));
    let properties = &config.source.connector_properties;
    assert_eq!((properties["max.batch.size"].as_str(), properties["extra"].as_str()), ("7", "2"));
    assert!(!properties.contains_key("plugin.name"), "null takes a default away");
    assert_eq!((config.sinks[0].retry.max_attempts, config.sinks[0].retry.jitter), (9, false));
    assert!(config.retry.jitter);
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

/// One broken setting each: what is added to (or replaced in) a good file, and the one message.
#[test]
fn every_mistake_is_named() {
    let add = |text: &str| format!("{GOOD}{text}\n");
    let hook = |text: &str| format!("{GOOD}      {text}\n");
    let sink = |text: &str| format!("{GOOD}    {text}\n");
    for (text, expected) in [
        (add("sinks: []"), "p.yaml:10: sinks: given twice, first in line 5"),
        (add("pipeline_id: x"), "p.yaml:10: pipeline_id: given twice, first in line 1"),
        (add("zzz: 1"), "p.yaml:10: zzz: unknown setting; known here: "),
        (
            add("kafka: {bootstrap_servers: 'k'}"),
            "p.yaml:10: kafka.bootstrap_servers: `k` is no host:port: the port is missing",
        ),
        (
            add("kafka: {bootstrap_servers: 'a:1,b:0'}"),
            "p.yaml:10: kafka.bootstrap_servers: `b:0` is no host:port: the port must be from 1 to 65535",
        ),
        (
            add("kafka: {schema_registry_url: 'ftp://x'}"),
            "p.yaml:10: kafka.schema_registry_url: expected an address with http:// or https://, found ftp:",
        ),
        (
            add("kafka: {schema_registry_url: 'http://u:hunter2@x'}"),
            "p.yaml:10: kafka.schema_registry_url: must not hold user and password: they have settings of their own",
        ),
        (
            add("kafka:\n  properties:\n    group.id: x"),
            "p.yaml:12: kafka.properties.group.id: cannot be set here: the group is named by group_id and sink_id",
        ),
        (
            add("kafka: {security_protocol: sasl_ssl, sasl: {username: u}}"),
            "p.yaml:10: kafka.sasl.password: is required by sasl_ssl",
        ),
        (
            add("kafka: {tls: {ca_file: /x}}"),
            "p.yaml:10: kafka.tls: has no effect: set kafka.security_protocol to ssl or sasl_ssl",
        ),
        (
            add("kafka: {security_protocol: ssl, tls: {cert_file: /x}}"),
            "p.yaml:10: kafka.tls.key_file: is required with cert_file",
        ),
        (
            add("kafka: {topics: {retention_ms: 1000}}"),
            "p.yaml:10: kafka.topics.retention_ms: must be -1 (for ever) or at least 604800000 (seven days), is 1000: a sink that is away for longer would lose changes",
        ),
        (
            add("connector: {username: u}"),
            "p.yaml:10: connector.password: is required with username",
        ),
        (
            add("coordinator: {bind: '0.0.0.0:8090'}"),
            "p.yaml:10: coordinator.bind: `0.0.0.0:8090` can be reached from elsewhere: set coordinator.tokens",
        ),
        (
            add("redis: {url: localhost}"),
            "p.yaml:10: redis.url: is no address: expected redis:// or rediss:// with host and port",
        ),
        (
            add("log_level: loud"),
            "p.yaml:10: log_level: expected one of ERROR, WARN, INFO, DEBUG, TRACE or a filter such as info,rdkafka=debug, found `loud`",
        ),
        (add("partition_concurrency: 4"), "p.yaml:10: partition_concurrency: must be 0, is 4"),
        (add("drain_seconds: -1"), "p.yaml:10: drain_seconds: must be from 0 to 3600, is -1"),
        (
            add("retry: {initial_wait_seconds: 90}"),
            "p.yaml:10: sinks[0].retry.max_wait_seconds: must not be less than initial_wait_seconds (90)",
        ),
        (
            add("group_id: a.b"),
            "p.yaml:10: group_id: `a.b` may only have lower case letters, digits, `_` and `-`, and begin with a letter or digit; a dot would let names of groups and topics collide",
        ),
        (
            add("redis: {password: '${NOPE}'}"),
            "p.yaml:10: redis.password: the variable NOPE is not set",
        ),
        (
            add("max_buffered_messages: ${NOPE:-x}"),
            "p.yaml:10: max_buffered_messages: expected a whole number, found `${NOPE:-x}`",
        ),
        (
            GOOD.replace("tables: [", "connector_properties: {slot.name: x}\n  tables: ["),
            "p.yaml:4: source.connector_properties.slot.name: cannot be set here: set source.slot_name",
        ),
        (
            GOOD.replace("tables: [", "slot_name: My-Slot\n  tables: ["),
            "p.yaml:4: source.slot_name: `My-Slot` is no slot name: PostgreSQL allows lower case letters, digits and `_`",
        ),
        (
            GOOD.replace("tables: [", "tables: ['', "),
            "p.yaml:4: source.tables[0]: `` is no table: write schema.table, such as public.customers",
        ),
        (
            hook("headers: {Webhook-Id: x}"),
            "p.yaml:10: sinks[0].webhook.headers.Webhook-Id: is set by the sink itself",
        ),
        (hook("headers: {a b: x}"), "p.yaml:10: sinks[0].webhook.headers.a b: is no header name"),
        (
            hook("headers: {X: \"a\\nb\"}"),
            "p.yaml:10: sinks[0].webhook.headers.X: has a character that no header may have",
        ),
        (
            hook("signing_secrets: [hunter2]"),
            "p.yaml:10: sinks[0].webhook.signing_secrets[0]: must be `whsec_` and base64",
        ),
        (
            hook("signing_secrets: [whsec_MTIz]"),
            "p.yaml:10: sinks[0].webhook.signing_secrets[0]: must hold 24 to 64 bytes, holds 3",
        ),
        (
            sink("operations: [c, x]"),
            "p.yaml:10: sinks[0].operations[1]: expected one of c, u, d, r, t, found `x`",
        ),
        (
            sink("operations: []"),
            "p.yaml:10: sinks[0].operations: is empty: nothing would be delivered",
        ),
        (
            sink("postgres: {database: x}"),
            "p.yaml:10: sinks[0].postgres: does not belong to sink_type: webhook; remove one of the two",
        ),
        (
            GOOD.replace("sink_type: webhook", "sink_type: postgres"),
            "p.yaml:6: sinks[0].postgres: is required by sink_type: postgres",
        ),
        (
            add(
                "  - sink_id: lake\n    sink_type: iceberg\n    iceberg: {catalog_uri: 'sqlite:///x', warehouse: 'file:///x', table_name: t}",
            ),
            "p.yaml:11: sinks[1].sink_type: the iceberg sink is not built yet: set enabled: false",
        ),
        (
            add(
                "  - sink_id: db\n    sink_type: postgres\n    postgres: {database: d, write_mode: replica}",
            ),
            "p.yaml:12: sinks[1].postgres.write_mode: replica is not built yet: use events, or set enabled: false",
        ),
        (
            add(
                "  - sink_id: db\n    sink_type: postgres\n    postgres: {database: d, target_table: a.b.c}",
            ),
            "p.yaml:12: sinks[1].postgres.target_table: `a.b.c` is no table: write table or schema.table",
        ),
    ] {
        let found = errors(&text);
        assert!(
            found.len() == 1
                && (found[0] == expected
                    || (expected.ends_with(": ") && found[0].starts_with(expected))),
            "{text}\nexpected: {expected}\nfound: {found:#?}"
        );
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
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

const SECRETS: &str = "\
pipeline_id: demo
source:
  database: d
  port: ${SOURCE_PORT}
  password: ${SOURCE_PASSWORD}
redis: {password: '${REDIS_PASSWORD}'}
coordinator: {tokens: {worker: '${WORKER_TOKEN}', operator: '${OPERATOR_TOKEN}'}}
sinks:
  - sink_id: a
    sink_type: webhook
    webhook: {url: '${A_URL}', auth_token: '${A_TOKEN}', max_in_flight: '${A_MAX}'}
  - sink_id: b
    sink_type: postgres
    postgres: {database: d, password: '${B_PASSWORD}'}
";

#[test]
fn a_process_needs_only_its_own_secrets() {
    let worker = |sink: &str| Sections::Worker { sink_id: sink.to_owned() };
    let variables = [("WORKER_TOKEN", "w"), ("B_PASSWORD", "pw")];
    let config = load_text(SECRETS, worker("b"), &variables).unwrap().config;
    assert_eq!(config.sinks[1].postgres.as_ref().unwrap().password.expose(), "pw");
    let other = config.sinks[0].webhook.as_ref().unwrap();
    assert_eq!(other.auth_token.as_ref().unwrap().expose(), HIDDEN);
    assert_eq!((other.url.as_str(), other.max_in_flight), ("${A_URL}", 64));

    assert_eq!(
        load_text(SECRETS, worker("a"), &variables).unwrap_err(),
        [
            "p.yaml:11: sinks[0].webhook.url: the variable A_URL is not set",
            "p.yaml:11: sinks[0].webhook.auth_token: the variable A_TOKEN is not set",
            "p.yaml:11: sinks[0].webhook.max_in_flight: the variable A_MAX is not set",
        ]
    );
    assert_eq!(
        load_text(SECRETS, worker("c"), &variables).unwrap_err(),
        ["p.yaml:8: sinks: there is no sink `c`; there is a, b"]
    );
    let client = load_text(SECRETS, Sections::Client, &[("OPERATOR_TOKEN", "o")]).unwrap().config;
    assert_eq!(client.coordinator.tokens.operator.unwrap().expose(), "o");
    assert_eq!(client.coordinator.tokens.worker, None);
    let missing = load_text(SECRETS, Sections::Coordinator, &[]).unwrap_err();
    assert_eq!(missing.len(), 5, "{missing:?}");
}

#[test]
fn the_hash_names_the_settings_and_not_the_process() {
    let variables = [
        ("SOURCE_PORT", "1"),
        ("SOURCE_PASSWORD", "x"),
        ("REDIS_PASSWORD", "x"),
        ("WORKER_TOKEN", "x"),
        ("OPERATOR_TOKEN", "x"),
        ("A_URL", "http://a"),
        ("A_TOKEN", "x"),
        ("A_MAX", "1"),
        ("B_PASSWORD", "x"),
    ];
    let hash = |text: &str, sections| load_text(text, sections, &variables).unwrap().hash;
    let all = hash(SECRETS, Sections::All);
    assert_eq!(all.len(), 16);
    assert_eq!(all, hash(SECRETS, Sections::Coordinator));
    assert_eq!(all, hash(SECRETS, Sections::Worker { sink_id: "b".into() }));
    assert_eq!(all, hash(&format!("# c\nlog_level: debug\n{SECRETS}"), Sections::All));
    assert_eq!(all, hash(&SECRETS.replace("${B_PASSWORD}", "other"), Sections::All));
    assert_ne!(all, hash(&SECRETS.replace("sink_id: b", "sink_id: c"), Sections::All));
}

#[test]
fn what_is_shown_hides_secrets() {
    let text = format!(
        "{GOOD}      auth_token: hunter2\n      headers: {{Cookie: hunter2}}\n\
        redis: {{password: hunter2}}\nkafka: {{properties: {{oauth.client.secret: hunter2}}}}\n"
    );
    let loaded = load_text(&text, Sections::All, &[]).unwrap();
    let shown = loaded.to_yaml();
    assert!(shown.contains("pipeline_id: demo") && shown.contains("***"), "{shown}");
    assert!(!format!("{shown}{loaded:?}").contains("hunter2"), "{shown}");
}

#[test]
fn values_keep_their_spelling_and_never_change_the_structure() {
    let text =
        GOOD.replace("  database: cdc_demo", "  database: no\n  password: 0123\n  username: ${U}");
    let injected = "x\nsinks: []";
    let source = load_text(&text, Sections::All, &[("U", injected)]).unwrap().config.source;
    assert_eq!((source.database.as_str(), source.password.expose()), ("no", "0123"));
    assert_eq!(source.username, injected);
}

#[test]
fn the_example_of_variables_has_only_settings() {
    let text = std::fs::read_to_string(config_file(".env.example")).unwrap();
    let known = variable_names();
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once('='))
        .map(|(name, _)| name)
        .collect();
    for name in &names {
        assert!(known.iter().any(|known| known == name), "{name} is no setting");
    }
    for name in [
        "CDC_SOURCE__HOST",
        "CDC_SOURCE__PORT",
        "CDC_SOURCE__DATABASE",
        "CDC_KAFKA__BOOTSTRAP_SERVERS",
        "CDC_KAFKA__SCHEMA_REGISTRY_URL",
        "CDC_CONNECTOR__CONNECT_URL",
        "CDC_LOG_LEVEL",
    ] {
        assert!(names.contains(&name), "{name} is missing");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_broken_line_is_loaded_or_refused(line in 0_usize..9, junk in "[ -~\\n]{0,12}", cut in 0_usize..40) {
        let mut lines: Vec<String> = GOOD.lines().map(str::to_owned).collect();
        let cut = cut.min(lines[line].len());
        lines[line].replace_range(cut.., &junk);
        let result = load_text(&lines.join("\n"), Sections::All, &[]);
        if let Err(errors) = result {
            prop_assert!(!errors.is_empty());
        }
    }
}
