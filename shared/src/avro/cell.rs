//! Decoded values: small, `Copy`, and borrowing from the message.

/// One decoded value. What it means is said by the plan node that it was decoded with; use
/// [`Plan::view`](super::Plan::view) to see both together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'m> {
    /// Avro null, also the null branch of any union.
    Null,
    /// Avro boolean.
    Bool(bool),
    /// Avro int.
    Int(i32),
    /// Avro long.
    Long(i64),
    /// Avro float.
    Float(f32),
    /// Avro double.
    Double(f64),
    /// Avro bytes or fixed.
    Bytes(&'m [u8]),
    /// Avro string.
    Str(&'m str),
    /// Avro enum: the position of the symbol.
    Enum(u32),
    /// Record: its fields lie side by side from `start`.
    Record {
        /// Position of the first field in the buffer.
        start: u32,
    },
    /// Array: `len` items side by side from `start`.
    Array {
        /// Position of the first item in the buffer.
        start: u32,
        /// Number of items.
        len: u32,
    },
    /// Map: `len` pairs of key and value, alternating, from `start`.
    Map {
        /// Position of the first key in the buffer.
        start: u32,
        /// Number of pairs.
        len: u32,
    },
    /// A branch of a union that is not just "null or T": the value is the cell at `at`.
    Union {
        /// Position of the branch in the union.
        branch: u32,
        /// Position of the value in the buffer.
        at: u32,
    },
}

/// The buffer that messages are decoded into.
///
/// [`Plan::decode`](super::Plan::decode) appends, so that one buffer can hold a whole batch;
/// [`clear`](Self::clear) starts over. To use the same memory for messages that live at another
/// time, keep it as a `CellBuf<'static>` and [`recycle`](Self::recycle) it.
#[derive(Debug, Default)]
pub struct CellBuf<'m> {
    pub(super) cells: Vec<Cell<'m>>,
    /// Items of arrays and maps whose end is not known yet.
    pub(super) scratch: Vec<Cell<'m>>,
}

/// A buffer that one giant message has grown beyond this many cells (1.5 MiB) is given back
/// when it is recycled.
const KEPT_CELLS: usize = 65_536;

impl CellBuf<'_> {
    /// An empty buffer; memory is taken when the first message is decoded.
    pub const fn new() -> Self {
        Self { cells: Vec::new(), scratch: Vec::new() }
    }

    /// Forgets the cells and keeps the memory.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.scratch.clear();
    }

    /// Cells that are held.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether no cell is held.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Bytes of memory that the buffer holds.
    pub fn allocated(&self) -> usize {
        (self.cells.capacity() + self.scratch.capacity()) * size_of::<Cell<'_>>()
    }

    /// The same memory, empty, for messages of another lifetime.
    ///
    /// ```
    /// use cdc_shared::avro::CellBuf;
    ///
    /// let mut spare: CellBuf<'static> = CellBuf::new();
    /// for message in [String::from("a"), String::from("b")] {
    ///     let mut cells = spare.recycle();
    ///     // plan.decode(message.as_bytes(), &mut cells) …
    ///     # let _: (&CellBuf<'_>, &str) = (&cells, &message);
    ///     cells.clear();
    ///     spare = cells.recycle();
    /// }
    /// ```
    pub fn recycle<'n>(self) -> CellBuf<'n> {
        CellBuf { cells: recycle(self.cells), scratch: recycle(self.scratch) }
    }
}

/// Collecting a mapped `IntoIter` of the same layout reuses its allocation, which is the safe
/// way to change the lifetime of an empty vector.
fn recycle<'n>(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'n>> {
    if cells.capacity() > KEPT_CELLS {
        return Vec::new();
    }
    cells.clear();
    cells.into_iter().map(|_| Cell::Null).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_small() {
        assert!(size_of::<Cell<'_>>() <= 24);
    }

    #[test]
    fn recycling_keeps_the_memory_and_drops_the_cells() {
        let text = String::from("x");
        let mut buf = CellBuf::new();
        buf.cells.extend(std::iter::repeat_n(Cell::Str(&text), 1000));
        let (at, allocated) = (buf.cells.as_ptr().cast::<u8>(), buf.allocated());
        let next: CellBuf<'static> = buf.recycle();
        drop(text);
        assert!(next.is_empty());
        assert_eq!(next.allocated(), allocated);
        assert_eq!(next.cells.as_ptr().cast::<u8>(), at);
    }

    #[test]
    fn recycling_gives_back_what_a_giant_message_took() {
        let mut buf = CellBuf::new();
        buf.cells.resize(KEPT_CELLS + 1, Cell::Null);
        assert_eq!(buf.recycle().allocated(), 0);
    }
}
