//! Which settings a process uses, and so whose references must be there.

use super::Sections;
use super::tree::Node;

/// Decides by path whether a setting is used.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    scope: Scope,
    /// Ids of the sinks, by index.
    sink_ids: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    For(Sections),
    /// Nothing that may be a secret: for the fingerprint, which is the same in every process.
    Identity,
}

/// Settings that give things their names and are therefore used by everyone.
const IDENTITY: &[&str] =
    &["pipeline_id", "topic_prefix", "group_id", "source.source_type", "source.tables"];

/// Settings of other processes that a worker does not use.
const NOT_FOR_WORKERS: &[&str] = &[
    "connector",
    "redis",
    "coordinator.tokens.operator",
    "coordinator.tokens.reader",
    "coordinator.tokens.named",
    "coordinator.server_tls",
    "coordinator.advertise",
    "coordinator.watermark_store",
];

/// Settings of the source that a worker uses.
const SOURCE_FOR_WORKERS: &[&str] =
    &["source.source_type", "source.tables", "source.unavailable_placeholder"];

/// Settings that a task of a worker uses beside the worker's.
const FOR_TASKS: &[&str] = &["source", "connector"];

/// Settings that a command uses which only calls the coordinator.
const FOR_CLIENTS: &[&str] = &[
    "coordinator.url",
    "coordinator.bind",
    "coordinator.tls",
    "coordinator.tokens.worker",
    "coordinator.tokens.operator",
    "coordinator.tokens.reader",
    "log_level",
    "log_format",
];

/// Settings that a command uses which only asks the services.
const FOR_PLATFORM: &[&str] = &["kafka", "connector"];

impl Usage {
    /// What `sections` uses of a configuration.
    pub(super) fn new(sections: &Sections, tree: &Node) -> Self {
        Self { scope: Scope::For(sections.clone()), sink_ids: sink_ids(tree) }
    }

    /// Only what gives things their names.
    pub(super) fn identity(tree: &Node) -> Self {
        Self { scope: Scope::Identity, sink_ids: sink_ids(tree) }
    }

    /// Whether the setting at `path` is used.
    pub(super) fn uses(&self, path: &str) -> bool {
        let names_something = |rest: &str| matches!(rest, "sink_id" | "sink_type");
        if any_covers(IDENTITY, path)
            || in_sink(path).is_some_and(|(_, rest)| names_something(rest))
        {
            return true;
        }
        match &self.scope {
            Scope::Identity => false,
            Scope::For(Sections::All) => true,
            Scope::For(Sections::Client) => any_covers(FOR_CLIENTS, path),
            Scope::For(Sections::Platform) => any_covers(FOR_PLATFORM, path),
            Scope::For(Sections::Coordinator) => in_sink(path)
                .is_none_or(|(_, rest)| !any_covers(&["webhook", "postgres", "iceberg"], rest)),
            Scope::For(Sections::Worker { sink_id }) => match in_sink(path) {
                Some((index, _)) => self.sink_ids.get(index) == Some(sink_id),
                None if covers("source", path) => any_covers(SOURCE_FOR_WORKERS, path),
                None => !any_covers(NOT_FOR_WORKERS, path),
            },
            Scope::For(Sections::Task { sink_id }) => {
                let worker = Sections::Worker { sink_id: sink_id.clone() };
                let worker = Self { scope: Scope::For(worker), sink_ids: self.sink_ids.clone() };
                any_covers(FOR_TASKS, path) || worker.uses(path)
            }
        }
    }

    /// Whether a used setting may stay without a value when its reference cannot be resolved: a
    /// person who may only read has no operator's token, and a task asks Kafka Connect for some
    /// kinds of source only.
    pub(super) fn is_optional(&self, path: &str) -> bool {
        match &self.scope {
            Scope::For(Sections::Client) => covers("coordinator.tokens", path),
            Scope::For(Sections::Task { .. }) => covers("connector", path),
            _ => false,
        }
    }
}

fn sink_ids(tree: &Node) -> Vec<String> {
    let sinks = tree.get("sinks").map(Node::items).unwrap_or_default();
    let id = |sink: &Node| sink.get("sink_id").and_then(Node::text).unwrap_or_default().to_owned();
    sinks.iter().map(id).collect()
}

/// The index of the sink that a path leads into, and the path inside.
fn in_sink(path: &str) -> Option<(usize, &str)> {
    let (index, rest) = path.strip_prefix("sinks[")?.split_once(']')?;
    Some((index.parse().ok()?, rest.trim_start_matches('.')))
}

fn any_covers(sections: &[&str], path: &str) -> bool {
    sections.iter().any(|section| covers(section, path))
}

/// Whether `path` is `section` or lies in it.
pub(super) fn covers(section: &str, path: &str) -> bool {
    path.strip_prefix(section)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(scope: Scope) -> Usage {
        Usage { scope, sink_ids: vec!["a".into(), "b".into()] }
    }

    #[test]
    fn a_process_uses_its_own_secrets_only() {
        let worker = usage(Scope::For(Sections::Worker { sink_id: "b".into() }));
        let task = usage(Scope::For(Sections::Task { sink_id: "b".into() }));
        let coordinator = usage(Scope::For(Sections::Coordinator));
        let client = usage(Scope::For(Sections::Client));
        for (path, by_worker, by_coordinator, by_client) in [
            ("pipeline_id", true, true, true),
            ("kafka.sasl.password", true, true, false),
            ("source.password", false, true, false),
            ("source.tables[0]", true, true, true),
            ("connector.password", false, true, false),
            ("redis.password", false, true, false),
            ("coordinator.tokens.worker", true, true, true),
            ("coordinator.tokens.operator", false, true, true),
            ("coordinator.tokens.named[0].token", false, true, false),
            ("coordinator.server_tls.key_file", false, true, false),
            ("sinks[0].webhook.auth_token", false, false, false),
            ("sinks[0].sink_id", true, true, true),
            ("sinks[0].tables[1]", false, true, false),
            ("sinks[1].postgres.password", true, false, false),
        ] {
            let found = [&worker, &coordinator, &client].map(|usage| usage.uses(path));
            assert_eq!(found, [by_worker, by_coordinator, by_client], "{path}");
            assert!(usage(Scope::For(Sections::All)).uses(path));
            let for_tasks = path.starts_with("source.") || path.starts_with("connector.");
            assert_eq!(task.uses(path), by_worker || for_tasks, "{path}");
        }
        assert!(!usage(Scope::Identity).uses("kafka.bootstrap_servers"));
        assert!(client.is_optional("coordinator.tokens.operator"));
        assert!(task.is_optional("connector.password") && !task.is_optional("source.password"));
    }
}
