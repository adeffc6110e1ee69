//! Random changes over few keys, with large values left out and keys that move between partitions,
//! delivered by two workers whose commits meet, get lost and fail, and who are killed and give each
//! other partitions, and taken back: after every round the table is the source's rows as of its offsets,
//! but for what is on its way to where it was.

use std::collections::BTreeMap;
use std::time::Instant;

use cdc_iceberg::{Compact, Expire};
use futures::FutureExt;

use super::*;

const PARTITIONS: usize = 3;
/// How long a table may be unreadable, because what is read is just being replaced.
const PATIENCE: Duration = Duration::from_secs(20);
const KEYS: i64 = 12;
const NAMES: [&str; 4] = ["ada", "bob", "cy", "dee"];
const LARGES: [&str; 5] = ["one", "two", "three", "four", ""];

/// Values of a row.
type Values = (&'static str, &'static str);

/// The source, what Debezium makes of its changes, and what each makes of the rows of a partition.
#[derive(Default)]
struct Source {
    rows: BTreeMap<i64, Values>,
    events: [Vec<Event>; PARTITIONS],
    effects: [Vec<(i64, Option<Values>)>; PARTITIONS],
    lsn: i64,
}

fn partition_of(key: i64) -> usize {
    key as usize % PARTITIONS
}

impl Source {
    fn emit(
        &mut self,
        op: &'static str,
        key: i64,
        sent: Values,
        now: Option<Values>,
        half: Option<KeyChange>,
    ) {
        let at = partition_of(key);
        let event = event(self.events[at].len() as i64, op, &full(key, sent.0, sent.1));
        self.events[at].push(Event { half, lsn: self.lsn, ..event });
        self.effects[at].push((key, now));
    }

    fn change(&mut self, random: &mut fastrand::Rng) {
        self.lsn += 1;
        let key = random.i64(0..KEYS);
        let new = (*random.choice(&NAMES).unwrap(), *random.choice(&LARGES).unwrap());
        let Some(&old) = self.rows.get(&key) else {
            self.rows.insert(key, new);
            return self.emit("c", key, new, Some(new), None);
        };
        match random.u32(..12) {
            0..=2 => {
                self.rows.insert(key, new);
                self.emit("u", key, new, Some(new), None);
            }
            3..=5 => {
                let now = (new.0, old.1);
                self.rows.insert(key, now);
                self.emit("u", key, (new.0, UNAVAILABLE), Some(now), None);
            }
            6..=7 => {
                self.rows.remove(&key);
                self.emit("d", key, ("", ""), None, None);
            }
            8 => self.emit("r", key, old, Some(old), None),
            _ => self.move_to_a_free_key(key, new, random),
        }
    }

    fn move_to_a_free_key(&mut self, key: i64, new: Values, random: &mut fastrand::Rng) {
        let free: Vec<i64> = (0..KEYS).filter(|key| !self.rows.contains_key(key)).collect();
        let Some(&to) = random.choice(&free) else { return };
        let (_, large) = self.rows.remove(&key).unwrap();
        self.emit("d", key, ("", ""), None, Some(KeyChange::From));
        let (kept, sent) = if random.u32(..3) == 0 { (new.1, new.1) } else { (large, UNAVAILABLE) };
        self.rows.insert(to, (new.0, kept));
        self.emit("c", to, (new.0, sent), Some((new.0, kept)), Some(KeyChange::To));
    }

    /// Rows of a partition up to an offset.
    fn rows_at(&self, partition: usize, next: i64) -> BTreeMap<i64, (Values, i64)> {
        let mut rows = BTreeMap::new();
        for (offset, (key, now)) in (0..next).zip(&self.effects[partition]) {
            match now {
                Some(now) => drop(rows.insert(*key, (*now, offset))),
                None => drop(rows.remove(key)),
            }
        }
        rows
    }
}

/// One worker and what it owns.
struct Worker {
    sink: IcebergSink,
    catalog: Arc<Faulty>,
    writers: [Option<Box<dyn PartitionWriter>>; PARTITIONS],
}

impl Worker {
    async fn new(place: &Place) -> Self {
        let catalog = Faulty::new(place);
        let sink = place.sink_on(catalog.clone()).await;
        Self { sink, catalog, writers: Default::default() }
    }

