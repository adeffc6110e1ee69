//! What is in the topics of the replica sink, and the same changes as a bare client takes them.
//!
//! `mixed`: half snapshot reads, then 30 % updates and 10 % deletes with their tombstones, of
//! random rows. And each kind alone, where updates and deletes are of rows that are already there.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::types::Value;

use super::copy::{copy_row, key_row, with_copy_frame};
use crate::envelopes::{SCHEMA, envelope};
use crate::topic::Filler;
use crate::{Error, stack::Stack};

/// Changes in one batch of a bare client, and of the worker.
pub(crate) const BATCH: usize = 2000;

/// A topic of the replica sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    Mixed,
    Inserts,
    Updates,
    Deletes,
    /// Changes of the primary key from partition to partition, with a value left out that did not
    /// change. Has no ceiling.
    Moves,
}

impl Load {
    pub(crate) const ALL: [Self; 5] =
        [Self::Mixed, Self::Inserts, Self::Updates, Self::Deletes, Self::Moves];

    /// The table in its topic's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Inserts => "inserts",
            Self::Updates => "updates",
            Self::Deletes => "deletes",
            Self::Moves => "moves",
        }
    }

    /// Whether its rows are there before.
    pub(crate) fn is_prefilled(self) -> bool {
        matches!(self, Self::Updates | Self::Deletes | Self::Moves)
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Records of the whole mix, tombstones included.
    pub(crate) records: usize,
    /// Rows that updates, deletes and changes of keys find.
    pub(crate) rows: usize,
    pub(crate) partitions: usize,
}

/// A change: what, of which row.
type Op = (&'static str, usize);

/// The changes of a load.
fn ops(load: Load, Size { records, rows, .. }: Size) -> Vec<Op> {
    let rows = if load.is_prefilled() { rows } else { records / 2 };
    let (updates, deletes) = (records * 3 / 10, records / 10);
    let inserts = (0..rows).map(|n| ("r", n));
    let mut random = fastrand::Rng::with_seed(7);
    let mut live: Vec<usize> = (0..rows).collect();
    let mut rest: Vec<&'static str> = match load {
        Load::Mixed => [vec!["u"; updates], vec!["d"; deletes]].concat(),
        Load::Inserts | Load::Moves => Vec::new(),
        Load::Updates => vec!["u"; updates],
        Load::Deletes => vec!["d"; deletes],
    };
    random.shuffle(&mut rest);
    let later = rest.into_iter().map(|op| {
        let at = random.usize(..live.len());
        (op, if op == "d" { live.swap_remove(at) } else { live[at] })
    });
    if load.is_prefilled() { later.collect() } else { inserts.chain(later).collect() }
}

/// A full topic, and its changes for a bare client.
pub(crate) struct Full {
    pub(crate) load: Load,
    pub(crate) topic: String,
    /// Registry ids of keys and values.
    pub(crate) ids: (i32, i32),
    /// Changes: all but the tombstones.
    pub(crate) changes: usize,
    /// Ends of the partitions, summed.
    pub(crate) messages: i64,
    pub(crate) mean_bytes: usize,
    pub(crate) batches: Vec<Vec<Batch>>,
}

/// One batch, each key once, in the order of the keys: whole rows and deleted keys.
pub(crate) struct Batch {
    pub(crate) rows: Vec<u8>,
    pub(crate) deleted: Vec<u8>,
}

/// Fills a topic.
pub(crate) fn fill(
    stack: &Stack,
    topic: String,
    load: Load,
    size: Size,
    ids: (i32, i32),
) -> Result<Full, Error> {
    let schema = Schema::parse_str(SCHEMA)?;
    let mut filler = Filler::new(stack, topic, size.partitions, ids, &schema)?;
    if load == Load::Moves {
        return fill_moves(filler, size, ids);
    }
    let mut random = fastrand::Rng::with_seed(11);
    let mut open: Vec<BTreeMap<usize, Option<Vec<u8>>>> = vec![BTreeMap::new(); size.partitions];
    let mut taken = vec![0; open.len()];
    let mut batches: Vec<Vec<Batch>> = open.iter().map(|_| Vec::new()).collect();
    let ops = ops(load, size);
    for (op, n) in &ops {
        let partition = n % open.len();
        let event = envelope(op, *n, &mut random);
        filler.send(partition, *n, op, &event)?;
        let row = if *op == "d" { None } else { Some(copy_row(&event)?) };
        open[partition].insert(*n, row);
        taken[partition] += 1;
        if taken[partition] == BATCH {
            taken[partition] = 0;
            batches[partition].push(batch(&std::mem::take(&mut open[partition])));
        }
    }
    for (batches, open) in batches.iter_mut().zip(open) {
        if !open.is_empty() {
            batches.push(batch(&open));
        }
    }
    let (topic, messages, bytes) = filler.finish()?;
    let changes = ops.len();
    Ok(Full { load, topic, ids, changes, messages, mean_bytes: bytes / changes, batches })
}

