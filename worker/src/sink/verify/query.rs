//! The statements of a comparison. Pure.
//!
//! A row is compared by a hash of `ROW(text, text, …)::text`, in which PostgreSQL quotes every
//! text and writes NULL as nothing, so that two rows with one text have one content. A chunk is
//! the number of its rows and the sum of their hashes, so that the order within does not matter.

use super::plan::SidePlan;

/// Another for every row that is written.
const VERSION: &str = "concat_ws(' ', t.tableoid, t.ctid, t.xmin)";

/// A key as texts. NULL cannot be in a key.
pub(in crate::sink) type Key = Vec<String>;

/// The rows behind a key, up to another.
#[derive(Clone, Copy, Debug)]
pub(in crate::sink) struct Range<'k> {
    /// Exclusive; `None`: from the first row.
    pub(in crate::sink) after: Option<&'k Key>,
    /// Inclusive; `None`: to the last row.
    pub(in crate::sink) to: Option<&'k Key>,
}

impl Range<'_> {
    /// Values of the statement's parameters.
    pub(in crate::sink) fn parameters(&self) -> Vec<&(dyn tokio_postgres::types::ToSql + Sync)> {
        let keys = self.after.into_iter().chain(self.to);
        keys.flatten().map(|text| text as &(dyn tokio_postgres::types::ToSql + Sync)).collect()
    }
}

impl SidePlan {
    /// Rows of a range, at most `limit`: number, sum of hashes, last key.
    pub(in crate::sink) fn chunk(&self, range: &Range<'_>, limit: usize) -> String {
        let names: Vec<String> = (0..self.key.len()).map(|i| format!("o{i}")).collect();
        let orders = self.key.iter().enumerate().map(|(i, k)| format!("{} AS o{i}", k.order));
        let backwards: Vec<String> = names.iter().map(|name| format!("{name} DESC")).collect();
        format!(
            "WITH c AS MATERIALIZED (SELECT {orders}, {keys} AS k, {hash} AS h FROM {table} t \
             {condition} ORDER BY {order} LIMIT {limit}) \
             SELECT count(*), coalesce(sum(h), 0)::text, \
             (SELECT k FROM c ORDER BY {backwards} LIMIT 1) FROM c",
            orders = orders.collect::<Vec<_>>().join(", "),
            keys = self.key_texts(),
            hash = self.row_hash(),
            table = self.table,
            condition = self.condition(range),
            order = self.order(),
            backwards = backwards.join(", "),
        )
    }

    /// Key and hash of each row of a range, at most `limit`.
    pub(in crate::sink) fn rows(&self, range: &Range<'_>, limit: usize) -> String {
        format!(
            "SELECT {keys}, {hash} FROM {table} t {condition} ORDER BY {order} LIMIT {limit}",
            keys = self.key_texts(),
            hash = self.row_hash(),
            table = self.table,
            condition = self.condition(range),
            order = self.order(),
        )
    }

    /// Key and texts of each row of a range, at most `limit`.
    pub(in crate::sink) fn texts(&self, range: &Range<'_>, limit: usize) -> String {
        format!(
            "SELECT {keys}, ARRAY[{texts}]::text[] FROM {table} t {condition} ORDER BY {order} \
             LIMIT {limit}",
            keys = self.key_texts(),
            texts = self.texts.join(", "),
            table = self.table,
            condition = self.condition(range),
            order = self.order(),
        )
    }

    /// The same as [`Self::looked_up`] with the columns' texts.
    pub(in crate::sink) fn looked_up_texts(&self) -> String {
        format!(
            "SELECT w.n, {VERSION}, ARRAY[{}]::text[] FROM {}",
            self.texts.join(", "),
            self.wanted()
        )
    }

    /// For keys given as one array of texts per column: the place of the key among them, the
    /// version of its row, and a hash (NULL for NULL) of each compared column.
    pub(in crate::sink) fn looked_up(&self) -> String {
        let hashes: Vec<String> = self.texts.iter().map(|text| hash(text)).collect();
        format!(
            "SELECT w.n, {VERSION}, ARRAY[{hashes}]::int8[] FROM {from}",
            hashes = hashes.join(", "),
            from = self.wanted(),
        )
    }

