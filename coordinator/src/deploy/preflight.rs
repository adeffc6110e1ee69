//! What must hold before `deploy` changes anything.

use std::collections::BTreeMap;

use cdc_shared::config::{PipelineConfig, SourceType};

use super::broker::Broker;
use super::connector::{
    KEEP_NULLS_CLASS, PIPELINE_MARK, Properties, connector_class, converter_class,
};
use super::{DeployOptions, conflict, topics};
use crate::cli::{Exit, Failure};
use crate::connect::{Connect, Plugin};
use crate::source;

/// Checks everything; the answer is what deserves a note.
pub(super) async fn check(
    config: &PipelineConfig,
    options: DeployOptions,
    ours: &Properties,
    connect: &Connect,
    broker: &Broker,
) -> Result<Vec<String>, Failure> {
    let collisions = topics::name_collisions(config);
    if !collisions.is_empty() {
        return Err(Failure::new(Exit::Config, collisions.join("\n")));
    }
    let known = broker.metadata().await?;
    let plugins = connect.plugins().await?;
    let missing = missing_plugins(config, &plugins);
    if !missing.is_empty() {
        let at = connect.address();
        let message = format!("Kafka Connect at {at} lacks {}", missing.join(", "));
        return Err(Failure::new(Exit::Config, message).hint(
            "put the plugin's jar in plugin.path of the Connect workers (see deploy/connect for \
             our transform) and restart them",
        ));
    }
    let existing = others(config, options, ours, connect).await?;
    group_is_free(config, broker).await?;
    let first = !existing && never_deployed(config, &known);
    source_is_free(config, options, existing, first).await
}

/// Whether no `deploy` of this pipeline has come as far as its topics. The control topic alone says
/// nothing: a coordinator makes it too, and may have run before the first deploy.
fn never_deployed(config: &PipelineConfig, known: &BTreeMap<String, i32>) -> bool {
    let ours = [config.control_topic(), topics::heartbeat_topic(&config.topic_prefix)];
    !ours.iter().all(|topic| known.contains_key(topic))
}

/// The classes that a pipeline needs and Connect does not have. A worker that lists connectors
/// only (before Kafka 3.2) says nothing of the others.
pub(crate) fn missing_plugins(config: &PipelineConfig, plugins: &[Plugin]) -> Vec<String> {
    let has = |class: &str| plugins.iter().any(|plugin| plugin.class == class);
    let lists_all = plugins.iter().any(|plugin| plugin.kind == "converter");
    let mut needed = vec![("connector", connector_class(config.source.source_type))];
    if lists_all {
        needed.push(("converter", converter_class(config.connector.converter)));
        if config.connector.keeps_nulls() {
            needed.push(("transform", KEEP_NULLS_CLASS));
        }
    }
    needed
        .into_iter()
        .filter(|(_, class)| !has(class))
        .map(|(kind, class)| format!("{kind} {class}"))
        .collect()
}

/// Whether our connector exists; fails when it is another's, or uses what another uses.
async fn others(
    config: &PipelineConfig,
    options: DeployOptions,
    ours: &Properties,
    connect: &Connect,
) -> Result<bool, Failure> {
    let name = config.connector_name();
    let all = connect.connectors().await?;
    let conflicts = conflict::with_others(&name, ours, &all);
    if !conflicts.is_empty() {
        return Err(Failure::new(Exit::Config, conflicts.join("\n")));
    }
    let Some(existing) = all.get(&name) else { return Ok(false) };
    let foreign = conflict::with_namesake(&name, ours, existing);
    match foreign {
        Some(reason) if existing.contains_key(PIPELINE_MARK) => {
            Err(Failure::new(Exit::Config, reason)
                .hint("choose another pipeline_id or topic_prefix"))
        }
        Some(reason) if !options.adopt => {
            let lost = settings_that_lose(existing);
            let message = std::iter::once(reason).chain(lost).collect::<Vec<_>>().join("\n  ");
            Err(Failure::new(Exit::Config, message)
                .hint("deploy --adopt takes it over and sets its properties to ours"))
        }
        _ => Ok(true),
    }
}

