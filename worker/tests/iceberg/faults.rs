//! Catalogs that fail, tables that others change.

use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use cdc_iceberg::{Kind, LakeError, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;

/// What happens to the next compare-and-sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// It is done, and the answer lost.
    AnswerLost,
    /// It is not done.
    Unavailable,
    /// It is not done, and nobody can tell.
    Unknown,
    /// It hangs for ever.
    Hangs,
}

/// What somebody else does.
type Other = BoxFuture<'static, ()>;

/// A catalog of SQLite that fails as it is told.
pub(super) struct Faulty {
    inner: SqliteCatalog,
    faults: Mutex<Vec<Fault>>,
    other: Mutex<Option<Other>>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl Faulty {
    pub(super) fn new(place: &Place) -> Arc<Self> {
        let (faults, other) = (Mutex::default(), Mutex::default());
        Arc::new(Self { inner: place.catalog(), faults, other })
    }

    /// Somebody else does this before the next compare-and-set.
    pub(super) fn overtake(&self, other: impl Future<Output = ()> + Send + 'static) {
        *self.other.lock().unwrap() = Some(other.boxed());
    }

    pub(super) fn fail(&self, faults: &[Fault]) {
        *self.faults.lock().unwrap() = faults.iter().rev().copied().collect();
    }
}

fn failed(kind: Kind) -> LakeError {
    LakeError::new(kind, "http_500", "the catalog says 500")
}

#[async_trait]
impl Pointers for Faulty {
    fn place(&self) -> &str {
        self.inner.place()
    }

    async fn prove(&self) -> Result<()> {
        self.inner.prove().await
    }

    async fn create_namespace(&self, namespace: &str) -> Result<()> {
        self.inner.create_namespace(namespace).await
    }

    async fn current(&self, table: &TableName) -> Result<Option<String>> {
        self.inner.current(table).await
    }

    async fn create(&self, table: &TableName, location: &str) -> Result<bool> {
        self.inner.create(table, location).await
    }

