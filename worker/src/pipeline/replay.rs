//! Dead letters that go to the sink again, in the partition's own queue: while they are under way
//! nothing else of the partition is, so that each key keeps its order, whatever the sink.
//!
//! Which letters is said by a task in the control topic; every partition's owner takes its own. What
//! came of each is told with the heartbeats until the coordinator has written it down; a worker that
//! ends before leaves the letter to the next owner, and the sink sees to it that twice is once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cdc_shared::api::ErrorReport;
use cdc_shared::clock::unix_ms;
use cdc_shared::control::ControlState;
use cdc_shared::dlq::{FailedLetter, header};
use cdc_shared::offset::{Position, TopicId, TopicPartition};
use cdc_shared::registry::{RETRY_PAUSE, RegistryError};
use cdc_shared::schema::Answer;
use cdc_shared::task::LetterPlace;
use tokio::time::Instant;

use super::Shared;
use super::decode::{Decoder, Outcome, schema_ids};
use super::gate;
use super::partition::{PartitionTask, Phase};
use super::running::{Delivery, Unblocked};
use crate::sink::retry::TroubleReporter;
use crate::sink::{Progress, SinkError, Standing};
use crate::source::record::Record;

/// Most letters before the partition's own records have their turn.
const TURN: usize = 50;
/// What those have at least.
const BREATH: Duration = Duration::from_millis(5);

/// Letters that one task wants of one partition.
#[derive(Debug)]
pub(super) struct Replay {
    task: String,
    dry_run: bool,
    /// Time between two letters.
    pace: Option<Duration>,
    dlq_topic: String,
    topic_id: TopicId,
    letters: VecDeque<LetterPlace>,
    due: Instant,
}

/// What came of one turn.
pub(super) struct Replayed {
    /// Letters that were not tried.
    left: Vec<LetterPlace>,
    end: End,
}

/// How a turn ended.
enum End {
    Done,
    /// The sink's record is another than was thought.
    Moved,
    /// The letters cannot be read.
    Unread(String),
}

/// What came of one letter.
enum Fate {
    Replayed,
    Superseded,
    Failed(String, String),
    Moved,
}

impl Replay {
    /// What is left to do for a partition by the control topic and what was done here.
    fn of(control: &ControlState, shared: &Shared, tp: &TopicPartition) -> Option<Self> {
        let tasks = control.tasks(Some(&shared.sink_id)).into_iter();
        let mut open = tasks.filter(|task| task.end.is_none());
        open.find_map(|task| {
            let options = task.kind.replay()?;
            let part = options.partitions.iter().find(|part| part.tp == *tp)?;
            let done = shared.status.replay(&task.id, tp);
            let is_left = |place: &&LetterPlace| {
                let at = (place.0, task.at_ms);
                control.letter_settled(&shared.sink_id, tp, &part.topic_id, at).is_none()
                    && done.as_ref().is_none_or(|done| !done.knows(place.0))
            };
            let letters: VecDeque<_> = part.letters.iter().filter(is_left).copied().collect();
            let several = options.partitions.len() as u32;
            (!letters.is_empty()).then(|| Self {
                task: task.id.clone(),
                dry_run: options.dry_run,
                pace: options.rate.map(|rate| Duration::from_secs(1) * several / rate.max(1)),
                dlq_topic: part.dlq_topic.clone(),
                topic_id: part.topic_id.clone(),
                letters,
                due: Instant::now(),
            })
        })
    }

    fn is_due(&self) -> bool {
        !self.letters.is_empty() && self.due <= Instant::now()
    }
}

impl PartitionTask {
    /// Takes up what tasks want, and drops what they no longer do.
    pub(super) fn heed_replays(&mut self, delivery: &mut Delivery) {
        let control = self.control.borrow().state.clone();
        let goes_on = self.replay.as_ref().is_some_and(|replay| {
            (delivery.replaying || !replay.letters.is_empty())
                && is_open(&control, replay, &self.shared)
        });
        if goes_on {
            return;
        }
        if std::mem::take(&mut delivery.replaying) {
            delivery.blocked = None;
        }
        self.replay = Replay::of(&control, &self.shared, &self.question.tp);
    }