    /// The writer of a partition, from where the table is.
    async fn assign(&mut self, number: usize) {
        let tp = partition(number as i32);
        let start = within("a position", self.sink.read_position(&tp)).await.unwrap();
        let start = if let Some(start) = start {
            start
        } else {
            let start = position(0);
            let replaced = self.sink.replace_position(&tp, None, &start);
            assert!(within("the start", replaced).await.unwrap());
            start
        };
        let mut writer = writer_of(&self.sink, number as i32, start);
        writer.is_one_of(PARTITIONS as i32);
        self.writers[number] = Some(writer);
    }
}

struct World {
    place: Place,
    source: Source,
    workers: [Worker; 2],
    random: fastrand::Rng,
    /// Where partitions were that were taken back.
    until: [i64; PARTITIONS],
}

impl World {
    async fn stored_position(&self, number: usize) -> Position {
        let offsets = self.place.table().offsets().await.unwrap();
        offsets.get(&partition(number as i32)).cloned().unwrap_or_else(|| position(0))
    }

    async fn stored(&self, number: usize) -> i64 {
        self.stored_position(number).await.next.get()
    }

    /// Takes a partition back to somewhere, in a new incarnation.
    async fn take_back(&mut self) {
        let number = self.random.usize(..PARTITIONS);
        let from = self.stored_position(number).await;
        let next = NextOffset::new(self.random.i64(0..=from.next.get())).unwrap();
        let to = Position { next, incarnation: from.incarnation.next(), ..from.clone() };
        let fault = self.random.bool().then_some(Fault::AnswerLost);
        let worker = self.owner(number);
        worker.catalog.fail(fault.as_slice());
        let tp = partition(number as i32);
        let done = worker.sink.replace_position(&tp, Some(&from), &to);
        let done = within("the step back", done).await;
        worker.catalog.fail(&[]);
        if fault.is_none() {
            // What nobody waits for any more may have come first.
            if !done.unwrap() {
                return;
            }
        } else if self.stored_position(number).await != to {
            return;
        }
        self.until[number] = self.until[number].max(from.next.get());
        self.owner(number).assign(number).await;
    }

    /// The worker of a partition.
    fn owner(&mut self, number: usize) -> &mut Worker {
        let is = self.workers[0].writers[number].is_some();
        &mut self.workers[usize::from(!is)]
    }

    /// Pushes and flushes some of what each partition has, and sees what comes of it.
    async fn round(&mut self, most: usize) {
        for number in 0..PARTITIONS {
            let stored = self.stored_position(number).await;
            let next = stored.next.get() as usize;
            let at = |next: usize| {
                let next = NextOffset::new(next as i64).unwrap();
                Position { next, schemas: position(0).schemas, ..stored.clone() }
            };
            let events = &self.source.events[number][next..];
            let taken = most.min(events.len());
            let taken = if most == usize::MAX { taken } else { self.random.usize(..=taken) };
            let events = events[..taken].to_vec();
            let faults = [Fault::AnswerLost, Fault::Unavailable, Fault::Unknown];
            let fault = self.random.choice(&faults).copied().filter(|_| self.random.u8(..4) == 0);
            let worker = self.owner(number);
            worker.catalog.fail(fault.as_slice());
            let writer = worker.writers[number].as_mut().unwrap();
            writer.reset(stored.clone());
            push(&mut **writer, &table(), &events);
            if taken > 0 {
                writer.flush(at(next + taken));
            }
        }
        self.settle().await;
        self.check().await;
    }

    /// Until nothing comes any more but what waits for another partition.
    async fn settle(&mut self) {
        let quiet = Duration::from_millis(80);
        let [a, b] = &mut self.workers;
        let mut writers: Vec<_> = a.writers.iter_mut().chain(&mut b.writers).flatten().collect();
        loop {
            let flights: Vec<_> = writers
                .iter_mut()
                .filter(|writer| writer.in_flight())
                .map(|writer| writer.progress().boxed())
                .collect();
            if flights.is_empty() {
                return;
            }
            let any = futures::future::select_all(flights);
            match tokio::time::timeout(quiet, any).await {
                Ok((Progress::Durable(_) | Progress::Moved, ..)) => {}
                Ok((other, ..)) => panic!("{other:?}"),
                Err(_) => return,
            }
        }
    }