    async fn swap(&self, table: &TableName, from: &str, to: &str) -> Result<bool> {
        let other = self.other.lock().unwrap().take();
        if let Some(other) = other {
            other.await;
        }
        let fault = self.faults.lock().unwrap().pop();
        match fault {
            None => self.inner.swap(table, from, to).await,
            Some(Fault::AnswerLost) => {
                self.inner.swap(table, from, to).await?;
                Err(failed(Kind::Unknown))
            }
            Some(Fault::Unavailable) => Err(failed(Kind::Unavailable)),
            Some(Fault::Unknown) => Err(failed(Kind::Unknown)),
            Some(Fault::Hangs) => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn an_outcome_that_nobody_told_is_looked_for() {
    let place = Place::new();
    let catalog = Faulty::new(&place);
    let sink = place.sink_on(catalog.clone()).await;
    let mut writer = started(&sink, 0).await;
    for (at, faults) in [
        &[Fault::AnswerLost][..],
        &[Fault::Unknown],
        &[Fault::Unavailable, Fault::AnswerLost],
        &[Fault::Unknown, Fault::Unavailable, Fault::AnswerLost],
    ]
    .iter()
    .enumerate()
    {
        let at = at as i64;
        catalog.fail(faults);
        let progress = deliver(&mut *writer, &table(), at + 1, &creates(at..at + 1)).await;
        assert_eq!(durable(&progress), at + 1, "{faults:?}");
    }
    assert_eq!(place.rows(&["id"]).await, ["0", "1", "2", "3"]);
    assert_eq!(place.table().snapshots().await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_lost_answer_is_found_behind_commits_of_others() {
    let place = Place::new();
    let catalog = Faulty::new(&place);
    let (sink, other) = (place.sink_on(catalog.clone()).await, place.sink().await);
    let mut writer = started(&sink, 0).await;
    let mut others = started(&other, 1).await;
    push(&mut *writer, &table(), &creates(0..2));
    catalog.fail(&[Fault::AnswerLost]);
    writer.flush(position(2));
    let foreign = async {
        crate::support::until("the first attempt", async || {
            place.table().snapshots().await.unwrap().len() == 1
        })
        .await;
        deliver(&mut *others, &table(), 1, &creates(0..1)).await
    };
    let (mine, foreign) = tokio::join!(answer(&mut *writer), foreign);
    assert_eq!((durable(&mine), durable(&foreign)), (2, 1));
    assert_eq!(place.rows(&["_cdc_partition", "id"]).await, ["0|0", "0|1", "1|0"]);
}

#[tokio::test]
async fn killed_between_upload_and_commit_nothing_is_there_and_all_of_it_comes() {
    let place = Place::new();
    let catalog = Faulty::new(&place);
    let sink = place.sink_on(catalog.clone()).await;
    let mut writer = started(&sink, 0).await;
    push(&mut *writer, &table(), &creates(0..3));
    catalog.fail(&[Fault::Hangs]);
    writer.flush(position(3));
    crate::support::until("the upload", async || !place.files("data", ".parquet").is_empty()).await;
    drop((writer, sink));
    assert!(place.rows(&["id"]).await.is_empty());

    let next = place.sink().await;
    assert_eq!(next.read_position(&partition(0)).await.unwrap(), Some(position(0)));
    let mut writer = writer_of(&next, 0, position(0));
    assert_eq!(durable(&deliver(&mut *writer, &table(), 3, &creates(0..3)).await), 3);
    assert_eq!(place.rows(&["id"]).await, ["0", "1", "2"]);
}

#[tokio::test]
async fn a_table_that_is_gone_or_another_stops_by_name() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    durable(&deliver(&mut *writer, &table(), 1, &creates(0..1)).await);
    let connection = rusqlite_of(&place);
    connection.execute("ALTER TABLE iceberg_tables RENAME TO away", []).unwrap();
    connection.execute("CREATE TABLE iceberg_tables AS SELECT * FROM away WHERE 0", []).unwrap();
    match deliver(&mut *writer, &table(), 2, &creates(1..2)).await {
        Progress::Stop(error) => assert_eq!(error.code, "table_missing", "{error}"),
        other => panic!("{other:?}"),
    }
    // The rule of the start stops it: S has a position that the table has not.
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), None);

    let again = place.sink().await;
    let mut second = started(&again, 0).await;
    durable(&deliver(&mut *second, &table(), 1, &creates(0..1)).await);
    writer.reset(position(1));
    match deliver(&mut *writer, &table(), 2, &creates(1..2)).await {
        Progress::Stop(error) => assert_eq!(error.code, "table_replaced", "{error}"),
        other => panic!("{other:?}"),
    }
    // Looked at again it is the table that counts, with its own positions.
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), Some(position(1)));
    writer.reset(position(1));
    assert_eq!(durable(&deliver(&mut *writer, &table(), 2, &creates(1..2)).await), 2);
}

fn rusqlite_of(place: &Place) -> rusqlite::Connection {
    rusqlite::Connection::open(place.dir.path().join("catalog.db")).unwrap()
}

#[tokio::test]
async fn a_table_taken_back_takes_its_positions_with_it() {
    let place = Place::new();
    let sink = place.sink().await;
    let (mut a, mut b) = (started(&sink, 0).await, started(&sink, 1).await);
    durable(&deliver(&mut *a, &table(), 2, &creates(0..2)).await);
    let first = place.table().snapshots().await.unwrap()[0].id;
    durable(&deliver(&mut *b, &table(), 3, &creates(0..3)).await);
    durable(&deliver(&mut *a, &table(), 5, &creates(2..5)).await);

    place.table().roll_back(first).await.unwrap();
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), Some(position(2)));
    assert_eq!(sink.read_position(&partition(1)).await.unwrap(), Some(position(0)));
    assert!(matches!(deliver(&mut *a, &table(), 6, &creates(5..6)).await, Progress::Moved));

    // Somebody else's commit on top does not hide it.
    let mut a = writer_of(&sink, 0, position(2));
    durable(&deliver(&mut *a, &table(), 5, &creates(2..5)).await);
    assert_eq!(sink.read_position(&partition(0)).await.unwrap(), Some(position(5)));
    assert_eq!(sink.read_position(&partition(1)).await.unwrap(), Some(position(0)));
    assert_eq!(place.rows(&["id"]).await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_busy_catalog_file_is_waited_for() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    let mut connection = rusqlite_of(&place);
    let lock = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive);
    let lock = lock.unwrap();
    push(&mut *writer, &table(), &creates(0..1));
    writer.flush(position(1));
    let early = tokio::time::timeout(Duration::from_millis(300), writer.progress()).await;
    assert!(early.is_err(), "{early:?}");
    lock.rollback().unwrap();
    assert_eq!(durable(&answer(&mut *writer).await), 1);
}

#[tokio::test]
async fn a_warehouse_that_cannot_be_written_is_waited_for() {
    let place = Place::new();
    let sink = place.sink().await;
    let mut writer = started(&sink, 0).await;
    // Where the data files go there is a file: nobody can write into it, not even root.
    let data = place.dir.path().join("warehouse/default/shop_t/data");
    std::fs::write(&data, "in the way").unwrap();
    push(&mut *writer, &table(), &creates(0..2));
    writer.flush(position(2));
    let early = tokio::time::timeout(Duration::from_millis(300), writer.progress()).await;
    assert!(early.is_err(), "{early:?}");
    assert!(sink.prove().await.is_ok(), "other tables go on");
    std::fs::remove_file(&data).unwrap();
    assert_eq!(durable(&answer(&mut *writer).await), 2);
    assert_eq!(place.rows(&["id"]).await, ["0", "1"]);
}
