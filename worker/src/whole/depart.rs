//! Sending what is complete, and what comes of it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use cdc_shared::offset::{Position, SchemaIds};
use tokio::time::Instant;

use super::part::Part;
use super::release::{Flight, Landing, Parcel, PartChanges};
use super::session::{POSITION_INTERVAL, Session};
use super::spill::Stored;
use super::task::{Next, WholeTask};
use crate::pipeline::hold::Hold;
use crate::sink::Disposition;
use crate::sink::whole::{Changes, Portion};
/// A sum over positions that belong together.
pub(super) fn sum<'p>(positions: impl Iterator<Item = (&'p Part, &'p Position)>) -> i32 {
    // FNV-1a: it must be the same in every version and on every machine.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for (part, position) in positions {
        add(part.tp().topic.as_bytes());
        add(&part.tp().partition.to_le_bytes());
        add(position.topic_id.0.as_bytes());
        add(&position.next.get().to_le_bytes());
    }
    (hash ^ (hash >> 32)) as i32
}

impl WholeTask {
    /// Sends what is complete, or a position that has nothing to go with.
    pub(super) fn depart(&self, session: &mut Session, parts: &mut [Part]) {
        if session.flight.is_some() || session.is_stuck {
            return;
        }
        let limits = self.shared.sink.batch_limits();
        let (mut rows, mut bytes) = (0, 0);
        let (mut keys, mut never) = (Keys::default(), None);
        let mut parcels = Vec::new();
        while let Some(parcel) = session.ready.front() {
            let fits = rows + parcel.records <= limits.rows && bytes + parcel.bytes <= limits.bytes;
            match keys.takes(parts, parcel) {
                Takes::Yes => {}
                // A key that got another schema may be in another partition: what stands before
                // must be in the sink first.
                Takes::Later => break,
                Takes::Never(place) => {
                    let hold = self.key_schema_changed(parts, parcel, place);
                    never = Some((place, hold)).filter(|_| parcels.is_empty());
                    break;
                }
            }
            if !parcels.is_empty() && (session.narrow > 0 || !fits) {
                break;
            }
            rows += parcel.records;
            bytes += parcel.bytes;
            parcels.extend(session.ready.pop_front());
        }
        if let Some((place, hold)) = never {
            session.is_stuck = true;
            if let Some(part) = parts.get_mut(place) {
                part.hold = Some(hold);
            }
            return;
        }
        if parcels.is_empty() && session.last_position.elapsed() < POSITION_INTERVAL {
            return;
        }
        let covers = reaches(session, parts, &parcels);
        if covers.is_empty() {
            return;
        }
        let portions = self.portions(parts, &covers, &parcels);
        session.last_position = Instant::now();
        let (sink, trouble) = (self.sink.clone(), session.trouble.0.clone());
        session.flight = Some(Flight::start(sink, trouble, portions, covers, parcels));
    }

    fn portions(
        &self,
        parts: &[Part],
        covers: &[(usize, Position, u64)],
        parcels: &[Parcel],
    ) -> Vec<Portion> {
        let portion = |(place, covers, _): &(usize, Position, u64)| {
            let part = parts.get(*place)?;
            let expected = part.position()?.clone();
            let runs = parcels.iter().flat_map(|parcel| &parcel.runs);
            let lists: Vec<_> = runs
                .filter(|run| run.place == *place && !run.records.is_empty())
                .map(|run| run.records.clone())
                .collect();
            let (shared, tp) = (self.shared.clone(), part.tp().clone());
            let topic_id = expected.topic_id.clone();
            let changes = (!lists.is_empty()).then(|| {
                let changes = PartChanges { shared, tp, topic_id, lists };
                Box::new(changes) as Box<dyn Changes>
            });
            Some(Portion { tp: part.tp().clone(), expected, covers: covers.clone(), changes })
        };
        covers.iter().filter_map(portion).collect()
    }

