//! Debezium's transaction metadata: which transaction an event is of, and where one begins and
//! ends (the records of the transaction topic).

use std::fmt;

use crate::avro::{Row, Value};

/// A transaction at the source, as far as two records of it agree on its name.
///
/// `PostgreSQL`'s events carry `xid:lsn`, and the end carries another lsn: the xid is the name.
/// `MySQL` and `MariaDB` carry a GTID or a place in the binlog, the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransactionId(Box<str>);

impl TransactionId {
    /// From `transaction.id` of an event, or `id` of a mark.
    pub fn of(id: &str) -> Self {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let name = match id.split_once(':') {
            Some((xid, lsn)) if is_number(xid) && is_number(lsn) => xid,
            _ => id,
        };
        Self(name.into())
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record of the transaction topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A transaction begins.
    Begin(TransactionId),
    /// It ends, with so many events of each table (`schema.table`, or `database.table`).
    End(TransactionId, Vec<(String, u64)>),
}

impl Mark {
    /// Reads a value whose schema is [`super::ValueSchema::Transaction`].
    ///
    /// # Errors
    /// What is missing in it.
    pub fn read(row: Row<'_, '_>) -> Result<Self, String> {
        let missing = |name: &str| format!("the transaction's `{name}` is missing");
        let id = field(row, "id").and_then(|id| id.as_str()).ok_or_else(|| missing("id"))?;
        let id = TransactionId::of(id);
        let status = field(row, "status").ok_or_else(|| missing("status"))?;
        match status.as_str().or_else(|| status.symbol()) {
            Some("BEGIN") => return Ok(Self::Begin(id)),
            Some("END") => {}
            _ => return Err("the transaction's `status` is neither BEGIN nor END".to_owned()),
        }
        let mut counts = Vec::new();
        let collections = field(row, "data_collections").and_then(|list| list.items());
        for item in collections.into_iter().flatten() {
            let item = item.record().ok_or_else(|| missing("data_collections"))?;
            let name = field(item, "data_collection").and_then(|name| name.as_str());
            let count = field(item, "event_count").and_then(|count| count.as_i64());
            let count = count.and_then(|count| u64::try_from(count).ok());
            let (Some(name), Some(count)) = (name, count) else {
                return Err(missing("data_collections"));
            };
            counts.push((name.to_owned(), count));
        }
        Ok(Self::End(id, counts))
    }
}

fn field<'a, 'm>(row: Row<'a, 'm>, name: &str) -> Option<Value<'a, 'm>> {
    row.get(row.position(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_of_postgresql_is_its_xid_and_of_others_the_whole_text() {
        assert_eq!(TransactionId::of("768:26564224"), TransactionId::of("768:26568288"));
        assert_ne!(TransactionId::of("768:1"), TransactionId::of("769:1"));
        let gtid = "36eb3b5a-8d2f-11ec-a3f4-0242ac120002:23";
        assert_eq!(TransactionId::of(gtid).to_string(), gtid);
        let place = "file=mysql-bin.000003,pos=1234";
        assert_eq!(TransactionId::of(place).to_string(), place);
        assert_ne!(TransactionId::of("0-1-7"), TransactionId::of("0-1-8"));
    }
}
