//! Rows of one layout between two flushes, folded: each key has one final state.
//!
//! A row is written into the arena as the bytes that go over the wire; a later change of the same
//! key replaces the cells it has values for. What changes of the primary key need beside that is
//! said at [`Segment::takes`].

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use cdc_shared::avro::Value;
use cdc_shared::envelope::Placeholder;

use super::layout::Layout;
use crate::change::KeyChange;
use crate::sink::Rejection;

/// A value of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cell<'s> {
    /// In the wire format of the column.
    Value(&'s [u8]),
    /// SQL's NULL.
    Null,
    /// Not sent by the source: the stored value stays.
    Missing,
}

/// A cell as a range of the arena; negative lengths are NULL and missing.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: i32,
}

const NULL: Span = Span { start: 0, len: -1 };
const MISSING: Span = Span { start: 0, len: -2 };

/// Which change of a primary key at the source: delete and create of it share these.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Move {
    /// Log position.
    pub(super) lsn: i64,
    /// Transaction.
    pub(super) tx: i64,
}

/// The final state of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The row is there.
    Present,
    /// It is not.
    Absent,
}

/// One key of a segment.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) state: State,
    /// The key was left by a change of the primary key, before anything else here touched it.
    pub(super) left_by: Option<Move>,
    /// The key was reached by a change of the primary key.
    pub(super) reached_by: Option<Move>,
    /// The row is there and values are missing from it.
    pub(super) is_short: bool,
    /// Nothing here touched the key before the source said that its row is new.
    pub(super) is_new: bool,
    /// The Kafka key.
    key: (u32, u32),
    /// The row before this one with the same hash.
    chained: Option<u32>,
}

/// One change as a segment takes it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Incoming<'c, 'a, 'm> {
    /// The row after the change.
    Row(cdc_shared::avro::Row<'a, 'm>),
    /// A row that was not there, as the source says: of a create or a snapshot.
    New(cdc_shared::avro::Row<'a, 'm>),
    /// The key of a row that is gone.
    Key(&'c Value<'a, 'm>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) layout: Arc<Layout>,
    arena: Vec<u8>,
    spans: Vec<Span>,
    keys: Vec<u8>,
    rows: Vec<Row>,
    hashes: RandomState,
    index: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    /// Records taken.
    records: usize,
}

/// Lengths of a segment's parts.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Sizes {
    arena: usize,
    spans: usize,
    keys: usize,
    rows: usize,
}

impl Segment {
    /// `likely`: the sizes of one that it will resemble.
    pub(super) fn new(layout: Arc<Layout>, likely: Sizes) -> Self {
        Self {
            layout,
            arena: Vec::with_capacity(likely.arena),
            spans: Vec::with_capacity(likely.spans),
            keys: Vec::with_capacity(likely.keys),
            rows: Vec::with_capacity(likely.rows),
            hashes: RandomState::new(),
            index: HashMap::with_capacity_and_hasher(likely.rows, BuildHasherDefault::default()),
            records: 0,
        }
    }

