//! The dead letters of a pipeline by what identifies them: pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use cdc_shared::control::ControlState;
use cdc_shared::dlq::{LetterCount, LetterFilter, LetterState, header};
use cdc_shared::offset::{TopicId, TopicPartition};

/// Most letters that are kept in mind.
const MOST: usize = 200_000;
/// Longest message that is kept of each, in bytes.
const MAX_MESSAGE: usize = 400;
/// Longest key that is kept of each, in bytes: a filter by key needs it.
const MAX_KEY: usize = 1024;
/// How far back a letter counts as recent, in ms.
const RECENT_MS: i64 = 10 * 60 * 1000;

/// What identifies a letter: two of one identity are one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    /// Sink that rejected the record.
    pub sink: Arc<str>,
    /// Where the record came from.
    pub tp: TopicPartition,
    /// The topic its offset counts in; empty when the letter does not say.
    pub topic_id: TopicId,
    /// Its offset.
    pub offset: i64,
}

/// What is kept of a letter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// Stable code of the rejection.
    pub error_type: Arc<str>,
    /// What was wrong.
    pub error_message: String,
    /// How often it was tried.
    pub attempts: Option<u32>,
    /// When it was last rejected, Unix ms.
    pub at_ms: i64,
    /// How many letters it has.
    pub copies: u32,
    /// Topic, partition and offset of the newest of them.
    pub place: (Arc<str>, i32, i64),
    /// The record's key, unless it is very long.
    pub key: Option<Box<[u8]>>,
}

/// A letter that is meant, with where it stands.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Which.
    pub identity: Identity,
    /// What it says.
    pub letter: Arc<Letter>,
    /// Where it stands.
    pub state: LetterState,
    /// What settled it, when, and why.
    pub settled: Option<(String, i64, String)>,
}

/// A record of a dead letter topic as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'r> {
    /// Headers in their order.
    pub headers: &'r [(&'r str, &'r [u8])],
    /// Key.
    pub key: Option<&'r [u8]>,
    /// Kafka timestamp, Unix ms.
    pub timestamp_ms: i64,
    /// Partition of the dead letter topic.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Index {
    letters: BTreeMap<Identity, Arc<Letter>>,
    names: HashSet<Arc<str>>,
    /// Records that do not say where they came from.
    pub unreadable: u64,
    /// Letters beyond those that are kept.
    pub forgotten: u64,
}

impl Index {
    /// Takes a record of a dead letter topic in.
    pub fn add(&mut self, topic: &Arc<str>, raw: &Raw<'_>) {
        let Some((identity, mut letter)) = self.read(topic, raw) else {
            self.unreadable += 1;
            return;
        };
        if let Some(known) = self.letters.get_mut(&identity) {
            letter.copies += known.copies;
            if letter.at_ms < known.at_ms {
                letter = Letter { copies: letter.copies, ..Letter::clone(known) };
            }
            *known = Arc::new(letter);
        } else if self.letters.len() < MOST {
            self.letters.insert(identity, Arc::new(letter));
        } else {
            self.forgotten += 1;
        }
    }

    /// The dead letter topic is gone, or another one.
    pub fn forget_topic(&mut self, topic: &str) {
        self.letters.retain(|_, letter| &*letter.place.0 != topic);
    }

    /// The dead letter topic has lost what lies below `low`.
    pub fn forget_below(&mut self, topic: &str, partition: i32, low: i64) {
        self.letters.retain(|_, letter| {
            let (of, at, offset) = &letter.place;
            &**of != topic || *at != partition || *offset >= low
        });
    }

    /// One letter.
    pub fn get(&self, identity: &Identity) -> Option<&Arc<Letter>> {
        self.letters.get(identity)
    }

