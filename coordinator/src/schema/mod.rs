//! Watches the schemas of the pipeline's topics and judges their changes.
//!
//! The verdicts stand in the control topic, where every worker reads them. A worker that meets a
//! change before the monitor does asks by its heartbeat ([`SchemaMonitor::hear`]), and is answered
//! the same way: so it does not matter who is first.

mod accept;
mod compare;
mod declared;
mod heard;
mod judge;
mod observe;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_shared::api::Heartbeat;
use cdc_shared::config::seconds;
use cdc_shared::control::{ControlRecord, ControlState};
use cdc_shared::registry::Registry;
use cdc_shared::schema::{
    Answer, OpenQuestion, SchemaQuestion, SchemaReport, SchemaSubject, SchemaVerdict, key_subject,
    topic_of, value_subject,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use accept::accept;
pub use compare::{is_compatible, keys, values};

use crate::control::{Change, ControlError};
use crate::health::SchemaHealth;
use crate::state::Coordinator;
use heard::Heard;

/// Pause before a question that could not be answered is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Most questions that wait.
const MAX_QUESTIONS: usize = 1000;

/// What the monitor could not do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Trouble {
    open: BTreeMap<SchemaQuestion, String>,
    error: Option<String>,
}

/// The schema monitor.
#[derive(Debug)]
pub struct SchemaMonitor {
    registry: Arc<Registry>,
    asked: Mutex<BTreeSet<SchemaQuestion>>,
    heard: Mutex<Heard>,
    trouble: Mutex<Trouble>,
    nudge: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SchemaMonitor {
    /// For this registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            asked: Mutex::default(),
            heard: Mutex::default(),
            trouble: Mutex::default(),
            nudge: Notify::new(),
        }
    }

    /// Something is to be done at once: a question came, or this coordinator leads now.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Takes a worker's questions, and the changes of schema that its positions tell.
    pub fn hear(&self, heartbeat: &Heartbeat, control: &ControlState, prefix: &str) {
        let told = locked(&self.heard).changes(heartbeat);
        let is_ours = |question: &&SchemaQuestion| {
            topic_of(&question.subject).is_some_and(|(topic, _)| topic.starts_with(prefix))
        };
        let all = told.iter().chain(&heartbeat.schema_questions).filter(is_ours);
        let mut news = false;
        for question in all {
            if control.schema_answer(question) != Answer::Unjudged {
                continue;
            }
            let mut asked = locked(&self.asked);
            news |= asked.len() < MAX_QUESTIONS && asked.insert(question.clone());
        }
        if news {
            self.nudge();
        }
    }

    /// Looks at the registry at the configured interval and answers questions at once, while this
    /// coordinator leads, until `stop`.
    pub async fn run(&self, coordinator: &Coordinator, stop: &CancellationToken) {
        let interval = seconds(coordinator.config.schema_monitor_interval_seconds);
        let mut look = Instant::now();
        loop {
            let open = !locked(&self.trouble).open.is_empty();
            // A change before the baseline would not be seen as one.
            let unfinished = open || (coordinator.leads() && !knows_all(coordinator));
            let next = if unfinished { look.min(Instant::now() + RETRY) } else { look };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
                () = self.nudge.notified() => {}
            }
            if !coordinator.leads() {
                // Whoever begins to lead is told, and looks at once.
                look = Instant::now() + interval;
                continue;
            }
            let work = async {
                if look <= Instant::now() || !knows_all(coordinator) {
                    self.look(coordinator).await;
                    look = Instant::now() + interval;
                }
                self.answer(coordinator).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = work => {}
            }
        }
    }

    async fn look(&self, coordinator: &Coordinator) {
        let mut failed = None;
        for subject in subjects(coordinator) {
            if let Err(error) = self.observe(coordinator, &subject).await {
                failed = Some(format!("{subject}: {error}"));
            }
        }
        let mut trouble = locked(&self.trouble);
        if let Some(error) = failed.as_ref().filter(|error| trouble.error.as_ref() != Some(*error))
        {
            tracing::warn!(error, "look at the schemas");
        }
        trouble.error = failed;
    }

    async fn answer(&self, coordinator: &Coordinator) {
        let asked = locked(&self.asked).clone();
        let mut open = BTreeMap::new();
        for question in asked {
            match self.settle(coordinator, &question).await {
                Ok(()) => {
                    locked(&self.asked).remove(&question);
                }
                Err(reason) => {
                    tracing::debug!(
                        subject = question.subject,
                        id = question.this,
                        reason,
                        "a change of schema cannot be judged"
                    );
                    open.insert(question, reason);
                }
            }
        }
        locked(&self.trouble).open = open;
    }

    /// Answers one question by what the control topic says, once it says it.
    async fn settle(
        &self,
        coordinator: &Coordinator,
        question: &SchemaQuestion,
    ) -> Result<(), String> {
        let is_answered = || {
            let control = coordinator.control.state();
            control.schema_answer(question) != Answer::Unjudged
        };
        if is_answered() {
            return Ok(());
        }
        self.observe(coordinator, &question.subject).await?;
        if is_answered() {
            return Ok(());
        }
        let control = coordinator.control.state();
        let subject = control
            .schema_subject(&question.subject)
            .ok_or_else(|| format!("subject {} has no baseline yet", question.subject))?;
        let newest = control.schema_steps(&question.subject).newest();
        if let Some(previous) = question.previous.or(newest) {
            let verdict = self.judge(coordinator, subject, previous, question.this).await?;
            return self.keep(coordinator, None, vec![verdict]).await;
        }
        // The registry names its subjects otherwise: what comes first is what there is.
        self.registry.schema(question.this).await.map_err(|error| error.to_string())?;
        let subject = SchemaSubject { baseline: vec![question.this], ..subject.clone() };
        self.keep(coordinator, Some(subject), Vec::new()).await
    }

    /// Writes what was found, unless another said it before, and tells of it.
    async fn keep(
        &self,
        coordinator: &Coordinator,
        subject: Option<SchemaSubject>,
        verdicts: Vec<SchemaVerdict>,
    ) -> Result<(), String> {
        let written = coordinator
            .control
            .write::<Vec<SchemaVerdict>, ControlError>(|control| {
                let is_new = |verdict: &SchemaVerdict| {
                    let mut known = control.schema_verdicts(Some(&verdict.subject));
                    !known.any(|v| (v.previous, v.this) == (verdict.previous, verdict.this))
                };
                let news: Vec<SchemaVerdict> = verdicts.into_iter().filter(is_new).collect();
                let put = |verdict: &SchemaVerdict| {
                    Change::put(ControlRecord::SchemaVerdict { verdict: verdict.clone() })
                };
                let subject =
                    subject.map(|subject| Change::put(ControlRecord::SchemaSubject { subject }));
                Ok((subject.into_iter().chain(news.iter().map(put)).collect(), news))
            })
            .await;
        let (news, _) = written.map_err(|error| error.to_string())?;
        news.iter().for_each(tell);
        Ok(())
    }

    /// What somebody should look at.
    pub fn health(&self, coordinator: &Coordinator) -> SchemaHealth {
        let report = self.report(coordinator);
        let unaccepted = report.changes.into_iter().filter(|verdict| !verdict.passes()).collect();
        SchemaHealth { unaccepted, open: report.open, error: report.error }
    }

    /// Everything that is known.
    pub fn report(&self, coordinator: &Coordinator) -> SchemaReport {
        let control = coordinator.control.state();
        let trouble = locked(&self.trouble).clone();
        let mut changes: Vec<SchemaVerdict> = control.schema_verdicts(None).cloned().collect();
        changes.sort_by_key(|verdict| verdict.at_ms);
        SchemaReport {
            pipeline_id: coordinator.config.pipeline_id.clone(),
            stops: coordinator.config.stop_on_incompatible_schema,
            subjects: control.schema_subjects().cloned().collect(),
            changes,
            open: trouble
                .open
                .into_iter()
                .map(|(question, reason)| OpenQuestion { question, reason })
                .collect(),
            error: trouble.error,
        }
    }
}

