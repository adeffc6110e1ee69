//! Defaults of source columns, for rows that were there before the column.
//!
//! A default reaches the schema as Avro's own default of a required field, or, from a nullable
//! one, as the parameter `cdc.default` that our Connect transform writes. Debezium reads it off
//! the text of the source's expression and does not evaluate: an expression becomes a placeholder
//! (the epoch, zero, an empty text), the text between its first quotes, its own text, or nothing at
//! all. What can be a placeholder is refused here; `docs/replica-types.md` has what cannot be told
//! apart. Only the source's catalog knows for sure what its old rows have: [`SourceDefault`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdc_shared::avro::{Cell, Column, Plan, Semantic};
use cdc_shared::config::SourceType as Source;
use serde_json::Value as Json;

use super::ColumnType;
use super::array::{write_hstore_of_json, write_items};
use super::codec::{Codec, NumberForm};
use super::encode::scalar_text;
use super::fault::Fault;
use super::numeric;

/// The schema parameter that carries the default of a nullable column, as JSON text.
const CARRIED: &str = "cdc.default";

/// What the rows that were there before a column have in it is not told by the record stream: the
/// default is an expression, or what the connector states may be its stand-in for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the default of column {column} may be an expression: what old rows have is not known here"
)]
pub struct NotConstant {
    /// The column.
    pub column: String,
    /// The default as the connector states it, as an SQL expression; right if the source's is a
    /// constant.
    pub stated: Option<String>,
}

/// The column's default as an SQL expression of its type; `None` when the schema has none (which,
/// from PostgreSQL, does not mean that the source has none: ask its catalog, [`SourceDefault`]).
///
/// # Errors
/// [`NotConstant`].
pub fn default_sql(
    ty: &ColumnType,
    plan: &Plan,
    column: &Column,
) -> Result<Option<String>, NotConstant> {
    let refused = |stated| NotConstant { column: column.name.clone(), stated };
    let parameter = plan.ty(column.node).parameters.get(CARRIED);
    let (json, form) = match (parameter, &column.default) {
        (Some(text), _) => (serde_json::from_str(text).map_err(|_| refused(None))?, Form::Carried),
        (None, Some(json)) => (json.clone(), Form::Avro),
        (None, None) => return Ok(None),
    };
    if json.is_null() {
        return Ok(None);
    }
    let mut text = Vec::new();
    write(&ty.codec, &json, form, &mut text).map_err(|_| refused(None))?;
    let mut text = String::from_utf8(text).map_err(|_| refused(None))?;
    if plan.ty(column.node).semantic == Semantic::Enum {
        // Debezium leaves the quotes of a label doubled as they stand in the expression.
        text = text.replace("''", "'");
    }
    let stated = ty.constant(&text);
    if may_stand_in(ty, &text) { Err(refused(Some(stated))) } else { Ok(Some(stated)) }
}

/// A column's default in the catalog of a PostgreSQL source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceDefault {
    /// What the rows have that were there before the column, as text (`attmissingval`).
    pub missing: Option<String>,
    /// The default's expression.
    pub expression: Option<String>,
}

impl SourceDefault {
    /// Finds it: `missing` and `expression` of the column `$2` of the table `$1` (quoted, with its
    /// schema).
    pub const QUERY: &str = "SELECT (a.attmissingval::text::text[])[1], \
        pg_catalog.pg_get_expr(d.adbin, d.adrelid) \
        FROM pg_catalog.pg_attribute a \
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
        WHERE a.attrelid = $1::text::regclass AND a.attname = $2 AND NOT a.attisdropped";

    /// What old rows have, as an SQL expression of the column's type; `None` for NULL.
    ///
    /// # Errors
    /// [`NotConstant`]: a default and no value for old rows. Either each row has got its own
    /// (`random()`), or the table has been rewritten since, or the default came later and does
    /// not concern old rows.
    pub fn of_old_rows(&self, ty: &ColumnType) -> Result<Option<String>, NotConstant> {
        match (&self.missing, &self.expression) {
            (Some(text), _) => Ok(Some(ty.constant(text))),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(NotConstant { column: ty.column.clone(), stated: None }),
        }
    }
}

/// Who wrote the JSON: how bytes look in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Our transform: base64, decimals as text.
    Carried,
    /// Avro: one character a byte, decimals as bytes.
    Avro,
}

