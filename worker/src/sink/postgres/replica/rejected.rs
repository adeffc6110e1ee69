//! Records that the sink has rejected and the dead letter queue has: remembered with their keys, so
//! that a letter which is sent again never overwrites something newer.
//!
//! Each is written in the transaction that moves the sink's record past it. A later row or delete of
//! its key settles it, in the transaction that writes that. So an entry that stands says that the
//! mirror holds nothing newer of the key.

use std::collections::{BTreeMap, HashSet};

use cdc_shared::offset::{Position, TopicPartition};
use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::Error;

use super::deliver::{Delivery, Part, Sorted, Work, Written};
use super::mirror::Mirrors;
use super::moved::Handing;
use super::several::write_rows;
use crate::sink::name::TableName;
use crate::sink::postgres::config::Options;
use crate::sink::postgres::database::Connection;
use crate::sink::postgres::error;
use crate::sink::postgres::flight::Outcome;
use crate::sink::postgres::progress::Step;
use crate::sink::{Disposition, SinkError, Standing};

/// Name of the table, in the schema of the progress table.
const TABLE: &str = "cdc_rejected_keys";
/// One partition's entries: `$1` to `$5`.
const OF_PARTITION: &str = "r.pipeline_id = $1 AND r.sink_id = $2 AND r.topic = $3 \
    AND r.\"partition\" = $4 AND r.topic_id = $5";

/// The table of the entries.
pub(super) fn table(options: &Options) -> TableName {
    TableName { schema: options.progress.schema.clone(), table: TABLE.to_owned() }
}

/// The statement that creates it. `fate`: NULL while it stands, then `superseded`, `partly` (by a
/// row without all of its values) or `replayed`.
pub(super) fn create_statement(options: &Options) -> String {
    format!(
        "CREATE TABLE {} (pipeline_id text NOT NULL, sink_id text NOT NULL, topic text NOT NULL, \
         \"partition\" integer NOT NULL, topic_id text NOT NULL, source_offset bigint NOT NULL, \
         key bytea, fate text, fate_offset bigint, updated_at timestamptz NOT NULL DEFAULT now(), \
         PRIMARY KEY (pipeline_id, sink_id, topic, \"partition\", topic_id, source_offset))",
        table(options)
    )
}

/// What a step of a flush has to do with rejected records, in offset order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Note {
    /// A record that was rejected.
    Rejected {
        /// Its offset.
        offset: i64,
        /// Its key.
        key: Option<Vec<u8>>,
    },
    /// A row or delete of a key that has rejected records.
    Settled {
        /// Its offset.
        offset: i64,
        /// The key.
        key: Vec<u8>,
        /// Whether nothing is left of what the key had before.
        fully: bool,
    },
    /// The mirror was emptied.
    Emptied {
        /// By the record at this offset.
        offset: i64,
    },
}

impl Note {
    /// The offset of its record.
    pub(super) fn offset(&self) -> i64 {
        match self {
            Self::Rejected { offset, .. }
            | Self::Settled { offset, .. }
            | Self::Emptied { offset } => *offset,
        }
    }
}

/// Makes a set of keys that have standing records what it is once `notes` are durable.
pub(super) fn keep(standing: &mut HashSet<Vec<u8>>, notes: &[Note]) {
    for note in notes {
        match note {
            Note::Rejected { key, .. } => standing.extend(key.clone()),
            Note::Settled { key, fully: true, .. } => drop(standing.remove(key)),
            Note::Settled { .. } => {}
            Note::Emptied { .. } => standing.clear(),
        }
    }
}

/// Which partition's entries are meant.
pub(super) struct Place<'p> {
    pub(super) options: &'p Options,
    pub(super) tp: &'p TopicPartition,
    pub(super) at: &'p Position,
}

/// The five parameters of [`OF_PARTITION`].
macro_rules! place {
    ($place:expr, $topic:ident $(, $more:expr)*) => {
        &[
            &$place.options.pipeline_id,
            &$place.options.sink_id,
            &$topic,
            &$place.tp.partition,
            &&*$place.at.topic_id.0,
            $($more),*
        ]
    };
}

