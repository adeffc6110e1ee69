//! What the facts about a MySQL or MariaDB server mean for this pipeline. Pure.

use cdc_shared::config::{PipelineConfig, SignalChannel, SourceType};

use super::facts::Server;
use super::product;
use crate::source::Finding;
use crate::source::address;

/// Oldest versions that the connectors are made for.
const OLDEST_MYSQL: (u32, u32) = (8, 0);
const OLDEST_MARIADB: (u32, u32) = (10, 5);

/// A binlog that is kept for less may be gone after a weekend without the connector.
const SHORT_SECONDS: u64 = 3 * 86_400;

pub(super) fn server(config: &PipelineConfig, server: &Server) -> Vec<Finding> {
    let mut found = identity(config, server);
    found.extend(binlog(server));
    found.push(kept(server));
    found.extend(gtid(config, server));
    found.extend(replication_number(config, server));
    found.extend(replica(server));
    found.extend(rights(config, server));
    found
}

fn identity(config: &PipelineConfig, server: &Server) -> Vec<Finding> {
    let source = &config.source;
    let is = if server.is_mariadb() { SourceType::Mariadb } else { SourceType::Mysql };
    let (name, at) = (product(is), address(source));
    let version = server.setting("version").unwrap_or("of unknown version");
    if is != source.source_type {
        let message = format!("the server at {at} is {name} {version}");
        return vec![
            Finding::error(message).hint(format!("set source.source_type: {}", is.name())),
        ];
    }
    let mut found =
        vec![Finding::ok(format!("{name} {version} at {at}, user {} accepted", source.username))];
    let oldest = if server.is_mariadb() { OLDEST_MARIADB } else { OLDEST_MYSQL };
    if server.version() < oldest {
        found.push(Finding::warning(format!(
            "{name} {version} is older than {}.{}, which the connector is made for",
            oldest.0, oldest.1
        )));
    }
    found
}

fn binlog(server: &Server) -> Vec<Finding> {
    if !server.is_on("log_bin") {
        return vec![
            Finding::error("log_bin is off: the server keeps no changes that could be read")
                .hint("set log_bin in the server's configuration and restart it"),
        ];
    }
    let mut found = vec![Finding::ok("log_bin is on")];
    for (name, needed, effect) in [
        ("binlog_format", "ROW", "changes are kept as statements, which cannot be read as rows"),
        ("binlog_row_image", "FULL", "columns that did not change are missing from the records"),
    ] {
        // A server that no longer has the setting has the needed value.
        let is = server.setting(name).unwrap_or(needed);
        found.push(if is.eq_ignore_ascii_case(needed) {
            Finding::ok(format!("{name} is {needed}"))
        } else {
            Finding::error(format!("{name} is {is}, it must be {needed}: {effect}")).hint(format!(
                "SET GLOBAL {name} = '{needed}', the same in the server's configuration, and new \
                 sessions for everyone who writes"
            ))
        });
    }
    if server.setting("binlog_row_value_options").is_some_and(|v| v.contains("PARTIAL_JSON")) {
        found.push(
            Finding::error("binlog_row_value_options is PARTIAL_JSON: JSON arrives in parts")
                .hint("SET GLOBAL binlog_row_value_options = ''"),
        );
    }
    if server.is_on("log_bin_compress") {
        found.push(
            Finding::warning("log_bin_compress is on, which the connector is not made for")
                .hint("SET GLOBAL log_bin_compress = OFF"),
        );
    }
    found
}

