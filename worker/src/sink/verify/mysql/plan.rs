//! How a table of MySQL or MariaDB is read so that its rows say what the mirror's say. Pure.

use std::fmt::Write as _;

use cdc_shared::mysql::quoted;
use mysql_async::Value;

use super::super::failure::TaskFailure;
use super::super::plan::Plan;
use super::super::query::Key;
use super::super::shape::{Column, Shape};
use super::shape::Type;
use super::text::{Form, Zero};

/// What is read of a table, and how.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::sink) struct TablePlan {
    /// The table, quoted.
    pub(in crate::sink) table: String,
    /// The key's columns.
    pub(in crate::sink) key: Vec<KeyPart>,
    /// The compared columns, quoted, with the form of their values.
    pub(in crate::sink) columns: Vec<(String, Form)>,
}

/// A column of the key.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::sink) struct KeyPart {
    /// The column, quoted.
    pub(in crate::sink) column: String,
    /// What the order goes by.
    pub(in crate::sink) order: String,
    /// Form of its text.
    pub(in crate::sink) form: Form,
    /// Its type.
    kind: Kind,
    /// Whether the order is that of the column, not of its text's bytes.
    native: bool,
}

/// How a text becomes a value of the column again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Number,
    Float,
    Double,
    Date,
    Timestamp,
    Time,
    Bytes,
    Text,
}

impl TablePlan {
    /// From what both tables are. Columns that cannot be compared are left out of `plan`, with a
    /// note.
    ///
    /// # Errors
    /// A key whose order cannot be that of the mirror.
    pub(in crate::sink) fn new(
        shape: &Shape,
        types: &[Type],
        mirror: &Shape,
        plan: &mut Plan,
    ) -> Result<Self, TaskFailure> {
        let column = |name: &String| {
            let found = shape.columns.iter().zip(types).find(|(column, _)| column.name == *name);
            found.ok_or_else(|| TaskFailure::failed(format!("{} has no column {name}", shape.name)))
        };
        let twin = |name: &String| mirror.columns.iter().find(|twin| twin.name == *name);
        let mut key = Vec::new();
        for (name, native) in plan.key.iter().zip(&plan.native) {
            let (_, ty) = column(name)?;
            key.push(key_part(shape, name, ty, twin(name), *native)?);
        }
        let mut columns = Vec::new();
        for name in std::mem::take(&mut plan.columns) {
            let (_, ty) = column(&name)?;
            let at = columns.len();
            if let Some(form) = form(ty, twin(&name), plan.key.contains(&name)) {
                plan.documents.extend((form == Form::Json).then_some(at));
                columns.push((quoted(&name), form));
                plan.columns.push(name);
            } else {
                plan.mirror.texts.remove(at);
                let why = format!("column {name} ({}) is not compared", ty.declared);
                plan.notes.push(why);
            }
        }
        let table = super::quoted_name(&shape.name);
        Ok(Self { table, key, columns })
    }
}

fn key_part(
    shape: &Shape,
    name: &str,
    ty: &Type,
    twin: Option<&Column>,
    native: bool,
) -> Result<KeyPart, TaskFailure> {
    let refused = || {
        TaskFailure::failed(format!(
            "column {name} ({}) is in the key of {}: keys of this type cannot be compared",
            ty.declared, shape.name
        ))
    };
    let kind = match ty.name.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" | "decimal" => {
            Kind::Number
        }
        "float" => Kind::Float,
        "double" => Kind::Double,
        "date" => Kind::Date,
        "datetime" | "timestamp" => Kind::Timestamp,
        "time" => Kind::Time,
        "binary" | "varbinary" | "tinyblob" | "blob" => Kind::Bytes,
        "uuid" | "inet4" | "inet6" => Kind::Text,
        _ if ty.is_text => Kind::Text,
        _ => return Err(refused()),
    };
    // Of the others only the text's order is known, which the server must write as we do.
    if !native && !matches!(kind, Kind::Text | Kind::Number | Kind::Date) {
        return Err(refused());
    }
    let form = form(ty, twin, true).ok_or_else(refused)?;
    let column = quoted(name);
    let order = match form {
        _ if native => column.clone(),
        Form::Inet(bits) => {
            format!("CAST(CONCAT(CONVERT({column} USING utf8mb4), '/{bits}') AS BINARY)")
        }
        _ => format!("CAST(CONVERT({column} USING utf8mb4) AS BINARY)"),
    };
    Ok(KeyPart { column, order, form, kind, native })
}

