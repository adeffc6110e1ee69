//! A pipeline of a test's own: names that nobody else uses, its configuration, its processes, and
//! the removal of everything it leaves behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lake::LakePlace;
use crate::mysql::{self, Family};
use crate::process::{Process, binary};
use crate::record::{Schemas, http, register_topic};
use crate::stack::{Stack, free_port, free_ports, unique};
use crate::wait::{self, check, until};
use crate::{kafka, postgres};

/// One pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// `pipeline_id`, also the name of its schemas in the source and the target database.
    pub id: String,
    /// What is written to its file.
    pub config: Value,
    dir: TempDir,
    count: AtomicU32,
    deployed: bool,
    family: Option<Family>,
    /// `NAME=value` of the environment of its processes, beside the test's own.
    pub variables: Vec<String>,
    /// Where the tables of its Iceberg sink are.
    pub(crate) lake: Option<LakePlace>,
}

impl Pipeline {
    /// A pipeline over the table `{id}.t`, without sinks, with everything quick.
    pub fn new(name: &str) -> Self {
        let stack = Stack::get();
        let id = unique(name);
        let config = json!({
            "pipeline_id": id,
            "topic_prefix": id,
            "source": {
                "host": "127.0.0.1",
                "port": stack.postgres_port(),
                "database": stack.value("SOURCE_DATABASE"),
                "username": stack.value("SOURCE_USER"),
                "password": stack.value("SOURCE_PASSWORD"),
                "tables": [format!("{id}.t")],
                "slot_name": id,
            },
            "kafka": {
                "bootstrap_servers": stack.kafka(),
                "schema_registry_url": stack.registry(),
                "commit_interval_ms": 200,
            },
            "connector": {"connect_url": stack.connect()},
            "coordinator": {
                "bind": format!("127.0.0.1:{}", free_port()),
                "heartbeat_interval_seconds": 0.2,
                "watermark_store": "memory",
            },
            "retry": {"initial_wait_seconds": 0.05, "max_wait_seconds": 0.5},
            "lag_monitor_interval_seconds": 0.5,
            "log_level": "info",
            "sinks": [],
        });
        let dir = tempfile::Builder::new().prefix("cdc-e2e-").tempdir().unwrap();
        Self {
            id,
            config,
            dir,
            count: AtomicU32::new(0),
            deployed: false,
            family: None,
            variables: Vec::new(),
            lake: None,
        }
    }

    /// The same over the table `{id}.t` of MySQL or MariaDB.
    pub fn of(family: Family, name: &str) -> Self {
        let mut pipeline = Self::new(name);
        pipeline.family = Some(family);
        let source = pipeline.config["source"].as_object_mut().unwrap();
        source.remove("slot_name");
        source.insert("source_type".to_owned(), json!(family.name()));
        source.insert("port".to_owned(), json!(family.port()));
        pipeline
    }

    /// The topic of its table.
    pub fn topic(&self) -> String {
        format!("{0}.{0}.t", self.id)
    }

    /// Its group, P.
    pub fn group(&self) -> String {
        format!("cdc-{}", self.id)
    }

    /// A sink's group, S.
    pub fn sink_group(&self, sink: &str) -> String {
        format!("{}.{sink}", self.group())
    }

    /// The events table.
    pub fn events_table(&self) -> String {
        format!("{}.events", self.id)
    }

    /// Where files of this pipeline may be put.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a webhook, `wh` unless another id is given.
    pub fn webhook(&mut self, id: &str, url: &str) -> &mut Self {
        self.sink(json!({
            "sink_id": id,
            "sink_type": "webhook",
            "webhook": {"url": url, "timeout_seconds": 5},
        }))
    }

    /// Adds an events table in the target database, in a schema of this pipeline's name.
    pub async fn events(&mut self, id: &str) -> &mut Self {
        let stack = Stack::get();
        let user = stack.value("TARGET_USER");
        let target = postgres::target().await;
        let create = format!("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {user}", self.id);
        target.batch_execute(&create).await.unwrap();
        let section = json!({
            "host": "127.0.0.1",
            "port": stack.postgres_port(),
            "database": stack.value("TARGET_DATABASE"),
            "username": user,
            "password": stack.value("TARGET_PASSWORD"),
            "target_table": self.events_table(),
            "flush_interval_ms": 20,
            // Without a unique index, so that only the compare-and-set keeps repeats out.
            "upsert": false,
            "idle_in_transaction_timeout_ms": 1500,
            "lock_timeout_ms": 3000,
        });
        self.sink(json!({"sink_id": id, "sink_type": "postgres", "postgres": section}))
    }

    /// Adds a mirror of its tables in the target database, under the names that they have at the
    /// source.
    pub fn replica(&mut self, id: &str) -> &mut Self {
        let stack = Stack::get();
        let section = json!({
            "host": "127.0.0.1",
            "port": stack.postgres_port(),
            "database": stack.value("TARGET_DATABASE"),
            "username": stack.value("TARGET_USER"),
            "password": stack.value("TARGET_PASSWORD"),
            "write_mode": "replica",
            "progress_table": format!("{}.cdc_offsets", self.id),
            "flush_interval_ms": 20,
            "idle_in_transaction_timeout_ms": 1500,
            "lock_timeout_ms": 3000,
        });
        self.sink(json!({"sink_id": id, "sink_type": "postgres", "postgres": section}))
    }

