//! Debezium's JDBC sink, on the same topic and a table of the same database: a Kafka Connect of
//! its own with the heap that Connect's start script gives it, four tasks, its fastest settings.

use std::path::Path;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::load::{BATCH, Full};
use crate::process::{PATIENCE, Process};
use crate::{Bench, Error, Pass, Sight};

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
    let files = write_settings(bench, database, schema, &name, full)?;
    let jars = bench.stack.setting("CDC_LOCAL_KAFKA_JARS");
    let log4j = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local/log4j2.properties");
    let mut arguments = vec![
        "-Xms256M".to_owned(),
        "-Xmx2G".to_owned(),
        "-XX:+UseG1GC".to_owned(),
        format!("-Dlog4j2.configurationFile={log4j}"),
        "-cp".to_owned(),
        format!("{jars}/*"),
        "org.apache.kafka.connect.cli.ConnectStandalone".to_owned(),
    ];
    arguments.extend(files);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let log = bench.folder.path().join(format!("{name}.log"));
    let mut process = Process::start_program(Path::new("java"), &arguments, log)?;
    let group = format!("connect-{name}");
    let first = reaches(bench, &group, full, 1, &mut process).await?;
    let last = reaches(bench, &group, full, full.messages, &mut process).await?;
    let share = full.changes as f64 / full.messages as f64;
    Pass::between(process, first, last, share).await
}

/// The files of the worker and of the connector.
fn write_settings(
    bench: &Bench,
    database: &str,
    schema: &str,
    name: &str,
    full: &Full,
) -> Result<[String; 2], Error> {
    let stack = &bench.stack;
    let ((host, port), (user, password)) = (stack.postgres(), stack.admin());
    let plugin = stack.setting("CDC_LOCAL_JDBC_PLUGIN");
    if !Path::new(plugin).is_dir() {
        return Err("the JDBC sink is not installed: deploy/local/stack install jdbc".into());
    }
    let (folder, data) = (bench.folder.path(), stack.setting("CDC_LOCAL_DIR"));
    let converter = |side: &str| {
        let registry = stack.setting("CDC_LOCAL_REGISTRY_CONVERTER_URL");
        [
            ("", "io.apicurio.registry.utils.converter.AvroConverter"),
            (".apicurio.registry.url", registry),
            (".apicurio.registry.as-confluent", "true"),
            (".apicurio.registry.use-id", "contentId"),
            (".apicurio.registry.headers.enabled", "false"),
        ]
        .map(|(key, value)| format!("{side}.converter{key}={value}\n"))
        .concat()
    };
    let worker = format!(
        "bootstrap.servers={kafka}\nlisteners=http://127.0.0.1:0\nplugin.path={data}/plugins,{plugin}\n\
         plugin.discovery=service_load\noffset.storage.file.filename={folder}/{name}.offsets\n\
         offset.flush.interval.ms=500\nconnector.client.config.override.policy=All\n{}{}",
        converter("key"),
        converter("value"),
        kafka = stack.kafka(),
        folder = folder.display(),
    );
    let connector = format!(
        "name={name}\nconnector.class=io.debezium.connector.jdbc.JdbcSinkConnector\n\
         tasks.max={tasks}\ntopics={topic}\n\
         connection.url=jdbc:postgresql://{host}:{port}/{database}?reWriteBatchedInserts=true\n\
         connection.username={user}\nconnection.password={password}\n\
         insert.mode=upsert\ndelete.enabled=true\nprimary.key.mode=record_key\n\
         schema.evolution=none\ncollection.name.format={schema}.orders\nbatch.size={BATCH}\n\
         use.reduction.buffer=true\nconsumer.override.max.poll.records={BATCH}\n",
        tasks = bench.partitions,
        topic = full.topic,
    );
    let write = |suffix: &str, text: String| -> Result<String, Error> {
        let file = folder.join(format!("{name}-{suffix}.properties"));
        std::fs::write(&file, text)?;
        Ok(file.display().to_string())
    };
    Ok([write("worker", worker)?, write("sink", connector)?])
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
