//! The server's refusals, by SQLSTATE: what is repeated for as long as it takes, what is the
//! record's fault, and what an operator is told.

use tokio::sync::watch;

use super::*;
use crate::support::until;

/// A mirror with rows 1 and 2, its writer, and the trouble that it reports.
struct Troubled {
    cluster: &'static Cluster,
    database: String,
    admin: Client,
    writer: Box<dyn PartitionWriter>,
    trouble: watch::Receiver<Trouble>,
}

async fn troubled(change: impl FnOnce(&mut PostgresSinkConfig)) -> Troubled {
    let cluster = Cluster::shared();
    let (database, admin) = cluster.database().await;
    let mut config = settings(cluster.port, &database);
    change(&mut config);
    let role = format!(
        "CREATE ROLE limited_{database} LOGIN PASSWORD '{}'; \
         GRANT ALL ON DATABASE {database} TO limited_{database}; \
         GRANT ALL ON SCHEMA public TO limited_{database}",
        PASSWORD.replace('\'', "''")
    );
    admin.batch_execute(&role).await.unwrap();
    if config.username == "limited" {
        config.username = format!("limited_{database}");
    }
    let sink = sink(&config, &[]);
    within("the proof", sink.prove()).await.unwrap();
    assert!(sink.replace_position(&partition(0), None, &position(0)).await.unwrap());
    let (mut writer, trouble) = writer_of(&sink, 0, position(0));
    let first = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(2, 2), &first).await), 2);
    Troubled { cluster, database, admin, writer, trouble }
}

impl Troubled {
    /// Starts a flush of changes of both rows.
    fn begin(&mut self) {
        let events = [event(2, "u", &row(1, "a2", "one")), event(3, "u", &row(2, "b2", "two"))];
        push(&mut *self.writer, &table(), &events);
        self.writer.flush(behind(4, 2));
    }

    /// Waits until this trouble is told, and gives what an operator reads.
    async fn is_told(&mut self, code: &str) -> String {
        let is_it = |t: &Trouble| t.as_ref().is_some_and(|t| t.code == code);
        let seen = within(code, self.trouble.wait_for(is_it)).await.unwrap();
        seen.as_ref().unwrap().message.clone()
    }

    /// The cause is gone: both changes arrive, once.
    async fn arrives(&mut self) {
        assert_eq!(durable(&answer(&mut *self.writer).await), 4);
        assert_eq!(mirrored(&self.admin).await, ["(1,a2,one)", "(2,b2,two)"]);
        assert_eq!(*self.trouble.borrow(), None);
    }

    async fn run(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap();
    }

