//! Iceberg's sink for Kafka Connect on the same topic: four tasks, a commit every 10 s, files in a
//! folder, a catalog in PostgreSQL.

use std::sync::Arc;
use std::time::Instant;

use cdc_iceberg::{Catalog, Lake, Owner, TableName};
use cdc_shared::config::IcebergConfig;

use super::{LOOK, Shown};
use crate::process::PATIENCE;
use crate::replica::load::Full;
use crate::topic::{admin as kafka_admin, create, delete};
use crate::{Bench, Error, connect};

/// Several times what it takes for a million records.
const LONGEST: u32 = 2;
const NAMESPACE: &str = "peer";
const TABLE: &str = "orders";

/// Drains the topic into a table.
pub(super) async fn measure(bench: &Bench, full: &Full, pass: usize) -> Result<Shown, Error> {
    let plugin = bench.stack.setting("CDC_LOCAL_ICEBERG_CONNECT");
    if plugin.is_empty() {
        return Err("not installed: deploy/local/stack install iceberg-connect".into());
    }
    let name = format!("{}-lake-{pass}", bench.run);
    let database = name.replace('-', "_");
    let admin = bench.stack.connect("postgres").await?;
    admin.batch_execute(&format!("CREATE DATABASE {database}")).await?;
    let control = format!("{name}-control");
    create(&kafka_admin(&bench.stack)?, &control, 1).await?;
    let outcome = Box::pin(drained(bench, full, &name, &database, plugin)).await;
    delete(bench, &[&control]).await;
    admin.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await?;
    outcome
}

async fn drained(
    bench: &Bench,
    full: &Full,
    name: &str,
    database: &str,
    plugin: &str,
) -> Result<Shown, Error> {
    let ((host, port), (user, password)) = (bench.stack.postgres(), bench.stack.admin());
    let warehouse = format!("file://{}/{name}", bench.folder.path().display());
    let config = IcebergConfig {
        catalog_uri: format!(
            "postgresql://{user}:{password}@{host}:{port}/{database}?sslmode=disable"
        ),
        catalog_name: "peer".to_owned(),
        warehouse: warehouse.clone(),
        auto_create_table: true,
        ..IcebergConfig::default()
    };
    let lake = Lake::new(Catalog::new(&config)?, &config, Owner::new("bench", "peer"))?;
    // Its tasks would race for the namespace, and the losers fail for good.
    lake.prove(NAMESPACE).await?;
    let connector = format!(
        "connector.class=org.apache.iceberg.connect.IcebergSinkConnector\n\
         tasks.max={tasks}\ntopics={topic}\niceberg.tables={NAMESPACE}.{TABLE}\n\
         iceberg.tables.auto-create-enabled=true\niceberg.control.commit.interval-ms=10000\n\
         iceberg.catalog=peer\niceberg.catalog.catalog-impl=org.apache.iceberg.jdbc.JdbcCatalog\n\
         iceberg.catalog.uri=jdbc:postgresql://{host}:{port}/{database}\n\
         iceberg.catalog.jdbc.user={user}\niceberg.catalog.jdbc.password={password}\n\
         iceberg.catalog.warehouse={warehouse}\n\
         iceberg.control.topic={name}-control\ntransforms=dbz\n\
         transforms.dbz.type=org.apache.iceberg.connect.transforms.DebeziumTransform\n\
         transforms.dbz.cdc.target.pattern={NAMESPACE}.{TABLE}\n\
         consumer.override.auto.offset.reset=earliest\n",
        tasks = bench.partitions,
        topic = full.topic,
    );
    let mut process = connect::start(bench, name, plugin, &connector)?;
    let name = TableName { namespace: NAMESPACE.to_owned(), table: TABLE.to_owned() };
    let table = Arc::new(lake).table(&name);
    let deadline = Instant::now() + PATIENCE * LONGEST;
    loop {
        process.check()?;
        let snapshots = table.snapshots().await.unwrap_or_default();
        let rows = snapshots.first().and_then(|snapshot| snapshot.summary.get("total-records"));
        let rows = rows.and_then(|rows| rows.parse().ok()).unwrap_or(0);
        if full.changes <= rows {
            let shown = Shown {
                seconds: process.started.elapsed().as_secs_f64(),
                cpu: process.cpu()?,
                peak: process.memory("VmHWM")?,
            };
            process.stop().await?;
            return Ok(shown);
        }
        if Instant::now() > deadline {
            let log = process.log_end();
            return Err(format!("{rows} of {} rows came: {log}", full.changes).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}
