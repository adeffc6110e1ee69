//! What the facts about server, slot and publication mean for this pipeline. Pure.

use cdc_shared::config::PipelineConfig;

use super::facts::{Publication, Server, Slot};
use super::finding::Finding;
use super::tables::Table;

/// Debezium's read-only incremental snapshots need `pg_current_snapshot()`, which 13 has first.
const OLDEST_VERSION: i32 = 130_000;

pub(super) fn server(config: &PipelineConfig, server: &Server) -> Vec<Finding> {
    let source = &config.source;
    let at = format!("{}:{}", source.host, source.port);
    let mut found = vec![Finding::ok(format!(
        "PostgreSQL {}.{} at {at}, user {} accepted",
        server.version / 10_000,
        server.version % 10_000,
        source.username
    ))];
    if server.version < OLDEST_VERSION {
        found.push(Finding::warning(format!(
            "PostgreSQL {} is older than 13: a table added later cannot be snapshotted by signal",
            server.version / 10_000
        )));
    }
    found.push(if server.wal_level == "logical" {
        Finding::ok("wal_level is logical")
    } else {
        Finding::error(format!("wal_level is {}, it must be logical", server.wal_level))
            .hint("ALTER SYSTEM SET wal_level = 'logical', then restart the server")
    });
    found.push(if server.may_replicate {
        Finding::ok(format!("user {} may replicate", source.username))
    } else {
        Finding::error(format!("user {} has no right to replicate", source.username))
            .hint(format!("ALTER ROLE {} REPLICATION", source.username))
    });
    if server.standby {
        found.push(
            Finding::warning(
                "the server is a standby: a publication can only be created on its \
                              primary",
            )
            .hint("create the publication on the primary and set source.publication_name"),
        );
    }
    if server.wal_keep_mb < 0 {
        found.push(Finding::info(
            "max_slot_wal_keep_size is unlimited: while the connector is away its slot keeps WAL \
             until the disk is full",
        ));
    }
    found
}

pub(super) fn slot(config: &PipelineConfig, server: &Server, slot: Option<&Slot>) -> Vec<Finding> {
    let Some(slot) = slot else { return vec![free_slots(server)] };
    let name = &slot.name;
    if let Some(reason) = foreign_slot(config, slot) {
        return vec![
            Finding::error(reason).hint("set source.slot_name to a name that is not used"),
        ];
    }
    let kept = slot.retained_bytes.unwrap_or(0);
    let mut found = vec![match (&slot.active_pid, &slot.used_by) {
        (Some(pid), user) => Finding::info(format!(
            "slot {name} is in use by process {pid} ({}), keeps {}",
            user.as_deref().unwrap_or("unnamed"),
            bytes(kept)
        )),
        (None, _) => {
            Finding::info(format!("slot {name} exists, not in use, keeps {}", bytes(kept)))
        }
    }];
    if slot.wal_status == "lost" {
        found.push(
            Finding::error(format!("slot {name} has lost WAL it needed: changes are gone"))
                .hint("undeploy --drop-slot, deploy again: a new snapshot is taken"),
        );
    }
    found
}

fn free_slots(server: &Server) -> Finding {
    let free = i64::from(server.max_slots) - server.slots;
    let senders = i64::from(server.max_senders) - server.senders;
    if free < 1 {
        return Finding::error(format!("all {} replication slots are taken", server.max_slots))
            .hint("raise max_replication_slots, or drop a slot that is not used");
    }
    if senders < 1 {
        return Finding::error(format!("all {} WAL senders are taken", server.max_senders))
            .hint("raise max_wal_senders");
    }
    Finding::ok(format!("{free} of {} replication slots are free", server.max_slots))
}

/// Why a slot cannot be ours; `None` when nothing speaks against it.
pub(crate) fn foreign_slot(config: &PipelineConfig, slot: &Slot) -> Option<String> {
    let name = &slot.name;
    if slot.plugin.is_empty() {
        return Some(format!("slot {name} is a physical one"));
    }
    if slot.plugin != "pgoutput" {
        return Some(format!("slot {name} belongs to another consumer: plugin {}", slot.plugin));
    }
    if slot.database != config.source.database {
        return Some(format!("slot {name} belongs to database {}", slot.database));
    }
    None
}