    /// One transaction with two schemas of a key: the order of its records in different partitions
    /// is lost.
    fn key_schema_changed(&self, parts: &[Part], parcel: &Parcel, place: usize) -> Hold {
        let topic = parts.get(place).map_or("", |part| &part.tp().topic);
        let offset = parcel.runs.iter().find(|run| run.place == place).map(|run| run.offsets.0);
        let message = format!(
            "the key of {topic} gets another schema in the middle of a transaction: its rows come \
             in other partitions than before, and their order is not known"
        );
        let way_out = "cdc skip FILE --sink ID the records of the transaction, then cdc resync \
                       FILE --sink ID";
        self.refused(offset, "key_schema_changed", message, Some(way_out.to_owned()))
    }

    pub(super) async fn landed(
        &self,
        session: &mut Session,
        parts: &mut [Part],
        landing: Landing,
    ) -> Option<Next> {
        let mut flight = session.flight.take()?;
        let covers = std::mem::take(&mut flight.covers);
        let parcels = std::mem::take(&mut flight.parcels);
        match landing {
            Landing::Durable => {
                self.arrived(session, parts, covers, &parcels);
                None
            }
            Landing::Moved => {
                self.shared.status.moved.fetch_add(1, Ordering::Relaxed);
                tracing::info!(sink = %self.shared.sink_id,
                    "the sink's record moved; reading it again");
                Some(Next::Again)
            }
            Landing::Rejected { .. } if parcels.len() > 1 => {
                session.narrow = parcels.len();
                parcels.into_iter().rev().for_each(|parcel| session.ready.push_front(parcel));
                None
            }
            Landing::Rejected { at, code, message, way_out } => {
                let place = at.as_ref().and_then(|(tp, _)| parts.iter().position(|p| p.tp() == tp));
                let place = place.or_else(|| covers.first().map(|(place, ..)| *place));
                let offset = at.map(|(_, offset)| offset);
                tracing::error!(sink = %self.shared.sink_id, offset, code, error = %message,
                    "pipeline.sink_write_error");
                if let Some(part) = place.and_then(|place| parts.get_mut(place)) {
                    part.hold = Some(self.refused(offset, &code, message, way_out));
                }
                parcels.into_iter().rev().for_each(|parcel| session.ready.push_front(parcel));
                session.is_stuck = true;
                None
            }
            Landing::Error(error) if error.disposition == Disposition::Stop => {
                let since = self.shared.control_offset();
                let mut hold = Hold::stopped(&error.code, error.message, None, since);
                if let Some(hint) = error.hint {
                    hold.report.way_out = format!("{hint}, then cdc resume FILE --sink ID");
                }
                tracing::error!(sink = %self.shared.sink_id, code = %hold.report.code,
                    reason = %hold.report.message, way_out = %hold.report.way_out,
                    "sink stopped");
                hold.resolve = true;
                parts.first_mut()?.hold = Some(hold);
                session.is_stuck = true;
                None
            }
            Landing::Error(error) => {
                let _ = self.shared.fatal.send(error).await;
                Some(Next::Later)
            }
        }
    }

    fn arrived(
        &self,
        session: &mut Session,
        parts: &mut [Part],
        covers: Vec<(usize, Position, u64)>,
        parcels: &[Parcel],
    ) {
        let mut delivered = 0;
        for (place, position, records) in covers {
            delivered += records;
            let Some(part) = parts.get_mut(place) else { continue };
            part.depth = part.depth.saturating_sub(records);
            part.advance(position);
        }
        session.moved = Instant::now();
        session.narrow = session.narrow.saturating_sub(1);
        let bytes: usize = parcels.iter().map(|parcel| parcel.bytes).sum();
        session.memory = session.memory.saturating_sub(bytes);
        let status = &self.shared.status;
        status.delivered.fetch_add(delivered, Ordering::Relaxed);
        if delivered > 0 {
            status.delivered_once.store(true, Ordering::Relaxed);
            status.set_error(None);
        }
        if session.is_apart && is_whole(session, parts) {
            session.is_apart = false;
            tracing::info!(sink = %self.shared.sink_id, "pipeline.transactions_whole");
        }
    }
}

/// The schemas of the keys in a delivery: one for each topic.
#[derive(Default)]
struct Keys<'p>(HashMap<&'p str, i32>);