    /// Whether dead letters are next.
    pub(super) fn replay_is_due(&self) -> bool {
        self.replay.as_ref().is_some_and(Replay::is_due)
    }

    /// When to look again at the latest.
    pub(super) fn replay_deadline(&self, before: Instant) -> Instant {
        let due = self.replay.as_ref().filter(|replay| !replay.letters.is_empty());
        due.map_or(before, |replay| before.min(replay.due.max(Instant::now() + BREATH)))
    }

    /// Sends the next letters once nothing else is with the sink.
    pub(super) fn pump_replay(&mut self, delivery: &mut Delivery) {
        let waits = delivery.blocked.is_some() || delivery.ending.is_some();
        if waits || !self.replay_is_due() || !delivery.rejects.is_empty() {
            return;
        }
        if delivery.open.rows > 0 {
            self.flush(delivery);
        }
        if delivery.writer.in_flight() || self.backlog.pushed().next().is_some() {
            return;
        }
        let (Some(at), Some(replay)) = (self.question.last.clone(), &mut self.replay) else {
            return;
        };
        let count = if replay.pace.is_some() { 1 } else { TURN.min(replay.letters.len()) };
        let turn = Turn {
            shared: self.shared.clone(),
            tp: self.question.tp.clone(),
            at,
            task: replay.task.clone(),
            dry_run: replay.dry_run,
            dlq_topic: replay.dlq_topic.clone(),
            topic_id: replay.topic_id.clone(),
            reporter: delivery.reporter.clone(),
        };
        let letters: Vec<_> = replay.letters.drain(..count).collect();
        delivery.replaying = true;
        delivery.blocked =
            Some(Box::pin(async move { Unblocked::Replayed(turn.run(letters).await) }));
    }

    /// A turn is over.
    pub(super) fn replayed(
        &mut self,
        delivery: &mut Delivery,
        Replayed { left, end }: Replayed,
    ) -> Option<Phase> {
        delivery.replaying = false;
        if let Some(replay) = &mut self.replay {
            left.into_iter().rev().for_each(|letter| replay.letters.push_front(letter));
            let pause = match &end {
                End::Unread(_) => RETRY_PAUSE,
                End::Done | End::Moved => replay.pace.unwrap_or(BREATH),
            };
            replay.due = Instant::now() + pause;
        }
        match end {
            End::Done => None,
            // What came of it meanwhile is seen when the start is found again.
            End::Moved => Some(Phase::Resolving),
            End::Unread(why) => {
                self.told("letters_unreadable", &why);
                None
            }
        }
    }
}

fn is_open(control: &ControlState, replay: &Replay, shared: &Shared) -> bool {
    let tasks = control.tasks(Some(&shared.sink_id));
    tasks.iter().any(|task| task.id == replay.task && task.end.is_none())
}

/// The letters of one turn on their way.
struct Turn {
    shared: Arc<Shared>,
    tp: TopicPartition,
    at: Position,
    task: String,
    dry_run: bool,
    dlq_topic: String,
    topic_id: TopicId,
    reporter: TroubleReporter,
}

impl Turn {
    async fn run(self, letters: Vec<LetterPlace>) -> Replayed {
        let records = match self.shared.letters.read(&self.dlq_topic, &letters).await {
            Ok(records) => records,
            Err(error) => {
                let end = End::Unread(format!("{}: {error}", self.dlq_topic));
                return Replayed { left: letters, end };
            }
        };
        for (place, letter) in letters.iter().enumerate() {
            let fate = match records.get(&letter.0) {
                Some(record) => self.one(record).await,
                None => Fate::Failed(
                    "letter_gone".to_owned(),
                    format!("{} no longer has it", self.dlq_topic),
                ),
            };
            if let Fate::Moved = fate {
                return Replayed { left: letters[place..].to_vec(), end: End::Moved };
            }
            self.tell(letter.0, fate);
        }
        Replayed { left: Vec::new(), end: End::Done }
    }

    fn tell(&self, offset: i64, fate: Fate) {
        self.shared.status.report_replay(&self.task, &self.tp, |report| match fate {
            Fate::Replayed => report.replayed.push(offset),
            Fate::Superseded => report.superseded.push(offset),
            Fate::Failed(code, message) => {
                report.failed.push(FailedLetter { offset, code, message });
            }
            Fate::Moved => {}
        });
    }