impl Place<'_> {
    fn table(&self) -> TableName {
        table(self.options)
    }

    /// Writes what a step has to do with rejected records; part of its transaction.
    pub(super) async fn note(
        &self,
        transaction: &Transaction<'_>,
        notes: &[Note],
    ) -> Result<(), Error> {
        let (mut offsets, mut keys): (Vec<i64>, Vec<Option<&[u8]>>) = Default::default();
        // A later one of a key takes the place of an earlier: it settles all that is before it.
        let (mut fully, mut partly) = (BTreeMap::new(), BTreeMap::new());
        let mut emptied = None;
        for note in notes {
            match note {
                Note::Rejected { offset, key } => {
                    offsets.push(*offset);
                    keys.push(key.as_deref());
                }
                Note::Settled { offset, key, fully: true } => drop(fully.insert(&**key, *offset)),
                Note::Settled { offset, key, .. } => drop(partly.insert(&**key, *offset)),
                Note::Emptied { offset } => emptied = Some(*offset),
            }
        }
        if !offsets.is_empty() {
            self.remember(transaction, &offsets, &keys).await?;
        }
        self.settle(transaction, &fully, "superseded").await?;
        self.settle(transaction, &partly, "partly").await?;
        match emptied {
            Some(offset) => self.settle_all(transaction, offset).await,
            None => Ok(()),
        }
    }

    /// A record that is rejected again, after the sink was taken back, stands anew.
    async fn remember(
        &self,
        transaction: &Transaction<'_>,
        offsets: &[i64],
        keys: &[Option<&[u8]>],
    ) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO {} AS r (pipeline_id, sink_id, topic, \"partition\", topic_id, \
             source_offset, key) SELECT $1, $2, $3, $4, $5, b.o, b.k \
             FROM ROWS FROM (pg_catalog.unnest($6::pg_catalog.int8[]), \
             pg_catalog.unnest($7::pg_catalog.bytea[])) AS b(o, k) \
             ON CONFLICT (pipeline_id, sink_id, topic, \"partition\", topic_id, source_offset) \
             DO UPDATE SET key = EXCLUDED.key, fate = NULL, fate_offset = NULL, \
             updated_at = pg_catalog.now()",
            self.table()
        );
        let topic: &str = &self.tp.topic;
        transaction.execute(&sql, place!(self, topic, &offsets, &keys)).await?;
        Ok(())
    }

    /// Everything that stands of these keys at or before these offsets.
    async fn settle(
        &self,
        transaction: &Transaction<'_>,
        by: &BTreeMap<&[u8], i64>,
        fate: &str,
    ) -> Result<(), Error> {
        if by.is_empty() {
            return Ok(());
        }
        let (keys, offsets): (Vec<&[u8]>, Vec<i64>) = by.iter().map(|(k, o)| (*k, *o)).unzip();
        let sql = format!(
            "UPDATE {} AS r SET fate = $8, fate_offset = b.o, updated_at = pg_catalog.now() \
             FROM ROWS FROM (pg_catalog.unnest($6::pg_catalog.bytea[]), \
             pg_catalog.unnest($7::pg_catalog.int8[])) AS b(k, o) WHERE {OF_PARTITION} \
             AND r.key = b.k AND r.source_offset <= b.o \
             AND (r.fate IS NULL OR (r.fate = 'partly' AND $8 = 'superseded'))",
            self.table()
        );
        let topic: &str = &self.tp.topic;
        transaction.execute(&sql, place!(self, topic, &keys, &offsets, &fate)).await?;
        Ok(())
    }

    async fn settle_all(&self, transaction: &Transaction<'_>, by: i64) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {} AS r SET fate = 'superseded', fate_offset = $6, \
             updated_at = pg_catalog.now() WHERE {OF_PARTITION} AND r.source_offset <= $6 \
             AND (r.fate IS NULL OR r.fate = 'partly')",
            self.table()
        );
        let topic: &str = &self.tp.topic;
        transaction.execute(&sql, place!(self, topic, &by)).await?;
        Ok(())
    }

    /// Keys with records that stand, or would but for a row without all of its values.
    async fn standing(&self, client: &impl GenericClient) -> Result<HashSet<Vec<u8>>, Error> {
        let sql = format!(
            "SELECT r.key FROM {} AS r WHERE {OF_PARTITION} AND r.key IS NOT NULL \
             AND (r.fate IS NULL OR r.fate = 'partly')",
            self.table()
        );
        let topic: &str = &self.tp.topic;
        let rows = client.query(&sql, place!(self, topic)).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// What became of the record at `offset`: outer `None` when it is not remembered.
    async fn fate(
        &self,
        client: &impl GenericClient,
        offset: i64,
        lock: &str,
    ) -> Result<Option<Option<(String, Option<i64>)>>, Error> {
        let sql = format!(
            "SELECT r.fate, r.fate_offset FROM {} AS r WHERE {OF_PARTITION} \
             AND r.source_offset = $6 {lock}",
            self.table()
        );
        let topic: &str = &self.tp.topic;
        let Some(row) = client.query_opt(&sql, place!(self, topic, &offset)).await? else {
            return Ok(None);
        };
        let fate: Option<String> = row.try_get(0)?;
        let by: Option<i64> = row.try_get(1)?;
        Ok(Some(fate.map(|fate| (fate, by))))
    }

    async fn set_replayed(&self, transaction: &Transaction<'_>, offset: i64) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {} AS r SET fate = 'replayed', updated_at = pg_catalog.now() \
             WHERE {OF_PARTITION} AND r.source_offset = $6",
            self.table()
        );
        let topic: &str = &self.tp.topic;
        transaction.execute(&sql, place!(self, topic, &offset)).await?;
        Ok(())
    }
}

