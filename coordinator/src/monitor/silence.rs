//! How long something that should move has stood still.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cdc_shared::offset::{NextOffset, TopicPartition};

use crate::group::{Members, Observation};

/// The signs of life of the connector: what it writes, heartbeats and changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pulse {
    /// Sum of the ends of its logs, and when it last changed.
    latest: Option<(i64, Instant)>,
}

impl Pulse {
    /// Takes a look at the ends: how long they have been the same. What was before the first look
    /// is not known.
    pub fn look(&mut self, ends: i64, now: Instant) -> Duration {
        match self.latest {
            Some((same, since)) if same == ends => now.duration_since(since),
            _ => {
                self.latest = Some((ends, now));
                Duration::ZERO
            }
        }
    }
}

/// Partitions on which P is behind every sink whose position is known.
#[derive(Clone, Debug, Default)]
pub struct Stall {
    /// Where P stands, and since when.
    behind: BTreeMap<TopicPartition, (Option<NextOffset>, Instant)>,
}

impl Stall {
    /// Takes a look.
    pub fn look(&mut self, members: &Members, seen: &Observation, now: Instant) {
        let before = std::mem::take(&mut self.behind);
        for tp in seen.partitions() {
            let of_topic = members.iter().filter(|(_, topic)| **topic == *tp.topic);
            let positions = of_topic.filter_map(|(sink, _)| Some(seen.position(sink, &tp)?.next));
            let Some(lowest) = positions.min() else { continue };
            let at = seen.committed.get(&tp).map(|committed| committed.next);
            if at.map_or(0, NextOffset::get) >= lowest.get() {
                continue;
            }
            let since = before.get(&tp).filter(|(same, _)| *same == at);
            let since = since.map_or(now, |(_, since)| *since);
            self.behind.insert(tp, (at, since));
        }
    }

    /// The partitions that have stood still for so long, and which of them longest, since when.
    pub fn longer_than(
        &self,
        limit: Duration,
        now: Instant,
    ) -> Option<(usize, &TopicPartition, Duration)> {
        let stalled = self.behind.iter().map(|(tp, (_, since))| (tp, now.duration_since(*since)));
        let stalled: Vec<_> = stalled.filter(|(_, age)| *age >= limit).collect();
        let (tp, age) = stalled.iter().max_by_key(|(_, age)| *age)?;
        Some((stalled.len(), tp, *age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Committed, TopicFacts};
    use crate::watermark::rule::tests::position;
    use cdc_shared::offset::TopicId;

    /// Where P is, and each sink.
    type Seen<'a> = (Option<i64>, &'a [(&'a str, i64)]);

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_pulse_is_any_change_of_an_end() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        let looks = [(5, 0), (5, 1), (5, 2), (6, 3), (6, 4), (2, 5), (2, 7)];
        let found = looks.map(|(ends, at)| pulse.look(ends, start + MINUTE * at).as_secs() / 60);
        assert_eq!(found, [0, 1, 2, 0, 1, 0, 2]);
    }

    fn seen(committed: Option<i64>, sinks: &[(&str, i64)]) -> (Members, Observation) {
        let tp = TopicPartition::new("t", 0);
        let watermarks = sinks.iter().map(|(sink, next)| {
            let position = position(0, "id", *next);
            ((*sink).to_owned(), Ok([(tp.clone(), position)].into()))
        });
        let next =
            |next| Committed { next: NextOffset::new(next).unwrap(), metadata: String::new() };
        let members = ["a", "b"].map(|sink| (sink.to_owned(), "t".to_owned())).into();
        let facts = TopicFacts { id: TopicId("id".into()), partitions: 1 };
        let observation = Observation {
            begun: Instant::now(),
            topics: [("t".to_owned(), facts)].into(),
            ends: [(tp.clone(), 100)].into(),
            committed: committed.map(|at| (tp.clone(), next(at))).into_iter().collect(),
            watermarks: watermarks.collect(),
            rebuilt: Vec::new(),
        };
        (members, observation)
    }

    #[test]
    fn p_is_stalled_where_it_stays_behind_every_sink_that_is_known() {
        let start = Instant::now();
        let stalled = |looks: &[Seen<'_>]| {
            let mut stall = Stall::default();
            let mut now = start;
            for (committed, sinks) in looks {
                let (members, observation) = seen(*committed, sinks);
                now += MINUTE;
                stall.look(&members, &observation, now);
            }
            stall.longer_than(2 * MINUTE, now).map(|(count, _, age)| (count, age.as_secs() / 60))
        };
        let ahead: &[(&str, i64)] = &[("a", 9), ("b", 7)];
        assert_eq!(stalled(&[(Some(5), ahead); 2]), None);
        assert_eq!(stalled(&[(Some(5), ahead); 3]), Some((1, 2)));
        assert_eq!(stalled(&[(None, ahead); 4]), Some((1, 3)), "it has none at all");
        // A sink that is behind keeps P where it belongs; one that is unknown does not explain it.
        assert_eq!(stalled(&[(Some(5), &[("a", 9), ("b", 5)][..]); 9]), None);
        assert_eq!(stalled(&[(Some(5), &[("a", 9)][..]); 9]), Some((1, 8)));
        assert_eq!(stalled(&[(Some(5), &[][..]); 9]), None, "nobody has gone on");
        let moves = [(Some(4), ahead), (Some(5), ahead), (Some(6), ahead), (Some(6), ahead)];
        assert_eq!(stalled(&moves), None);
    }
}
