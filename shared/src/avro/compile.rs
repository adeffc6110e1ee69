//! From schema JSON to the flat arrays of a [`Plan`].

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::schema::{
    Definition, MAX_NESTING, Source, full_name, namespace_of, parameters, qualify,
};
use super::{Column, Kind, NodeId, Plan, SchemaError, Semantic, SourceType, ToastShape, Type};

pub(super) fn compile(
    schema_id: i32,
    schema: &str,
    references: &[(&str, &str)],
) -> Result<Plan, SchemaError> {
    let source = Source::read(schema_id, schema, references)?;
    let plan = Plan {
        schema_id,
        root: NodeId(0),
        kinds: Vec::new(),
        types: Vec::new(),
        min_bytes: Vec::new(),
        columns: Vec::new(),
        nodes: Vec::new(),
        fields: Vec::new(),
        branches: Vec::new(),
    };
    let mut compiler =
        Compiler { plan, definitions: source.definitions(), named: HashMap::new(), nesting: 0 };
    compiler.plan.root = compiler.node(&source.main, "")?;
    let mut plan = compiler.plan;
    plan.min_bytes = min_bytes(&plan);
    // Last, because a record that refers to itself has a kind only now.
    plan.fields = plan.nodes.iter().map(|node| plan.field(*node)).collect();
    for column in 0..plan.columns.len() {
        plan.columns[column].toast = toast_shape(&plan, &plan.columns[column]);
    }
    Ok(plan)
}

struct Compiler<'s> {
    plan: Plan,
    definitions: HashMap<String, Definition<'s>>,
    named: HashMap<String, NodeId>,
    nesting: u32,
}

impl<'s> Compiler<'s> {
    fn node(&mut self, json: &'s Json, namespace: &str) -> Result<NodeId, SchemaError> {
        if self.nesting == MAX_NESTING {
            return Err(SchemaError::TooDeep { schema_id: self.plan.schema_id });
        }
        self.nesting += 1;
        let node = match json {
            Json::String(name) => self.by_name(name, None, namespace),
            Json::Array(branches) => self.union(branches, namespace),
            Json::Object(object) => self.object(object, namespace),
            other => Err(self.invalid(format!("`{other}` is no type"))),
        };
        self.nesting -= 1;
        node
    }

    fn object(
        &mut self,
        json: &'s Map<String, Json>,
        namespace: &str,
    ) -> Result<NodeId, SchemaError> {
        match json.get("type") {
            Some(Json::String(kind)) => match kind.as_str() {
                "record" | "error" | "enum" | "fixed" => {
                    let name = full_name(json, namespace)
                        .ok_or_else(|| self.invalid(format!("a {kind} without a name")))?;
                    self.named(&name)
                }
                "array" => {
                    let item = self.part(json, "items", namespace)?;
                    Ok(self.push(Kind::Array(item), described(json)))
                }
                "map" => {
                    let value = self.part(json, "values", namespace)?;
                    Ok(self.push(Kind::Map(value), described(json)))
                }
                name => self.by_name(name, Some(json), namespace),
            },
            Some(inner) => self.node(inner, namespace),
            None => Err(self.invalid("an object without a type".to_owned())),
        }
    }

    fn part(
        &mut self,
        json: &'s Map<String, Json>,
        key: &str,
        namespace: &str,
    ) -> Result<NodeId, SchemaError> {
        match json.get(key) {
            Some(part) => self.node(part, namespace),
            None => Err(self.invalid(format!("an array or map without `{key}`"))),
        }
    }

    /// A primitive type, with or without attributes, or the use of a type by its name.
    fn by_name(
        &mut self,
        name: &str,
        attributes: Option<&Map<String, Json>>,
        namespace: &str,
    ) -> Result<NodeId, SchemaError> {
        if let Some(kind) = primitive(name) {
            return Ok(self.push(kind, attributes.map(described).unwrap_or_default()));
        }
        let full = qualify(name, namespace);
        if self.definitions.contains_key(&full) {
            return self.named(&full);
        }
        if self.definitions.contains_key(name) {
            return self.named(name);
        }
        let (schema_id, name) = (self.plan.schema_id, name.to_owned());
        Err(SchemaError::Unknown { schema_id, name })
    }