/// A sink that writes whole transactions settles nothing: what it is given meanwhile is not known.
pub(super) async fn forget_all(connection: &mut Connection<'_>) -> Result<(), SinkError> {
    let options = &connection.database.options;
    let sql = format!(
        "UPDATE {} SET fate = 'superseded' WHERE pipeline_id = $1 AND sink_id = $2 \
         AND (fate IS NULL OR fate = 'partly')",
        table(options)
    );
    let forget = async |client: &mut Object| {
        client.execute(&sql, &[&options.pipeline_id, &options.sink_id]).await
    };
    connection.run(&format!("writing {}", table(options)), forget).await.map(drop)
}

impl Mirrors {
    /// Reads which keys of a partition have rejected records that stand. After the position was
    /// read: then nothing is missing that stood there.
    pub(super) async fn load_standing(
        &self,
        connection: &mut Connection<'_>,
        tp: &TopicPartition,
        at: &Position,
    ) -> Result<(), SinkError> {
        let options = &self.database.options;
        let place = Place { options, tp, at };
        let read = async |client: &mut Object| place.standing(client).await;
        let standing = connection.run(&format!("reading {}", table(options)), read).await?;
        self.set_standing(tp, |known| *known = standing);
        Ok(())
    }

    /// Where a rejected record stands.
    pub(super) async fn fate_of(
        &self,
        tp: &TopicPartition,
        at: &Position,
        offset: i64,
    ) -> Result<Standing, SinkError> {
        let options = &self.database.options;
        let doing = format!("reading {}", table(options));
        let mut connection = self.database.connection(&doing).await?;
        let place = Place { options, tp, at };
        let read = async |client: &mut Object| place.fate(client, offset, "").await;
        Ok(match connection.run(&doing, read).await? {
            None => Standing::Superseded("the sink does not remember that it rejected it".into()),
            Some(None) => Standing::Stands,
            Some(Some((fate, by))) => {
                let by = by.map_or_else(String::new, |by| format!(" at offset {by}"));
                match fate.as_str() {
                    "replayed" => Standing::Replayed,
                    "partly" => Standing::Superseded(format!(
                        "a later change{by} wrote a part of the row: cdc resync puts it right"
                    )),
                    _ => Standing::Superseded(format!("something newer of its key came{by}")),
                }
            }
        })
    }
}

/// A dead letter that is written again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Again {
    /// Its offset.
    pub(super) offset: i64,
    /// Its key.
    pub(super) key: Vec<u8>,
    /// Whether nothing is left of what the key had before.
    pub(super) fully: bool,
}

