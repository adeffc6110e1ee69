//! PostgreSQL of the stack, as its administrator.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};

use crate::pipeline::Pipeline;
use crate::stack::Stack;

/// A connection to a database as the administrator.
pub async fn admin(database: &str) -> Client {
    let stack = Stack::get();
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(stack.postgres_port())
        .user(stack.value("POSTGRES_ADMIN_USER"))
        .password(stack.value("POSTGRES_ADMIN_PASSWORD"))
        .dbname(database);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A connection to the source database.
pub async fn source() -> Client {
    admin(Stack::get().value("SOURCE_DATABASE")).await
}

/// A connection to the target database.
pub async fn target() -> Client {
    admin(Stack::get().value("TARGET_DATABASE")).await
}

/// A connection to the source as the connector's user, with a schema for the pipeline and in it what
/// the statements make; see [`run`].
pub async fn source_with(pipeline: &Pipeline, statements: &str) -> Client {
    let source = source().await;
    let user = Stack::get().value("SOURCE_USER");
    let begin = format!("CREATE SCHEMA {{id}} AUTHORIZATION {user}; SET ROLE {user};");
    run(&source, pipeline, &begin).await;
    run(&source, pipeline, statements).await;
    source
}

/// Runs statements in which `{id}` is the pipeline's id, which is the name of its schema.
pub async fn run(client: &Client, pipeline: &Pipeline, statements: &str) {
    let statements = statements.replace("{id}", &pipeline.id);
    client.batch_execute(&statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
}

/// Writes rows 1 to 500 of a table with `id` and `name` until it is called off; whoever holds `still`
/// keeps it from writing.
pub async fn writes(table: String, still: Arc<Mutex<()>>) {
    let client = source().await;
    let mut random = fastrand::Rng::with_seed(7);
    loop {
        let _writing = still.lock().await;
        let (id, n) = (random.i64(1..=500), random.i32(..));
        let statement = match random.u32(..4) {
            0 => format!("DELETE FROM {table} WHERE id = {id}"),
            1 => format!(
                "INSERT INTO {table} (id, name) VALUES ({id}, '{n}') ON CONFLICT DO NOTHING"
            ),
            _ => format!("UPDATE {table} SET name = '{n}' WHERE id = {id}"),
        };
        client.batch_execute(&statement).await.unwrap();
    }
}
