//! What MySQL and MariaDB say of themselves and of our rights.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use super::grants::Grants;

/// Server settings that matter to a connector. Which of them exist depends on product and version.
const SETTINGS: &[&str] = &[
    "version",
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_value_options",
    "log_bin_compress",
    "gtid_mode",
    "server_id",
    "binlog_expire_logs_seconds",
    "expire_logs_days",
    "read_only",
    "log_slave_updates",
    "log_replica_updates",
    "sql_mode",
];

/// The server and our rights on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Those of [`SETTINGS`] that it has.
    pub(super) settings: BTreeMap<String, String>,
    /// What our user may do.
    pub(super) grants: Grants,
}

impl Server {
    /// A setting; `None` where this server does not have it.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// A setting that is `ON` or `1`.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.setting(name).is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1")
    }

    /// Whether it is MariaDB, which says so in its version.
    pub(super) fn is_mariadb(&self) -> bool {
        self.setting("version").is_some_and(|version| version.contains("MariaDB"))
    }

    /// Its version, major and minor.
    pub(super) fn version(&self) -> (u32, u32) {
        // MariaDB behind an old protocol says `5.5.5-10.11.6-MariaDB`.
        let text = self.setting("version").unwrap_or_default();
        let text = text.strip_prefix("5.5.5-").filter(|_| self.is_mariadb()).unwrap_or(text);
        let mut numbers =
            text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

pub(super) async fn server(connection: &mut Conn) -> Result<Server, Error> {
    let names: Vec<String> = SETTINGS.iter().map(|name| format!("'{name}'")).collect();
    let query = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(","));
    let settings: Vec<(String, String)> = connection.query(query).await?;
    let mut server = Server { settings: settings.into_iter().collect(), grants: Grants::default() };
    let query = grants_query(connection, &server).await?;
    let lines: Vec<String> = connection.query(query).await?;
    server.grants = Grants::parse(&lines);
    Ok(server)
}

/// MySQL leaves out what comes by a role unless the role is named; MariaDB does not.
async fn grants_query(connection: &mut Conn, server: &Server) -> Result<String, Error> {
    let plain = "SHOW GRANTS FOR CURRENT_USER()".to_owned();
    if server.is_mariadb() {
        return Ok("SHOW GRANTS".to_owned());
    }
    if server.version() < (8, 0) {
        return Ok(plain);
    }
    let roles: Option<String> = connection.query_first("SELECT CURRENT_ROLE()").await?;
    Ok(match roles {
        // The server quotes them itself.
        Some(roles) if roles != "NONE" => format!("{plain} USING {roles}"),
        _ => plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let of = |version: &str| {
            let settings = [("version".to_owned(), version.to_owned())].into();
            let server = Server { settings, ..Server::default() };
            (server.is_mariadb(), server.version())
        };
        assert_eq!(of("8.0.15"), (false, (8, 0)));
        assert_eq!(of("8.4.3-0ubuntu0"), (false, (8, 4)));
        assert_eq!(of("10.11.19-MariaDB-log"), (true, (10, 11)));
        assert_eq!(of("5.5.5-10.6.1-MariaDB"), (true, (10, 6)));
        assert_eq!(of(""), (false, (0, 0)));
    }
}
