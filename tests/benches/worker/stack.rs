//! Where the services of `deploy/local` are.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use tokio_postgres::{Client, NoTls};

use super::Error;

/// Addresses and users.
#[derive(Clone)]
pub(crate) struct Stack {
    settings: HashMap<String, String>,
}

impl Stack {
    /// Asks `deploy/local/stack`.
    pub(crate) fn find() -> Result<Self, Error> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/stack");
        let output = Command::new(&script).arg("env").output()?;
        let text = String::from_utf8(output.stdout)?;
        let settings = text.lines().filter_map(|line| line.split_once('='));
        let settings: HashMap<_, _> =
            settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { settings })
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    pub(crate) fn kafka(&self) -> &str {
        self.setting("CDC_LOCAL_KAFKA_BOOTSTRAP_SERVERS")
    }

    pub(crate) fn registry(&self) -> &str {
        self.setting("CDC_LOCAL_REGISTRY_URL")
    }

    pub(crate) fn postgres(&self) -> (&str, &str) {
        (self.setting("CDC_LOCAL_POSTGRES_HOST"), self.setting("CDC_LOCAL_POSTGRES_PORT"))
    }

    pub(crate) fn admin(&self) -> (&str, &str) {
        let (user, password) =
            ("CDC_LOCAL_POSTGRES_ADMIN_USER", "CDC_LOCAL_POSTGRES_ADMIN_PASSWORD");
        (self.setting(user), self.setting(password))
    }

    /// A connection of its own to a database.
    pub(crate) async fn connect(&self, database: &str) -> Result<Client, Error> {
        let ((host, port), (user, password)) = (self.postgres(), self.admin());
        let settings =
            format!("host={host} port={port} user={user} password={password} dbname={database}");
        let (client, connection) =
            tokio_postgres::connect(&settings, NoTls).await.map_err(|error| {
                format!("postgresql at {host}:{port} ({error}); is the stack up (make up)?")
            })?;
        tokio::spawn(connection);
        Ok(client)
    }
}