    /// How large it is.
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            arena: self.arena.len(),
            spans: self.spans.len(),
            keys: self.keys.len(),
            rows: self.rows.len(),
        }
    }

    /// The keys.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Records taken.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Whether keys were left or reached by changes of the primary key.
    pub(super) fn moves(&self) -> bool {
        self.rows.iter().any(|row| row.left_by.is_some() || row.reached_by.is_some())
    }

    /// Whether keys were left.
    pub(super) fn leaves(&self) -> bool {
        self.rows.iter().any(|row| row.left_by.is_some())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.arena.len() + self.keys.len() + self.spans.len() * size_of::<Span>()
    }

    /// A cell.
    pub(super) fn cell(&self, row: u32, column: usize) -> Cell<'_> {
        let at = row as usize * self.layout.columns.len() + column;
        let span = self.spans.get(at).copied().unwrap_or(MISSING);
        match usize::try_from(span.len) {
            Ok(len) => {
                let start = span.start as usize;
                Cell::Value(self.arena.get(start..start + len).unwrap_or_default())
            }
            Err(_) if span.len == NULL.len => Cell::Null,
            Err(_) => Cell::Missing,
        }
    }

    /// Positions of the columns whose value is missing in a row.
    pub(super) fn missing(&self, row: u32) -> Vec<usize> {
        let columns = 0..self.layout.columns.len();
        columns.filter(|column| self.cell(row, *column) == Cell::Missing).collect()
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let mut next = self.index.get(&hash).copied();
        while let Some(at) = next {
            let row = self.rows.get(at as usize)?;
            if self.keys.get(row.key.0 as usize..row.key.1 as usize) == Some(key) {
                return Some(at);
            }
            next = row.chained;
        }
        None
    }

    /// Whether a change of the primary key can be folded in, or needs a segment of its own behind
    /// this one. What a key had when it was left is read from the table before anything of the
    /// segment is written: so nothing may have touched it here. And a row without all of its
    /// values is written onto nothing that its key had before.
    pub(super) fn takes(&self, key: &[u8], change: KeyChange, lacks_values: bool) -> bool {
        let pending = self.find(self.hashes.hash_one(key), key);
        let pending = pending.and_then(|at| self.rows.get(at as usize));
        pending.is_none_or(|row| {
            change == KeyChange::To
                && !lacks_values
                && row.state == State::Absent
                && row.reached_by.is_none()
        })
    }

    /// Takes one change. `moved`: it is a half of a change of the primary key whose values are
    /// handed over.
    ///
    /// # Errors
    /// A value that its column cannot hold, or values that are missing from a row that is not
    /// there; the segment is as before then.
    pub(super) fn push(
        &mut self,
        key: &[u8],
        incoming: Incoming<'_, '_, '_>,
        moved: Option<(KeyChange, Move)>,
        placeholder: &Placeholder,
    ) -> Result<(), Rejection> {
        let (arena, spans) = (self.arena.len(), self.spans.len());
        let written = self.write(incoming, placeholder).and_then(|()| {
            let state = match incoming {
                Incoming::Row(_) | Incoming::New(_) => State::Present,
                Incoming::Key(_) => State::Absent,
            };
            let is_new = matches!(incoming, Incoming::New(_));
            self.fold(key, (state, is_new), moved, spans)
        });
        if written.is_err() {
            self.arena.truncate(arena);
            self.spans.truncate(spans);
        }
        written
    }

    /// Writes the cells of a row behind all others.
    fn write(
        &mut self,
        incoming: Incoming<'_, '_, '_>,
        placeholder: &Placeholder,
    ) -> Result<(), Rejection> {
        let (arena, columns) = (&mut self.arena, &self.layout.columns);
        match incoming {
            Incoming::Row(row) | Incoming::New(row) => {
                for ((schema, value), column) in row.iter().zip(columns) {
                    let span = if column.may_be_missing && placeholder.stands_in(schema, &value) {
                        MISSING
                    } else {
                        encode(&column.ty, value, arena)?
                    };
                    self.spans.push(span);
                }
            }
            Incoming::Key(key) => {
                let start = self.spans.len();
                self.spans.resize(start + columns.len(), MISSING);
                let key = key.record().ok_or_else(|| {
                    Rejection::new("bad_key", "the key is no record of the key's columns")
                })?;
                for ((_, value), column) in key.iter().zip(&self.layout.key) {
                    let span = encode(&columns[*column].ty, value, arena)?;
                    self.spans[start + column] = span;
                }
            }
        }
        Ok(())
    }

    /// Makes the cells from `spans` on the state of their key.
    fn fold(
        &mut self,
        key: &[u8],
        (state, is_new): (State, bool),
        moved: Option<(KeyChange, Move)>,
        spans: usize,
    ) -> Result<(), Rejection> {
        let hash = self.hashes.hash_one(key);
        let may_be_short = state == State::Present && self.layout.may_miss_values;
        let left_by = moved.and_then(|(half, id)| (half == KeyChange::From).then_some(id));
        let reached_by = moved.and_then(|(half, id)| (half == KeyChange::To).then_some(id));
        if let Some(at) = self.find(hash, key) {
            self.fold_onto(at, state, reached_by, spans, may_be_short)?;
        } else {
            let start = self.keys.len() as u32;
            self.keys.extend_from_slice(key);
            let chained = self.index.insert(hash, self.rows.len() as u32);
            let key = (start, self.keys.len() as u32);
            let is_short = may_be_short && is_short(self.spans.get(spans..).unwrap_or_default());
            self.rows.push(Row { state, left_by, reached_by, is_short, is_new, key, chained });
        }
        self.records += 1;
        Ok(())
    }

    fn fold_onto(
        &mut self,
        at: u32,
        state: State,
        reached_by: Option<Move>,
        spans: usize,
        may_be_short: bool,
    ) -> Result<(), Rejection> {
        let width = self.layout.columns.len();
        let Some(row) = self.rows.get_mut(at as usize) else { return Ok(()) };
        let spans = spans.min(self.spans.len());
        let (earlier, new) = self.spans.split_at_mut(spans);
        let old = earlier.get_mut(at as usize * width..).unwrap_or_default();
        let old = old.get_mut(..width).unwrap_or_default();
        let keeps = row.state == State::Present && state == State::Present;
        let lacks_values = may_be_short && is_short(new);
        if row.state == State::Absent && reached_by.is_none() && lacks_values {
            return Err(row_missing(&self.layout));
        }
        for (old, new) in old.iter_mut().zip(new) {
            if !(keeps && new.len == MISSING.len) {
                *old = *new;
            }
        }
        row.is_short = lacks_values && is_short(old);
        row.state = state;
        row.reached_by = row.reached_by.or(reached_by);
        self.spans.truncate(spans);
        Ok(())
    }

    /// Row numbers in the order of their keys, so that neighbours in the index are written one
    /// after the other.
    pub(super) fn sorted(&self) -> Vec<u32> {
        let first = self.layout.key.first().copied().unwrap_or_default();
        let begin = |row: u32| {
            let mut begin = [0; 8];
            for (to, from) in begin.iter_mut().zip(self.cell_bytes(row, first)) {
                *to = *from;
            }
            u64::from_be_bytes(begin)
        };
        // Most keys differ in their first bytes, which are compared as a number.
        let mut order: Vec<_> = (0..self.rows.len() as u32).map(|row| (begin(row), row)).collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| self.compare(a.1, b.1)));
        order.into_iter().map(|(_, row)| row).collect()
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        let cells = |row: u32| self.layout.key.iter().map(move |c| self.cell_bytes(row, *c));
        cells(a).cmp(cells(b))
    }

    fn cell_bytes(&self, row: u32, column: usize) -> &[u8] {
        match self.cell(row, column) {
            Cell::Value(bytes) => bytes,
            Cell::Null | Cell::Missing => &[],
        }
    }
}

