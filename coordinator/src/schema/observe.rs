//! One look at a subject: its baseline at the first, its new versions at each later one.

use cdc_shared::clock::unix_ms;
use cdc_shared::registry::Version;
use cdc_shared::schema::{SchemaSubject, SchemaVersion};

use super::SchemaMonitor;
use crate::state::Coordinator;

impl SchemaMonitor {
    /// Looks at a subject and keeps what is new.
    ///
    /// # Errors
    /// Why it could not be looked at, or its new versions not be judged.
    pub(super) async fn observe(
        &self,
        coordinator: &Coordinator,
        subject: &str,
    ) -> Result<(), String> {
        let control = coordinator.control.state();
        let Some(known) = control.schema_subject(subject) else {
            return self.begin(coordinator, subject).await;
        };
        let latest = self.registry.latest(subject).await.map_err(|error| error.to_string())?;
        let Some(after) = new_after(known, latest) else { return Ok(()) };
        let versions = self.registry.versions(subject, after).await;
        let versions = versions.map_err(|error| error.to_string())?;
        let mut known = known.clone();
        let (mut verdicts, mut trouble) = (Vec::new(), None);
        let news: Vec<Version> = versions.into_iter().filter(|v| !has(&known, *v)).collect();
        for version in news {
            let newest = known.versions.last().map(|last| last.id);
            let previous = newest.or(known.baseline.last().copied());
            known.versions.push(seen(version));
            match previous {
                // Of a subject without records at the first look, nothing was before this.
                None => known.baseline.push(version.id),
                Some(previous) if previous == version.id => {}
                Some(previous) => {
                    match self.judge(coordinator, &known, previous, version.id).await {
                        Ok(verdict) => verdicts.push(verdict),
                        Err(reason) => {
                            known.versions.pop();
                            trouble = Some(reason);
                            break;
                        }
                    }
                }
            }
        }
        if control.schema_subject(subject) != Some(&known) {
            self.keep(coordinator, Some(known), verdicts).await?;
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn begin(&self, coordinator: &Coordinator, subject: &str) -> Result<(), String> {
        let versions = self.registry.versions(subject, 0).await;
        let versions = versions.map_err(|error| error.to_string())?;
        let mut baseline: Vec<i32> = Vec::new();
        for version in &versions {
            // The newest stands last, where an id came twice.
            baseline.retain(|id| *id != version.id);
            baseline.push(version.id);
        }
        tracing::info!(subject, versions = versions.len(), "schema baseline");
        let known = SchemaSubject {
            subject: subject.to_owned(),
            baseline,
            versions: versions.into_iter().map(seen).collect(),
            since_ms: unix_ms(),
        };
        self.keep(coordinator, Some(known), Vec::new()).await
    }
}

fn seen(version: Version) -> SchemaVersion {
    SchemaVersion { version: version.version, id: version.id, at_ms: unix_ms() }
}

/// The last seen of a number counts: numbers begin anew in a subject that was deleted.
fn has(known: &SchemaSubject, version: Version) -> bool {
    let same = known.versions.iter().rev().find(|seen| seen.version == version.version);
    same.is_some_and(|seen| seen.id == version.id)
}

/// The version behind which there is something new; `None` when there is nothing.
fn new_after(known: &SchemaSubject, latest: Option<Version>) -> Option<i32> {
    let latest = latest?;
    match known.versions.last() {
        Some(last) if latest.version > last.version => Some(last.version),
        Some(_) if has(known, latest) => None,
        // Nothing was there before, or the subject was deleted and made anew.
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_seen_is_new() {
        let known = |versions: &[(i32, i32)]| SchemaSubject {
            subject: "t-value".into(),
            baseline: Vec::new(),
            versions: versions
                .iter()
                .map(|&(version, id)| SchemaVersion { version, id, at_ms: 0 })
                .collect(),
            since_ms: 0,
        };
        let after = |versions: &[(i32, i32)], latest: Option<(i32, i32)>| {
            let latest = latest.map(|(version, id)| Version { version, id });
            new_after(&known(versions), latest)
        };
        assert_eq!(after(&[], None), None);
        assert_eq!(after(&[], Some((2, 9))), Some(0));
        assert_eq!(after(&[(1, 7)], None), None, "deleted: nothing new");
        assert_eq!(after(&[(1, 7)], Some((1, 7))), None);
        assert_eq!(after(&[(1, 7)], Some((3, 9))), Some(1));
        assert_eq!(after(&[(1, 7), (2, 8)], Some((1, 9))), Some(0), "made anew");
        assert_eq!(after(&[(1, 7), (2, 8), (1, 9)], Some((1, 9))), None);
    }
}