impl Delivery {
    /// Writes a dead letter, if it still stands: in one transaction with what says so, under the
    /// lock on the sink's record, which stays where it is.
    pub(super) async fn write_again(&self, again: &Again) -> Result<Outcome, SinkError> {
        let Some(Part { work: Work::Rows(segment), .. }) = self.parts.first() else {
            return Ok(Outcome::Durable);
        };
        let options = &self.mirrors.database.options;
        let mut connection = self.mirrors.database.connection("writing a dead letter").await?;
        let layout = &segment.layout;
        let same = Some(layout.schema_id);
        let is_other = self.expected.schemas.value.is_some_and(|at| at != layout.schema_id);
        let accepted = if is_other {
            // The mirror is that of another schema and stays so.
            self.mirrors.as_found(&mut connection, layout).await?
        } else {
            self.mirrors.accepted(&mut connection, &self.tp, layout, same).await?
        };
        let place = Place { options, tp: &self.tp, at: &self.expected };
        let exchange = async |client: &mut Object| {
            let transaction = client.transaction().await?;
            let step = Step::new(options, &self.tp, &self.expected, &self.expected);
            let hit = transaction.execute(&accepted.advance, &step.parameters()).await? == 1;
            let fate = place.fate(&transaction, again.offset, "FOR UPDATE").await?;
            let stands = matches!(fate, Some(None));
            if !hit || !stands {
                transaction.rollback().await?;
                let is_done = fate.flatten().is_some_and(|(fate, _)| fate == "replayed");
                return Ok(if is_done { Written::Hit } else { Written::Missed });
            }
            let topic = &self.tp.topic;
            let handing = Handing { options, topic, accepted: &accepted, segment };
            let written = write_rows(&transaction, &handing, &Sorted::of(segment)).await?;
            if !matches!(written, Written::Hit) {
                transaction.rollback().await?;
                return Ok(written);
            }
            // What was rejected of the key before it would set it back.
            let before = BTreeMap::from([(&*again.key, again.offset - 1)]);
            let fate = if again.fully { "superseded" } else { "partly" };
            place.settle(&transaction, &before, fate).await?;
            place.set_replayed(&transaction, again.offset).await?;
            transaction.commit().await?;
            Ok(Written::Hit)
        };
        match connection.run(&Self::doing(segment), exchange).await {
            Ok(Written::Hit) => Ok(Outcome::Durable),
            Ok(Written::RowMissing) => Err(self.row_missing(&self.parts[0].work)),
            Ok(_) => self.missed_again(connection, segment.layout.target.to_string()).await,
            Err(error) => Err(self.explain(connection, error).await),
        }
    }

    /// Neither the record nor what the letter stands for need have changed: the table may have.
    async fn missed_again(
        &self,
        mut connection: Connection<'_>,
        target: String,
    ) -> Result<Outcome, SinkError> {
        let place = &self.mirrors.database.options.place;
        let is_same = connection.has_arrived(&self.tp, &self.expected).await?;
        let offset = self.again.as_ref().map_or(0, |again| again.offset);
        let stands = self.mirrors.fate_of(&self.tp, &self.expected, offset).await?;
        if is_same && stands == Standing::Stands {
            self.mirrors.forget(&self.tp.topic);
            let error = error::changed(place, &target);
            return Err(SinkError { disposition: Disposition::Stop, ..error });
        }
        Ok(Outcome::Moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_until_a_whole_row_or_the_end_of_the_table() {
        let key = |key: &str| key.as_bytes().to_vec();
        let rejected = |offset, of: &str| Note::Rejected { offset, key: Some(key(of)) };
        let settled = |offset, of: &str, fully| Note::Settled { offset, key: key(of), fully };
        let mut standing = HashSet::new();
        keep(&mut standing, &[rejected(1, "a"), rejected(2, "b"), settled(3, "b", false)]);
        assert_eq!(standing, HashSet::from([key("a"), key("b")]));
        keep(&mut standing, &[settled(4, "b", true), rejected(5, "b"), settled(6, "a", true)]);
        assert_eq!(standing, HashSet::from([key("b")]));
        keep(&mut standing, &[Note::Rejected { offset: 7, key: None }]);
        assert_eq!(standing.len(), 1, "what has no key is never settled");
        keep(&mut standing, &[Note::Emptied { offset: 8 }]);
        assert!(standing.is_empty());
    }
}