    /// A named type is compiled at its first use; its node exists before its fields do, so that
    /// they may refer to it.
    fn named(&mut self, name: &str) -> Result<NodeId, SchemaError> {
        if let Some(node) = self.named.get(name) {
            return Ok(*node);
        }
        let Some(&Definition { json, ref namespace }) = self.definitions.get(name) else {
            let (schema_id, name) = (self.plan.schema_id, name.to_owned());
            return Err(SchemaError::Unknown { schema_id, name });
        };
        let full = full_name(json, namespace).unwrap_or_else(|| name.to_owned());
        let mut ty = described(json);
        ty.connect_name = Some(full.clone());
        let id = self.push(Kind::Null, Type::default());
        self.named.insert(name.to_owned(), id);
        let kind = match json.get("type").and_then(Json::as_str) {
            Some("fixed") => {
                let size = json.get("size").and_then(Json::as_u64);
                let size = size.and_then(|size| u32::try_from(size).ok());
                Kind::Fixed(size.ok_or_else(|| self.invalid(format!("no size on `{full}`")))?)
            }
            Some("enum") => {
                ty.symbols = strings(json.get("symbols"));
                Kind::Enum(ty.symbols.len() as u32)
            }
            _ => self.record(json, namespace_of(&full))?,
        };
        if let Some(given) = json.get("connect.name").and_then(Json::as_str) {
            ty.connect_name = Some(given.to_owned());
        }
        ty.semantic = self.semantic(json, kind, ty.connect_name.as_deref());
        self.plan.kinds[id.0 as usize] = kind;
        self.plan.types[id.0 as usize] = ty;
        Ok(id)
    }

    fn record(
        &mut self,
        json: &'s Map<String, Json>,
        namespace: &str,
    ) -> Result<Kind, SchemaError> {
        let fields = json.get("fields").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            let (Some(name), Some(ty)) =
                (field.get("name").and_then(Json::as_str), field.get("type"))
            else {
                return Err(self.invalid("a field without name or type".to_owned()));
            };
            let node = self.node(ty, namespace)?;
            columns.push((self.column(name, field, ty, node), node));
        }
        let (first, len) = (self.plan.columns.len() as u32, columns.len() as u32);
        for (column, node) in columns {
            self.plan.columns.push(column);
            self.plan.nodes.push(node);
        }
        Ok(Kind::Record { first, len })
    }

    fn column(&self, name: &str, field: &Json, ty: &Json, node: NodeId) -> Column {
        let (value, nullable) = match self.plan.kind(node) {
            Kind::Optional { inner, .. } => (inner, true),
            Kind::Union { .. } => {
                let mut branches = self.plan.branches(node).iter();
                (node, branches.any(|branch| self.plan.kind(*branch) == Kind::Null))
            }
            // A record that is still being compiled is a Null node too.
            Kind::Null => (node, ty.as_str() == Some("null")),
            _ => (node, false),
        };
        let source = if defined_here(ty) {
            SourceType::from_parameters(&self.plan.ty(value).parameters)
        } else {
            SourceType::default()
        };
        Column {
            name: name.to_owned(),
            node: value,
            nullable,
            source,
            toast: ToastShape::Never,
            default: field.get("default").cloned(),
            json_key: format!(",{}:", Json::from(name)).into_bytes().into_boxed_slice(),
        }
    }

    fn union(&mut self, branches: &'s [Json], namespace: &str) -> Result<NodeId, SchemaError> {
        let mut nodes = Vec::with_capacity(branches.len());
        for branch in branches {
            nodes.push(self.node(branch, namespace)?);
        }
        let null = branches.iter().position(|branch| branch.as_str() == Some("null"));
        if let (Some(null), [a, b]) = (null, nodes.as_slice()) {
            let inner = if null == 0 { *b } else { *a };
            return Ok(self.push(Kind::Optional { null: null as u8, inner }, Type::default()));
        }
        let (first, len) = (self.plan.branches.len() as u32, nodes.len() as u32);
        self.plan.branches.extend(nodes);
        Ok(self.push(Kind::Union { first, len }, Type::default()))
    }

    fn push(&mut self, kind: Kind, mut ty: Type) -> NodeId {
        ty.semantic = if self.fits(ty.semantic, kind) { ty.semantic } else { Semantic::Plain };
        self.plan.kinds.push(kind);
        self.plan.types.push(ty);
        NodeId(self.plan.kinds.len() as u32 - 1)
    }

    fn semantic(&self, json: &Map<String, Json>, kind: Kind, name: Option<&str>) -> Semantic {
        let semantic = meaning(json, name);
        if self.fits(semantic, kind) { semantic } else { Semantic::Plain }
    }

    /// Whether a value of the kind can have the meaning at all.
    fn fits(&self, semantic: Semantic, kind: Kind) -> bool {
        use Semantic as S;
        match semantic {
            S::Plain => true,
            S::Decimal { .. } => matches!(kind, Kind::Bytes | Kind::Fixed(_)),
            S::Date | S::Time | S::Year => kind == Kind::Int,
            S::MicroTime
            | S::NanoTime
            | S::Timestamp
            | S::MicroTimestamp
            | S::NanoTimestamp
            | S::InstantMillis
            | S::InstantMicros
            | S::InstantNanos
            | S::MicroDuration
            | S::NanoDuration => kind == Kind::Long,
            S::Bits { .. } => kind == Kind::Bytes,
            S::Uuid => matches!(kind, Kind::String | Kind::Fixed(16)),
            S::VariableScaleDecimal => {
                let fields: Vec<_> = self.columns_of(kind);
                fields == [("scale", Kind::Int), ("value", Kind::Bytes)]
            }
            S::Point | S::Geometry | S::Geography | S::SparseVector => {
                matches!(kind, Kind::Record { .. })
            }
            S::DoubleVector | S::FloatVector => matches!(kind, Kind::Array(_)),
            S::Enum => matches!(kind, Kind::String | Kind::Enum(_)),
            _ => kind == Kind::String,
        }
    }

    fn columns_of(&self, kind: Kind) -> Vec<(&str, Kind)> {
        let Kind::Record { first, len } = kind else { return Vec::new() };
        let columns = &self.plan.columns[first as usize..][..len as usize];
        let named = |column: &Column| self.plan.kind(column.node);
        columns.iter().map(|column| (column.name.as_str(), named(column))).collect()
    }

    fn invalid(&self, reason: String) -> SchemaError {
        SchemaError::Invalid { schema_id: self.plan.schema_id, reason }
    }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