/// Sends updates of random rows behind the inserts of a topic; how many.
pub(crate) fn more(stack: &Stack, inserts: &Full, size: Size) -> Result<i64, Error> {
    let schema = Schema::parse_str(SCHEMA)?;
    let topic = inserts.topic.clone();
    let mut filler = Filler::new(stack, topic, size.partitions, inserts.ids, &schema)?;
    let mut random = fastrand::Rng::with_seed(13);
    for (op, n) in ops(Load::Updates, size) {
        filler.send(n % size.partitions, n, op, &envelope(op, n, &mut random))?;
    }
    let (_, messages, _) = filler.finish()?;
    Ok(messages)
}

/// Every change moves a random row to a new key, rows that were moved before among them.
fn fill_moves(mut filler: Filler<'_>, size: Size, ids: (i32, i32)) -> Result<Full, Error> {
    let mut random = fastrand::Rng::with_seed(5);
    let mut live: Vec<usize> = (0..size.rows).collect();
    let moves = size.records / 50;
    for number in 0..moves {
        let at = random.usize(..live.len());
        let (old, new) = (live[at], size.rows + number);
        live[at] = new;
        let halves = [
            ("d", old, "__debezium.newkey", new, envelope("d", old, &mut random)),
            ("c", new, "__debezium.oldkey", old, without_note(envelope("c", new, &mut random))),
        ];
        for (op, n, header, other, event) in halves {
            let partition = n % size.partitions;
            let other = format!(r#"{{"id":{other}}}"#);
            let event = at_position(event, number);
            filler.send_with(partition, n, op, &event, Some((header, &other)))?;
        }
    }
    let (topic, messages, bytes) = filler.finish()?;
    let batches = Vec::new();
    Ok(Full {
        load: Load::Moves,
        topic,
        ids,
        changes: moves,
        messages,
        mean_bytes: bytes / moves / 2,
        batches,
    })
}

/// The event with the placeholder of a large value that did not change.
fn without_note(event: Value) -> Value {
    changed(event, "after", "note", "__debezium_unavailable_value".into())
}

/// The event with the log position and transaction that both halves of a change share.
fn at_position(event: Value, number: usize) -> Value {
    let event = changed(event, "source", "lsn", Value::Long(number as i64));
    changed(event, "source", "txId", Value::Long(number as i64))
}

fn changed(mut event: Value, block: &str, field: &str, new: Value) -> Value {
    if let Some(Value::Record(fields)) = field_mut(&mut event, block)
        && let Some((_, found)) = fields.iter_mut().find(|(name, _)| name == field)
    {
        *found = match found {
            Value::Union(branch, _) => Value::Union(*branch, Box::new(new)),
            _ => new,
        };
    }
    event
}

fn field_mut<'v>(record: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    let Value::Record(fields) = record else { return None };
    match fields.iter_mut().find(|(field, _)| field == name) {
        Some((_, Value::Union(_, inner))) => Some(inner),
        Some((_, value)) => Some(value),
        None => None,
    }
}

fn batch(changes: &BTreeMap<usize, Option<Vec<u8>>>) -> Batch {
    let rows = changes.values().flatten();
    let deleted = changes.iter().filter(|(_, row)| row.is_none());
    Batch {
        rows: with_copy_frame(rows.map(Vec::as_slice)),
        deleted: with_copy_frame(
            deleted.map(|(n, _)| key_row(*n)).collect::<Vec<_>>().iter().map(Vec::as_slice),
        ),
    }
}
