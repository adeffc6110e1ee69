//! PostgreSQL of the stack, as its administrator.

use tokio_postgres::{Client, NoTls};

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