/// Nobody may be a member of the pipeline's group: its offsets could not be committed.
async fn group_is_free(config: &PipelineConfig, broker: &Broker) -> Result<(), Failure> {
    let members = broker.group_members(&config.group_id).await?;
    if members.is_empty() {
        return Ok(());
    }
    let message = format!(
        "consumer group {} has live members ({}), but the pipeline's group must have none",
        config.group_id,
        members.join(", ")
    );
    Err(Failure::new(Exit::Config, message)
        .hint("stop that consumer, or set group_id to another name"))
}

/// Slot and publication must be ours or nobody's. A source that cannot be reached from here is no
/// failure: it is Connect that has to reach it.
async fn source_is_free(
    config: &PipelineConfig,
    options: DeployOptions,
    existing: bool,
    first: bool,
) -> Result<Vec<String>, Failure> {
    if config.source.source_type != SourceType::Postgres {
        return Ok(Vec::new());
    }
    if config.source.password_is_connects() {
        return Ok(vec![
            "the source's password is known to Kafka Connect only: slot and publication were not \
             checked from here"
                .to_owned(),
        ]);
    }
    let (slot, publication) = match source::slot_and_publication(config).await {
        Ok(found) => found,
        Err(failure) if failure.exit == Exit::Unavailable => {
            return Ok(vec![format!(
                "slot and publication were not checked from here: {}",
                failure.message
            )]);
        }
        Err(failure) => return Err(failure),
    };
    let mut notes = Vec::new();
    if let Some(slot) = slot {
        notes.extend(slot_is_free(config, options, &slot, existing, first)?);
    }
    if let Some(publication) = publication {
        publication_is_free(config, options, &publication, first)?;
    }
    Ok(notes)
}

fn slot_is_free(
    config: &PipelineConfig,
    options: DeployOptions,
    slot: &source::Slot,
    existing: bool,
    first: bool,
) -> Result<Option<String>, Failure> {
    let other = "set source.slot_name to a name that is not used";
    if let Some(reason) = source::foreign_slot(config, slot) {
        return Err(Failure::new(Exit::Config, reason).hint(other));
    }
    if existing {
        return Ok(None);
    }
    let name = &slot.name;
    let kept = source::bytes(slot.retained_bytes.unwrap_or(0));
    if let Some(pid) = slot.active_pid {
        let user = slot.used_by.as_deref().unwrap_or("unnamed");
        let message = format!("slot {name} is in use by process {pid} ({user})");
        return Err(Failure::new(Exit::Config, message).hint(other));
    }
    if first && !options.adopt {
        let message = format!(
            "slot {name} exists (keeps {kept}), though this pipeline has never been deployed: it \
             may be another's"
        );
        return Err(Failure::new(Exit::Config, message)
            .hint(format!("{other}, or deploy --adopt to use this one")));
    }
    Ok(Some(format!("slot {name} existed and goes on where it stood ({kept} to read)")))
}

/// The connector gives a publication it may change exactly our tables, which would take another
/// pipeline's away.
fn publication_is_free(
    config: &PipelineConfig,
    options: DeployOptions,
    publication: &source::Publication,
    first: bool,
) -> Result<(), Failure> {
    let mut wanted = config.source.tables.clone();
    wanted.sort_unstable();
    let same = publication.all_tables || publication.tables == wanted;
    if !first || options.adopt || same || !publication.ours_to_change {
        return Ok(());
    }
    let message = format!(
        "publication {} exists with other tables ({}), though this pipeline has never been deployed",
        publication.name,
        publication.tables.join(", ")
    );
    Err(Failure::new(Exit::Config, message).hint(
        "set source.publication_name to another, or deploy --adopt to give it this pipeline's \
         tables",
    ))
}

