//! The walk over a datum.

use std::fmt::Write as _;

use super::plan::Field;
use super::{Cell, CellBuf, Kind, NodeId, Plan};

/// What a datum may cost. Every limit is checked before the memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest datum, in bytes.
    pub max_bytes: usize,
    /// Records, arrays, maps and unions inside each other.
    pub max_depth: u32,
    /// Cells of one datum, whatever its size: 4 Mi cells are 96 MiB.
    pub max_cells: usize,
    /// Cells that a datum of any size may have, because values can take no bytes at all (null,
    /// a record of nulls). Beyond it there are at most four cells for each of its bytes.
    pub free_cells: usize,
}

impl Limits {
    /// 16 MiB, 64 deep, 4 Mi cells, 65 536 of them free.
    pub const DEFAULT: Self = Self {
        max_bytes: 16 * 1024 * 1024,
        max_depth: 64,
        max_cells: 4 * 1024 * 1024,
        free_cells: 65_536,
    };

    fn cells(&self, datum: usize) -> usize {
        self.max_cells.min(self.free_cells.saturating_add(datum.saturating_mul(4)))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a datum cannot be decoded: what, where in the schema, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{fault} at byte {at} of the avro datum (schema {schema_id})", Place(path))]
pub struct DecodeError {
    /// What is wrong.
    pub fault: Fault,
    /// Bytes of the datum that were read before.
    pub at: usize,
    /// Field names from the root, joined by `.`, with positions in arrays; empty at the root.
    pub path: String,
    /// The schema that the datum was decoded with.
    pub schema_id: i32,
}

struct Place<'a>(&'a str);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "field `{}`: ", self.0) }
    }
}

/// What is wrong with a datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The datum ends inside a value.
    #[error("cut short")]
    CutShort,
    /// Bytes are left after the value.
    #[error("{0} bytes left over after the value")]
    Trailing(usize),
    /// A number of more bits than its type has.
    #[error("number too large for its type")]
    Number,
    /// A boolean that is neither 0 nor 1.
    #[error("boolean that is neither 0 nor 1")]
    Boolean,
    /// Text that is not UTF-8.
    #[error("text that is not utf-8")]
    Utf8,
    /// A length below zero.
    #[error("length {0}")]
    Length(i64),
    /// A union branch that does not exist.
    #[error("union branch {0} does not exist")]
    Branch(i64),
    /// An enum symbol that does not exist.
    #[error("enum symbol {0} does not exist")]
    Symbol(i64),
    /// A block of an array or map promises more items than bytes are left for.
    #[error("block of more items than the datum can hold")]
    Block,
    /// A block of an array or map does not end where its size says.
    #[error("block that does not end where its size says")]
    BlockSize,
    /// More than [`Limits::max_bytes`].
    #[error("datum of more than {0} bytes")]
    TooLarge(usize),
    /// More than [`Limits::max_depth`].
    #[error("values nested more than {0} deep")]
    TooDeep(u32),
    /// More than [`Limits::max_cells`], or than the datum's size allows.
    #[error("too many values for the size of the datum")]
    TooManyCells,
}

impl Plan {
    /// Decodes a datum with the default [`Limits`]; see [`decode_within`](Self::decode_within).
    ///
    /// # Errors
    /// When the datum does not fit the schema. The buffer is then as it was.
    pub fn decode<'m>(
        &self,
        datum: &'m [u8],
        cells: &mut CellBuf<'m>,
    ) -> Result<Cell<'m>, DecodeError> {
        self.decode_within(&Limits::DEFAULT, datum, cells)
    }

    /// Decodes a whole datum behind what `cells` already holds, and returns its root cell. All
    /// its text and bytes borrow from the datum.
    ///
    /// # Errors
    /// When the datum does not fit the schema or a limit. The buffer is then as it was.
    pub fn decode_within<'m>(
        &self,
        limits: &Limits,
        datum: &'m [u8],
        cells: &mut CellBuf<'m>,
    ) -> Result<Cell<'m>, DecodeError> {
        let before = cells.cells.len();
        let mut walk = Walk {
            plan: self,
            data: datum,
            at: 0,
            left: limits.cells(datum.len()).min((u32::MAX as usize).saturating_sub(before)),
            cells: &mut cells.cells,
            scratch: &mut cells.scratch,
            trail: Vec::new(),
        };
        match walk.datum(limits) {
            Ok(root) => Ok(root),
            Err(fault) => {
                let fault = match fault {
                    Fault::TooDeep(_) => Fault::TooDeep(limits.max_depth),
                    other => other,
                };
                let (at, path) = (walk.at, self.path(&walk.trail));
                cells.cells.truncate(before);
                cells.scratch.clear();
                Err(DecodeError { fault, at, path, schema_id: self.schema_id })
            }
        }
    }

    /// The trail was left from the inside out.
    #[cold]
    fn path(&self, trail: &[Step]) -> String {
        let mut path = String::new();
        for step in trail.iter().rev() {
            match step {
                Step::Column(column) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&self.columns[*column as usize].name);
                }
                Step::Item(position) => {
                    // Writing to a string does not fail.
                    let _ = write!(path, "[{position}]");
                }
            }
        }
        path
    }
}

