//! Defaults of source columns, for rows that were there before the column.
//!
//! A default reaches the schema as Avro's own default of a required field, or, from a nullable
//! one, as the parameter `cdc.default` that our Connect transform writes. Debezium reads it off
//! the text of the source's expression and does not evaluate: an expression becomes a placeholder
//! (the epoch, the nil UUID), the text between its first quotes, its own text, or nothing at all.
//! What can be a placeholder is refused here; what cannot be told apart is in
//! `docs/replica-types.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdc_shared::avro::{Cell, Column, Plan};
use serde_json::Value as Json;

use super::ColumnType;
use super::array::{write_hstore_of_json, write_items};
use super::codec::{Codec, NumberForm};
use super::encode::scalar_text;
use super::enums::literal;
use super::fault::Fault;
use super::numeric;

/// The schema parameter that carries the default of a nullable column, as JSON text.
const CARRIED: &str = "cdc.default";

/// A default that the record stream does not tell: an expression, which only the source knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the default of column {column} is an expression, or no constant that the connector sends: \
     the rows that had it are not known here"
)]
pub struct NotConstant {
    /// The column.
    pub column: String,
}

/// The column's default as an SQL expression of its type; `None` when the schema has none.
///
/// # Errors
/// [`NotConstant`].
pub fn default_sql(
    ty: &ColumnType,
    plan: &Plan,
    column: &Column,
) -> Result<Option<String>, NotConstant> {
    let refused = || NotConstant { column: column.name.clone() };
    let parameter = plan.ty(column.node).parameters.get(CARRIED);
    let (json, form) = match (parameter, &column.default) {
        (Some(text), _) => (serde_json::from_str(text).map_err(|_| refused())?, Form::Carried),
        (None, Some(json)) => (json.clone(), Form::Avro),
        (None, None) => return Ok(None),
    };
    if json.is_null() {
        return Ok(None);
    }
    let mut text = Vec::new();
    write(&ty.codec, &json, form, &mut text).map_err(|_| refused())?;
    let text = String::from_utf8(text).map_err(|_| refused())?;
    if may_be_placeholder(&ty.codec, &text) {
        return Err(refused());
    }
    Ok(Some(format!("{}::{}", literal(&text), ty.pg_type.cast_name())))
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

/// What Debezium writes where the default is a function, by type; and text that is one.
fn may_be_placeholder(codec: &Codec, text: &str) -> bool {
    match codec {
        Codec::Timestamp(_) => text == "1970-01-01 00:00:00",
        Codec::Timestamptz(_) => text == "1970-01-01 00:00:00+00",
        Codec::Days | Codec::IsoDate => text == "1970-01-01",
        Codec::Time(_) => text == "00:00:00",
        Codec::Timetz => text == "00:00:00+00:00:00",
        Codec::IsoInterval | Codec::Duration(_) => text == "0 mons 0 days 00:00:00",
        Codec::Uuid | Codec::UuidBytes => text.bytes().all(|byte| matches!(byte, b'0' | b'-')),
        Codec::Text | Codec::Json | Codec::Jsonb => is_expression(text),
        _ => false,
    }
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