/// Whether a field's type, less the null of "null or T", is written out where it is used.
fn defined_here(ty: &Json) -> bool {
    match ty {
        Json::Array(branches) => branches.iter().any(Json::is_object),
        other => other.is_object(),
    }
}

fn described(json: &Map<String, Json>) -> Type {
    let text = |key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
    let connect_name = text("connect.name");
    Type {
        semantic: meaning(json, connect_name.as_deref()),
        connect_name,
        connect_type: text("connect.type"),
        parameters: parameters(json),
        connect_default: json.get("connect.default").cloned(),
        connect_version: json.get("connect.version").and_then(Json::as_i64),
        symbols: Vec::new(),
    }
}

/// `connect.name` before the logical type. A Connect decimal takes from the Avro attributes
/// what its parameters do not say.
fn meaning(json: &Map<String, Json>, connect_name: Option<&str>) -> Semantic {
    let number = |key: &str| json.get(key).and_then(Json::as_i64);
    let logical = json.get("logicalType").and_then(Json::as_str);
    let connect = connect_name.and_then(|name| Semantic::of_connect(name, &parameters(json)));
    match connect {
        Some(Semantic::Decimal { scale, precision }) => Semantic::Decimal {
            scale: number("scale").and_then(|n| n.try_into().ok()).unwrap_or(scale),
            precision,
        },
        Some(semantic) => semantic,
        None => logical
            .and_then(|name| Semantic::of_logical(name, number("scale"), number("precision")))
            .unwrap_or_default(),
    }
}

fn strings(json: Option<&Json>) -> Vec<String> {
    let items = json.and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    items.iter().filter_map(Json::as_str).map(str::to_owned).collect()
}

fn toast_shape(plan: &Plan, column: &Column) -> ToastShape {
    let kind = plan.kind(column.node);
    let item = match kind {
        Kind::Array(item) | Kind::Map(item) => {
            let item = match plan.kind(item) {
                Kind::Optional { inner, .. } => inner,
                _ => item,
            };
            Some((plan.kind(item), plan.ty(item).semantic))
        }
        _ => None,
    };
    ToastShape::of(kind, plan.ty(column.node).semantic, item, &column.source)
}

/// Least bytes per node. Nodes that refer to each other in a circle count as 0 on the way,
/// which is a lower bound still.
fn min_bytes(plan: &Plan) -> Vec<u32> {
    let mut known = vec![None; plan.kinds.len()];
    (0..plan.kinds.len()).map(|node| min_bytes_of(plan, NodeId(node as u32), &mut known)).collect()
}

fn min_bytes_of(plan: &Plan, node: NodeId, known: &mut [Option<u32>]) -> u32 {
    if let Some(bytes) = known[node.0 as usize] {
        return bytes;
    }
    known[node.0 as usize] = Some(0);
    let mut of = |node: &NodeId| min_bytes_of(plan, *node, known);
    let bytes = match plan.kind(node) {
        Kind::Null => 0,
        Kind::Float => 4,
        Kind::Double => 8,
        Kind::Fixed(size) => size,
        Kind::Record { first, len } => plan.nodes[first as usize..][..len as usize]
            .iter()
            .fold(0_u32, |sum, field| sum.saturating_add(of(field))),
        Kind::Union { .. } => {
            let least = plan.branches(node).iter().map(of).min();
            least.unwrap_or(0).saturating_add(1)
        }
        // One byte at least: a length, a count, a branch, an index, or a small number.
        _ => 1,
    };
    known[node.0 as usize] = Some(bytes);
    bytes
}