    async fn one(&self, record: &Record) -> Fate {
        if let Some((code, message)) = self.refusal(record) {
            return Fate::Failed(code.to_owned(), message);
        }
        match self.standing(record.offset).await {
            Standing::Stands => {}
            Standing::Replayed => return Fate::Replayed,
            Standing::Superseded(why) => {
                tracing::info!(tp = %self.tp, offset = record.offset, "dead letter superseded: {why}");
                return Fate::Superseded;
            }
        }
        let tp = self.tp.clone();
        let reporter = self.reporter.clone();
        let Some(mut writer) = self.shared.sink.replay(tp, &self.at, record.offset, reporter)
        else {
            let message = format!("sink {} takes no dead letters again", self.shared.sink_id);
            return Fate::Failed("replay_unsupported".to_owned(), message);
        };
        writer.has_ids_of(self.shared.id_generation(&self.tp, &self.at.topic_id));
        let mut decoder = Decoder::new(self.shared.json.clone());
        loop {
            let (registry, filter) = (&self.shared.registry, self.shared.filter);
            match decoder.offer(record, registry, filter, |change| writer.push(change)) {
                Outcome::Taken { .. } => break,
                Outcome::Passed => {
                    let message = "it has no effect by the sink's filters".to_owned();
                    return Fate::Failed("no_effect".to_owned(), message);
                }
                Outcome::Rejected(why) => return Fate::Failed(why.code.to_owned(), why.message),
                Outcome::NeedsSchema(id) => match registry.schema(id).await {
                    Ok(_) => {}
                    Err(error @ RegistryError::Unavailable { .. }) => {
                        self.told("registry_unavailable", error.to_string());
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    Err(error) => {
                        return Fate::Failed("unknown_schema".to_owned(), error.to_string());
                    }
                },
            }
        }
        if self.dry_run {
            return Fate::Replayed;
        }
        writer.flush(self.at.clone());
        loop {
            match writer.progress().await {
                Progress::Wanted => {}
                Progress::Durable(_) => return Fate::Replayed,
                Progress::Moved => return Fate::Moved,
                Progress::Rejected { error, .. }
                | Progress::Stop(error)
                | Progress::Fatal(error) => {
                    return refused(error);
                }
            }
        }
    }

    /// Why the letter is not sent at all.
    fn refusal(&self, record: &Record) -> Option<(&'static str, String)> {
        if self.topic_id != self.at.topic_id {
            let message = "its topic was deleted and created again since".to_owned();
            return Some(("former_topic", message));
        }
        if record.offset >= self.at.next.get() {
            let message =
                "the sink was taken back before it: the record comes by itself".to_owned();
            return Some(("not_passed", message));
        }
        let code = record.headers().iter().rev().find(|(name, _)| name == header::ERROR_TYPE);
        let is_barred = code.is_some_and(|(_, code)| code == gate::INCOMPATIBLE.as_bytes());
        if is_barred && self.shared.on_incompatible.is_some() {
            let control = self.shared.control.borrow().state.clone();
            let asked = gate::questions(&self.tp.topic, schema_ids(record), self.at.schemas);
            if asked.iter().any(|question| control.schema_answer(question) != Answer::Passes) {
                let message = format!(
                    "nobody has accepted its schema: cdc schema accept FILE --table {}",
                    self.tp.topic
                );
                return Some((gate::INCOMPATIBLE, message));
            }
        }
        None
    }

    /// Asks until the sink answers.
    async fn standing(&self, offset: i64) -> Standing {
        loop {
            match self.shared.sink.standing(&self.tp, &self.at, offset).await {
                Ok(standing) => return standing,
                Err(error) => {
                    self.told(&error.code, error.message);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    fn told(&self, code: &str, message: String) {
        tracing::warn!(tp = %self.tp, code, error = %message, "a dead letter waits");
        let report = ErrorReport { code: code.to_owned(), message, at_ms: unix_ms() };
        self.shared.status.set_error(Some(report));
    }
}

fn refused(error: SinkError) -> Fate {
    Fate::Failed(error.code, error.message)
}
