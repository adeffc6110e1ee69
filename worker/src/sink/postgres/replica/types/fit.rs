//! Whether a column that is there already takes the values of a source column.

use super::ColumnType;
use super::codec::{Codec, NumberForm};
use super::pg_type::{Digits, PgType};
use super::wire::Wire;

/// How a column of the target relates to the type that the source's column needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The type itself.
    Same,
    /// Another type that holds every value; write with [`ColumnType::in_column`].
    Holds,
    /// Narrower: `ALTER TABLE … ALTER COLUMN … TYPE` to the wanted type keeps every value.
    Widen,
    /// Neither.
    No,
}

/// Judges a column by its type as `format_type()` spells it (for a domain: the type behind it).
pub fn fit(found: &str, wanted: &ColumnType) -> Fit {
    let found = PgType::parse(found);
    if same(&found, &wanted.pg_type) {
        Fit::Same
    } else if wanted.in_type(&found).is_some() {
        Fit::Holds
    } else if holds(&wanted.pg_type, &found) {
        Fit::Widen
    } else {
        Fit::No
    }
}

impl ColumnType {
    /// The same source column, written into a column of another type, for [`Fit::Holds`]; `None`
    /// where that does not hold every value. `found` as for [`fit`], with the schema of a type
    /// that is not in `pg_catalog`, so that it can stand in a cast.
    #[must_use]
    pub fn in_column(&self, found: &str) -> Option<Self> {
        self.in_type(&PgType::parse(found))
    }

    fn in_type(&self, found: &PgType) -> Option<Self> {
        let of = |codec: Codec| {
            let wire = Wire::of(found, &codec);
            Self {
                sql: found.to_string(),
                wire,
                cast: wire.cast(found),
                codec,
                pg_type: found.clone(),
                ..self.clone()
            }
        };
        if self.is_free_text {
            return text_as(found).map(of);
        }
        if same(found, &self.pg_type) {
            return Some(of(self.codec.clone()));
        }
        // A document without a text of its own may have one; not the other way round.
        let is_document = (found, &self.pg_type) == (&PgType::Json, &PgType::Jsonb);
        if !is_document && !holds(found, &self.pg_type) {
            return None;
        }
        // The element keeps its own type and the server assigns it; text needs the right cast.
        Some(match self.wire {
            Wire::Text => of(self.codec.clone()),
            _ => Self { sql: found.to_string(), pg_type: found.clone(), ..self.clone() },
        })
    }
}

/// Text whose type at the source is not known (a domain, an enum) goes into a column of any type:
/// who made it has said what the text is.
fn text_as(found: &PgType) -> Option<Codec> {
    Some(match found {
        PgType::Numeric(digits) => Codec::Numeric(NumberForm::Text, *digits),
        PgType::Money => Codec::Numeric(NumberForm::Text, None),
        PgType::Uuid => Codec::Uuid,
        PgType::Json => Codec::Json,
        PgType::Jsonb => Codec::Jsonb,
        // A length would cut it, or the text is none of theirs.
        PgType::Varchar(Some(_)) | PgType::Bpchar(_) | PgType::Bit(_) | PgType::Bytea => {
            return None;
        }
        _ => Codec::Text,
    })
}

fn same(found: &PgType, wanted: &PgType) -> bool {
    match (found, wanted) {
        (PgType::Array(found), PgType::Array(wanted)) => same(found, wanted),
        // Where an extension was installed does not change its type.
        (
            PgType::Other { name: a, modifier: b, .. },
            PgType::Other { name: c, modifier: d, .. },
        ) => a == c && (b == d || d.is_none()),
        (found, wanted) => found == wanted,
    }
}

/// Whether every value of `narrow` is a value of `wide`, and is compared there in the same way.
fn holds(wide: &PgType, narrow: &PgType) -> bool {
    use PgType as T;
    if same(wide, narrow) {
        return true;
    }
    let no_less = |wide: &Option<u8>, narrow: &Option<u8>| wide.unwrap_or(6) >= narrow.unwrap_or(6);
    match (wide, narrow) {
        (T::Int4 | T::Int8, T::Int2)
        | (T::Int8, T::Int4)
        | (T::Float8, T::Float4)
        | (T::Numeric(None), T::Numeric(_) | T::Int2 | T::Int4 | T::Int8)
        | (T::Text | T::Varchar(None), T::Text | T::Varchar(_))
        | (T::Bpchar(None), T::Bpchar(_))
        | (T::Varbit(None), T::Varbit(_)) => true,
        (T::Numeric(Some(wide)), T::Numeric(Some(narrow))) => has_digits(*wide, *narrow),
        (T::Numeric(Some(wide)), T::Int2) => has_digits(*wide, integer(5)),
        (T::Numeric(Some(wide)), T::Int4) => has_digits(*wide, integer(10)),
        (T::Numeric(Some(wide)), T::Int8) => has_digits(*wide, integer(19)),
        (T::Varchar(Some(wide)), T::Varchar(Some(narrow)))
        | (T::Bpchar(Some(wide)), T::Bpchar(Some(narrow)))
        | (T::Varbit(Some(wide)), T::Varbit(Some(narrow))) => wide >= narrow,
        (T::Time(wide), T::Time(narrow))
        | (T::Timetz(wide), T::Timetz(narrow))
        | (T::Timestamp(wide), T::Timestamp(narrow))
        | (T::Timestamptz(wide), T::Timestamptz(narrow)) => no_less(wide, narrow),
        (T::Array(wide), T::Array(narrow)) => holds(wide, narrow),
        _ => false,
    }
}

fn integer(precision: u32) -> Digits {
    Digits { precision, scale: 0 }
}

/// As many digits on both sides of the point.
fn has_digits(wide: Digits, narrow: Digits) -> bool {
    let before = |digits: Digits| i64::from(digits.precision) - i64::from(digits.scale);
    wide.scale >= narrow.scale && before(wide) >= before(narrow)
}
