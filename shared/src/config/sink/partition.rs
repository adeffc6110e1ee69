//! How a table is partitioned, as the configuration writes it.

use std::fmt;

/// A column and what becomes of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionField {
    /// The column.
    pub column: String,
    /// The transform.
    pub transform: PartitionTransform,
}

/// Iceberg's transforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionTransform {
    /// The value itself.
    Identity,
    /// One of so many buckets, by a hash.
    Bucket(u32),
    /// A text's first characters, a number's multiple.
    Truncate(u32),
    /// Years.
    Year,
    /// Months.
    Month,
    /// Days.
    Day,
    /// Hours.
    Hour,
}

impl PartitionField {
    /// Reads `column`, `day(column)`, `bucket(16, column)` and their like.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}`: expected a column, identity(c), year(c), month(c), day(c), hour(c), \
                 bucket(16, c) or truncate(10, c)"
            )
        };
        let text = text.trim();
        let Some((name, rest)) = text.split_once('(') else {
            let is_column = !text.is_empty() && !text.contains([')', ',']);
            let transform = PartitionTransform::Identity;
            let column = text.to_owned();
            return is_column.then_some(Self { column, transform }).ok_or_else(wrong);
        };
        let inside = rest.strip_suffix(')').ok_or_else(wrong)?;
        let (number, column) = match inside.split_once(',') {
            Some((number, column)) => (Some(number.trim().parse().map_err(|_| wrong())?), column),
            None => (None, inside),
        };
        let transform = match (name.trim().to_ascii_lowercase().as_str(), number) {
            ("identity", None) => PartitionTransform::Identity,
            ("year" | "years", None) => PartitionTransform::Year,
            ("month" | "months", None) => PartitionTransform::Month,
            ("day" | "days", None) => PartitionTransform::Day,
            ("hour" | "hours", None) => PartitionTransform::Hour,
            ("bucket", Some(buckets @ 1..)) => PartitionTransform::Bucket(buckets),
            ("truncate", Some(width @ 1..)) => PartitionTransform::Truncate(width),
            _ => return Err(wrong()),
        };
        let column = column.trim();
        let is_column = !column.is_empty() && !column.contains(['(', ')', ',']);
        is_column.then(|| Self { column: column.to_owned(), transform }).ok_or_else(wrong)
    }
}

impl fmt::Display for PartitionField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = &self.column;
        match self.transform {
            PartitionTransform::Identity => f.write_str(column),
            PartitionTransform::Bucket(buckets) => write!(f, "bucket({buckets}, {column})"),
            PartitionTransform::Truncate(width) => write!(f, "truncate({width}, {column})"),
            PartitionTransform::Year => write!(f, "year({column})"),
            PartitionTransform::Month => write!(f, "month({column})"),
            PartitionTransform::Day => write!(f, "day({column})"),
            PartitionTransform::Hour => write!(f, "hour({column})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["id", "bucket(16, id)", "truncate(3, My Name)", "year(at)", "hour(at)"] {
            assert_eq!(PartitionField::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(PartitionField::parse(" Days( at ) ").unwrap().to_string(), "day(at)");
        for text in ["", "day()", "bucket(id)", "bucket(0, id)", "day(a, b)", "week(at)", "day(at"]
        {
            assert!(PartitionField::parse(text).is_err(), "{text}");
        }
    }
}