    /// Adds any sink.
    pub fn sink(&mut self, sink: Value) -> &mut Self {
        self.config["sinks"].as_array_mut().unwrap().push(sink);
        self
    }

    /// The section of a sink, to change it.
    pub fn sink_mut(&mut self, id: &str) -> &mut Value {
        let sinks = self.config["sinks"].as_array_mut().unwrap();
        sinks.iter_mut().find(|sink| sink["sink_id"] == id).unwrap()
    }

    /// Creates the topic and its dead letter topic, and registers schemas, as `deploy` and the
    /// connector would.
    pub async fn topics(&self, partitions: i32) -> Schemas {
        let topic = self.topic();
        kafka::create_topic(&topic, partitions).await;
        kafka::create_topic(&format!("{topic}.dlq"), 1).await;
        register_topic(&topic).await
    }

    /// Writes the file (JSON is YAML too) and gives its path. A process that reads it meanwhile
    /// sees the old one or the new one.
    pub fn file(&self) -> PathBuf {
        let path = self.dir.path().join("pipeline.yaml");
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let new = self.dir.path().join(format!("pipeline.{number}"));
        std::fs::write(&new, serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    fn start(&self, program: &str, arguments: &[&str], name: &str) -> Process {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.path().join(format!("{number:02}-{name}.log"));
        // `env` becomes the program that it starts: the process is the same.
        let program = binary(program).display().to_string();
        let line = self.variables.iter().cloned().chain([program]);
        let line: Vec<String> = line.chain(arguments.iter().map(|&a| a.to_owned())).collect();
        Process::start(Path::new("/usr/bin/env"), &line, log)
    }

    /// Starts the coordinator.
    pub fn serve(&self) -> Process {
        let file = self.file().display().to_string();
        self.start("cdc-coordinator", &["serve", &file], "coordinator")
    }

    /// Starts a worker of a sink.
    pub fn worker(&self, sink: &str) -> Process {
        let file = self.file().display().to_string();
        let arguments = ["run", &file, "--sink", sink, "--admin", "127.0.0.1:0"];
        self.start("cdc-worker", &arguments, sink)
    }

    /// Starts `cdc run`.
    pub fn run(&mut self) -> Process {
        self.deployed = true;
        let sinks = self.config["sinks"].as_array().map_or(1, Vec::len);
        self.config["worker"] = json!({"port_base": free_ports(sinks as u16)});
        let file = self.file().display().to_string();
        self.start("cdc", &["run", &file], "run")
    }

    /// Starts `cdc run` on topics that are there already.
    pub fn run_without_deploy(&self) -> Process {
        let file = self.file().display().to_string();
        self.start("cdc", &["run", &file, "--no-deploy"], "run")
    }

    /// Runs `cdc COMMAND FILE ARGUMENTS` to its end; the file comes where `FILE` stands.
    pub async fn cdc(&mut self, line: &[&str]) -> Output {
        self.deployed |= line.contains(&"deploy");
        let file = self.file().display().to_string();
        let arguments: Vec<String> =
            line.iter().map(|&a| if a == "FILE" { file.clone() } else { a.to_owned() }).collect();
        run_cdc(&arguments).await
    }

    /// The same, and it must succeed; gives what it printed.
    pub async fn cdc_ok(&mut self, line: &[&str]) -> String {
        let output = self.cdc(line).await;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "cdc {line:?}: {}\n{out}\n{err}", output.status);
        out
    }

    /// An operator's command, repeated until the coordinator leads and takes it.
    pub async fn command(&mut self, line: &[&str]) {
        let file = self.file().display().to_string();
        let arguments: Vec<String> =
            line.iter().map(|&a| if a == "FILE" { file.clone() } else { a.to_owned() }).collect();
        until("the coordinator takes the command", wait::SOON, async || {
            let output = run_cdc(&arguments).await;
            let said = format!("{arguments:?}: {}", text(&output.stderr));
            check(output.status.success(), said)
        })
        .await;
    }

    /// The coordinator's health report, or why there is none.
    ///
    /// # Errors
    /// What came instead.
    pub async fn health(&self) -> Result<Value, String> {
        let bind = self.config["coordinator"]["bind"].as_str().unwrap();
        let answer = http().get(format!("http://{bind}/v1/health")).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// What health says of one sink.
    ///
    /// # Errors
    /// What came instead.
    pub async fn sink_health(&self, sink: &str) -> Result<Value, String> {
        let report = self.health().await?;
        let sinks = report["sinks"].as_array().cloned().unwrap_or_default();
        let found = sinks.into_iter().find(|entry| entry["sink_id"] == sink);
        found.ok_or_else(|| format!("no sink {sink} in {report}"))
    }

    /// Waits until a sink is held for this reason, and gives the hold.
    pub async fn held(&self, sink: &str, code: &str) -> Value {
        until(&format!("sink {sink} is held by {code}"), wait::SOON, async || {
            let health = self.sink_health(sink).await?;
            let holds = health["holds"].as_array().cloned().unwrap_or_default();
            let found = holds.into_iter().find(|hold| hold["code"] == code);
            found.ok_or_else(|| health.to_string())
        })
        .await
    }

    /// Waits until a sink has this status.
    pub async fn status(&self, sink: &str, status: &str) {
        until(&format!("sink {sink} is {status}"), wait::SOON, async || {
            let health = self.sink_health(sink).await?;
            check(health["status"] == status, health.to_string())
        })
        .await;
    }

    /// Partition and offset of every row of the events table, repeats included.
    pub async fn rows(&self) -> Vec<(i32, i64)> {
        let target = postgres::target().await;
        let query = format!(
            "SELECT source_partition, source_offset FROM {} ORDER BY 1, 2",
            self.events_table()
        );
        let Ok(rows) = target.query(&query, &[]).await else { return Vec::new() };
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits until the events table has exactly these, each once.
    pub async fn has_rows(&self, expected: &BTreeSet<(i32, i64)>, within: Duration) {
        let expected: Vec<(i32, i64)> = expected.iter().copied().collect();
        until("the events table has every record once", within, async || {
            let rows = self.rows().await;
            let missing: Vec<_> = expected.iter().filter(|e| !rows.contains(e)).take(5).collect();
            check(rows == expected, (rows.len(), expected.len(), format!("{missing:?}")))
        })
        .await;
    }

    /// Waits until P has come to this offset.
    pub async fn committed(&self, partition: i32, offset: i64) {
        until(&format!("P[{partition}] is {offset}"), wait::SOON, async || {
            let found = kafka::committed(&self.group(), &self.topic(), partition);
            check(found == Some(offset), found)
        })
        .await;
    }

    fn print_logs(&self) {
        let Ok(entries) = std::fs::read_dir(self.dir.path()) else { return };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "log")) {
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> =
                log.lines().filter(|line| !line.contains("consumer.lag")).collect();
            let from = lines.len().saturating_sub(60);
            println!("--- {} (last {} lines)", path.display(), lines.len() - from);
            println!("{}", lines[from..].join("\n"));
        }
    }

    /// No process of this pipeline may have panicked.
    fn check_logs(&self) {
        let Ok(entries) = std::fs::read_dir(self.dir.path()) else { return };
        for entry in entries.flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let line = log.lines().find(|line| line.contains("panicked at"));
            assert!(line.is_none(), "{}: {line:?}", entry.path().display());
        }
    }

