//! The compiled form of one writer schema.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{Cell, CellBuf, Row, SchemaError, Semantic, SourceType, ToastShape, Value, compile};

/// Position of a node in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub(super) u32);

/// The Avro type of a node, and where its parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Avro null.
    Null,
    /// Avro boolean.
    Boolean,
    /// Avro int.
    Int,
    /// Avro long.
    Long,
    /// Avro float.
    Float,
    /// Avro double.
    Double,
    /// Avro bytes.
    Bytes,
    /// Avro string.
    String,
    /// Avro fixed of so many bytes.
    Fixed(u32),
    /// Avro enum of so many symbols.
    Enum(u32),
    /// Avro array of the node.
    Array(NodeId),
    /// Avro map of string to the node.
    Map(NodeId),
    /// Avro record: `len` of the plan's columns from `first`.
    Record {
        /// Position of the first column.
        first: u32,
        /// Number of columns.
        len: u32,
    },
    /// Union of null and one other type; `null` is the position (0 or 1) of the null branch.
    Optional {
        /// Position of the null branch.
        null: u8,
        /// The other branch.
        inner: NodeId,
    },
    /// Any other union: `len` of the plan's branches from `first`.
    Union {
        /// Position of the first branch.
        first: u32,
        /// Number of branches.
        len: u32,
    },
}

/// What a schema says about a node beside its [`Kind`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Type {
    /// The meaning; set only where the node's kind can hold it.
    pub semantic: Semantic,
    /// `connect.name`, or the full name of a record, enum or fixed.
    pub connect_name: Option<String>,
    /// `connect.type`: `int8`, `int16`.
    pub connect_type: Option<String>,
    /// `connect.parameters`. On a named type they are those of its first use.
    pub parameters: BTreeMap<String, String>,
    /// `connect.default`.
    pub connect_default: Option<Json>,
    /// `connect.version`.
    pub connect_version: Option<i64>,
    /// Symbols of an enum.
    pub symbols: Vec<String>,
}

/// One field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Name in the Avro schema.
    pub name: String,
    /// The node of its value; an [`Kind::Optional`] is already taken off.
    pub node: NodeId,
    /// Whether null is one of its values.
    pub nullable: bool,
    /// The source column, where the schema tells.
    pub source: SourceType,
    /// How a placeholder for an unchanged value would look in it.
    pub toast: ToastShape,
    /// The field's Avro default.
    pub default: Option<Json>,
    /// `,"name":`, escaped, as it stands in JSON text; the first of an object goes without comma.
    pub(crate) json_key: Box<[u8]>,
}

impl Column {
    /// Its name at the source, before it was adjusted to Avro's rules.
    pub fn source_name(&self) -> &str {
        self.source.column_name.as_ref().unwrap_or(&self.name)
    }
}

/// A node as it is read: its `Optional` taken off, so that one look tells everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// Position of the null branch, when it has one.
    pub(super) null: Option<u8>,
    /// The type of the value itself.
    pub(super) kind: Kind,
}

/// A writer schema, compiled for decoding. Made once per schema id and shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(super) schema_id: i32,
    pub(super) root: NodeId,
    pub(super) kinds: Vec<Kind>,
    pub(super) types: Vec<Type>,
    /// Least bytes that a value of the node can take.
    pub(super) min_bytes: Vec<u32>,
    pub(super) columns: Vec<Column>,
    /// Full nodes (with their `Optional`) of the columns, in the same order.
    pub(super) nodes: Vec<NodeId>,
    /// How the columns are read, in the same order.
    pub(super) fields: Vec<Field>,
    pub(super) branches: Vec<NodeId>,
}

impl Plan {
    /// Compiles a schema. `references` are the schemas that the registry lists for it, as
    /// (name, JSON text), resolved recursively, in any order.
    ///
    /// # Errors
    /// When the schema is not valid Avro, or names a type that is in neither.
    pub fn compile(
        schema_id: i32,
        schema_json: &str,
        references: &[(impl AsRef<str>, impl AsRef<str>)],
    ) -> Result<Self, SchemaError> {
        let references: Vec<(&str, &str)> =
            references.iter().map(|(name, json)| (name.as_ref(), json.as_ref())).collect();
        compile::compile(schema_id, schema_json, &references)
    }

    /// The registry's id of the schema.
    pub fn schema_id(&self) -> i32 {
        self.schema_id
    }

    /// The node of a whole datum.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The Avro type of a node.
    pub fn kind(&self, node: NodeId) -> Kind {
        self.kinds[node.0 as usize]
    }

    /// How a node is read.
    pub(super) fn field(&self, node: NodeId) -> Field {
        match self.kind(node) {
            Kind::Optional { null, inner } => Field { null: Some(null), kind: self.kind(inner) },
            kind => Field { null: None, kind },
        }
    }

    /// What else the schema says about a node.
    pub fn ty(&self, node: NodeId) -> &Type {
        &self.types[node.0 as usize]
    }

    /// Full name of the root (`shop.public.orders.Envelope`), `None` if it is not a named type.
    pub fn name(&self) -> Option<&str> {
        self.ty(self.root).connect_name.as_deref()
    }

    /// Columns of a record node; empty for any other node.
    pub fn columns(&self, node: NodeId) -> &[Column] {
        match self.kind(node) {
            Kind::Record { first, len } => &self.columns[first as usize..][..len as usize],
            _ => &[],
        }
    }

    /// Branches of a union that is not just "null or T"; empty for any other node.
    pub fn branches(&self, node: NodeId) -> &[NodeId] {
        match self.kind(node) {
            Kind::Union { first, len } => &self.branches[first as usize..][..len as usize],
            _ => &[],
        }
    }

    /// A decoded cell seen through its node. `root` must come from this plan's
    /// [`decode`](Self::decode) into this buffer.
    pub fn view<'a, 'm>(&'a self, root: Cell<'m>, cells: &'a CellBuf<'m>) -> Value<'a, 'm> {
        Value::new(self, &cells.cells, self.root, root)
    }

    /// A decoded root record; `None` if the root is null or no record.
    pub fn row<'a, 'm>(&'a self, root: Cell<'m>, cells: &'a CellBuf<'m>) -> Option<Row<'a, 'm>> {
        self.view(root, cells).record()
    }
}
