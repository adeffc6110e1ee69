//! Loading as a whole: what users write, and what they are told.

mod mistakes;

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
    let intervals = (config.schema_monitor_interval_seconds, config.lag_monitor_interval_seconds);
    assert_eq!(format!("{intervals:?}"), "(30.0, 15.0)");
    assert!(!config.stop_on_incompatible_schema);
    assert_eq!(config.sinks[0].retry, RetryConfig::default());
    let retry = &config.retry;
    assert_eq!((retry.max_attempts, retry.jitter), (5, true));
    let waits = (retry.initial_wait_seconds, retry.max_wait_seconds, retry.multiplier);
    assert_eq!(format!("{waits:?}"), "(1.0, 60.0, 2.0)");
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

#[test]
fn a_platform_is_loaded_without_a_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("platform.yaml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    let variables = Variables::from([
        ("CDC_KAFKA__SCHEMA_REGISTRY_URL".to_owned(), "http://r:1".to_owned()),
        ("PASSWORD".to_owned(), "hunter2".to_owned()),
    ]);
    write(
        "kafka:\n  bootstrap_servers: k:1\n  security_protocol: sasl_ssl\n  sasl: {username: u, \
         password: '${PASSWORD}'}\nredis: {password: '${ELSEWHERE}'}\n",
    );
    let config = load_platform(Some(&path), &variables).unwrap();
    assert_eq!(config.pipeline_id, "");
    assert_eq!(config.kafka.bootstrap_servers, "k:1");
    assert_eq!(config.kafka.schema_registry_url, "http://r:1");
    assert_eq!(config.kafka.sasl.password.expose(), "hunter2");
    let alone = load_platform(None, &variables).unwrap();
    assert_eq!(alone.kafka.bootstrap_servers, "localhost:9092");
    write("kafka:\n  bootstrap_server: k:1\n");
    let errors = load_platform(Some(&path), &variables).unwrap_err().to_string();
    assert!(errors.ends_with("unknown setting; did you mean `bootstrap_servers`?"), "{errors}");
    assert!(load_platform(Some(&folder.path().join("absent")), &variables).is_err());
}