    async fn clean(id: String, deployed: bool, family: Option<Family>) {
        let source = postgres::source().await;
        if deployed {
            let url = format!("{}/connectors/{id}-{id}", Stack::get().connect());
            let _ = http().delete(url).send().await;
        }
        match family {
            Some(family) => {
                let drop = format!("DROP DATABASE IF EXISTS {id}");
                mysql::run(&mut mysql::admin(family).await, &[drop]).await;
            }
            None if deployed => remove_slot(&source, &id).await,
            None => {}
        }
        let drop = format!("DROP SCHEMA IF EXISTS {id} CASCADE");
        let _ = source.batch_execute(&drop).await;
        let _ = postgres::target().await.batch_execute(&drop).await;
        let mut topics = kafka::topics_with(&format!("{id}."));
        topics.extend(kafka::topics_with(&format!("cdc-{id}.")));
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        if !topics.is_empty() {
            kafka::delete_topics(&topics).await;
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            self.print_logs();
        }
        let (id, deployed, family) = (self.id.clone(), self.deployed, self.family);
        // A runtime of its own: this one may be ending.
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(Self::clean(id, deployed, family));
        });
        let _ = cleaned.join();
        if !failed {
            self.check_logs();
        }
    }
}

/// Removes the replication slot once its connector lets go of it, and its publication.
async fn remove_slot(source: &tokio_postgres::Client, id: &str) {
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                WHERE slot_name = $1";
    let deadline = std::time::Instant::now() + wait::SOON;
    while source.execute(drop, &[&id]).await.is_err() && std::time::Instant::now() < deadline {
        tokio::time::sleep(wait::LOOK).await;
    }
    let like = format!("%{id}%");
    let query = "SELECT pubname::text FROM pg_publication WHERE pubname LIKE $1";
    for row in source.query(query, &[&like]).await.unwrap_or_default() {
        let _ =
            source.batch_execute(&format!("DROP PUBLICATION {}", row.get::<_, String>(0))).await;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `cdc` with these arguments to its end, at most two minutes.
pub async fn run_cdc(arguments: &[String]) -> Output {
    let command = tokio::process::Command::new(binary("cdc"))
        .args(arguments)
        .env("RUST_BACKTRACE", "1")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(Duration::from_secs(120), command).await;
    ended.unwrap_or_else(|_| panic!("cdc {arguments:?} does not end")).unwrap()
}
