//! Connections cut, servers restarted, locks held: every record there once.

use cdc_worker::sink::Sink;

use super::*;
use crate::support::proxy::{Lose, Proxy};
use crate::support::until;

/// A plain insert, so that anything written twice shows.
fn plain(config: &mut PostgresSinkConfig) {
    config.upsert = false;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_request_or_answer_costs_nothing_and_doubles_nothing() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let proxy = Proxy::start(cluster.port).await;
    let mut config = settings(proxy.port, &database);
    plain(&mut config);
    let sink = sink(&config);
    sink.prove().await.unwrap();
    let mut writer = started(&sink, 0).await;
    // Statements are prepared now, so that what is lost next is the write itself.
    assert_eq!(durable(&deliver(&mut *writer, 0..2).await), 2);
    assert_eq!(durable(&deliver(&mut *writer, 2..2).await), 2);
    for (round, lose) in [Lose::Answer, Lose::Request, Lose::Answer].into_iter().enumerate() {
        let from = 2 + 4 * round as i64;
        proxy.lose(lose);
        assert_eq!(durable(&deliver(&mut *writer, from..from + 2).await), from + 2, "{lose:?}");
        assert!(proxy.has_lost());
        // The new connection prepares once more.
        assert_eq!(durable(&deliver(&mut *writer, from + 2..from + 4).await), from + 4);
        proxy.lose(lose);
        assert_eq!(durable(&deliver(&mut *writer, from + 4..from + 4).await), from + 4);
        assert!(proxy.has_lost());
        assert_eq!(durable(&deliver(&mut *writer, from + 4..from + 4).await), from + 4);
    }
    assert_eq!(offsets(&admin, "cdc_events").await, (0..14).collect::<Vec<_>>());
    assert_eq!(sink.read_position(&partition()).await.unwrap(), Some(position(14)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_to_a_world_that_moved_is_moved() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let proxy = Proxy::start(cluster.port).await;
    let mut config = settings(proxy.port, &database);
    plain(&mut config);
    let sink = sink(&config);
    sink.prove().await.unwrap();
    let mut writer = started(&sink, 0).await;
    let blocker = hold_record(cluster, &database).await;
    push(&mut *writer, 0..2);
    writer.flush(position(2));
    until("the flush waits", async || someone_waits(&admin).await).await;
    terminate_writers(&admin).await;
    let raise = "UPDATE cdc_offsets SET incarnation = 2; COMMIT";
    blocker.batch_execute(raise).await.unwrap();
    assert!(matches!(within("an answer", writer.progress()).await, Progress::Moved));
    assert!(offsets(&admin, "cdc_events").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_session_is_replaced() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let mut config = settings(cluster.port, &database);
    plain(&mut config);
    let sink = sink(&config);
    sink.prove().await.unwrap();
    let mut writer = started(&sink, 0).await;
    let blocker = hold_record(cluster, &database).await;
    push(&mut *writer, 0..2);
    writer.flush(position(2));
    until("the flush waits", async || someone_waits(&admin).await).await;
    terminate_writers(&admin).await;
    until("the next attempt waits", async || someone_waits(&admin).await).await;
    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(durable(&within("an answer", writer.progress()).await), 2);
    assert_eq!(offsets(&admin, "cdc_events").await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_under_a_flush_is_awaited() {
    let cluster = Cluster::start(&["fsync = on"]);
    let (database, admin) = cluster.database().await;
    let mut config = settings(cluster.port, &database);
    plain(&mut config);
    let sink = sink(&config);
    sink.prove().await.unwrap();
    assert!(sink.replace_position(&partition(), None, &position(0)).await.unwrap());
    let (mut writer, trouble) = writer(&sink, 0);
    assert_eq!(durable(&deliver(&mut *writer, 0..2).await), 2);
    let blocker = hold_record(&cluster, &database).await;
    push(&mut *writer, 2..4);
    writer.flush(position(4));
    until("the flush waits", async || someone_waits(&admin).await).await;
    tokio::task::block_in_place(|| cluster.crash_and_restart());
    drop(blocker);
    assert_eq!(durable(&within("an answer", writer.progress()).await), 4);
    assert_eq!(*trouble.borrow(), None);
    let admin = cluster.admin(&database).await;
    assert_eq!(offsets(&admin, "cdc_events").await, [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_lock_is_reported_and_outlasted() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let config = PostgresSinkConfig { lock_timeout_ms: 50, ..settings(cluster.port, &database) };
    let sink = sink(&config);
    sink.prove().await.unwrap();
    assert!(sink.replace_position(&partition(), None, &position(0)).await.unwrap());
    let (mut writer, mut trouble) = writer(&sink, 0);
    let blocker = cluster.admin(&database).await;
    blocker.batch_execute("BEGIN; LOCK TABLE cdc_events IN EXCLUSIVE MODE").await.unwrap();
    push(&mut *writer, 0..2);
    writer.flush(position(2));
    let seen = within("trouble", trouble.wait_for(|t| t.as_ref().is_some_and(|t| t.exhausted)));
    let state = seen.await.unwrap().clone().unwrap();
    assert_eq!(state.code, "sqlstate_55P03");
    assert!(state.message.contains(&format!("localhost:{}/{database}", cluster.port)));
    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(durable(&within("an answer", writer.progress()).await), 2);
    assert_eq!(*trouble.borrow(), None);
    assert_eq!(offsets(&admin, "cdc_events").await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_flush_blocks_nobody() {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let config = PostgresSinkConfig { max_connections: 1, ..settings(cluster.port, &database) };
    let sink = sink(&config);
    sink.prove().await.unwrap();
    let mut writer = started(&sink, 0).await;
    let blocker = hold_record(cluster, &database).await;
    push(&mut *writer, 0..2);
    writer.flush(position(2));
    until("the flush waits", async || someone_waits(&admin).await).await;
    writer.reset(position(0));
    // The only connection of the pool was the waiting one.
    let read = within("the record", sink.read_position(&partition())).await.unwrap();
    assert_eq!(read, Some(position(0)));
    blocker.batch_execute("COMMIT").await.unwrap();
    // Whether the abandoned statement still ran or not: each record is there once.
    match deliver(&mut *writer, 0..2).await {
        Progress::Durable(next) => assert_eq!(next.get(), 2),
        Progress::Moved => {
            assert_eq!(sink.read_position(&partition()).await.unwrap(), Some(position(2)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(offsets(&admin, "cdc_events").await, [0, 1]);
}

/// Holds the row of the sink's record from another session, until its `COMMIT`.
async fn hold_record(cluster: &Cluster, database: &str) -> Client {
    let blocker = cluster.admin(database).await;
    blocker.batch_execute("BEGIN; SELECT FROM cdc_offsets FOR UPDATE").await.unwrap();
    blocker
}

async fn terminate_writers(admin: &Client) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND application_name LIKE 'cdc-worker/%'";
    assert!(!admin.query(sql, &[]).await.unwrap().is_empty());
}