/// How long changes are kept for a connector that is away.
fn kept(server: &Server) -> Finding {
    let number = |name| server.setting(name).and_then(|value| value.parse::<f64>().ok());
    let seconds = number("binlog_expire_logs_seconds").unwrap_or(0.0);
    let days = number("expire_logs_days").unwrap_or(0.0);
    let seconds = if seconds > 0.0 { seconds } else { days * 86_400.0 } as u64;
    if seconds == 0 {
        return Finding::info("the binlog is kept for ever: somebody has to purge it");
    }
    let message = format!(
        "the binlog is kept for {}: a connector that is away for longer has lost changes",
        duration(seconds)
    );
    if seconds < SHORT_SECONDS {
        Finding::warning(message).hint("raise binlog_expire_logs_seconds (expire_logs_days)")
    } else {
        Finding::info(message)
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{seconds} s"),
        3600..86_400 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// MySQL may work without transaction ids; MariaDB always has them.
fn gtid(config: &PipelineConfig, server: &Server) -> Option<Finding> {
    if server.is_mariadb() {
        return None;
    }
    let mode = server.setting("gtid_mode").unwrap_or("OFF");
    if mode.eq_ignore_ascii_case("on") {
        return Some(Finding::ok("gtid_mode is ON"));
    }
    let way =
        "set enforce_gtid_consistency = ON and gtid_mode = ON, step by step as the manual says";
    Some(if config.source.signal == SignalChannel::Kafka {
        Finding::warning(format!(
            "gtid_mode is {mode}: a table added later cannot be snapshotted by a Kafka signal, and \
             the connector does not find its place on another server"
        ))
        .hint(format!("{way}; or use source.signal: source"))
    } else {
        Finding::warning(format!(
            "gtid_mode is {mode}: after a failover the connector does not find its place on \
             another server"
        ))
        .hint(way)
    })
}

fn replication_number(config: &PipelineConfig, server: &Server) -> Option<Finding> {
    let ours = config.source.server_number(&config.pipeline_id).to_string();
    match server.setting("server_id") {
        Some("0") => Some(
            Finding::error("server_id is 0: the server gives its binlog to nobody")
                .hint("set server_id in the server's configuration"),
        ),
        Some(id) if id == ours => Some(
            Finding::error(format!("the connector's number {ours} is the server's own server_id"))
                .hint("set source.server_id to another"),
        ),
        _ => None,
    }
}

fn replica(server: &Server) -> Option<Finding> {
    let writes_on = server.is_on("log_slave_updates") || server.is_on("log_replica_updates");
    (server.is_on("read_only") && !writes_on).then(|| {
        Finding::warning(
            "the server is read-only and log_replica_updates is off: changes of its primary are \
             not in its binlog",
        )
        .hint("set log_replica_updates (log_slave_updates) on it, or name the primary")
    })
}

/// What the connector's user may do on the whole server.
fn rights(config: &PipelineConfig, server: &Server) -> Vec<Finding> {
    let user = &config.source.username;
    let grants = &server.grants;
    let mut missing = Vec::new();
    if !grants.global(&["REPLICATION SLAVE", "REPLICATION REPLICA"]) {
        missing.push("REPLICATION SLAVE");
    }
    if !grants.global(&["REPLICATION CLIENT", "BINLOG MONITOR", "SUPER"]) {
        missing.push("REPLICATION CLIENT");
    }
    let mut found = vec![if missing.is_empty() {
        Finding::ok(format!("user {user} may read the binlog"))
    } else {
        let missing = missing.join(", ");
        Finding::error(format!("user {user} lacks {missing}"))
            .hint(format!("GRANT {missing} ON *.* TO the user"))
    }];
    found.extend(lock(config, server));
    found
}

/// A snapshot begins under a lock, so that its rows and its place in the binlog belong together.
fn lock(config: &PipelineConfig, server: &Server) -> Option<Finding> {
    let source = &config.source;
    if source.connector_properties.0.get("snapshot.locking.mode").is_some_and(|mode| mode == "none")
    {
        return None;
    }
    if server.grants.global(&["RELOAD", "FLUSH_TABLES"]) {
        return Some(Finding::ok(format!(
            "user {} may lock for a snapshot (RELOAD)",
            source.username
        )));
    }
    let databases: Vec<&str> =
        source.tables.iter().filter_map(|table| table.split('.').next()).collect();
    let locks = |database: &&str| server.grants.database(database, &["LOCK TABLES"]);
    if !databases.is_empty() && databases.iter().all(locks) {
        return Some(Finding::info(format!(
            "user {} lacks RELOAD: a snapshot locks each table instead of the server (LOCK TABLES)",
            source.username
        )));
    }
    Some(
        Finding::error(format!(
            "user {} has neither RELOAD nor LOCK TABLES, which a snapshot begins with",
            source.username
        ))
        .hint("GRANT RELOAD ON *.* TO the user; where RELOAD cannot be had, LOCK TABLES"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::grants::Grants;
    use super::*;
    use crate::source::Level;

    const GOOD: &[(&str, &str)] = &[
        ("version", "8.0.15"),
        ("log_bin", "ON"),
        ("binlog_format", "ROW"),
        ("binlog_row_image", "FULL"),
        ("binlog_row_value_options", ""),
        ("gtid_mode", "ON"),
        ("server_id", "1"),
        ("binlog_expire_logs_seconds", "2592000"),
        ("expire_logs_days", "0"),
        ("read_only", "OFF"),
    ];

    fn good(changes: &[(&str, &str)]) -> Server {
        let settings = GOOD.iter().chain(changes);
        Server {
            settings: settings.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            grants: Grants::parse(&[
                "GRANT SELECT, RELOAD, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `u`@`%`",
            ]),
        }
    }

    fn config() -> PipelineConfig {
        let mut config = PipelineConfig { pipeline_id: "demo".into(), ..PipelineConfig::default() };
        config.source.source_type = SourceType::Mysql;
        config.source.tables = vec!["shop.a".into()];
        config
    }

    /// What is said of a server, less what is fine.
    fn said(server: &Server) -> Vec<(Level, String)> {
        let found = super::server(&config(), server).into_iter();
        found.filter(|f| f.level > Level::Info).map(|f| (f.level, f.message)).collect()
    }

    fn only(changes: &[(&str, &str)], level: Level, text: &str) {
        let said = said(&good(changes));
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].0, level, "{said:?}");
        assert!(said[0].1.contains(text), "{said:?}");
    }

    #[test]
    fn a_good_server_is_fine_and_each_wrong_setting_is_named() {
        assert_eq!(said(&good(&[])), []);
        only(&[("log_bin", "OFF")], Level::Error, "log_bin is off");
        only(&[("binlog_format", "MIXED")], Level::Error, "binlog_format is MIXED");
        only(&[("binlog_row_image", "MINIMAL")], Level::Error, "binlog_row_image is MINIMAL");
        only(&[("binlog_row_value_options", "PARTIAL_JSON")], Level::Error, "PARTIAL_JSON");
        only(&[("gtid_mode", "OFF_PERMISSIVE")], Level::Warning, "gtid_mode is OFF_PERMISSIVE");
        only(&[("binlog_expire_logs_seconds", "7200")], Level::Warning, "kept for 2 hours");
        only(&[("server_id", "0")], Level::Error, "server_id is 0");
        only(&[("read_only", "ON")], Level::Warning, "read-only");
        only(&[("version", "5.7.44")], Level::Warning, "older than 8.0");
        only(&[("version", "10.11.1-MariaDB")], Level::Error, "is MariaDB");
        let ours = config().source.server_number("demo").to_string();
        only(&[("server_id", &ours)], Level::Error, "the server's own");
        assert_eq!(said(&good(&[("read_only", "ON"), ("log_slave_updates", "ON")])), []);
    }

    #[test]
    fn a_setting_that_a_newer_server_lost_is_no_fault() {
        let mut server = good(&[]);
        server.settings.remove("binlog_format");
        assert_eq!(said(&server), []);
    }

    #[test]
    fn mariadb_has_no_gtid_mode() {
        let mut server = good(&[("version", "10.11.19-MariaDB"), ("log_bin_compress", "ON")]);
        server.settings.remove("gtid_mode");
        let mut config = config();
        config.source.source_type = SourceType::Mariadb;
        let found = super::server(&config, &server);
        let said: Vec<_> = found.iter().filter(|f| f.level > Level::Info).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].message.starts_with("log_bin_compress is on"));
    }

    #[test]
    fn rights_are_judged_one_by_one() {
        let with = |lines: &[&str]| Server { grants: Grants::parse(lines), ..good(&[]) };
        let none = said(&with(&["GRANT USAGE ON *.* TO `u`@`%`"]));
        assert_eq!(none[0].1, "user cdc_user lacks REPLICATION SLAVE, REPLICATION CLIENT");
        assert!(none[1].1.contains("neither RELOAD nor LOCK TABLES"));
        let by_table = with(&[
            "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `u`@`%`",
            "GRANT LOCK TABLES ON `shop`.* TO `u`@`%`",
        ]);
        assert_eq!(said(&by_table), []);
        let found = super::server(&config(), &by_table);
        assert!(found.iter().any(|f| f.level == Level::Info && f.message.contains("locks each")));
    }
}
