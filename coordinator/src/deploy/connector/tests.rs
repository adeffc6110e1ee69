use cdc_shared::config::{
    Consistency, Converter, PipelineConfig, PostgresSinkConfig, PostgresWriteMode, Secret,
    SignalChannel, SinkConfig, SinkType, SourceConfig, SourceSslMode, SourceType,
};

use super::*;

fn config(kind: SourceType) -> PipelineConfig {
    PipelineConfig {
        pipeline_id: "demo".into(),
        group_id: "cdc-demo".into(),
        source: SourceConfig {
            source_type: kind,
            database: "shop".into(),
            port: if kind == SourceType::Postgres { 5432 } else { 3306 },
            password: Secret::from("pw"),
            tables: vec!["public.customers".into(), "public.or$ders".into()],
            ..SourceConfig::default()
        },
        ..PipelineConfig::default()
    }
}

fn text(properties: &Properties) -> String {
    let lines: Vec<_> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.join("\n") + "\n"
}

const COMMON: &str = "\
binary.handling.mode=bytes
cdc.group.id=cdc-demo
cdc.pipeline.id=demo
column.propagate.source.type=.*
database.hostname=localhost
database.password=pw
database.user=cdc_user
decimal.handling.mode=string
errors.tolerance=none
event.converting.failure.handling.mode=fail
event.processing.failure.handling.mode=fail
field.name.adjustment.mode=avro
heartbeat.interval.ms=10000
incremental.snapshot.chunk.size=10240
key.converter=io.apicurio.registry.utils.converter.AvroConverter
key.converter.apicurio.registry.as-confluent=true
key.converter.apicurio.registry.auto-register=true
key.converter.apicurio.registry.find-latest=true
key.converter.apicurio.registry.headers.enabled=false
key.converter.apicurio.registry.url=http://localhost:8081/apis/registry/v2
key.converter.apicurio.registry.use-id=contentId
max.batch.size=2048
max.queue.size=8192
max.queue.size.in.bytes=67108864
notification.enabled.channels=sink
notification.sink.topic.name=__debezium-notification.cdc
poll.interval.ms=50
producer.override.acks=all
producer.override.buffer.memory=33554432
producer.override.compression.type=lz4
producer.override.delivery.timeout.ms=300000
producer.override.enable.idempotence=true
producer.override.max.in.flight.requests.per.connection=5
producer.override.max.request.size=16777216
read.only=true
schema.name.adjustment.mode=avro
signal.enabled.channels=kafka
signal.kafka.bootstrap.servers=localhost:9092
signal.kafka.groupId=cdc-demo.~signal
signal.kafka.topic=__debezium-signal.cdc
skipped.operations=none
snapshot.mode=initial
table.include.list=public\\.customers,public\\.or\\$ders
tasks.max=1
tombstones.on.delete=true
topic.creation.default.cleanup.policy=delete
topic.creation.default.max.message.bytes=16777216
topic.creation.default.partitions=4
topic.creation.default.replication.factor=1
topic.creation.default.retention.ms=604800000
topic.prefix=cdc
transforms=keepNulls
transforms.keepNulls.type=io.cdcplatform.connect.KeepNulls
value.converter=io.apicurio.registry.utils.converter.AvroConverter
value.converter.apicurio.registry.as-confluent=true
value.converter.apicurio.registry.auto-register=true
value.converter.apicurio.registry.find-latest=true
value.converter.apicurio.registry.headers.enabled=false
value.converter.apicurio.registry.url=http://localhost:8081/apis/registry/v2
value.converter.apicurio.registry.use-id=contentId
";

/// The common properties and `own` (one `name=value` per line), sorted as a map is.
fn with_common(own: &str) -> String {
    let mut lines: Vec<&str> = COMMON.lines().chain(own.lines()).collect();
    lines.sort_unstable_by_key(|line| line.split('=').next());
    lines.join("\n") + "\n"
}

#[test]
fn postgres_is_built_whole() {
    let built = connector_properties(&config(SourceType::Postgres), &Properties::new());
    let own = "\
connector.class=io.debezium.connector.postgresql.PostgresConnector
database.dbname=shop
database.port=5432
database.sslmode=prefer
hstore.handling.mode=json
interval.handling.mode=string
offset.mismatch.strategy=trust_offset
plugin.name=pgoutput
publication.autocreate.mode=filtered
publication.name=cdc_demo
publish.via.partition.root=true
slot.drop.on.stop=false
slot.name=cdc_slot
time.precision.mode=microseconds
unavailable.value.placeholder=__debezium_unavailable_value";
    assert_eq!(text(&built), with_common(own));
}

