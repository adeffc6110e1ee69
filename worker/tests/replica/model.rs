//! Random changes over few keys, with large values left out and keys that change between two
//! partitions, delivered in batches of random sizes by two writers at once: the mirror must be what
//! a map is after the same changes.

use std::collections::BTreeMap;

use cdc_worker::change::KeyChange;

use super::event::UNAVAILABLE;
use super::*;

const KEYS: i64 = 9;
const NAMES: [&str; 4] = ["ada", "bob", "cy", "dee"];
const LARGES: [&str; 5] = ["one", "two", "three", "four", ""];

/// The source, and what Debezium makes of its changes.
#[derive(Default)]
struct Source {
    rows: BTreeMap<i64, (&'static str, &'static str)>,
    partitions: [Vec<Event>; 2],
    lsn: i64,
}

impl Source {
    fn emit(
        &mut self,
        op: &'static str,
        key: i64,
        values: (&'static str, &'static str),
        half: Option<KeyChange>,
    ) {
        let events = &mut self.partitions[(key % 2) as usize];
        let event = event(events.len() as i64, op, &row(key, values.0, values.1));
        events.push(Event { half, lsn: self.lsn, ..event });
    }

    fn change(&mut self, random: &mut fastrand::Rng) {
        self.lsn += 1;
        let key = random.i64(0..KEYS);
        let new = (*random.choice(&NAMES).unwrap(), *random.choice(&LARGES).unwrap());
        let Some(&(_, large)) = self.rows.get(&key) else {
            self.rows.insert(key, new);
            return self.emit("c", key, new, None);
        };
        match random.u32(..10) {
            0..=2 => {
                self.rows.insert(key, new);
                self.emit("u", key, new, None);
            }
            3..=5 => {
                self.rows.insert(key, (new.0, large));
                self.emit("u", key, (new.0, UNAVAILABLE), None);
            }
            6 => {
                self.rows.remove(&key);
                self.emit("d", key, ("", ""), None);
            }
            _ => self.move_to_a_free_key(key, new, random),
        }
    }

    fn move_to_a_free_key(
        &mut self,
        key: i64,
        new: (&'static str, &'static str),
        random: &mut fastrand::Rng,
    ) {
        let free: Vec<i64> = (0..KEYS).filter(|key| !self.rows.contains_key(key)).collect();
        let Some(&to) = random.choice(&free) else { return };
        let (_, large) = self.rows.remove(&key).unwrap();
        self.emit("d", key, ("", ""), Some(KeyChange::From));
        let (kept, sent) = if random.u32(..3) == 0 { (new.1, new.1) } else { (large, UNAVAILABLE) };
        self.rows.insert(to, (new.0, kept));
        self.emit("c", to, (new.0, sent), Some(KeyChange::To));
    }
}

async fn deliver_all(
    writer: &mut dyn PartitionWriter,
    events: &[Event],
    mut random: fastrand::Rng,
) {
    let mut rest = events;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(random.usize(1..=rest.len().min(40)));
        rest = after;
        let next = behind(batch.last().unwrap().offset + 1, 2);
        let expected = next.next.get();
        assert_eq!(durable(&deliver(writer, &table(), next, batch).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_is_what_a_map_is_after_the_same_changes() {
    for round in 0..20 {
        let seed = fastrand::u64(..);
        println!("round {round}, seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut source = Source::default();
        for _ in 0..random.usize(1..400) {
            source.change(&mut random);
        }
        let (sink, admin) = proven(|_| {}).await;
        let (mut zero, mut one) = (started(&sink, 0).await, started(&sink, 1).await);
        let (a, b) = (random.fork(), random.fork());
        let [even, odd] = &source.partitions;
        tokio::join!(deliver_all(&mut *zero, even, a), deliver_all(&mut *one, odd, b));
        let text = |(key, (name, large)): (&i64, &(&str, &str))| {
            format!("({key},{name},{})", if large.is_empty() { "\"\"" } else { large })
        };
        let expected: Vec<String> = source.rows.iter().map(text).collect();
        assert_eq!(mirrored(&admin).await, expected);
        let left: i64 =
            admin.query_one("SELECT count(*) FROM cdc_moved_rows", &[]).await.unwrap().get(0);
        assert_eq!(left, 0);
    }
}
