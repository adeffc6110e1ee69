//! What a table's schema was between two that the sink sees: a partition with few changes jumps
//! over schemas, and must judge a column that went and came, or a column that is there again, as
//! if it had met each of them.

use std::collections::BTreeMap;

use cdc_shared::config::PipelineConfig;
use cdc_shared::registry::{Registry, RegistryError};
use cdc_shared::schema::value_subject;
use cdc_shared::tls::TlsError;

use super::evolve::{Met, Recorded};
use crate::sink::{Disposition, SinkError};

/// The registry, as the memory of a topic's schemas.
#[derive(Debug)]
pub(super) struct History {
    registry: Registry,
}

/// The schemas that were registered after one and before another, oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Between {
    /// The older one, in which the mirror was left.
    pub(super) older: i32,
    /// Each with its columns.
    pub(super) schemas: Vec<(i32, Vec<String>)>,
}

impl History {
    /// A client of its own. Nothing is asked yet.
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub(super) fn new(pipeline: &PipelineConfig) -> Result<Self, TlsError> {
        Ok(Self { registry: Registry::new(&pipeline.kafka)? })
    }

    /// What was registered for a topic's values between two of its schemas. Empty when the registry
    /// does not know both, or not in this order.
    ///
    /// # Errors
    /// When the registry cannot be asked: worth another try.
    pub(super) async fn between(
        &self,
        topic: &str,
        older: i32,
        newer: i32,
    ) -> Result<Between, SinkError> {
        self.ask(topic, older, newer).await.map_err(|why| SinkError {
            code: "registry_unavailable".to_owned(),
            message: format!("asking which schemas topic {topic} had between {older} and {newer}"),
            hint: Some(format!("the next attempt follows by itself; {why}")),
            disposition: Disposition::Retry(None),
            source: Some(Box::new(why)),
        })
    }

    async fn ask(&self, topic: &str, older: i32, newer: i32) -> Result<Between, RegistryError> {
        let versions = self.registry.versions(&value_subject(topic), 0).await?;
        let ids: Vec<i32> = versions.iter().map(|version| version.id).collect();
        let mut schemas = Vec::new();
        for id in ids_between(&ids, older, newer) {
            match self.registry.schema(*id).await {
                Ok(schema) => {
                    let columns = schema.kind.envelope().map(|plan| {
                        plan.columns().iter().map(|column| column.source_name().to_owned())
                    });
                    schemas.extend(columns.map(|columns| (*id, columns.collect())));
                }
                // One that was deleted meanwhile, or was never Debezium's, is none.
                Err(RegistryError::Unknown { .. } | RegistryError::Invalid { .. }) => {}
                Err(why @ RegistryError::Unavailable { .. }) => return Err(why),
            }
        }
        Ok(Between { older, schemas })
    }
}

fn ids_between(ids: &[i32], older: i32, newer: i32) -> &[i32] {
    let place = |wanted: i32| ids.iter().position(|id| *id == wanted);
    match (place(older), place(newer)) {
        (Some(from), Some(to)) => ids.get(from + 1..to).unwrap_or_default(),
        _ => &[],
    }
}

impl Between {
    /// The record of a mirror as it would be had a partition met each of these schemas. Ends before
    /// the first in which columns both went and came: that may be a rename, which is for a person
    /// to say.
    pub(super) fn replay(&self, left: &Recorded) -> Met {
        let mut replayed = left.clone();
        for (id, columns) in &self.schemas {
            let went: Vec<_> =
                replayed.columns.iter().filter(|column| !columns.contains(column)).collect();
            let came = columns.iter().any(|column| !replayed.columns.contains(column));
            if came && !went.is_empty() {
                break;
            }
            let went: BTreeMap<String, i32> = went.into_iter().map(|c| (c.clone(), *id)).collect();
            replayed.dropped.extend(went);
            replayed.columns.clone_from(columns);
        }
        let mut filled = left.columns.clone();
        filled.retain(|column| !replayed.dropped.contains_key(column));
        Met { recorded: replayed, filled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(columns: &[&str]) -> Recorded {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Recorded { oid: Some(1), schema_id: 5, columns, dropped: BTreeMap::new() }
    }

    fn replay(before: &[&str], steps: &[(i32, &[&str])]) -> (Vec<String>, BTreeMap<String, i32>) {
        let schemas = steps
            .iter()
            .map(|(id, columns)| (*id, columns.iter().map(|&name| name.to_owned()).collect()))
            .collect();
        let met = Between { older: 5, schemas }.replay(&recorded(before));
        let replayed = met.recorded;
        let filled = before.iter().filter(|name| !replayed.dropped.contains_key(**name));
        assert!(met.filled.iter().eq(filled));
        assert_eq!((replayed.oid, replayed.schema_id), (Some(1), 5));
        (replayed.columns, replayed.dropped)
    }

    #[test]
    fn columns_that_went_and_came_one_by_one_are_no_rename() {
        let (columns, dropped) = replay(&["id", "a"], &[(6, &["id"]), (8, &["id", "b"])]);
        assert_eq!(columns, ["id", "b"]);
        assert_eq!(dropped, BTreeMap::from([("a".to_owned(), 6)]));
        let (columns, dropped) = replay(&["id", "a"], &[(6, &["id", "a", "b"]), (8, &["id", "b"])]);
        assert_eq!(columns, ["id", "b"]);
        assert_eq!(dropped, BTreeMap::from([("a".to_owned(), 8)]));
    }

    #[test]
    fn a_step_that_may_be_a_rename_ends_it() {
        let (columns, dropped) =
            replay(&["id", "a"], &[(6, &["id", "a", "x"]), (7, &["id", "b", "x"]), (8, &["id"])]);
        assert_eq!(columns, ["id", "a", "x"]);
        assert!(dropped.is_empty());
    }

    #[test]
    fn only_what_lies_between_in_the_registrys_order_counts() {
        assert_eq!(ids_between(&[3, 5, 6, 7, 9], 5, 9), [6, 7]);
        assert_eq!(ids_between(&[3, 5, 6], 5, 6), [0; 0]);
        assert_eq!(ids_between(&[3, 5, 6], 6, 3), [0; 0]);
        assert_eq!(ids_between(&[3, 5, 6], 4, 6), [0; 0]);
    }
}
