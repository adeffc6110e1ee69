//! Whether something that this pipeline needs for itself belongs to another connector.

use std::collections::BTreeMap;

use super::connector::{GROUP_MARK, PIPELINE_MARK, Properties};

/// What must not be shared, and how far: within one database server, one database, or the whole
/// Connect cluster.
const EXCLUSIVE: &[(&str, &str, Scope)] = &[
    ("topic.prefix", "topic_prefix", Scope::Everywhere),
    (GROUP_MARK, "group_id", Scope::Everywhere),
    ("schema.history.internal.kafka.topic", "topic_prefix", Scope::Everywhere),
    ("slot.name", "source.slot_name", Scope::Server),
    ("database.server.id", "source.server_id", Scope::Server),
    ("publication.name", "source.publication_name", Scope::Database),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everywhere,
    Server,
    Database,
}

/// What another connector already uses, one sentence each. `name` is our own connector, which is
/// no conflict with itself.
pub(super) fn with_others(
    name: &str,
    ours: &Properties,
    all: &BTreeMap<String, Properties>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (other, theirs) in all.iter().filter(|(other, _)| *other != name) {
        for (property, setting, scope) in EXCLUSIVE {
            let (Some(mine), Some(their)) = (ours.get(*property), theirs.get(*property)) else {
                continue;
            };
            if mine == their && meet(*scope, ours, theirs) {
                let whose = theirs
                    .get(PIPELINE_MARK)
                    .map_or_else(String::new, |pipeline| format!(" of pipeline {pipeline}"));
                found.push(format!(
                    "{property} {mine} is already used by connector {other}{whose}; set {setting} \
                     to another"
                ));
            }
        }
    }
    found.dedup();
    found
}

fn meet(scope: Scope, ours: &Properties, theirs: &Properties) -> bool {
    let same = |name: &str| ours.get(name) == theirs.get(name);
    let server = || same("database.hostname") && same("database.port");
    match scope {
        Scope::Everywhere => true,
        Scope::Server => server(),
        Scope::Database => server() && same("database.dbname"),
    }
}

/// Why the connector that has our name is not ours; `None` when it is.
pub(super) fn with_namesake(
    name: &str,
    ours: &Properties,
    existing: &Properties,
) -> Option<String> {
    match existing.get(PIPELINE_MARK) {
        Some(mark) if ours.get(PIPELINE_MARK) == Some(mark) => None,
        Some(mark) => Some(format!("connector {name} belongs to pipeline {mark}")),
        None => Some(format!("connector {name} exists and was not made by this program")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn ours() -> Properties {
        properties(&[
            ("topic.prefix", "cdc"),
            ("slot.name", "s"),
            ("publication.name", "p"),
            ("database.hostname", "h"),
            ("database.port", "5432"),
            ("database.dbname", "d"),
            (PIPELINE_MARK, "demo"),
            (GROUP_MARK, "cdc-demo"),
        ])
    }

    fn conflicts(changes: &[(&str, &str)]) -> Vec<String> {
        let mut other = properties(&[
            ("topic.prefix", "other"),
            ("slot.name", "t"),
            ("publication.name", "q"),
            ("database.hostname", "h"),
            ("database.port", "5432"),
            ("database.dbname", "d"),
            (PIPELINE_MARK, "shop"),
        ]);
        other.extend(properties(changes));
        let all = [("cdc-demo".to_owned(), ours()), ("x".to_owned(), other)].into();
        with_others("cdc-demo", &ours(), &all)
    }

    #[test]
    fn what_another_pipeline_uses_is_named() {
        assert!(conflicts(&[]).is_empty());
        assert_eq!(
            conflicts(&[("slot.name", "s")]),
            ["slot.name s is already used by connector x of pipeline shop; set source.slot_name \
              to another"]
        );
        assert_eq!(conflicts(&[("topic.prefix", "cdc"), (GROUP_MARK, "cdc-demo")]).len(), 2);
    }

    #[test]
    fn a_slot_of_another_server_or_a_publication_of_another_database_is_no_conflict() {
        assert!(conflicts(&[("slot.name", "s"), ("database.port", "5433")]).is_empty());
        assert_eq!(conflicts(&[("publication.name", "p")]).len(), 1);
        assert!(conflicts(&[("publication.name", "p"), ("database.dbname", "e")]).is_empty());
    }

    #[test]
    fn a_namesake_must_bear_our_mark() {
        let with = |pairs| with_namesake("c", &ours(), &properties(pairs));
        assert_eq!(with(&[(PIPELINE_MARK, "demo")]), None);
        assert!(with(&[(PIPELINE_MARK, "b")]).unwrap().contains("belongs to pipeline b"));
        assert!(with(&[]).unwrap().contains("was not made by this program"));
    }
}