impl KeyPart {
    /// A bound of the order, as an expression and the value of its parameter.
    pub(in crate::sink) fn bound(&self, text: &str) -> Result<(&'static str, Value), TaskFailure> {
        if self.native { self.value(text) } else { Ok(("CAST(? AS BINARY)", bytes(text))) }
    }

    /// A value of the column.
    pub(in crate::sink) fn value(&self, text: &str) -> Result<(&'static str, Value), TaskFailure> {
        let strange = || {
            TaskFailure::failed(format!(
                "the key {} has a value of the mirror that the source's type does not hold",
                self.column
            ))
        };
        Ok(match self.kind {
            Kind::Text => match self.form {
                Form::Inet(_) => ("?", bytes(text.split('/').next().unwrap_or_default())),
                _ => ("?", bytes(text)),
            },
            Kind::Number => {
                if let Ok(number) = text.parse::<i64>() {
                    ("?", Value::Int(number))
                } else if let Ok(number) = text.parse::<u64>() {
                    ("?", Value::UInt(number))
                } else {
                    ("CAST(? AS DECIMAL(65,30))", bytes(text))
                }
            }
            Kind::Float => {
                let number: f32 = text.parse().map_err(|_| strange())?;
                ("?", Value::Double(number.into()))
            }
            Kind::Double => ("?", Value::Double(text.parse().map_err(|_| strange())?)),
            Kind::Date if is_date(text) => ("CAST(? AS DATE)", bytes(text)),
            Kind::Timestamp => {
                let text = text.strip_suffix("+00").unwrap_or(text);
                if !text.split_once(' ').is_some_and(|(date, _)| is_date(date)) {
                    return Err(strange());
                }
                ("CAST(? AS DATETIME(6))", bytes(text))
            }
            Kind::Time if !text.contains(' ') => ("CAST(? AS TIME(6))", bytes(text)),
            Kind::Bytes => ("UNHEX(?)", bytes(text.strip_prefix("\\x").ok_or_else(strange)?)),
            Kind::Date | Kind::Time => return Err(strange()),
        })
    }
}

fn bytes(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec())
}

/// Whether a text is a date that both databases know: neither before Christ nor beyond year 9999.
fn is_date(text: &str) -> bool {
    let digits = |part: Option<&str>, length| {
        part.is_some_and(|part| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let mut parts = text.split('-');
    digits(parts.next(), 4)
        && digits(parts.next(), 2)
        && digits(parts.next(), 2)
        && parts.next().is_none()
}

/// The form of a column's values for this column of the mirror. `None`: they cannot be compared.
fn form(ty: &Type, twin: Option<&Column>, in_key: bool) -> Option<Form> {
    let mirror = twin.map_or("", |twin| twin.base.as_str());
    let zero = match (in_key, ty.nullable) {
        (true, _) => Zero::Stays,
        (false, true) => Zero::Null,
        (false, false) => Zero::Epoch,
    };
    Some(match ty.name.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" | "decimal" => {
            match mirror {
                "boolean" => Form::Bool,
                _ => Form::Number(twin.and_then(|twin| scale(&twin.declared))),
            }
        }
        "float" if mirror == "double precision" => Form::Float8,
        "float" => Form::Float4,
        "double" => Form::Float8,
        "bit" if ty.length == 1 => Form::Bool,
        "bit" => Form::Bits(ty.length),
        "date" => Form::Date(zero),
        "datetime" => Form::Timestamp { zoned: false, zero },
        "timestamp" => Form::Timestamp { zoned: true, zero },
        "time" => Form::Interval,
        "json" => Form::Json,
        "inet4" if mirror == "inet" => Form::Inet(32),
        "inet6" if mirror == "inet" => Form::Inet(128),
        "uuid" | "inet4" | "inet6" => Form::Plain,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Form::Bytes,
        "point" | "geometry" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" => {
            Form::Geometry { postgis: mirror == "geometry" }
        }
        _ if ty.is_text => Form::Plain,
        _ => return None,
    })
}

