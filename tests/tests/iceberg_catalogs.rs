//! The Iceberg sink with catalogs and warehouses of other kinds: PostgreSQL, REST, S3.

use std::time::{Duration, Instant};

use cdc_tests::catalog::{CREDENTIAL, CatalogProxy, FAULTS};
use cdc_tests::chaos::seed;
use cdc_tests::lake::{LakePlace, installed, s3_warehouse};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::stack::{Stack, free_port};
use cdc_tests::wait::{SOON, check, until};

use super::iceberg::{has_every_event, leads_to, workload};
use super::iceberg_rows::is_the_source;

const TABLE: &str = "CREATE TABLE {id}.t (id bigint PRIMARY KEY, n integer, name text, large text);
    ALTER TABLE {id}.t ALTER large SET STORAGE EXTERNAL;
    INSERT INTO {id}.t SELECT i, i, 'snapshot', repeat('x', 3000)
    FROM generate_series(0, 99) AS i;";

const ROWS: &str = "SELECT id, n, name, large FROM {id}.t";

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_in_postgres_is_pyicebergs_too() {
    let mut pipeline = Pipeline::new("lakepg");
    let source = postgres::source_with(&pipeline, TABLE).await;
    let place = if installed("s3") {
        LakePlace::in_postgres(&s3_warehouse(&pipeline.id)).on_s3(false)
    } else {
        LakePlace::in_postgres(&format!("file://{}/warehouse", pipeline.dir().display()))
    };
    pipeline.lake_in("lake", "append", place);
    pipeline.cdc_ok(&["validate", "FILE", "--connect"]).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker("lake"), pipeline.worker("lake")];
    let select = ROWS.replace("{id}", &pipeline.id);
    leads_to(&pipeline, &source, &select, RECOVERY).await;
    pipeline.foreign_commits().await;
    postgres::run(&source, &pipeline, "UPDATE {id}.t SET n = 77 WHERE id < 20").await;
    until("the changes behind a foreign commit", SOON, async || {
        let log = pipeline.change_log(&[]).await?;
        let changes = log.iter().filter(|row| row["_cdc_op"] == "u" && row["n"] == 77).count();
        let foreign = log.iter().filter(|row| row["by_hand"].is_string()).count();
        check((changes, foreign, log.len()) == (20, 1, 121), (changes, foreign, log.len()))
            .map_err(|seen| format!("{seen:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_s3_are_the_sources_whatever_pyiceberg_does_to_them() {
    if !installed("rest") || !installed("s3") {
        return;
    }
    let mut pipeline = Pipeline::new("lakes3");
    let source = postgres::source_with(&pipeline, TABLE).await;
    let catalog = Stack::get().value("REST_URL");
    let place = LakePlace::in_rest(catalog, &s3_warehouse(&pipeline.id)).on_s3(false);
    pipeline.lake_in("lake", "upsert", place);
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let mut worker = pipeline.worker("lake");
    let select = ROWS.replace("{id}", &pipeline.id);
    is_the_source(&pipeline, &source, &select, RECOVERY).await;
    let changes = "UPDATE {id}.t SET n = 5 WHERE id % 3 = 0; DELETE FROM {id}.t WHERE id % 7 = 0;
        UPDATE {id}.t SET id = id + 5000 WHERE id % 5 = 0;";
    postgres::run(&source, &pipeline, changes).await;
    is_the_source(&pipeline, &source, &select, RECOVERY).await;
    pipeline.foreign_rewrite("").await;
    worker.kill();
    worker = pipeline.worker("lake");
    postgres::run(&source, &pipeline, "UPDATE {id}.t SET name = 'new' WHERE n = 5").await;
    is_the_source(&pipeline, &source, &select, RECOVERY).await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_up_in_parts_with_the_keys_of_the_environment() {
    if !installed("s3") {
        return;
    }
    let stack = Stack::get();
    let mut pipeline = Pipeline::new("lakelarge");
    let source = postgres::source_with(&pipeline, TABLE).await;
    let catalog = format!("sqlite:///{}/catalog.db", pipeline.dir().display());
    let place = LakePlace::at(&catalog, &s3_warehouse(&pipeline.id)).read_from_s3();
    pipeline.lake_in("lake", "append", place);
    // All of it in one flush.
    pipeline.config["max_buffered_messages"] = serde_json::json!(20_000);
    pipeline.config["kafka"]["topics"] = serde_json::json!({"partitions": 1});
    pipeline.sink_mut("lake")["iceberg"]["flush_interval_seconds"] = serde_json::json!(15);
    pipeline.variables = vec![
        format!("AWS_ENDPOINT_URL={}", stack.value("S3_ENDPOINT")),
        format!("AWS_REGION={}", stack.value("S3_REGION")),
        format!("AWS_ACCESS_KEY_ID={}", stack.value("S3_KEY")),
        format!("AWS_SECRET_ACCESS_KEY={}", stack.value("S3_SECRET")),
    ];
    let large =
        "INSERT INTO {id}.t SELECT i, i, 'large', (SELECT string_agg(md5(i || '-' || j), '')
        FROM generate_series(1, 300) AS j) FROM generate_series(1000, 6499) AS i;";
    postgres::run(&source, &pipeline, large).await;
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("lake");
    let select = ROWS.replace("{id}", &pipeline.id);
    leads_to(&pipeline, &source, &select, RECOVERY).await;
    // Its buckets are folders.
    let table = format!("s3/buckets/lake/{0}/default/{0}_t/data", pipeline.id);
    let files = std::fs::read_dir(std::path::Path::new(stack.value("DIR")).join(table)).unwrap();
    let largest = files.map(|file| file.unwrap().metadata().unwrap().len()).max();
    assert!(largest > Some(16 << 20), "{largest:?}");
}

/// How long the workload runs and things go wrong.
const CHAOS: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_s3_once_whatever_the_rest_catalog_answers() {
    if !installed("rest") || !installed("s3") {
        return;
    }
    let mut pipeline = Pipeline::new("lakerest");
    let source = postgres::source_with(&pipeline, TABLE).await;
    // A token holds for two seconds, and the keys come with the table.
    let proxy = CatalogProxy::start(Stack::get().value("REST_URL"), 2).await;
    let place = LakePlace::in_rest(proxy.address(), &s3_warehouse(&pipeline.id))
        .on_s3(true)
        .with(&[("credential", CREDENTIAL)]);
    pipeline.events("db").await;
    pipeline.lake_in("lake", "append", place);
    pipeline.cdc_ok(&["deploy", "FILE"]).await;
    let _coordinator = pipeline.serve();
    let _events = pipeline.worker("db");
    let mut workers = [pipeline.worker("lake"), pipeline.worker("lake")];
    let select = ROWS.replace("{id}", &pipeline.id);
    leads_to(&pipeline, &source, &select, RECOVERY).await;

    let mut random = fastrand::Rng::with_seed(seed());
    let stop = std::sync::Arc::default();
    let table = format!("{}.t", pipeline.id);
    let working = tokio::spawn(workload(table, random.fork(), std::sync::Arc::clone(&stop)));
    let end = Instant::now() + CHAOS;
    while Instant::now() < end {
        match random.u32(..8) {
            0 => {
                let place = random.usize(..2);
                workers[place].kill();
                workers[place] = pipeline.worker("lake");
            }
            1 => proxy.revoke(),
            _ => proxy.fail(FAULTS[random.usize(..FAULTS.len())]),
        }
        tokio::time::sleep(Duration::from_millis(random.u64(100..900))).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    working.await.unwrap();

    let log = leads_to(&pipeline, &source, &select, RECOVERY).await;
    let found = has_every_event(&pipeline, &log).await;
    let seen = (found, proxy.commits(), proxy.given());
    assert!(seen.0 > 150 && seen.1 > 10 && seen.2 > 5, "{seen:?}");
}

/// What a worker says that cannot prove its sink.
async fn says(pipeline: &Pipeline, code: &str, parts: &[&str]) {
    let worker = pipeline.worker("lake");
    until(&format!("the worker says {code}"), SOON, async || {
        let output = worker.output();
        let told = output.contains(code) && parts.iter().all(|part| output.contains(part));
        check(told, output)
    })
    .await;
    let output = worker.output();
    for secret in ["wrong-secret", Stack::get().value("S3_SECRET"), "let nobody in"] {
        assert!(!output.contains(secret), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_s3_or_the_catalog_is_told_apart() {
    if !installed("rest") || !installed("s3") {
        return;
    }
    let mut pipeline = Pipeline::new("lakewrong");
    pipeline.topics(1).await;
    let local = format!("sqlite:///{}/catalog.db", pipeline.dir().display());
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let stack = Stack::get();
    let (endpoint, key) = (stack.value("S3_ENDPOINT"), stack.value("S3_KEY"));
    let secret = stack.value("S3_SECRET");
    let warehouse = s3_warehouse(&pipeline.id);
    let mut cases = Vec::new();
    for (warehouse, endpoint, key, secret, code, said) in [
        (warehouse.as_str(), endpoint, key, "wrong-secret", "warehouse_wrong_keys", "PutObject"),
        (&warehouse, endpoint, "nobody", secret, "warehouse_wrong_keys", "s3.access-key-id"),
        ("s3://nowhere/x", endpoint, key, secret, "warehouse_bucket_missing", "bucket nowhere"),
        (&warehouse, &nobody, key, secret, "warehouse_unreachable", nobody.as_str()),
    ] {
        let keys = [("s3.access-key-id", key), ("s3.secret-access-key", secret)];
        let place = LakePlace::at(&local, warehouse).with(&[("s3.endpoint", endpoint)]).with(&keys);
        cases.push((place, code, said.to_owned()));
    }
    let proxy = CatalogProxy::start(stack.value("REST_URL"), 60).await;
    let rest = |address: &str| LakePlace::at(address, "file:///tmp");
    let wrong = rest(proxy.address()).with(&[("credential", "worker:let nobody in")]);
    cases.push((wrong, "catalog_unauthorized", "invalid_client".to_owned()));
    let wrong = rest(proxy.address()).with(&[("token", "let nobody in")]);
    cases.push((wrong, "catalog_unauthorized", "NotAuthorizedException".to_owned()));
    cases.push((rest(&nobody), "catalog_unreachable", nobody.clone()));
    for (place, code, said) in cases {
        pipeline.config["sinks"] = serde_json::json!([]);
        pipeline.lake_in("lake", "append", place);
        says(&pipeline, code, &[&said]).await;
    }
}
