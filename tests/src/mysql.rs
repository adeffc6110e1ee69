//! MySQL and MariaDB of the stack, as their administrator.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};

use crate::stack::Stack;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
}

impl Family {
    /// As in `source.source_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }

    /// Its port on loopback.
    pub fn port(self) -> u16 {
        let name = format!("{}_PORT", self.name().to_uppercase());
        Stack::get().value(&name).parse().unwrap()
    }
}

/// A connection as the administrator.
pub async fn admin(family: Family) -> Conn {
    let stack = Stack::get();
    let options = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(family.port())
        .prefer_socket(false)
        .user(Some(stack.value("MYSQL_ADMIN_USER")))
        .pass(Some(stack.value("MYSQL_ADMIN_PASSWORD")));
    let connected = Conn::new(options).await;
    connected.unwrap_or_else(|error| panic!("{}: {error}; `stack up all`?", family.name()))
}

/// Runs statements one after the other.
pub async fn run(connection: &mut Conn, statements: &[String]) {
    for statement in statements {
        let done = connection.query_drop(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}