    /// The letters that are meant, but for the filter's key, which nobody has decoded here.
    pub fn choose(&self, control: &ControlState, filter: &LetterFilter) -> Vec<Chosen> {
        let meant = self.letters.iter().filter(|(identity, letter)| {
            let is = |wanted: &Option<String>, name: &str| {
                wanted.as_ref().is_none_or(|wanted| wanted == name)
            };
            is(&filter.sink, &identity.sink)
                && is(&filter.topic, &identity.tp.topic)
                && is(&filter.error_type, &letter.error_type)
                && filter.partition.is_none_or(|wanted| wanted == identity.tp.partition)
                && filter.offset.is_none_or(|wanted| wanted == identity.offset)
                && filter.since_ms.is_none_or(|since| letter.at_ms >= since)
                && filter.until_ms.is_none_or(|until| letter.at_ms < until)
        });
        let chosen = meant.map(|(identity, letter)| {
            let Identity { sink, tp, topic_id, offset } = identity;
            let at = (*offset, letter.at_ms);
            let settled = control.letter_settled(sink, tp, topic_id, at);
            Chosen {
                identity: identity.clone(),
                letter: Arc::clone(letter),
                state: settled.map_or(LetterState::Open, |settled| settled.fate.into()),
                settled: settled.map(|by| (by.by.clone(), by.at_ms, by.reason.clone())),
            }
        });
        chosen.filter(|c| filter.state.is_none_or(|wanted| wanted == c.state)).collect()
    }

    fn read(&mut self, topic: &Arc<str>, raw: &Raw<'_>) -> Option<(Identity, Letter)> {
        // The last of a name is ours.
        let text = |name: &str| {
            let found = raw.headers.iter().rev().find(|(of, _)| *of == name)?;
            std::str::from_utf8(found.1).ok()
        };
        let number = |name: &str| text(name)?.parse::<i64>().ok();
        let offset = number(header::OFFSET).filter(|offset| *offset >= 0)?;
        let partition = i32::try_from(number(header::PARTITION)?).ok().filter(|p| *p >= 0)?;
        let written = text(header::TIMESTAMP)
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .map_or(raw.timestamp_ms, jiff::Timestamp::as_millisecond);
        let mut error_message = text(header::ERROR_MESSAGE).unwrap_or_default().to_owned();
        while error_message.len() > MAX_MESSAGE {
            error_message.pop();
        }
        let identity = Identity {
            sink: self.name(text(header::SINK).unwrap_or_default()),
            tp: TopicPartition::new(self.name(text(header::TOPIC)?), partition),
            topic_id: TopicId(self.name(text(header::TOPIC_ID).unwrap_or_default())),
            offset,
        };
        let letter = Letter {
            error_type: self.name(text(header::ERROR_TYPE).unwrap_or("unknown")),
            error_message,
            attempts: number(header::ATTEMPTS).and_then(|count| u32::try_from(count).ok()),
            at_ms: written,
            copies: 1,
            place: (Arc::clone(topic), raw.partition, raw.offset),
            key: raw.key.filter(|key| key.len() <= MAX_KEY).map(Into::into),
        };
        Some((identity, letter))
    }