/// Digits behind the point of `numeric(p,s)`.
fn scale(declared: &str) -> Option<usize> {
    let inside = declared.strip_prefix("numeric(")?.strip_suffix(')')?;
    inside.split_once(',')?.1.parse().ok()
}

/// Where the rows of a range begin and end.
pub(in crate::sink) struct Condition {
    /// With `WHERE`; empty for all rows.
    pub(in crate::sink) sql: String,
    /// Its parameters.
    pub(in crate::sink) values: Vec<Value>,
}

impl TablePlan {
    /// The rows of a range, at most `limit`, in the order of the key.
    pub(in crate::sink) fn range(
        &self,
        after: Option<&Key>,
        to: Option<&Key>,
        limit: usize,
    ) -> Result<Condition, TaskFailure> {
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        for (key, operator) in [(after, ">"), (to, "<")] {
            let Some(key) = key else { continue };
            conditions.push(self.beyond(key, operator, operator == "<", &mut values)?);
        }
        let order: Vec<&str> = self.key.iter().map(|part| part.order.as_str()).collect();
        let place = if conditions.is_empty() { "" } else { "WHERE " };
        let sql = format!(
            "{} {place}{} ORDER BY {} LIMIT {limit}",
            self.select(),
            conditions.join(" AND "),
            order.join(", ")
        );
        Ok(Condition { sql, values })
    }

    /// Servers go through an index for a comparison of rows only when it is written out:
    /// `a >= ? AND (a > ? OR (a = ? AND b > ?))`.
    fn beyond(
        &self,
        key: &Key,
        operator: &str,
        inclusive: bool,
        values: &mut Vec<Value>,
    ) -> Result<String, TaskFailure> {
        let bounds: Vec<_> = self
            .key
            .iter()
            .zip(key)
            .map(|(part, text)| part.bound(text).map(|bound| (part, bound)))
            .collect::<Result<_, _>>()?;
        let Some(((first, (sql, value)), _)) = bounds.split_first() else {
            return Ok("TRUE".to_owned());
        };
        let mut condition = format!("{} {operator}= {sql} AND (", first.order);
        values.push(value.clone());
        for at in 0..bounds.len() {
            let mut alternative = Vec::new();
            for (part, (sql, value)) in &bounds[..at] {
                alternative.push(format!("{} = {sql}", part.order));
                values.push(value.clone());
            }
            let (part, (sql, value)) = &bounds[at];
            let last = if inclusive && at + 1 == bounds.len() { "=" } else { "" };
            alternative.push(format!("{} {operator}{last} {sql}", part.order));
            values.push(value.clone());
            condition.push_str(if at > 0 { " OR " } else { "" });
            let _ = write!(condition, "({})", alternative.join(" AND "));
        }
        condition.push(')');
        Ok(condition)
    }

    /// The rows of these keys, and perhaps of others that the server takes for the same text.
    pub(in crate::sink) fn looked_up(&self, keys: &[&Key]) -> Result<Condition, TaskFailure> {
        let (mut alternatives, mut values) = (Vec::new(), Vec::new());
        for key in keys {
            let mut equal = Vec::new();
            for (part, text) in self.key.iter().zip(*key) {
                let (sql, value) = part.value(text)?;
                equal.push(format!("{} = {sql}", part.column));
                values.push(value);
            }
            alternatives.push(format!("({})", equal.join(" AND ")));
        }
        let sql = format!("{} WHERE {}", self.select(), alternatives.join(" OR "));
        Ok(Condition { sql, values })
    }

    /// The key's columns, then the compared ones.
    fn select(&self) -> String {
        let key = self.key.iter().map(|part| part.column.as_str());
        let columns: Vec<&str> =
            key.chain(self.columns.iter().map(|(column, _)| column.as_str())).collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.table)
    }
}
