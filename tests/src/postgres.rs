//! PostgreSQL of the stack, as its administrator.

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