    /// Names repeat; each is kept once.
    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return Arc::clone(known);
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

/// How many have which code, by sink.
pub fn count(chosen: &[Chosen], now_ms: i64) -> Vec<LetterCount> {
    let mut counts: BTreeMap<(&str, &str), LetterCount> = BTreeMap::new();
    for Chosen { identity, letter, state, .. } in chosen {
        let count = counts.entry((&identity.sink, &letter.error_type)).or_default();
        count.add(*state);
        count.recent += u64::from(letter.at_ms > now_ms - RECENT_MS);
    }
    counts
        .into_iter()
        .map(|((sink, code), count)| LetterCount {
            sink: sink.to_owned(),
            error_type: code.to_owned(),
            ..count
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use cdc_shared::control::ControlRecord;
    use cdc_shared::dlq::{Fate, Settled};

    use super::*;

    struct Given {
        sink: &'static str,
        offset: &'static str,
        code: &'static str,
        at: &'static str,
    }

    fn add(index: &mut Index, given: &Given, dlq_offset: i64) {
        let headers: [(&str, &[u8]); 7] = [
            (header::SINK, b"of the record itself"),
            (header::SINK, given.sink.as_bytes()),
            (header::TOPIC, b"t"),
            (header::PARTITION, b"1"),
            (header::OFFSET, given.offset.as_bytes()),
            (header::ERROR_TYPE, given.code.as_bytes()),
            (header::TIMESTAMP, given.at.as_bytes()),
        ];
        let (key, timestamp_ms, partition) = (Some(&b"k"[..]), 7, 0);
        let raw = Raw { headers: &headers, key, timestamp_ms, partition, offset: dlq_offset };
        index.add(&"t.dlq".into(), &raw);
    }

    fn index() -> Index {
        let mut index = Index::default();
        let given = [
            ("wh", "5", "http_400", "1970-01-01T00:00:00.100Z"),
            ("wh", "3", "http_400", "1970-01-01T00:00:00.200Z"),
            ("pg", "3", "nul", "1970-01-01T00:00:00.300Z"),
            ("wh", "5", "http_422", "1970-01-01T00:00:00.900Z"),
            ("wh", "-1", "http_400", ""),
            ("wh", "7", "http_400", "no time"),
        ];
        for (at, (sink, offset, code, time)) in given.into_iter().enumerate() {
            add(&mut index, &Given { sink, offset, code, at: time }, at as i64);
        }
        index
    }

    fn offsets(chosen: &[Chosen]) -> Vec<(&str, i64)> {
        chosen.iter().map(|c| (&*c.identity.sink, c.identity.offset)).collect()
    }

    #[test]
    fn two_letters_of_one_record_are_one_and_the_newest_tells() {
        let index = index();
        let all = index.choose(&ControlState::default(), &LetterFilter::default());
        assert_eq!(offsets(&all), [("pg", 3), ("wh", 3), ("wh", 5), ("wh", 7)]);
        let twice = &all[2].letter;
        assert_eq!((twice.copies, twice.place.2, &*twice.error_type), (2, 3, "http_422"));
        assert_eq!(index.unreadable, 1, "without an offset it is nobody's");
        assert_eq!(all[3].letter.at_ms, 7, "without a time Kafka's counts");
    }

    #[test]
    fn every_part_of_a_filter_counts() {
        let index = index();
        let chosen = |filter: LetterFilter| {
            let all = index.choose(&ControlState::default(), &filter);
            all.iter().map(|c| c.identity.offset).collect::<Vec<_>>()
        };
        let any = LetterFilter::default;
        assert_eq!(chosen(LetterFilter { sink: Some("pg".into()), ..any() }), [3]);
        assert_eq!(chosen(LetterFilter { topic: Some("u".into()), ..any() }), [0; 0]);
        assert_eq!(chosen(LetterFilter { partition: Some(0), ..any() }), [0; 0]);
        assert_eq!(chosen(LetterFilter { offset: Some(5), ..any() }), [5]);
        assert_eq!(chosen(LetterFilter { error_type: Some("http_400".into()), ..any() }), [3, 7]);
        assert_eq!(chosen(LetterFilter { since_ms: Some(300), ..any() }), [3, 5]);
        assert_eq!(chosen(LetterFilter { until_ms: Some(300), ..any() }), [3, 7]);
        assert_eq!(chosen(LetterFilter { state: Some(LetterState::Dropped), ..any() }), [0; 0]);
    }

    #[test]
    fn what_is_settled_is_counted_as_such() {
        let index = index();
        let record = ControlRecord::DeadLetters {
            sink: "wh".into(),
            tp: TopicPartition::new("t", 1),
            topic_id: TopicId("".into()),
            block: 0,
            settled: vec![Settled {
                fate: Fate::Dropped,
                at_ms: 500,
                by: "op".into(),
                reason: "test".into(),
                offsets: vec![3, 5],
            }],
        };
        let mut control = ControlState::default();
        let value = serde_json::to_vec(&record).unwrap();
        control.apply(0, &record.key(), Some(&value)).unwrap();
        let all = index.choose(&control, &LetterFilter::default());
        let counts = count(&all, RECENT_MS + 250);
        let told: Vec<_> = counts
            .iter()
            .map(|c| (c.sink.as_str(), c.error_type.as_str(), c.open, c.dropped, c.recent))
            .collect();
        // Offset 5 was rejected again after it was dropped.
        assert_eq!(
            told,
            [("pg", "nul", 1, 0, 1), ("wh", "http_400", 1, 1, 0), ("wh", "http_422", 1, 0, 1)]
        );
    }

    #[test]
    fn what_the_topic_has_lost_is_forgotten() {
        let mut index = index();
        index.forget_below("t.dlq", 1, 100);
        index.forget_below("t.dlq", 0, 3);
        let all = index.choose(&ControlState::default(), &LetterFilter::default());
        assert_eq!(offsets(&all), [("wh", 5), ("wh", 7)]);
        index.forget_topic("t.dlq");
        assert!(index.choose(&ControlState::default(), &LetterFilter::default()).is_empty());
    }
}
