//! Which tables are made, taken and refused.

use cdc_worker::sink::{Disposition, Sink, SinkError};

use super::*;

const SPECIFIED: &str = "event_key text, event_value text, source_topic varchar(255), \
    source_partition integer, source_offset bigint";

/// Proves a sink against a table made by these statements.
async fn proof(create: &str, upsert: bool) -> (Result<(), SinkError>, PostgresEvents, Client) {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    admin.batch_execute(create).await.unwrap();
    let config = PostgresSinkConfig { upsert, ..settings(cluster.port, &database) };
    let sink = sink(&config);
    let proof = within("the proof", sink.prove()).await;
    (proof, sink, admin)
}

async fn accepted(create: &str, upsert: bool) {
    let (proof, sink, admin) = proof(create, upsert).await;
    proof.unwrap_or_else(|error| panic!("{create}: {error}"));
    let mut writer = started(&sink, 0).await;
    assert_eq!(durable(&deliver(&mut *writer, 0..3).await), 3);
    assert_eq!(offsets(&admin, "cdc_events").await, [0, 1, 2]);
}

async fn refused(create: &str) -> SinkError {
    let error = proof(create, true).await.0.unwrap_err();
    assert_eq!(error.disposition, Disposition::Stop, "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_schema_are_made_when_absent() {
    let (_, admin) = proven(|c| c.target_table = Some(r#""Lake".events"#.to_owned())).await;
    let sql = "SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position) \
               FROM information_schema.columns WHERE table_schema = 'Lake' AND table_name = $1";
    let columns: String = admin.query_one(sql, &[&"events"]).await.unwrap().get(0);
    assert_eq!(
        columns,
        "event_key text, event_value jsonb, source_topic text, source_partition integer, \
         source_offset bigint"
    );
    let record: String = admin.query_one(sql, &[&"cdc_offsets"]).await.unwrap().get(0);
    assert!(record.starts_with("pipeline_id text, sink_id text, topic text, partition integer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_start_together_make_one_table() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let config = settings(cluster.port, &database);
    let proofs = (0..8).map(|_| {
        let sink = sink(&config);
        tokio::spawn(async move { sink.prove().await })
    });
    for proof in futures::future::join_all(proofs).await {
        proof.unwrap().unwrap();
    }
    assert!(offsets(&admin, "cdc_events").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_the_specified_shape_is_taken_as_it_is() {
    let unique = "UNIQUE (source_topic, source_partition, source_offset)";
    for columns in [
        SPECIFIED,
        "event_key jsonb, event_value jsonb, source_topic text, source_partition int, \
         source_offset bigint",
        "event_key json, event_value json, source_topic varchar, source_partition bigint, \
         source_offset integer",
        "id bigserial, source_offset bigint, source_partition int NOT NULL, source_topic text, \
         event_value varchar, event_key varchar(1000) NOT NULL, \
         loaded_at timestamptz NOT NULL DEFAULT now(), remark text",
    ] {
        accepted(&format!("CREATE TABLE cdc_events ({columns}, {unique})"), true).await;
        accepted(&format!("CREATE TABLE cdc_events ({columns})"), false).await;
    }
    let domain = "CREATE DOMAIN document AS jsonb; CREATE TABLE cdc_events (event_key text, \
        event_value document, source_topic text, source_partition int, source_offset bigint)";
    accepted(domain, false).await;
    let parts = format!(
        "CREATE TABLE cdc_events ({SPECIFIED}, {unique}) PARTITION BY HASH (source_topic); \
         CREATE TABLE part PARTITION OF cdc_events FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    );
    accepted(&parts, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_is_refused_with_the_statement_that_cures_it() {
    let error = refused(&format!("CREATE TABLE cdc_events ({SPECIFIED})")).await;
    let cure = error.hint.unwrap();
    assert!(cure.contains("ADD UNIQUE (source_topic, source_partition, source_offset)"), "{cure}");

    let error = refused("CREATE TABLE cdc_events (id int, event_key text)").await;
    assert!(error.message.contains("no column event_value (it has id, event_key)"), "{error}");

    let error =
        refused(&format!("CREATE TABLE cdc_events ({SPECIFIED}, tenant int NOT NULL)")).await;
    assert!(error.message.contains("column tenant"), "{error}");

    let error = refused(&format!("CREATE VIEW cdc_events AS SELECT 1 AS a, '{TOPIC}' AS b")).await;
    assert!(error.message.contains("is a view"), "{error}");

    let error = refused(&format!("CREATE UNLOGGED TABLE cdc_events ({SPECIFIED})")).await;
    assert!(error.hint.unwrap().contains("SET LOGGED"));

    let error = refused("CREATE TABLE cdc_offsets (a int)").await;
    assert!(error.message.contains("cdc_offsets"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cure_that_is_named_cures() {
    let create = "CREATE TABLE cdc_events (event_value bytea, source_topic text, \
                  source_partition text, source_offset numeric)";
    let (mut proof, sink, admin) = proof(create, true).await;
    let mut cures = 0;
    while let Err(error) = proof {
        assert!(cures < 10, "{error}");
        let cure = error.hint.unwrap();
        let statement = cure.split(';').next().unwrap();
        if statement.contains("event_value") {
            // Bytes do not become JSON by themselves.
            admin.batch_execute("ALTER TABLE cdc_events DROP COLUMN event_value").await.unwrap();
            admin.batch_execute("ALTER TABLE cdc_events ADD event_value jsonb").await.unwrap();
        } else {
            admin.batch_execute(statement).await.unwrap_or_else(|why| panic!("{statement}: {why}"));
        }
        cures += 1;
        proof = sink.prove().await;
    }
    assert_eq!(cures, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_too_small_for_the_topic_stops_and_rejects_nothing() {
    let create = "CREATE TABLE cdc_events (event_key text, event_value text, \
        source_topic varchar(5), source_partition int, source_offset bigint)";
    let (proof, sink, admin) = proof(create, false).await;
    proof.unwrap();
    let mut writer = started(&sink, 0).await;
    match deliver(&mut *writer, 0..1).await {
        Progress::Stop(error) => assert!(error.message.contains("too short for the topic")),
        other => panic!("{other:?}"),
    }
    admin.batch_execute("ALTER TABLE cdc_events ALTER source_topic TYPE text").await.unwrap();
    // What an operator's resume does: a new proof, and the partition goes on.
    sink.prove().await.unwrap();
    writer.reset(position(0));
    assert_eq!(durable(&deliver(&mut *writer, 0..1).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_table_stops_by_name_and_goes_on_when_mended() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    assert_eq!(durable(&deliver(&mut *writer, 0..2).await), 2);
    admin.batch_execute("ALTER TABLE cdc_events RENAME event_key TO old").await.unwrap();
    match deliver(&mut *writer, 2..4).await {
        Progress::Stop(error) => assert!(error.message.contains("event_key"), "{error}"),
        other => panic!("{other:?}"),
    }
    admin.batch_execute("ALTER TABLE cdc_events RENAME old TO event_key").await.unwrap();
    admin.batch_execute("ALTER TABLE cdc_events ALTER event_value TYPE text").await.unwrap();
    writer.reset(position(2));
    assert_eq!(durable(&deliver(&mut *writer, 2..4).await), 4);
    assert_eq!(offsets(&admin, "cdc_events").await, [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_holds_and_is_not_made_again() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let config = settings(cluster.port, &database);
    let first = sink(&config);
    first.prove().await.unwrap();
    assert!(first.replace_position(&partition(), None, &position(0)).await.unwrap());
    let (mut writer, mut trouble) = writer(&first, 0);
    assert_eq!(durable(&deliver(&mut *writer, 0..2).await), 2);
    admin.batch_execute("DROP TABLE cdc_events").await.unwrap();
    push(&mut *writer, 2..4);
    writer.flush(position(4));
    within("trouble", trouble.wait_for(|t| t.as_ref().is_some_and(|t| t.attempts > 1)))
        .await
        .unwrap();
    assert_eq!(trouble.borrow().as_ref().unwrap().code, "sqlstate_42P01");
    // Neither a repeated proof nor a restart makes it again.
    for sink in [first, sink(&config)] {
        let error = sink.prove().await.unwrap_err();
        assert_eq!(error.disposition, Disposition::Retry(None));
        assert!(error.hint.unwrap().contains("CREATE TABLE \"public\".\"cdc_events\""));
    }
    let table = "event_key text, event_value text, source_topic text, source_partition int, \
                 source_offset bigint, UNIQUE (source_topic, source_partition, source_offset)";
    admin.batch_execute(&format!("CREATE TABLE cdc_events ({table})")).await.unwrap();
    assert_eq!(durable(&within("an answer", writer.progress()).await), 4);
    assert_eq!(offsets(&admin, "cdc_events").await, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_progress_table_is_a_moved_world() {
    let (sink, admin) = proven(|_| {}).await;
    let mut writer = started(&sink, 0).await;
    admin.batch_execute("DROP TABLE cdc_offsets").await.unwrap();
    assert!(matches!(deliver(&mut *writer, 0..2).await, Progress::Moved));
    writer.reset(position(0));
    assert!(matches!(deliver(&mut *writer, 0..0).await, Progress::Moved));
    assert_eq!(sink.read_position(&partition()).await.unwrap(), None);
    assert!(offsets(&admin, "cdc_events").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_nobody_could_have_written_is_not_absent() {
    let (sink, admin) = proven(|_| {}).await;
    assert!(sink.replace_position(&partition(), None, &position(7)).await.unwrap());
    admin.batch_execute("UPDATE cdc_offsets SET next_offset = -5").await.unwrap();
    let error = sink.read_position(&partition()).await.unwrap_err();
    assert!(error.message.contains("next_offset -5"), "{error}");
}
