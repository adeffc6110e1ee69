//! The script against the rule, on a real Redis of our own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::rule::tests::{position, positions};
use super::super::{MemoryStore, rule};
use super::*;

struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(port, arguments)
    }

    fn start_at(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self { child, port, _folder: folder }
    }

    async fn store(&self) -> RedisStore {
        let config = RedisConfig {
            url: format!("redis://127.0.0.1:{}/0", self.port),
            ..RedisConfig::default()
        };
        let store = RedisStore::new(&config, "p").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while store.check().await.is_err() {
            assert!(Instant::now() < deadline, "redis-server did not answer in time");
            tokio::task::yield_now().await;
        }
        store
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn reports() -> impl Strategy<Value = Vec<Vec<(i32, Position)>>> {
    let report = proptest::collection::vec((0..3i32, positions()), 0..5);
    proptest::collection::vec(report, 1..12)
}

#[test]
fn the_script_is_the_rule() {
    let runtime = runtime();
    let server = Server::start(&[]);
    let redis = runtime.block_on(server.store());
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    runner
        .run(&reports(), |reports| {
            let (memory, mut plain) = (MemoryStore::default(), SinkWatermarks::new());
            runtime.block_on(async {
                redis.forget("s", None).await.unwrap();
                for report in &reports {
                    let report: Vec<_> = report
                        .iter()
                        .map(|(partition, p)| (TopicPartition::new("a.b", *partition), p.clone()))
                        .collect();
                    for (tp, position) in &report {
                        if rule::advance(plain.get(tp), position) {
                            plain.insert(tp.clone(), position.clone());
                        }
                    }
                    memory.advance("s", &report).await.unwrap();
                    redis.advance("s", &report).await.unwrap();
                }
                prop_assert_eq!(&memory.read("s").await.unwrap(), &plain);
                prop_assert_eq!(&redis.read("s").await.unwrap(), &plain);
                Ok(())
            })
        })
        .unwrap();
}

#[test]
fn a_lost_script_and_a_restart_are_survived() {
    let runtime = runtime();
    let server = Server::start(&[]);
    runtime.block_on(async {
        let store = server.store().await;
        let tp = TopicPartition::new("t", 0);
        store.advance("s", &[(tp.clone(), position(0, "a", 5))]).await.unwrap();
        let mut connection = store.connection().await.unwrap();
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
        store.advance("s", &[(tp.clone(), position(0, "a", 6))]).await.unwrap();
        assert_eq!(store.read("s").await.unwrap()[&tp].next.get(), 6);

        let port = server.port;
        drop(server);
        assert!(store.read("s").await.is_err(), "a store that is away is not an empty one");
        let again = Server::start_at(port, &[]);
        again.store().await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while store.advance("s", &[(tp.clone(), position(0, "a", 7))]).await.is_err() {
            assert!(Instant::now() < deadline, "the store did not connect again");
        }
        assert_eq!(store.read("s").await.unwrap()[&tp].next.get(), 7);
    });
}

#[test]
fn a_replica_refuses_and_the_store_recovers() {
    let runtime = runtime();
    let server = Server::start(&[]);
    runtime.block_on(async {
        let store = server.store().await;
        let report = [(TopicPartition::new("t", 0), position(0, "a", 5))];
        let mut connection = store.connection().await.unwrap();
        let mut replicaof = redis::cmd("REPLICAOF");
        replicaof.arg("127.0.0.1").arg(1).exec_async(&mut connection).await.unwrap();
        let refusal = store.advance("s", &report).await.unwrap_err().to_string();
        assert!(refusal.to_lowercase().contains("read"), "{refusal}");
        let mut primary = redis::cmd("REPLICAOF");
        primary.arg("NO").arg("ONE").exec_async(&mut connection).await.unwrap();
        store.advance("s", &report).await.unwrap();
    });
}

#[test]
fn a_store_that_takes_no_watermarks_does_not_count_as_up() {
    let runtime = runtime();
    let server = Server::start(&[]);
    runtime.block_on(async {
        let store = server.store().await;
        let mut connection = store.connection().await.unwrap();
        let mut limit = redis::cmd("CONFIG");
        limit.arg("SET").arg("maxmemory").arg("1").exec_async(&mut connection).await.unwrap();
        let full = store.check().await.unwrap_err().to_string();
        assert!(full.contains("OOM"), "{full}");
        let mut connection = store.connection().await.unwrap();
        let mut limit = redis::cmd("CONFIG");
        limit.arg("SET").arg("maxmemory").arg("0").exec_async(&mut connection).await.unwrap();
        store.check().await.unwrap();
        let mut replicaof = redis::cmd("REPLICAOF");
        replicaof.arg("127.0.0.1").arg(1).exec_async(&mut connection).await.unwrap();
        let refusal = store.check().await.unwrap_err().to_string();
        assert!(refusal.to_lowercase().contains("read"), "{refusal}");
    });
}

#[test]
fn garbage_is_an_error_and_a_report_replaces_it() {
    let runtime = runtime();
    let server = Server::start(&[]);
    runtime.block_on(async {
        let store = server.store().await;
        let mut connection = store.connection().await.unwrap();
        let mut put = redis::cmd("HSET");
        put.arg("cdc:p:wm:s").arg("t/0").arg("12").exec_async(&mut connection).await.unwrap();
        let error = store.read("s").await.unwrap_err().to_string();
        assert!(error.contains("\"t/0\" of cdc:p:wm:s holds \"12\""), "{error}");
        let tp = TopicPartition::new("t", 0);
        store.advance("s", &[(tp.clone(), position(0, "a", 5))]).await.unwrap();
        assert_eq!(store.read("s").await.unwrap()[&tp], position(0, "a", 5));
        store.advance("s", &[(TopicPartition::new("u", 0), position(0, "a", 5))]).await.unwrap();
        store.forget("s", Some("t")).await.unwrap();
        assert_eq!(store.read("s").await.unwrap().len(), 1);
    });
}

#[test]
fn an_evicting_policy_is_named() {
    let runtime = runtime();
    let server = Server::start(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]);
    let found = runtime.block_on(async { server.store().await.check().await.unwrap().eviction });
    assert!(found.unwrap().contains("allkeys-lru"));
    assert_eq!(eviction("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"), None);
    assert_eq!(eviction("maxmemory:5\r\nmaxmemory_policy:volatile-lru\r\n"), None);
    assert_eq!(eviction("maxmemory:5\r\nmaxmemory_policy:noeviction\r\n"), None);
}

/// What clients have asked since the statistics were reset, without what scripts ask inside.
async fn asked(connection: &mut MultiplexedConnection, name: &str) -> u64 {
    let info: String =
        redis::cmd("INFO").arg("commandstats").query_async(connection).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn a_thousand_watermarks_are_one_round_trip() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let store = server.store().await;
        let report = |next: i64| -> Vec<_> {
            let at = |partition| (TopicPartition::new("a.b", partition), position(0, "a", next));
            (0..1000).map(at).collect()
        };
        // The first one also loads the script.
        store.advance("s", &report(1)).await.unwrap();
        let mut connection = store.connection().await.unwrap();
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut connection).await.unwrap();
        store.advance("s", &report(2)).await.unwrap();
        assert_eq!(asked(&mut connection, "evalsha").await, 1);
        for other in ["eval", "script|load", "multi", "hgetall", "hmget"] {
            assert_eq!(asked(&mut connection, other).await, 0, "{other}");
        }
        // Inside the script: a look and a write for each.
        assert_eq!(asked(&mut connection, "hset").await, 1000);
        let read = store.read("s").await.unwrap();
        assert!(read.len() == 1000 && read.values().all(|position| position.next.get() == 2));
    });
}