/// One step of the way to a fault.
#[derive(Debug, Clone, Copy)]
enum Step {
    Column(u32),
    Item(usize),
}

struct Walk<'p, 'm, 'b> {
    plan: &'p Plan,
    data: &'m [u8],
    at: usize,
    /// Cells that may still be made.
    left: usize,
    cells: &'b mut Vec<Cell<'m>>,
    scratch: &'b mut Vec<Cell<'m>>,
    trail: Vec<Step>,
}

impl<'m> Walk<'_, 'm, '_> {
    fn datum(&mut self, limits: &Limits) -> Result<Cell<'m>, Fault> {
        if self.data.len() > limits.max_bytes {
            return Err(Fault::TooLarge(limits.max_bytes));
        }
        let root = self.value(self.plan.root, limits.max_depth)?;
        match self.data.len() - self.at {
            0 => Ok(root),
            left => Err(Fault::Trailing(left)),
        }
    }

    /// One value. Its own cell is returned; the cells of its parts are in the buffer.
    fn value(&mut self, node: NodeId, depth: u32) -> Result<Cell<'m>, Fault> {
        let field = self.plan.field(node);
        self.field(field, depth)
    }

    /// Scalars are read in place: there are dozens of them in a message, and a call for each is
    /// what the walk would spend its time on.
    #[expect(clippy::inline_always, reason = "its two callers are the hot loop; measured")]
    #[inline(always)]
    fn field(&mut self, field: Field, depth: u32) -> Result<Cell<'m>, Fault> {
        if let Some(null) = field.null {
            match self.long()? {
                branch if branch == i64::from(null) => return Ok(Cell::Null),
                0 | 1 => {}
                branch => return Err(Fault::Branch(branch)),
            }
        }
        Ok(match field.kind {
            Kind::Null => Cell::Null,
            Kind::Boolean => match self.take(1)? {
                [0] => Cell::Bool(false),
                [1] => Cell::Bool(true),
                _ => return Err(Fault::Boolean),
            },
            Kind::Int => {
                let n = i32::try_from(self.long()?).map_err(|_| Fault::Number)?;
                Cell::Int(n)
            }
            Kind::Long => Cell::Long(self.long()?),
            Kind::Double => Cell::Double(f64::from_le_bytes(self.array()?)),
            Kind::Bytes => Cell::Bytes(self.bytes()?),
            Kind::String => {
                let bytes = self.bytes()?;
                Cell::Str(std::str::from_utf8(bytes).map_err(|_| Fault::Utf8)?)
            }
            kind => return self.rare(kind, depth),
        })
    }

    /// What is made of parts, and scalars that are seldom met.
    #[inline(never)]
    fn rare(&mut self, kind: Kind, depth: u32) -> Result<Cell<'m>, Fault> {
        Ok(match kind {
            Kind::Float => Cell::Float(f32::from_le_bytes(self.array()?)),
            Kind::Fixed(size) => Cell::Bytes(self.take(size as usize)?),
            Kind::Enum(symbols) => match self.long()? {
                n if (0..i64::from(symbols)).contains(&n) => Cell::Enum(n as u32),
                n => return Err(Fault::Symbol(n)),
            },
            Kind::Record { first, len } => self.record(first, len, depth)?,
            Kind::Array(item) => self.blocks(item, false, depth)?,
            Kind::Map(value) => self.blocks(value, true, depth)?,
            Kind::Union { first, len } => self.union(first, len, depth)?,
            // Avro has no union inside a union; the others were read in place.
            _ => return Err(Fault::Branch(0)),
        })
    }

    fn record(&mut self, first: u32, len: u32, depth: u32) -> Result<Cell<'m>, Fault> {
        let depth = deeper(depth)?;
        let start = self.room(len as usize)?;
        let plan = self.plan;
        let fields = &plan.fields[first as usize..][..len as usize];
        for (position, field) in fields.iter().enumerate() {
            match self.field(*field, depth) {
                Ok(cell) => self.cells[start + position] = cell,
                Err(fault) => {
                    return Err(self.left_at(Step::Column(first + position as u32), fault));
                }
            }
        }
        Ok(Cell::Record { start: start as u32 })
    }

    fn union(&mut self, first: u32, len: u32, depth: u32) -> Result<Cell<'m>, Fault> {
        let depth = deeper(depth)?;
        let branch = self.long()?;
        if !(0..i64::from(len)).contains(&branch) {
            return Err(Fault::Branch(branch));
        }
        let node = self.plan.branches[first as usize + branch as usize];
        let cell = self.value(node, depth)?;
        if cell == Cell::Null {
            return Ok(Cell::Null);
        }
        let at = self.room(1)?;
        self.cells[at] = cell;
        Ok(Cell::Union { branch: branch as u32, at: at as u32 })
    }

    /// An array, or a map if `keyed`. Its items are kept aside until the last block is read:
    /// their own parts go to the buffer in between.
    fn blocks(&mut self, item: NodeId, keyed: bool, depth: u32) -> Result<Cell<'m>, Fault> {
        let depth = deeper(depth)?;
        let aside = self.scratch.len();
        let mut len = 0;
        loop {
            let (count, end) = self.block(item, keyed)?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                if let Err(fault) = self.item(item, keyed, depth) {
                    return Err(self.left_at(Step::Item(len), fault));
                }
                len += 1;
            }
            if end.is_some_and(|end| end != self.at) {
                return Err(Fault::BlockSize);
            }
        }
        let start = self.cells.len() as u32;
        self.cells.extend(self.scratch.drain(aside..));
        let len = len as u32;
        Ok(if keyed { Cell::Map { start, len } } else { Cell::Array { start, len } })
    }

    fn item(&mut self, item: NodeId, keyed: bool, depth: u32) -> Result<(), Fault> {
        if keyed {
            let key = std::str::from_utf8(self.bytes()?).map_err(|_| Fault::Utf8)?;
            self.scratch.push(Cell::Str(key));
        }
        let cell = self.value(item, depth)?;
        self.scratch.push(cell);
        Ok(())
    }

    /// Head of a block: its number of items, checked against what is left, and its end where
    /// the writer says it (a negative count).
    fn block(&mut self, item: NodeId, keyed: bool) -> Result<(usize, Option<usize>), Fault> {
        let count = self.long()?;
        let mut end = None;
        if count < 0 {
            let size = self.long()?;
            let bytes = usize::try_from(size).map_err(|_| Fault::Length(size))?;
            let left = self.data.len() - self.at;
            if bytes > left {
                return Err(Fault::CutShort);
            }
            end = Some(self.at + bytes);
        }
        let count = usize::try_from(count.unsigned_abs()).map_err(|_| Fault::Block)?;
        let least = self.plan.min_bytes[item.0 as usize] as usize + usize::from(keyed);
        if count.checked_mul(least).is_none_or(|bytes| bytes > self.data.len() - self.at) {
            return Err(Fault::Block);
        }
        self.count_cells(count.saturating_mul(1 + usize::from(keyed)))?;
        Ok((count, end))
    }

    /// Takes room for cells that lie side by side, and returns where they start.
    fn room(&mut self, cells: usize) -> Result<usize, Fault> {
        self.count_cells(cells)?;
        let start = self.cells.len();
        self.cells.resize(start + cells, Cell::Null);
        Ok(start)
    }

    fn count_cells(&mut self, cells: usize) -> Result<(), Fault> {
        self.left = self.left.checked_sub(cells).ok_or(Fault::TooManyCells)?;
        Ok(())
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'m [u8], Fault> {
        let bytes = self.data[self.at..].get(..len).ok_or(Fault::CutShort)?;
        self.at += len;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self.data[self.at..].first_chunk::<N>().ok_or(Fault::CutShort)?;
        self.at += N;
        Ok(*bytes)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'m [u8], Fault> {
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| Fault::Length(len))?;
        self.take(len)
    }

    /// Zigzag varint.
    #[inline]
    fn long(&mut self) -> Result<i64, Fault> {
        match self.data.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(unzigzag(u64::from(*byte)))
            }
            _ => self.long_tail(),
        }
    }

    fn long_tail(&mut self) -> Result<i64, Fault> {
        let rest = &self.data[self.at..];
        // Times are numbers of six to nine bytes, and most of a message's numbers.
        if let Some(chunk) = rest.first_chunk::<8>() {
            let chunk = u64::from_le_bytes(*chunk);
            let last = (!chunk & HIGH_BITS).trailing_zeros() / 8;
            if last < 8 {
                self.at += last as usize + 1;
                return Ok(unzigzag(sevens(chunk & (u64::MAX >> (56 - 8 * last)))));
            }
        }
        let mut value = 0_u64;
        for (position, byte) in rest.iter().take(10).enumerate() {
            // The tenth byte holds the last of 64 bits.
            if position == 9 && *byte > 1 {
                return Err(Fault::Number);
            }
            value |= u64::from(byte & 0x7f) << (7 * position);
            if *byte < 0x80 {
                self.at += position + 1;
                return Ok(unzigzag(value));
            }
        }
        Err(Fault::CutShort)
    }

    #[cold]
    fn left_at(&mut self, step: Step, fault: Fault) -> Fault {
        self.trail.push(step);
        fault
    }
}

fn deeper(depth: u32) -> Result<u32, Fault> {
    // The caller knows the limit that was used up, and puts it in.
    depth.checked_sub(1).ok_or(Fault::TooDeep(0))
}

const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// The low seven bits of each byte, side by side.
#[inline]
fn sevens(bytes: u64) -> u64 {
    let pairs = (bytes & 0x007f_007f_007f_007f) | ((bytes & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4)
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