fn write(codec: &Codec, json: &Json, form: Form, out: &mut Vec<u8>) -> Result<(), Fault> {
    match (codec, json) {
        (Codec::Array(item), Json::Array(items)) => {
            let items = items.iter().map(|item| (!item.is_null()).then_some(item));
            write_items(items, out, |value, out| write(item, value, form, out))
        }
        (Codec::Numeric(number_form, _), json) => write_number(*number_form, json, form, out),
        (Codec::HstoreOfMap, Json::Object(_)) => write_hstore_of_json(&json.to_string(), out),
        (Codec::JsonbOfMap, Json::Object(_)) => {
            out.extend_from_slice(json.to_string().as_bytes());
            Ok(())
        }
        (Codec::Bytes | Codec::Bits(_) | Codec::UuidBytes, Json::String(text)) => {
            scalar_text(codec, Cell::Bytes(&bytes(text, form)?), out)
        }
        (Codec::Float4 | Codec::Float8, Json::String(text)) => match text.as_str() {
            "NaN" | "Infinity" | "-Infinity" => {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
            _ => Err(Fault::MALFORMED),
        },
        (Codec::Float4, Json::Number(number)) => {
            let number = number.as_f64().ok_or(Fault::MALFORMED)?;
            scalar_text(codec, Cell::Float(number as f32), out)
        }
        (Codec::Float8, Json::Number(number)) => {
            scalar_text(codec, Cell::Double(number.as_f64().ok_or(Fault::MALFORMED)?), out)
        }
        (_, Json::Number(number)) => {
            scalar_text(codec, Cell::Long(number.as_i64().ok_or(Fault::MALFORMED)?), out)
        }
        // Cut off at its first quote.
        (Codec::Json | Codec::Jsonb, Json::String(text))
            if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() =>
        {
            Err(Fault::MALFORMED)
        }
        (_, Json::String(text)) => scalar_text(codec, Cell::Str(text), out),
        (_, Json::Bool(bit)) => scalar_text(codec, Cell::Bool(*bit), out),
        _ => Err(Fault::MALFORMED),
    }
}

fn write_number(
    number_form: NumberForm,
    json: &Json,
    form: Form,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    match (number_form, json) {
        (NumberForm::Unscaled(scale), Json::String(text)) if form == Form::Avro => {
            let unscaled = bytes(text, form)?;
            numeric::with_unscaled(&unscaled, scale, |number| numeric::write_text(number, out))
        }
        (NumberForm::Variable, Json::Object(record)) => {
            let scale = record.get("scale").and_then(Json::as_i64);
            let scale = scale.and_then(|scale| i32::try_from(scale).ok());
            let unscaled = record.get("value").and_then(Json::as_str).ok_or(Fault::MALFORMED)?;
            let unscaled = bytes(unscaled, form)?;
            let scale = scale.ok_or(Fault::MALFORMED)?;
            numeric::with_unscaled(&unscaled, scale, |number| numeric::write_text(number, out))
        }
        (NumberForm::Unsigned, Json::Number(number)) => {
            let number = number.as_i64().ok_or(Fault::MALFORMED)?.cast_unsigned();
            numeric::with_integer(number.into(), 0, |number| numeric::write_text(number, out))
        }
        (_, Json::String(text)) => numeric::write_text(numeric::parse(text)?, out),
        (_, Json::Number(number)) => numeric::write_text(numeric::parse(&number.to_string())?, out),
        _ => Err(Fault::MALFORMED),
    }
}

fn bytes(text: &str, form: Form) -> Result<Vec<u8>, Fault> {
    match form {
        Form::Carried => STANDARD.decode(text).map_err(|_| Fault::MALFORMED),
        Form::Avro => text
            .chars()
            .map(|byte| u8::try_from(u32::from(byte)).map_err(|_| Fault::MALFORMED))
            .collect(),
    }
}

/// Whether the text may be what Debezium writes where the default is a function. Its MySQL
/// connectors do so for times only.
fn may_stand_in(ty: &ColumnType, text: &str) -> bool {
    let from_postgres = ty.source == Source::Postgres;
    match &ty.codec {
        Codec::Timestamp(_) => text == "1970-01-01 00:00:00" || is_infinite_by_jdbc(ty, text),
        Codec::Timestamptz(_) => text == "1970-01-01 00:00:00+00",
        Codec::Days | Codec::IsoDate => text == "1970-01-01" || is_infinite_by_jdbc(ty, text),
        Codec::Time(_) => text == "00:00:00",
        Codec::Timetz => text == "00:00:00+00:00:00",
        Codec::IsoInterval | Codec::IsoDuration | Codec::Duration(_) => {
            from_postgres && text == "0 mons 0 days 00:00:00"
        }
        Codec::Uuid | Codec::UuidBytes => text.bytes().all(|byte| matches!(byte, b'0' | b'-')),
        Codec::Text | Codec::Json | Codec::Jsonb => {
            from_postgres && (text.is_empty() || is_expression(text))
        }
        Codec::Bool => from_postgres && text == "0",
        Codec::Int2 | Codec::Int4 | Codec::Int8 | Codec::Numeric(..) => {
            from_postgres && text.bytes().all(|byte| matches!(byte, b'0' | b'.'))
        }
        Codec::Float4 | Codec::Float8 => from_postgres && text == "0e0",
        _ => false,
    }
}

/// Infinite dates and timestamps have become numbers far beyond any calendar: years of six digits.
fn is_infinite_by_jdbc(ty: &ColumnType, text: &str) -> bool {
    let year = text.trim_start_matches('-').split('-').next().unwrap_or_default();
    ty.source == Source::Postgres && year.len() >= 6
}

/// Text that reads like a function's call or one of SQL's words for the session.
fn is_expression(text: &str) -> bool {
    const WORDS: [&str; 6] = [
        "CURRENT_USER",
        "SESSION_USER",
        "CURRENT_ROLE",
        "USER",
        "CURRENT_CATALOG",
        "CURRENT_SCHEMA",
    ];
    let name = text.trim_start_matches('(').split(['(', ':']).next().unwrap_or_default();
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
    let is_word = WORDS.iter().any(|word| name.eq_ignore_ascii_case(word));
    is_word || (is_name && text.contains('(') && text.contains(')'))
}