#[test]
fn mysql_and_mariadb_are_built_whole() {
    for (kind, class, mode) in [
        (SourceType::Mysql, "io.debezium.connector.mysql.MySqlConnector", "preferred"),
        (SourceType::Mariadb, "io.debezium.connector.mariadb.MariaDbConnector", "disable"),
    ] {
        let mut config = config(kind);
        config.source.server_id = Some(184_054);
        let built = connector_properties(&config, &Properties::new());
        let key = match kind {
            SourceType::Mysql => "driver.allowPublicKeyRetrieval=true\n",
            _ => "",
        };
        let own = format!(
            "\
{key}bigint.unsigned.handling.mode=precise
connect.keep.alive=true
connector.class={class}
database.include.list=public
database.port=3306
database.server.id=184054
database.ssl.mode={mode}
include.schema.changes=true
inconsistent.schema.handling.mode=fail
schema.history.internal.kafka.bootstrap.servers=localhost:9092
schema.history.internal.kafka.topic=__debezium-history.cdc
schema.history.internal.skip.unparseable.ddl=false
schema.history.internal.store.only.captured.tables.ddl=false
snapshot.locking.mode=minimal
time.precision.mode=adaptive_time_microseconds"
        );
        assert_eq!(text(&built), with_common(&own));
    }
}

#[test]
fn the_users_properties_win() {
    let mut config = config(SourceType::Postgres);
    config.source.connector_properties.0 =
        [("poll.interval.ms".to_owned(), "7".to_owned()), ("x.y".to_owned(), "z".to_owned())]
            .into();
    let built = connector_properties(&config, &Properties::new());
    assert_eq!(built["poll.interval.ms"], "7");
    assert_eq!(built["x.y"], "z");
}

#[test]
fn confluent_keeps_nulls_by_its_own_setting() {
    let mut config = config(SourceType::Postgres);
    config.connector.converter = Converter::Confluent;
    config.connector.registry_url = Some("http://registry:8081".into());
    config.kafka.schema_registry.username = Some("u".into());
    config.kafka.schema_registry.password = Some(Secret::from("p"));
    let built = connector_properties(&config, &Properties::new());
    let converter: Vec<_> =
        built.iter().filter(|(name, _)| name.starts_with("value.converter")).collect();
    let expected = [
        ("value.converter", "io.confluent.connect.avro.AvroConverter"),
        ("value.converter.basic.auth.credentials.source", "USER_INFO"),
        ("value.converter.basic.auth.user.info", "u:p"),
        ("value.converter.ignore.default.for.nullables", "true"),
        ("value.converter.schema.registry.url", "http://registry:8081"),
    ];
    let converter: Vec<_> = converter.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(converter, expected);
    assert!(!built.contains_key("transforms"));
}

#[test]
fn options_reach_the_connector() {
    let mut config = config(SourceType::Postgres);
    config.connector.exactly_once = true;
    config.source.ssl.mode = SourceSslMode::VerifyFull;
    config.source.ssl.ca_file = Some("/etc/ca.pem".into());
    config.source.signal = SignalChannel::Source;
    config.source.signal_table = Some("public.signals".into());
    let built = connector_properties(&config, &Properties::new());
    assert_eq!(built["exactly.once.support"], "required");
    assert!(!built.contains_key("provide.transaction.metadata"));
    assert_eq!(built["database.sslmode"], "verify-full");
    assert_eq!(built["database.sslrootcert"], "/etc/ca.pem");
    assert_eq!(built["signal.data.collection"], "public.signals");
    assert_eq!(built["signal.enabled.channels"], "source");
    assert!(!built.contains_key("read.only"));
    config.source.signal = SignalChannel::Off;
    config.sinks = vec![SinkConfig {
        sink_type: SinkType::Postgres,
        postgres: Some(PostgresSinkConfig {
            write_mode: PostgresWriteMode::Replica,
            consistency: Consistency::Transaction,
            ..PostgresSinkConfig::default()
        }),
        ..SinkConfig::default()
    }];
    let built = connector_properties(&config, &Properties::new());
    assert_eq!(built["provide.transaction.metadata"], "true");
    assert!(!built.keys().any(|name| name.starts_with("signal.")));
}

#[test]
fn connects_own_clients_get_the_credentials() {
    let mut config = config(SourceType::Mariadb);
    config.connector.bootstrap_servers = Some("kafka:29092".into());
    let kafka = map([("security.protocol", "SASL_SSL"), ("sasl.jaas.config", "x")]);
    let built = connector_properties(&config, &kafka);
    for prefix in [
        "signal.consumer.",
        "schema.history.internal.producer.",
        "schema.history.internal.consumer.",
    ] {
        assert_eq!(built[&format!("{prefix}security.protocol")], "SASL_SSL");
        assert!(is_secret(&format!("{prefix}sasl.jaas.config")));
    }
    assert_eq!(built["schema.history.internal.kafka.bootstrap.servers"], "kafka:29092");
}

#[test]
fn secrets_are_known_by_name() {
    for name in [
        "database.password",
        "value.converter.basic.auth.user.info",
        "key.converter.bearer.auth.token",
        "signal.consumer.ssl.keystore.key",
    ] {
        assert!(is_secret(name), "{name}");
    }
    for name in ["database.user", "slot.name"] {
        assert!(!is_secret(name), "{name}");
    }
}
