//! Cells together with what they mean.

use super::{Cell, Column, Kind, NodeId, Plan, Semantic, Type};

/// A decoded value and its place in the plan. Unions are already resolved: the node is the
/// branch that was written (for a null of "null or T": T).
#[derive(Debug, Clone, Copy)]
pub struct Value<'a, 'm> {
    plan: &'a Plan,
    cells: &'a [Cell<'m>],
    node: NodeId,
    cell: Cell<'m>,
}

impl<'a, 'm> Value<'a, 'm> {
    pub(crate) fn new(
        plan: &'a Plan,
        cells: &'a [Cell<'m>],
        mut node: NodeId,
        mut cell: Cell<'m>,
    ) -> Self {
        loop {
            match (plan.kind(node), cell) {
                (Kind::Optional { inner, .. }, _) => node = inner,
                (Kind::Union { .. }, Cell::Union { branch, at }) => {
                    node = plan.branches(node)[branch as usize];
                    cell = cells[at as usize];
                }
                _ => return Self { plan, cells, node, cell },
            }
        }
    }

    /// The cell itself.
    pub fn cell(&self) -> Cell<'m> {
        self.cell
    }

    /// The node that describes it.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The plan that it was decoded with.
    pub fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// Its Avro type.
    pub fn kind(&self) -> Kind {
        self.plan.kind(self.node)
    }

    /// What else the schema says about it.
    pub fn ty(&self) -> &'a Type {
        self.plan.ty(self.node)
    }

    /// Its meaning.
    pub fn semantic(&self) -> Semantic {
        self.ty().semantic
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.cell, Cell::Null)
    }

    /// Text of a string.
    pub fn as_str(&self) -> Option<&'m str> {
        match self.cell {
            Cell::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Content of bytes or fixed.
    pub fn as_bytes(&self) -> Option<&'m [u8]> {
        match self.cell {
            Cell::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// An int or a long.
    pub fn as_i64(&self) -> Option<i64> {
        match self.cell {
            Cell::Int(n) => Some(n.into()),
            Cell::Long(n) => Some(n),
            _ => None,
        }
    }

    /// A float or a double.
    pub fn as_f64(&self) -> Option<f64> {
        match self.cell {
            Cell::Float(n) => Some(n.into()),
            Cell::Double(n) => Some(n),
            _ => None,
        }
    }

    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self.cell {
            Cell::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// The symbol of an Avro enum.
    pub fn symbol(&self) -> Option<&'a str> {
        match self.cell {
            Cell::Enum(position) => self.ty().symbols.get(position as usize).map(String::as_str),
            _ => None,
        }
    }

    /// The fields of a record.
    pub fn record(&self) -> Option<Row<'a, 'm>> {
        match (self.cell, self.kind()) {
            (Cell::Record { start }, Kind::Record { first, len }) => Some(Row {
                plan: self.plan,
                cells: self.cells,
                first: first as usize,
                len: len as usize,
                start: start as usize,
            }),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn items(&self) -> Option<impl ExactSizeIterator<Item = Value<'a, 'm>> + use<'a, 'm>> {
        let (Cell::Array { start, len }, Kind::Array(item)) = (self.cell, self.kind()) else {
            return None;
        };
        let (plan, cells) = (self.plan, self.cells);
        let items = &cells[start as usize..][..len as usize];
        Some(items.iter().map(move |cell| Value::new(plan, cells, item, *cell)))
    }

    /// The entries of a map, in the order in which they were written.
    pub fn entries(
        &self,
    ) -> Option<impl ExactSizeIterator<Item = (&'m str, Value<'a, 'm>)> + use<'a, 'm>> {
        let (Cell::Map { start, len }, Kind::Map(item)) = (self.cell, self.kind()) else {
            return None;
        };
        let (plan, cells) = (self.plan, self.cells);
        let pairs = cells[start as usize..][..2 * len as usize].chunks_exact(2);
        Some(pairs.map(move |pair| {
            let key = if let Cell::Str(key) = pair[0] { key } else { "" };
            (key, Value::new(plan, cells, item, pair[1]))
        }))
    }
}

/// A decoded record: its columns and their values side by side.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a, 'm> {
    plan: &'a Plan,
    cells: &'a [Cell<'m>],
    first: usize,
    len: usize,
    start: usize,
}

impl<'a, 'm> Row<'a, 'm> {
    /// The plan that it was decoded with.
    pub fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the record has no column at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The columns, in the order of the schema.
    pub fn columns(&self) -> &'a [Column] {
        &self.plan.columns[self.first..][..self.len]
    }

    /// The cells of the columns, in the same order.
    pub fn cells(&self) -> &'a [Cell<'m>] {
        &self.cells[self.start..][..self.len]
    }

    /// The value of a column by position.
    pub fn get(&self, column: usize) -> Option<Value<'a, 'm>> {
        let cell = *self.cells().get(column)?;
        Some(Value::new(self.plan, self.cells, self.columns()[column].node, cell))
    }

    /// Columns with their values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a Column, Value<'a, 'm>)> + use<'a, 'm> {
        let (plan, cells) = (self.plan, self.cells);
        self.columns()
            .iter()
            .zip(self.cells())
            .map(move |(column, cell)| (column, Value::new(plan, cells, column.node, *cell)))
    }

    /// Position of a column. Walks the columns: for set-up, not for every record.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }
}
