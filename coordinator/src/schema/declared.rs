//! The source's own word on a column's type (`__debezium.source.column.*`): whether the new type
//! holds every value of the former, with the same meaning.

use cdc_shared::avro::SourceType;

/// How one type is to another that differs from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// It holds every value of the former, and more.
    Wider,
    /// It does not hold every value of the former.
    Narrower,
    /// It means something else.
    Other,
}

/// Debezium's length of a `numeric` without precision, while streaming; in a snapshot it is 0.
const UNCONSTRAINED: i64 = 131_089;
/// Longest text that PostgreSQL lets one declare; a length beyond means none.
const LONGEST: i64 = 10_485_760;

/// What a type can hold, as far as its name and its numbers tell.
#[derive(Clone, PartialEq, Debug)]
enum Class {
    /// Integers from and to.
    Integer(i128, i128),
    /// Bits of the fraction.
    Float(u8),
    /// Digits in all and behind the point; `None` without bound.
    Number(Option<(i64, i64)>),
    /// Text of at most so many characters; padded or not.
    Text { padded: bool, most: i64 },
    /// Bytes, at most.
    Bytes(i64),
    /// So many bits, or at most.
    Bits { exact: bool, most: i64 },
    /// A clock with so many digits of a second.
    Clock(String, i64),
    /// Anything else, which is only equal to itself.
    Named(String),
}

/// `None`: no difference. `is_record`: the column's Avro type is a record, which tells nothing of
/// its source where an earlier column defined it.
pub(super) fn compare(
    old: &SourceType,
    new: &SourceType,
    is_record: bool,
) -> Option<(Fit, String)> {
    if let (Some(a), Some(b)) = (&old.column_name, &new.column_name)
        && a != b
    {
        return Some((Fit::Other, format!("column {a} of the source → column {b}")));
    }
    let (from, to) = match (&old.type_name, &new.type_name) {
        (Some(from), Some(to)) => (from, to),
        (Some(from), None) if !is_record => {
            return Some((Fit::Other, format!("{from} → a type that is not told")));
        }
        _ => return None,
    };
    let (a, b) = (class(from, old), class(to, new));
    let fit = fit(&a, &b)?;
    Some((fit, format!("{} → {}", described(from, &a), described(to, &b))))
}

/// Compares decimals of (digits in all, digits behind the point). `None`: no difference.
pub(super) fn digits(old: (Option<u32>, i32), new: (Option<u32>, i32)) -> Option<Fit> {
    if old == new {
        return None;
    }
    let whole = |(all, behind): (Option<u32>, i32)| {
        all.map_or(i64::MAX, |all| i64::from(all) - i64::from(behind))
    };
    let holds = new.1 >= old.1 && whole(new) >= whole(old);
    Some(if holds { Fit::Wider } else { Fit::Narrower })
}

fn fit(old: &Class, new: &Class) -> Option<Fit> {
    if old == new {
        return None;
    }
    let holds = match (old, new) {
        (Class::Integer(a, b), Class::Integer(c, d)) => c <= a && d >= b,
        (Class::Float(a), Class::Float(b)) => b >= a,
        (Class::Number(old), Class::Number(new)) => match (old, new) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some((all, behind)), Some((all_now, behind_now))) => {
                behind_now >= behind && all_now - behind_now >= all - behind
            }
        },
        // Blanks at the end are values of one and not of the other.
        (Class::Text { padded: false, .. }, Class::Text { padded: true, .. })
        | (Class::Bits { exact: false, .. }, Class::Bits { exact: true, .. }) => {
            return Some(Fit::Other);
        }
        (Class::Text { most: a, .. }, Class::Text { most: b, .. })
        | (Class::Bits { most: a, .. }, Class::Bits { most: b, .. })
        | (Class::Bytes(a), Class::Bytes(b)) => b >= a,
        (Class::Clock(a, digits), Class::Clock(b, more)) if a == b => more >= digits,
        _ => return Some(Fit::Other),
    };
    Some(if holds { Fit::Wider } else { Fit::Narrower })
}

/// A user's type comes quoted, with its schema.
fn plain(name: &str) -> String {
    let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
    last.trim_matches('"').to_ascii_lowercase()
}

fn class(name: &str, declared: &SourceType) -> Class {
    let name = plain(name);
    let name = name.strip_prefix('_').unwrap_or(&name);
    let length = declared.length.filter(|length| (1..=LONGEST).contains(length));
    let most = length.unwrap_or(i64::MAX);
    let unsigned = name.contains("unsigned") || name.contains("zerofill");
    let base = name.replace(" unsigned", "").replace(" zerofill", "").replace(" signed", "");
    let integer = |bits: u32| {
        let half = 1 << (bits - 1);
        if unsigned { Class::Integer(0, 2 * half - 1) } else { Class::Integer(-half, half - 1) }
    };
    let text = |padded, most| Class::Text { padded, most };
    match base.as_str() {
        "tinyint" | "int1" => integer(8),
        "int2" | "smallserial" | "smallint" => integer(16),
        "mediumint" | "int3" | "middleint" => integer(24),
        "int4" | "serial" | "int" | "integer" => integer(32),
        "int8" | "bigserial" | "bigint" => integer(64),
        "float4" | "float" | "real" => Class::Float(24),
        "float8" | "double" | "double precision" => Class::Float(53),
        "numeric" | "decimal" | "dec" | "fixed" => Class::Number(
            declared
                .length
                .filter(|digits| (1..UNCONSTRAINED).contains(digits))
                .map(|digits| (digits, declared.scale.unwrap_or(0))),
        ),
        "bpchar" | "char" | "character" | "nchar" => text(true, most),
        "varchar" | "character varying" | "nvarchar" => text(false, most),
        "tinytext" => text(false, 255),
        "text" if declared.length == Some(65_535) => text(false, 65_535),
        "mediumtext" => text(false, 16_777_215),
        "longtext" => text(false, 4_294_967_295),
        "text" => text(false, i64::MAX),
        "bytea" => Class::Bytes(i64::MAX),
        "binary" | "varbinary" => Class::Bytes(most),
        "tinyblob" => Class::Bytes(255),
        "blob" => Class::Bytes(65_535),
        "mediumblob" => Class::Bytes(16_777_215),
        "longblob" => Class::Bytes(4_294_967_295),
        "bit" => Class::Bits { exact: true, most: length.unwrap_or(1) },
        "varbit" | "bit varying" => Class::Bits { exact: false, most },
        "time" | "timetz" | "timestamp" | "timestamptz" | "datetime" => {
            // PostgreSQL tells the digits as a scale, MySQL as a length, and none as nothing.
            let digits = declared.scale.or(declared.length).unwrap_or(0);
            Class::Clock(base, digits.clamp(0, 6))
        }
        _ => Class::Named(name.to_owned()),
    }
}

fn described(name: &str, class: &Class) -> String {
    let name = plain(name);
    match class {
        Class::Number(Some((digits, scale))) => format!("{name}({digits},{scale})"),
        Class::Text { most, .. } | Class::Bytes(most) | Class::Bits { most, .. }
            if *most <= LONGEST && !name.contains("text") && !name.contains("blob") =>
        {
            format!("{name}({most})")
        }
        Class::Clock(_, digits) => format!("{name}({digits})"),
        _ => name,
    }
}