/// Whether a delivery takes a parcel too.
enum Takes {
    Yes,
    /// Not together with what it has.
    Later,
    /// The parcel has two schemas of one key; in this partition.
    Never(usize),
}

impl<'p> Keys<'p> {
    fn takes(&mut self, parts: &'p [Part], parcel: &Parcel) -> Takes {
        let mut own = Self::default();
        for run in parcel.runs.iter().filter(|run| !run.records.is_empty()) {
            let Some(part) = parts.get(run.place) else { continue };
            for schema in part.key_schemas(run.offsets) {
                if *own.0.entry(&part.tp().topic).or_insert(schema) != schema {
                    return Takes::Never(run.place);
                }
            }
        }
        let differs = |(topic, schema)| self.0.get(topic).is_some_and(|known| known != schema);
        if own.0.iter().any(differs) {
            return Takes::Later;
        }
        self.0.extend(own.0);
        Takes::Yes
    }
}

/// The tables' partitions: all but the last.
pub(super) fn tables(parts: &[Part]) -> &[Part] {
    parts.split_last().map_or(&[], |(_, tables)| tables)
}

pub(super) fn table_positions(parts: &[Part]) -> Vec<(&Part, &Position)> {
    tables(parts).iter().filter_map(|part| Some((part, part.position()?))).collect()
}

fn is_whole(session: &Session, parts: &[Part]) -> bool {
    let next = |part: &Part| part.position().map_or(0, |position| position.next.get());
    let positions: Vec<i64> = tables(parts).iter().map(next).collect();
    session.assembler.is_whole(&positions, parts.last().map_or(0, next))
}

/// The positions behind these parcels, with the number of records of each partition. Where a
/// partition has nothing queued it goes up to where it was read. The transaction topic is always
/// among them, with the sum over all.
fn reaches(session: &Session, parts: &[Part], parcels: &[Parcel]) -> Vec<(usize, Position, u64)> {
    let mut reached = Vec::new();
    let mut after: Vec<Option<Position>> = Vec::new();
    for (place, part) in tables(parts).iter().enumerate() {
        let runs = parcels.iter().flat_map(|parcel| &parcel.runs).filter(|run| run.place == place);
        let last = runs.clone().map(|run| run.offsets.1 + 1).max();
        let waits = session.ready.iter().flat_map(|p| &p.runs).any(|run| run.place == place);
        let is_empty = !waits && part.unread.is_empty() && session.assembler.is_empty(place);
        let next = if is_empty { last.max(Some(session.assembler.read(place))) } else { last };
        let records = runs.map(|run| run.records.iter().map(Stored::count).sum::<u64>()).sum();
        let position = next.and_then(|next| part.covers(next));
        let moves = position.as_ref().map(|p| p.next) > part.position().map(|p| p.next);
        after.push(if moves { position.clone() } else { part.position().cloned() });
        if let Some(position) = position.filter(|_| moves) {
            reached.push((place, position, records));
        }
    }
    let Some((marks, place)) = parts.last().zip(parts.len().checked_sub(1)) else { return reached };
    let end = parcels.iter().filter_map(|parcel| parcel.end).max().map(|end| end + 1);
    let is_closed = session.ready.is_empty() && marks.unread.is_empty();
    let next = match session.assembler.closed_at().filter(|_| is_closed) {
        Some(read) => end.max(Some(read)),
        None => end,
    };
    let before = marks.position().map_or(0, |position| position.next.get());
    let next = next.unwrap_or(before).max(before);
    if next == before && reached.is_empty() {
        return reached;
    }
    let positions: Vec<i64> =
        after.iter().map(|p| p.as_ref().map_or(0, |p| p.next.get())).collect();
    let is_whole = !session.is_apart || session.assembler.is_whole(&positions, next);
    let sum = sum(tables(parts).iter().zip(after.iter().flatten()));
    if let Some(position) = marks.covers(next) {
        let schemas = SchemaIds { key: None, value: is_whole.then_some(sum) };
        reached.push((place, Position { schemas, ..position }, 0));
    }
    reached
}
