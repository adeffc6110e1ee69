//! A delivery: complete transactions on their way into the sink.

use std::sync::Arc;

use cdc_shared::control::ControlState;
use cdc_shared::offset::{Position, TopicId, TopicPartition};
use tokio::task::{JoinError, JoinHandle};

use super::assembler::Group;
use super::spill::{Reader, Stored};
use crate::pipeline::Shared;
use crate::pipeline::decode::{Decoder, Outcome};
use crate::sink::retry::TroubleReporter;
use crate::sink::whole::{
    ChangeReader, Changes, Delivered, Portion, TakeChange, Unread, WholeSink,
};
use crate::sink::{Disposition, SinkError};

/// What one partition has in a parcel.
#[derive(Debug)]
pub(super) struct Shipped {
    /// Which partition.
    pub(super) place: usize,
    /// Its changes.
    pub(super) records: Arc<Vec<Stored>>,
    /// Offsets of the first and the last record, effect or not.
    pub(super) offsets: (i64, i64),
}

/// A group on its way: as often as it takes.
#[derive(Debug)]
pub(super) struct Parcel {
    /// What each partition has in it.
    pub(super) runs: Vec<Shipped>,
    /// Offset of the mark that ends it.
    pub(super) end: Option<i64>,
    /// Number of records.
    pub(super) records: usize,
    /// Bytes in memory.
    pub(super) bytes: usize,
}

impl Parcel {
    pub(super) fn new(group: Group<Stored>) -> Self {
        let (mut records, mut bytes) = (0, 0);
        for stored in group.runs.iter().flat_map(|(_, run)| &run.records) {
            match stored {
                Stored::Memory(record) => bytes += record.weight(),
                Stored::Disk(_) => {}
            }
            records += stored.count() as usize;
        }
        let runs = group.runs.into_iter();
        let runs = runs.map(|(place, run)| Shipped {
            place,
            offsets: (run.first, run.last),
            records: Arc::new(run.records),
        });
        Self { runs: runs.collect(), end: group.end, records, bytes }
    }
}

/// The changes of one partition in a delivery.
pub(super) struct PartChanges {
    pub(super) shared: Arc<Shared>,
    pub(super) tp: TopicPartition,
    pub(super) topic_id: TopicId,
    pub(super) lists: Vec<Arc<Vec<Stored>>>,
}

struct PartReader<'p> {
    part: &'p PartChanges,
    lists: std::slice::Iter<'p, Arc<Vec<Stored>>>,
    reader: Option<Reader<'p>>,
    decoder: Decoder,
    /// What an operator gives up.
    control: Arc<ControlState>,
}

impl Changes for PartChanges {
    fn reader(&self) -> Box<dyn ChangeReader + '_> {
        Box::new(PartReader {
            part: self,
            lists: self.lists.iter(),
            reader: None,
            decoder: Decoder::new(self.shared.json.clone()),
            control: self.shared.control.borrow().state.clone(),
        })
    }
}

impl ChangeReader for PartReader<'_> {
    fn next(&mut self, take: &mut TakeChange<'_>) -> Result<bool, Unread> {
        let PartChanges { shared, tp, topic_id, .. } = self.part;
        loop {
            let Some(reader) = self.reader.as_mut() else {
                let Some(list) = self.lists.next() else { return Ok(false) };
                self.reader = Some(Reader::new(list));
                continue;
            };
            let Some(record) = reader.advance().map_err(Unread::Lost)? else {
                self.reader = None;
                continue;
            };
            let offset = record.offset;
            let is_skipped = self.control.has_skips()
                && self.control.skip_to(&shared.sink_id, tp, topic_id, offset).is_some();
            if is_skipped {
                tracing::warn!(%tp, offset, "skipped by an operator");
                continue;
            }
            let registry = &shared.registry;
            return match self.decoder.offer(record, registry, shared.filter, |c| take(c)) {
                Outcome::Taken { .. } | Outcome::Passed => Ok(true),
                Outcome::Rejected(rejection) => Err(Unread::Rejected { offset, rejection }),
                // It was read before.
                Outcome::NeedsSchema(id) => {
                    let why = format!("schema {id} is not known any more");
                    Err(Unread::Lost(std::io::Error::other(why)))
                }
            };
        }
    }
}

/// How a delivery ended.
#[derive(Debug)]
pub(super) enum Landing {
    /// It is in the sink.
    Durable,
    /// The sink's record is another: read it again.
    Moved,
    /// The sink refuses a record, or one that is not known.
    Rejected {
        at: Option<(TopicPartition, i64)>,
        code: String,
        message: String,
        way_out: Option<String>,
    },
    /// What an operator, or the process' end, must mend.
    Error(SinkError),
}

/// A delivery under way. Dropping it abandons it; the compare-and-set makes that safe.
#[derive(Debug)]
pub(super) struct Flight {
    /// The positions that it reaches, with the number of records.
    pub(super) covers: Vec<(usize, Position, u64)>,
    pub(super) parcels: Vec<Parcel>,
    task: JoinHandle<Landing>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Flight {
    /// Starts it.
    pub(super) fn start(
        sink: Arc<dyn WholeSink>,
        trouble: TroubleReporter,
        portions: Vec<Portion>,
        covers: Vec<(usize, Position, u64)>,
        parcels: Vec<Parcel>,
    ) -> Self {
        let is_single = parcels.len() <= 1;
        let task = tokio::spawn(async move {
            let unsure = std::sync::atomic::AtomicBool::new(false);
            let order = std::sync::atomic::Ordering::Relaxed;
            let attempt = || async {
                let delivered = sink.deliver(&portions, unsure.load(order)).await;
                unsure.fetch_or(delivered.is_err(), order);
                delivered
            };
            match trouble.retrier().run(attempt).await {
                Ok(Delivered::Durable) => Landing::Durable,
                Ok(Delivered::Moved) => Landing::Moved,
                Ok(Delivered::Rejected { tp, offset, rejection }) => Landing::Rejected {
                    at: Some((tp, offset)),
                    code: rejection.code.to_owned(),
                    message: rejection.message,
                    way_out: rejection.way_out,
                },
                Err(error) => refused(&*sink, &portions, error, is_single).await,
            }
        });
        Self { covers, parcels, task }
    }

    /// Waits for its end; cancel-safe.
    pub(super) async fn landed(&mut self) -> Result<Landing, JoinError> {
        (&mut self.task).await
    }
}

/// What an error means; of a single transaction the record is looked for.
async fn refused(
    sink: &dyn WholeSink,
    portions: &[Portion],
    error: SinkError,
    is_single: bool,
) -> Landing {
    match error.disposition {
        Disposition::Moved => Landing::Moved,
        Disposition::Reject | Disposition::RejectAndStop => {
            let at = if is_single { sink.culprit(portions).await.ok().flatten() } else { None };
            let stops = error.disposition == Disposition::RejectAndStop;
            let SinkError { code, message, hint, .. } = error;
            Landing::Rejected { at, code, message, way_out: hint.filter(|_| stops) }
        }
        Disposition::Retry(_) | Disposition::Stop | Disposition::Fatal => Landing::Error(error),
    }
}
