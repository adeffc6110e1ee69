//! Debezium's JDBC sink, on the same topic and a table of the same database: four tasks, its fastest
//! settings.

use std::path::Path;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::load::{BATCH, Full};
use crate::process::{PATIENCE, Process};
use crate::{Bench, Error, Pass, Sight, connect};

/// Several times what it takes for a million records.
const LONGEST: u32 = 6;

/// Drains the topic into `bare_…` tables of the database.
pub(super) async fn measure(
    bench: &Bench,
    database: &str,
    schema: &str,
    full: &Full,
) -> Result<Pass, Error> {
    let name = format!("{}-jdbc-{schema}", bench.run);
    let plugin = bench.stack.setting("CDC_LOCAL_JDBC_PLUGIN");
    if !Path::new(plugin).is_dir() {
        return Err("the JDBC sink is not installed: deploy/local/stack install jdbc".into());
    }
    let connector = connector(bench, database, schema, full);
    let mut process = connect::start(bench, &name, plugin, &connector)?;
    let group = format!("connect-{name}");
    let first = reaches(bench, &group, full, 1, &mut process).await?;
    let last = reaches(bench, &group, full, full.messages, &mut process).await?;
    let share = full.changes as f64 / full.messages as f64;
    Pass::between(process, first, last, share).await
}

fn connector(bench: &Bench, database: &str, schema: &str, full: &Full) -> String {
    let ((host, port), (user, password)) = (bench.stack.postgres(), bench.stack.admin());
    format!(
        "connector.class=io.debezium.connector.jdbc.JdbcSinkConnector\n\
         tasks.max={tasks}\ntopics={topic}\n\
         connection.url=jdbc:postgresql://{host}:{port}/{database}?reWriteBatchedInserts=true\n\
         connection.username={user}\nconnection.password={password}\n\
         insert.mode=upsert\ndelete.enabled=true\nprimary.key.mode=record_key\n\
         schema.evolution=none\ncollection.name.format={schema}.orders\nbatch.size={BATCH}\n\
         use.reduction.buffer=true\nconsumer.override.max.poll.records={BATCH}\n",
        tasks = bench.partitions,
        topic = full.topic,
    )
}

/// Waits until the offsets that its group has committed come so far.
async fn reaches(
    bench: &Bench,
    group: &str,
    full: &Full,
    goal: i64,
    process: &mut Process,
) -> Result<Sight, Error> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bench.stack.kafka())
        .set("group.id", group)
        .create()?;
    let consumer = std::sync::Arc::new(consumer);
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_range(&full.topic, 0, bench.partitions as i32 - 1);
    let deadline = Instant::now() + PATIENCE * LONGEST;
    loop {
        let (asked, wanted) = (consumer.clone(), wanted.clone());
        let ask = move || asked.committed_offsets(wanted, PATIENCE);
        let found = tokio::task::spawn_blocking(ask).await?;
        let offsets = found.map(|list| {
            list.elements().iter().filter_map(|e| e.offset().to_raw()).filter(|o| *o > 0).sum()
        });
        let reached: i64 = offsets.unwrap_or(0);
        if reached >= goal {
            return Ok((Instant::now(), reached));
        }
        process.check()?;
        if Instant::now() > deadline {
            return Err(format!("{reached} of {goal} came: {}", process.log_end()).into());
        }
        tokio::time::sleep(super::super::events::LOOK).await;
    }
}