    /// Has a trigger of the user's refuse every row.
    async fn refuse_with(&self, state: &str) {
        self.run(&format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'no to %', NEW.name USING ERRCODE = '{state}'; END $$; \
             CREATE TRIGGER refuse BEFORE UPDATE ON shop.t FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_repeated_until_it_has_passed() {
    for (state, words) in [
        ("40001", "repeated"),
        ("53100", "disk"),
        ("53200", "memory"),
        ("57014", "statement_timeout_ms"),
        ("58030", "server's log"),
    ] {
        let mut this = troubled(|_| {}).await;
        this.refuse_with(state).await;
        this.begin();
        let told = this.is_told(&format!("sqlstate_{state}")).await;
        assert!(told.contains("\"shop\".\"t\"") && told.contains("localhost"), "{told}");
        assert!(told.contains(words), "{state}: {told}");
        this.run("DROP TRIGGER refuse ON shop.t").await;
        this.arrives().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_with_somebody_elses_transaction_is_repeated() {
    let mut this = troubled(|_| {}).await;
    let other = this.cluster.admin(&this.database).await;
    other.batch_execute("BEGIN; SET LOCAL deadlock_timeout = '60s'").await.unwrap();
    other.batch_execute("UPDATE shop.t SET name = 'theirs' WHERE id = 2").await.unwrap();
    this.begin();
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND application_name = 'cdc-worker/mirror' AND datname = current_database())";
    until("the flush has row 1 and waits for row 2", async || {
        this.admin.query_one(waits, &[]).await.unwrap().get(0)
    })
    .await;
    // It gets row 1 once the server has ended ours.
    other.batch_execute("UPDATE shop.t SET name = 'theirs' WHERE id = 1").await.unwrap();
    let told = this.is_told("sqlstate_40P01").await;
    assert!(told.contains("repeated"), "{told}");
    other.batch_execute("COMMIT").await.unwrap();
    this.arrives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_ended_in_the_middle_of_a_write_is_replaced() {
    let mut this = troubled(|_| {}).await;
    let other = this.cluster.admin(&this.database).await;
    other.batch_execute("BEGIN; UPDATE shop.t SET name = 'theirs' WHERE id = 2").await.unwrap();
    this.begin();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE wait_event_type = 'Lock' AND application_name = 'cdc-worker/mirror' \
               AND datname = current_database()";
    until("the session that writes was ended", async || {
        this.admin.query_one(end, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let seen = within("trouble", this.trouble.wait_for(Option::is_some)).await.unwrap().clone();
    let code = seen.unwrap().code;
    assert!(["sqlstate_57P01", "connection_closed", "connection_lost"].contains(&&*code), "{code}");
    other.batch_execute("ROLLBACK").await.unwrap();
    this.arrives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_becomes_read_only_is_awaited_and_named() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(&[])));
    let (database, admin) = cluster.database().await;
    let sink = sink(&settings(cluster.port, &database), &[]);
    within("the proof", sink.prove()).await.unwrap();
    assert!(sink.replace_position(&partition(0), None, &position(0)).await.unwrap());
    let (mut writer, trouble) = writer_of(&sink, 0, position(0));
    let first = [event(0, "c", &row(1, "a", "one")), event(1, "c", &row(2, "b", "two"))];
    assert_eq!(durable(&deliver(&mut *writer, &table(), behind(2, 2), &first).await), 2);
    let mut this = Troubled { cluster, database, admin, writer, trouble };
    this.run("SET default_transaction_read_only = off").await;
    this.run("ALTER SYSTEM SET default_transaction_read_only = on").await;
    this.run("SELECT pg_reload_conf()").await;
    let read_only = "SELECT setting FROM pg_file_settings WHERE name = \
                     'default_transaction_read_only' AND applied";
    until("the setting is read", async || {
        let row = this.admin.query_opt(read_only, &[]).await.unwrap();
        row.is_some_and(|row| row.get::<_, &str>(0) == "on")
    })
    .await;
    this.begin();
    // The session that wrote before meets it in its statement, new ones when they are made.
    let told = this.is_told("read_only_server").await;
    assert!(told.contains("primary"), "{told}");
    this.run("ALTER SYSTEM RESET default_transaction_read_only").await;
    this.run("SELECT pg_reload_conf()").await;
    this.arrives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_awaited_and_the_grant_is_named() {
    let mut this = troubled(|config| config.username = "limited".to_owned()).await;
    let (role, database) = (format!("limited_{}", this.database), this.database.clone());
    this.run(&format!("REVOKE DELETE ON shop.t FROM {role}")).await;
    this.begin();
    let told = this.is_told("sqlstate_42501").await;
    assert!(told.contains("DELETE") && told.contains(&database), "{told}");
    this.run(&format!("GRANT DELETE ON shop.t TO {role}")).await;
    this.arrives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_of_the_users_rejects_the_record_without_telling_data() {
    let mut this = troubled(|_| {}).await;
    this.refuse_with("P0001").await;
    this.begin();
    match answer(&mut *this.writer).await {
        Progress::Rejected { offset: None, error } => {
            assert_eq!((&*error.code, error.disposition), ("sqlstate_P0001", Disposition::Reject));
            assert!(error.message.contains("code of the target refuses"), "{error}");
            assert!(!format!("{error:?}").contains("a2"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
}