fn encode(
    ty: &super::types::ColumnType,
    value: Value<'_, '_>,
    arena: &mut Vec<u8>,
) -> Result<Span, Rejection> {
    if value.is_null() {
        return Ok(NULL);
    }
    let start = arena.len();
    ty.encode(value, arena)?;
    Ok(Span { start: start as u32, len: (arena.len() - start) as i32 })
}

fn is_short(spans: &[Span]) -> bool {
    spans.iter().any(|span| span.len == MISSING.len)
}

/// Takes what is a hash already.
#[derive(Clone, Copy, Default, Debug)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A row that was to be updated in part is not there.
pub(super) fn row_missing(layout: &Layout) -> Rejection {
    let (message, way_out) = row_missing_text(layout);
    Rejection::stop("row_missing", message, way_out)
}

/// The words of [`row_missing`].
pub(super) fn row_missing_text(layout: &Layout) -> (String, String) {
    let message = format!(
        "a change of {source} leaves out large values that did not change, and its row is not in \
         {target}: a row that left the mirror, or a change of the primary key whose delete was not \
         seen",
        source = layout.source,
        target = layout.target,
    );
    let way_out = format!(
        "ALTER TABLE {} REPLICA IDENTITY FULL at the source makes every change whole; the rows \
         that are missing come with a new snapshot of the table (cdc snapshot FILE --table), and \
         cdc skip passes this record",
        layout.source
    );
    (message, way_out)
}
