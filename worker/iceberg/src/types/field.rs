//! Types of columns, without the ids that a table gives them, and whether a table's column takes
//! the values of another type.

use std::fmt;
use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, StructType, Type};

/// A type of a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FieldType {
    /// A type without parts.
    Primitive(PrimitiveType),
    /// A list, of elements that may be null.
    List(Box<FieldType>),
    /// A map of strings to values that may be null.
    Map(Box<FieldType>),
    /// Named fields that may be null.
    Struct(Vec<(String, FieldType)>),
}

/// How a column of a table relates to the type that the source's column needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fit {
    /// It holds every value.
    Holds,
    /// It holds every value once it is promoted to this type, which Iceberg allows.
    Promote(Type),
    /// It does not.
    No,
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primitive(primitive) => primitive.fmt(f),
            Self::List(element) => write!(f, "list<{element}>"),
            Self::Map(value) => write!(f, "map<string, {value}>"),
            Self::Struct(fields) => {
                let fields = fields.iter().map(|(name, ty)| format!("{name}: {ty}"));
                write!(f, "struct<{}>", fields.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl FieldType {
    /// The type with ids, the first one behind `last_id`, which becomes the last one given.
    pub fn with_ids(&self, last_id: &mut i32) -> Type {
        let mut id = || {
            *last_id += 1;
            *last_id
        };
        match self {
            Self::Primitive(primitive) => Type::Primitive(primitive.clone()),
            Self::List(element) => {
                let id = id();
                let element = element.with_ids(last_id);
                let element_field = Arc::new(NestedField::list_element(id, element, false));
                Type::List(ListType { element_field })
            }
            Self::Map(value) => {
                let (key, of_value) = (id(), id());
                let key = NestedField::map_key_element(key, Type::Primitive(PrimitiveType::String));
                let value = value.with_ids(last_id);
                let value = NestedField::map_value_element(of_value, value, false);
                Type::Map(MapType { key_field: Arc::new(key), value_field: Arc::new(value) })
            }
            Self::Struct(fields) => {
                let ids: Vec<i32> = fields.iter().map(|_| id()).collect();
                let fields = fields.iter().zip(ids).map(|((name, ty), id)| {
                    let ty = ty.with_ids(last_id);
                    Arc::new(NestedField::optional(id, name, ty))
                });
                Type::Struct(StructType::new(fields.collect()))
            }
        }
    }

    /// Judges a column of a table.
    pub fn fit(&self, found: &Type) -> Fit {
        match (self, found) {
            (Self::Primitive(wanted), Type::Primitive(found)) => {
                if holds(found, wanted) {
                    Fit::Holds
                } else if holds(wanted, found) {
                    Fit::Promote(Type::Primitive(wanted.clone()))
                } else {
                    Fit::No
                }
            }
            (Self::List(wanted), Type::List(found)) => {
                part(wanted, &found.element_field, |element_field| {
                    Type::List(ListType { element_field })
                })
            }
            (Self::Map(wanted), Type::Map(found))
                if *found.key_field.field_type == Type::Primitive(PrimitiveType::String) =>
            {
                part(wanted, &found.value_field, |value_field| {
                    Type::Map(MapType { key_field: found.key_field.clone(), value_field })
                })
            }
            (Self::Struct(wanted), Type::Struct(found)) => fields(wanted, found),
            _ => Fit::No,
        }
    }
}

/// The part of a list or map that can be promoted.
fn part(
    wanted: &FieldType,
    found: &NestedField,
    whole: impl FnOnce(Arc<NestedField>) -> Type,
) -> Fit {
    match wanted.fit(&found.field_type) {
        Fit::Promote(ty) => {
            let field = NestedField { field_type: Box::new(ty), ..found.clone() };
            Fit::Promote(whole(Arc::new(field)))
        }
        fit => fit,
    }
}

/// The same fields, some of them promoted.
fn fields(wanted: &[(String, FieldType)], found: &StructType) -> Fit {
    if wanted.len() != found.fields().len() {
        return Fit::No;
    }
    let mut promoted = false;
    let mut fields = Vec::with_capacity(wanted.len());
    for ((name, wanted), found) in wanted.iter().zip(found.fields()) {
        if *name != found.name {
            return Fit::No;
        }
        match wanted.fit(&found.field_type) {
            Fit::No => return Fit::No,
            Fit::Holds => fields.push(found.clone()),
            Fit::Promote(ty) => {
                promoted = true;
                let field = NestedField { field_type: Box::new(ty), ..NestedField::clone(found) };
                fields.push(Arc::new(field));
            }
        }
    }
    if promoted { Fit::Promote(Type::Struct(StructType::new(fields))) } else { Fit::Holds }
}

/// Whether Iceberg promotes `narrow` to `wide`, or both are the same.
fn holds(wide: &PrimitiveType, narrow: &PrimitiveType) -> bool {
    use PrimitiveType as P;
    match (wide, narrow) {
        (P::Long, P::Int) | (P::Double, P::Float) => true,
        (P::Decimal { precision: w, scale: a }, P::Decimal { precision: n, scale: b }) => {
            w >= n && a == b
        }
        (wide, narrow) => wide == narrow,
    }
}