    /// The same with the columns' texts, each cut to `longest` characters.
    pub(in crate::sink) fn values(&self, longest: usize) -> String {
        let texts: Vec<String> =
            self.texts.iter().map(|text| format!("left({text}, {longest})")).collect();
        format!("SELECT w.n, ARRAY[{}]::text[] FROM {}", texts.join(", "), self.wanted())
    }

    /// Removes the rows with these keys, as far as they are the versions in the last array.
    pub(in crate::sink) fn remove(&self) -> String {
        let mut names = self.names();
        names.push("version".to_owned());
        format!(
            "DELETE FROM {table} t USING {wanted} WHERE {equal} AND {VERSION} = w.version",
            table = self.table,
            wanted = unnested(&names),
            equal = self.equalities(),
        )
    }

    fn wanted(&self) -> String {
        format!("{} JOIN {} t ON {}", unnested(&self.names()), self.table, self.equalities())
    }

    /// The key's columns among wanted keys.
    fn names(&self) -> Vec<String> {
        (0..self.key.len()).map(|i| format!("k{i}")).collect()
    }

    fn equalities(&self) -> String {
        let equal = self.key.iter().enumerate();
        let equal = equal.map(|(i, key)| format!("{} = w.k{i}::{}", key.column, key.lookup));
        equal.collect::<Vec<_>>().join(" AND ")
    }

    fn key_texts(&self) -> String {
        let texts: Vec<&str> = self.key.iter().map(|key| key.text.as_str()).collect();
        format!("ARRAY[{}]", texts.join(", "))
    }

    fn order(&self) -> String {
        self.key.iter().map(|key| key.order.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn condition(&self, range: &Range<'_>) -> String {
        let mut number = 0;
        let mut bound = |operator: &str| {
            let bounds: Vec<String> = self
                .key
                .iter()
                .map(|key| {
                    number += 1;
                    format!("${number}::text::{}", key.bound)
                })
                .collect();
            format!("({}) {operator} ({})", self.order(), bounds.join(", "))
        };
        let after = range.after.map(|_| bound(">"));
        let to = range.to.map(|_| bound("<="));
        let conditions: Vec<String> = after.into_iter().chain(to).collect();
        match conditions.len() {
            0 => String::new(),
            _ => format!("WHERE {}", conditions.join(" AND ")),
        }
    }

    fn row_hash(&self) -> String {
        hash(&format!("ROW({})::text", self.texts.join(", ")))
    }
}

/// Arrays of texts as the columns of a table, numbered.
fn unnested(names: &[String]) -> String {
    let arrays: Vec<String> = (1..=names.len()).map(|i| format!("${i}::text[]")).collect();
    format!("unnest({}) WITH ORDINALITY w({}, n)", arrays.join(", "), names.join(", "))
}

/// 64 bits of a text, the same on every server from PostgreSQL 11 on.
fn hash(text: &str) -> String {
    format!("hashtextextended(({text}) COLLATE \"C\", 0)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::verify::plan::KeyColumn;

    fn side() -> SidePlan {
        let key = |name: &str, of: &str| KeyColumn {
            column: format!("t.\"{name}\""),
            text: format!("t.\"{name}\"::text"),
            order: format!("t.\"{name}\""),
            bound: of.to_owned(),
            lookup: of.to_owned(),
        };
        SidePlan {
            table: "\"s\".\"t\"".to_owned(),
            key: vec![key("a", "bigint"), key("b", "uuid")],
            texts: vec!["t.\"a\"::text".to_owned(), "t.\"c\"::text".to_owned()],
        }
    }

    #[test]
    fn bounds_are_numbered_in_their_order() {
        let (low, high) = (vec!["1".to_owned(), "x".to_owned()], vec!["2".into(), "y".into()]);
        let both = Range { after: Some(&low), to: Some(&high) };
        let sql = side().rows(&both, 10);
        assert!(
            sql.contains(
                "WHERE (t.\"a\", t.\"b\") > ($1::text::bigint, $2::text::uuid) \
                 AND (t.\"a\", t.\"b\") <= ($3::text::bigint, $4::text::uuid)"
            ),
            "{sql}"
        );
        assert_eq!(both.parameters().len(), 4);
        let open = Range { after: None, to: Some(&high) };
        let sql = side().chunk(&open, 10);
        assert!(sql.contains("WHERE (t.\"a\", t.\"b\") <= ($1::text::bigint"), "{sql}");
        assert!(!side().rows(&Range { after: None, to: None }, 1).contains("WHERE"));
    }
}