/// The subjects of the pipeline's tables.
fn subjects(coordinator: &Coordinator) -> Vec<String> {
    let config = &coordinator.config;
    let topics = config.source.tables.iter().map(|table| config.topic(table));
    topics.flat_map(|topic| [key_subject(&topic), value_subject(&topic)]).collect()
}

/// Whether every subject has its baseline.
fn knows_all(coordinator: &Coordinator) -> bool {
    let control = coordinator.control.state();
    subjects(coordinator).iter().all(|subject| control.schema_subject(subject).is_some())
}

/// The events of a verdict.
fn tell(verdict: &SchemaVerdict) {
    let SchemaVerdict { subject, previous, this, compatible, .. } = verdict;
    let (previous_version, new_version) = (verdict.previous_version, verdict.this_version);
    let (schema_id, changes) = (this, verdict.summary());
    // The level of an event is fixed where it stands.
    macro_rules! event {
        ($level:ident, $name:literal) => {
            tracing::$level!(
                subject,
                previous_version,
                new_version,
                schema_id,
                compatible,
                previous_id = previous,
                changes,
                $name
            )
        };
    }
    if *compatible {
        event!(info, "schema.version_changed");
    } else {
        event!(warn, "schema.version_changed");
        event!(error, "schema.incompatible_change_detected");
    }
}

#[cfg(test)]
#[path = "compare_test.rs"]
mod tests;