    /// The table is the source's rows as of its offsets.
    async fn check(&self) {
        let shown = ["id", "name", "large", "_cdc_partition", "_cdc_offset"];
        let begun = Instant::now();
        // What nobody waits for any more may yet be written: both are to be of one moment.
        let (offsets, mut found) = loop {
            let offsets = self.place.table().offsets().await.unwrap();
            let found = self.place.try_rows(&shown).await;
            match found {
                Ok(found) if self.place.table().offsets().await.unwrap() == offsets => {
                    break (offsets, found);
                }
                Ok(_) => {}
                // Files may go with an older snapshot while they are read.
                Err(error) => assert!(begun.elapsed() < PATIENCE, "unreadable: {error}"),
            }
        };
        let mut expected = Vec::new();
        for number in 0..PARTITIONS {
            let next = offsets.get(&partition(number as i32)).map_or(0, |p| p.next.get());
            if next < self.until[number] {
                found.retain(|row| row.split('|').nth(3) != Some(&number.to_string()));
                continue;
            }
            let rows = self.source.rows_at(number, next);
            expected.extend(rows.into_iter().map(|(key, ((name, large), offset))| {
                format!("{key}|{name}|{large}|{number}|{offset}")
            }));
        }
        expected.sort();
        assert_eq!(found, expected);
    }

    /// A round while somebody joins files and gives snapshots up.
    async fn round_beside_upkeep(&mut self) {
        let table = self.place.table();
        let wanted = Compact {
            target_bytes: *self.random.choice(&[4_000, 1 << 20]).unwrap(),
            min_files: self.random.usize(1..6),
            gone_percent: self.random.u8(1..50),
        };
        let keep = self.random.usize(1..4);
        let upkeep = tokio::spawn(async move {
            if table.columns().await.is_ok() {
                table.compact(&wanted).await.unwrap();
                table.expire(&Expire { before_ms: i64::MAX, keep }).await.unwrap();
            }
        });
        self.round(15).await;
        within("the upkeep", upkeep).await.unwrap();
        self.check().await;
    }

    /// Lets a worker leave something for the next one, or not.
    async fn leave(&mut self, which: usize, number: usize) {
        let leaves = self.random.bool();
        let writer = self.workers[which].writers[number].as_mut();
        if let Some(writer) = writer.filter(|writer| leaves && !writer.in_flight()) {
            within("leaving", writer.leave()).await;
        }
    }

    /// Kills a worker, or lets a partition change hands.
    async fn disturb(&mut self) {
        let which = self.random.usize(..2);
        if self.random.bool() {
            let owned: Vec<usize> =
                (0..PARTITIONS).filter(|n| self.workers[which].writers[*n].is_some()).collect();
            for number in owned.clone() {
                self.leave(which, number).await;
            }
            self.workers[which] = Worker::new(&self.place).await;
            for number in owned {
                self.workers[which].assign(number).await;
            }
        } else {
            let number = self.random.usize(..PARTITIONS);
            self.leave(1 - which, number).await;
            if self.workers[1 - which].writers[number].take().is_some() {
                self.workers[which].assign(number).await;
            }
        }
    }
}

async fn run(seed: u64) {
    let place = Place::keyed();
    let workers = [Worker::new(&place).await, Worker::new(&place).await];
    let (source, random) = (Source::default(), fastrand::Rng::with_seed(seed));
    let mut world = World { place, source, workers, random, until: [0; PARTITIONS] };
    for number in 0..PARTITIONS {
        let which = world.random.usize(..2);
        world.workers[which].assign(number).await;
    }
    for _ in 0..12 {
        for _ in 0..world.random.usize(..25) {
            world.source.change(&mut world.random);
        }
        if world.random.bool() {
            world.round_beside_upkeep().await;
        } else {
            world.round(15).await;
        }
        if world.random.u8(..3) == 0 {
            world.disturb().await;
        }
        if world.random.u8(..3) == 0 {
            world.take_back().await;
        }
    }
    for _ in 0..100 {
        let mut left = 0;
        for number in 0..PARTITIONS {
            left += world.source.events[number].len() as i64 - world.stored(number).await;
        }
        if left == 0 {
            let found = world.place.rows(&["id", "name", "large"]).await;
            let rows = world.source.rows.iter();
            let mut expected: Vec<String> =
                rows.map(|(key, (name, large))| format!("{key}|{name}|{large}")).collect();
            expected.sort();
            assert_eq!(found, expected);
            return;
        }
        world.round(usize::MAX).await;
    }
    panic!("it does not come to an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_the_source_as_of_its_offsets_whatever_happens() {
    for _ in 0..4 {
        let seed = fastrand::u64(..);
        within(
            &format!("a run with seed {seed}"),
            std::panic::AssertUnwindSafe(run(seed)).catch_unwind(),
        )
        .await
        .unwrap_or_else(|_| panic!("with seed {seed}"));
    }
}