/// What a connector that is not ours is set to lose, one sentence each.
pub fn settings_that_lose(properties: &Properties) -> Vec<String> {
    [
        ("skipped.operations", "t", "none", "truncates do not arrive"),
        ("tombstones.on.delete", "true", "true", "a compacted topic would keep deleted rows"),
        ("column.propagate.source.type", "", ".*", "exact source types are not known"),
        ("decimal.handling.mode", "precise", "string", "NaN and infinities become NULL"),
    ]
    .into_iter()
    .filter_map(|(name, default, needed, effect)| {
        let value = properties.get(name).map_or(default, String::as_str);
        (value != needed).then(|| {
            let shown = if value.is_empty() { "not set" } else { value };
            format!("{name} is {shown}, it should be {needed}: {effect}")
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(active: bool) -> source::Slot {
        source::Slot {
            name: "s".into(),
            plugin: "pgoutput".into(),
            database: String::new(),
            active_pid: active.then_some(7),
            used_by: Some("Debezium Streaming".into()),
            retained_bytes: Some(2048),
            wal_status: "reserved".into(),
        }
    }

    #[test]
    fn a_coordinator_that_ran_first_is_no_deploy() {
        let config = PipelineConfig { group_id: "cdc-demo".into(), ..PipelineConfig::default() };
        let known = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), 1)).collect();
        let never = |names: &[&str]| never_deployed(&config, &known(names));
        assert!(never(&[]));
        assert!(never(&["cdc-demo.control"]));
        assert!(never(&["__debezium-heartbeat.cdc"]), "another pipeline had this prefix");
        assert!(!never(&["cdc-demo.control", "__debezium-heartbeat.cdc"]));
    }

    #[test]
    fn a_slot_is_taken_only_when_it_can_be_ours() {
        let config = PipelineConfig::default();
        let free = |active, existing, first, adopt| {
            slot_is_free(&config, DeployOptions { adopt }, &slot(active), existing, first)
        };
        assert_eq!(free(true, true, false, false), Ok(None));
        let taken = free(true, false, false, true).unwrap_err();
        assert_eq!(taken.message, "slot s is in use by process 7 (Debezium Streaming)");
        assert!(free(false, false, true, false).unwrap_err().message.contains("never been"));
        assert!(free(false, false, true, true).unwrap().is_some());
        assert!(free(false, false, false, false).unwrap().unwrap().contains("2.0 KiB to read"));
    }

    #[test]
    fn another_pipelines_publication_is_left_alone() {
        let mut config = PipelineConfig::default();
        config.source.tables = vec!["public.b".into(), "public.a".into()];
        let free = |tables: &[&str], ours_to_change, first| {
            let publication = source::Publication {
                name: "p".into(),
                owner: "o".into(),
                ours_to_change,
                all_tables: false,
                left_out: vec![],
                tables: tables.iter().map(|&t| t.into()).collect(),
            };
            publication_is_free(&config, DeployOptions::default(), &publication, first).is_ok()
        };
        assert!(free(&["public.a", "public.b"], true, true));
        assert!(!free(&["public.x"], true, true));
        assert!(free(&["public.x"], true, false));
        assert!(free(&["public.x"], false, true));
    }

    #[test]
    fn a_foreign_connector_is_judged_by_its_defaults_too() {
        assert_eq!(settings_that_lose(&Properties::new()).len(), 3);
        let good = [
            ("skipped.operations", "none"),
            ("column.propagate.source.type", ".*"),
            ("decimal.handling.mode", "string"),
        ];
        let good = good.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
        assert!(settings_that_lose(&good).is_empty());
    }

    #[test]
    fn missing_plugins_are_named() {
        let plugin = |class: &str, kind: &str| Plugin {
            class: class.into(),
            kind: kind.into(),
            version: None,
        };
        let config = PipelineConfig::default();
        let postgres = connector_class(SourceType::Postgres);
        assert_eq!(missing_plugins(&config, &[]), [format!("connector {postgres}")]);
        let some = [plugin(postgres, "source"), plugin("x.Y", "converter")];
        assert_eq!(
            missing_plugins(&config, &some),
            [
                "converter io.apicurio.registry.utils.converter.AvroConverter",
                "transform io.cdcplatform.connect.KeepNulls"
            ]
        );
    }
}
