//! Killed or frozen in the middle of a transaction of the mirror: the sink's record is moved, the
//! rows are written, and the COMMIT, or the answer to it, is on the way. The place is held on the
//! wire until the process is gone.

use std::time::Duration;

use cdc_tests::kafka::{self, Producer};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::postgres;
use cdc_tests::process::Process;
use cdc_tests::record::Schemas;
use cdc_tests::stack::Stack;
use cdc_tests::wait::{SOON, check, until};
use cdc_tests::wire::{Half, Wire};
use serde_json::json;
use tokio_postgres::Client;

/// What stands for a value that was not sent: a change with it takes several statements.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// A mirror behind a wire. Its worker has delivered five rows, and is in the middle of the
/// transaction with the next three changes.
struct Interrupted {
    pipeline: Pipeline,
    schemas: Schemas,
    wire: Wire,
    worker: Process,
    target: Client,
    _coordinator: Process,
}

/// Each row of the mirror, and each write to it that was committed, in order.
const CONTENT: &str = "SELECT (SELECT string_agg(t::text, ' ' ORDER BY id) FROM ID.t AS t), \
                       (SELECT string_agg(what, ' ' ORDER BY n) FROM ID.written)";

const AUDIT: &str = "CREATE TABLE ID.written (n bigserial, what text); \
    CREATE FUNCTION ID.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
    INSERT INTO ID.written (what) VALUES (TG_OP || COALESCE(NEW.id, OLD.id)); RETURN NULL; END $$; \
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON ID.t FOR EACH ROW \
    EXECUTE FUNCTION ID.audit(); GRANT ALL ON ALL TABLES IN SCHEMA ID TO PUBLIC; \
    GRANT ALL ON ALL SEQUENCES IN SCHEMA ID TO PUBLIC";

/// `None`: there is no such row or no such write.
type Content = (Option<String>, Option<String>);

async fn interrupted(name: &str, half: Half) -> Interrupted {
    let wire = Wire::start(Stack::get().postgres_port()).await;
    let mut pipeline = Pipeline::new(name);
    pipeline.replica("mirror");
    let table = format!("{}.t", pipeline.id);
    let section = &mut pipeline.sink_mut("mirror")["postgres"];
    section["port"] = json!(wire.port);
    // What is said can be read.
    section["sslmode"] = json!("disable");
    section["target_table"] = json!(table);
    let schemas = pipeline.topics(1).await;
    let coordinator = pipeline.serve();
    let worker = pipeline.worker("mirror");
    let target = postgres::target().await;
    let this = Interrupted { pipeline, schemas, wire, worker, target, _coordinator: coordinator };
    this.insert(0..5);
    this.pipeline.committed(0, 5).await;
    this.target.batch_execute(&this.named(AUDIT)).await.unwrap();

    this.wire.hold_when_said("COMMIT", half);
    let (producer, topic) = (Producer::default(), this.pipeline.topic());
    let send = |id, value: &[u8]| producer.send(&topic, 0, Some(&schemas.key(id)), Some(value));
    send(0, &schemas.change("u", None, Some((0, UNAVAILABLE))));
    send(1, &schemas.change("d", Some((1, "row")), None));
    send(5, &schemas.insert(5, "row"));
    producer.flush();
    this.wire.holds_something().await;
    // Its place: behind every statement, before or after the COMMIT.
    let (next, state) = if half == Half::Requests { (5, 1) } else { (8, 0) };
    this.own_record(next).await;
    until("the session is where it was held", SOON, async || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
                    AND application_name = 'cdc-worker/mirror' AND pid IN (SELECT pid FROM \
                    pg_locks WHERE relation = 'ID.cdc_offsets'::regclass)";
        let open: i64 = this.target.query_one(&this.named(open), &[]).await.unwrap().get(0);
        check(open == state, open)
    })
    .await;
    this
}

impl Interrupted {
    fn named(&self, sql: &str) -> String {
        sql.replace("ID", &self.pipeline.id)
    }

    fn insert(&self, ids: std::ops::Range<i64>) {
        let producer = Producer::default();
        for id in ids {
            let (key, value) = (self.schemas.key(id), self.schemas.insert(id, "row"));
            producer.send(&self.pipeline.topic(), 0, Some(&key), Some(&value));
        }
        producer.flush();
    }

    async fn own_record(&self, next: i64) {
        until("the sink's own record", SOON, async || {
            let query = self.named("SELECT next_offset FROM ID.cdc_offsets");
            let row = self.target.query_one(&query, &[]).await.map_err(|e| e.to_string())?;
            check(row.get::<_, i64>(0) == next, row.get::<_, i64>(0))
                .map_err(|found| found.to_string())
        })
        .await;
    }

    async fn content(&self) -> Content {
        let row = self.target.query_one(&self.named(CONTENT), &[]).await.unwrap();
        (row.get(0), row.get(1))
    }

    /// The three changes are there, each written once.
    async fn has_changes_once(&self) {
        until("the mirror has the changes", SOON, async || {
            let (rows, writes) = self.content().await;
            let expected = "(0,row) (2,row) (3,row) (4,row) (5,row)";
            let rows_are = rows.as_deref() == Some(expected);
            let mut list: Vec<_> = writes.iter().flat_map(|w| w.split(' ')).collect();
            list.sort_unstable();
            check(rows_are && list == ["DELETE1", "INSERT5", "UPDATE0"], (rows, writes))
        })
        .await;
        self.own_record(8).await;
    }

    /// Another row, and everybody knows.
    async fn goes_on(&self) {
        self.insert(8..9);
        self.own_record(9).await;
        self.pipeline.committed(0, 9).await;
        let (rows, writes) = self.content().await;
        assert!(rows.unwrap().ends_with("(5,row) (8,row)"));
        assert_eq!(writes.unwrap().split(' ').count(), 4);
    }

    async fn survives_a_kill(mut self) {
        self.worker.kill();
        let _worker = self.pipeline.worker("mirror");
        self.has_changes_once().await;
        // What the dead one said last reaches the server now.
        self.wire.release();
        self.goes_on().await;
    }

    async fn survives_a_freeze(self) {
        self.worker.freeze();
        let _other = self.pipeline.worker("mirror");
        let (group, topic) = (self.pipeline.sink_group("mirror"), self.pipeline.topic());
        until("the other worker commits S", Duration::from_secs(90), async || {
            let found = kafka::committed(&group, &topic, 0);
            check(found == Some(8), found)
        })
        .await;
        self.has_changes_once().await;
        self.wire.release();
        self.worker.thaw();
        until("the frozen worker learns that it was replaced", SOON, async || {
            let log = self.worker.output();
            check(log.contains("pipeline.partitions_revoked"), log)
        })
        .await;
        self.has_changes_once().await;
        self.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_compare_and_set_and_commit() {
    interrupted("mkillreq", Half::Requests).await.survives_a_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_the_answer_to_its_commit_on_the_way() {
    interrupted("mkillans", Half::Answers).await.survives_a_kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_between_compare_and_set_and_commit_and_awake_after_it_was_replaced() {
    // Side by side: most of it is waiting for the group to give the frozen one up.
    tokio::join!(
        async { interrupted("micereq", Half::Requests).await.survives_a_freeze().await },
        async { interrupted("miceans", Half::Answers).await.survives_a_freeze().await },
    );
}