pub(super) fn publication(
    config: &PipelineConfig,
    server: &Server,
    publication: Option<&Publication>,
    tables: &[Table],
) -> Vec<Finding> {
    let name = config.source.publication(&config.pipeline_id);
    let user = &config.source.username;
    let Some(publication) = publication else {
        return missing_publication(&name, user, server, tables);
    };
    let mut found = Vec::new();
    if !publication.left_out.is_empty() {
        found.push(
            Finding::error(format!(
                "publication {name} leaves out {}: those changes never arrive",
                publication.left_out.join(", ")
            ))
            .hint(format!(
                "ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"
            )),
        );
    }
    let missing: Vec<&str> = config
        .source
        .tables
        .iter()
        .filter(|table| !publication.all_tables && !publication.tables.contains(table))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        found.push(Finding::ok(format!("publication {name} has every table")));
    } else if publication.ours_to_change {
        let missing = missing.join(", ");
        found.push(Finding::info(format!("publication {name} will be given {missing}")));
    } else {
        found.push(
            Finding::error(format!(
                "publication {name} belongs to {} and lacks {}",
                publication.owner,
                missing.join(", ")
            ))
            .hint(format!("ALTER PUBLICATION {name} ADD TABLE {}", missing.join(", "))),
        );
    }
    found
}

fn missing_publication(name: &str, user: &str, server: &Server, tables: &[Table]) -> Vec<Finding> {
    let foreign: Vec<&str> =
        tables.iter().filter(|table| !table.owned).map(|table| table.name.as_str()).collect();
    if server.may_create && foreign.is_empty() {
        return vec![Finding::ok(format!("publication {name} will be created"))];
    }
    let mut found = Vec::new();
    if !server.may_create {
        found.push(Finding::error(format!(
            "publication {name} does not exist, and user {user} may not create one in this database"
        )));
    }
    if !foreign.is_empty() {
        found.push(Finding::error(format!(
            "publication {name} does not exist, and user {user} does not own {}",
            foreign.join(", ")
        )));
    }
    let all: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let hint = format!("as an owner: CREATE PUBLICATION {name} FOR TABLE {}", all.join(", "));
    found.into_iter().map(|finding| finding.hint(hint.clone())).collect()
}

/// A number of bytes for a person.
pub(crate) fn bytes(count: i64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value.abs() < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn good() -> Server {
        Server {
            version: 150_012,
            wal_level: "logical".into(),
            max_slots: 10,
            slots: 1,
            max_senders: 10,
            senders: 0,
            may_replicate: true,
            may_create: true,
            standby: false,
            wal_keep_mb: 1000,
        }
    }

    fn config() -> PipelineConfig {
        let mut config = PipelineConfig { pipeline_id: "demo".into(), ..PipelineConfig::default() };
        config.source.database = "shop".into();
        config.source.tables = vec!["public.a".into()];
        config
    }

    fn errors(found: &[Finding]) -> Vec<&str> {
        let errors = found.iter().filter(|f| f.level == Level::Error);
        errors.map(|f| f.message.as_str()).collect()
    }

    #[test]
    fn the_server_must_decode_and_let_us_replicate() {
        assert!(errors(&server(&config(), &good())).is_empty());
        let bad = Server { wal_level: "replica".into(), may_replicate: false, ..good() };
        assert_eq!(
            errors(&server(&config(), &bad)),
            ["wal_level is replica, it must be logical", "user cdc_user has no right to replicate"]
        );
        let full = Server { slots: 10, ..good() };
        assert_eq!(errors(&slot(&config(), &full, None)), ["all 10 replication slots are taken"]);
    }

    #[test]
    fn a_slot_of_another_consumer_is_refused() {
        let ours = Slot {
            name: "s".into(),
            plugin: "pgoutput".into(),
            database: "shop".into(),
            active_pid: None,
            used_by: None,
            retained_bytes: Some(5_000_000),
            wal_status: "reserved".into(),
        };
        let found = slot(&config(), &good(), Some(&ours));
        assert_eq!(found[0].message, "slot s exists, not in use, keeps 4.8 MiB");
        let other = Slot { database: "crm".into(), ..ours.clone() };
        assert_eq!(
            errors(&slot(&config(), &good(), Some(&other))),
            ["slot s belongs to database crm"]
        );
        let lost = Slot { wal_status: "lost".into(), ..ours };
        assert_eq!(errors(&slot(&config(), &good(), Some(&lost))).len(), 1);
    }

    #[test]
    fn a_publication_must_have_our_tables_and_all_operations() {
        let none = |owned| {
            let table = Table { name: "public.a".into(), owned, ..Table::default() };
            publication(&config(), &good(), None, &[table])
        };
        assert_eq!(none(true)[0].level, Level::Ok);
        assert_eq!(
            errors(&none(false)),
            ["publication cdc_demo does not exist, and user cdc_user does not own public.a"]
        );
        let other = Publication {
            name: "cdc_demo".into(),
            owner: "dba".into(),
            ours_to_change: false,
            all_tables: false,
            left_out: vec!["delete".into()],
            tables: vec![],
        };
        assert_eq!(errors(&publication(&config(), &good(), Some(&other), &[])).len(), 2);
    }
}
