//! Has the sink applied everything that the source had committed at a moment?
//!
//! Three steps, none of which reads a record:
//!
//! 1. Take the source's write position. Every change that was visible then lies below it.
//! 2. Wait until Kafka has everything up to it, which the connector knows (`slot`, `binlog`).
//! 3. Take the ends of the topic's partitions and wait until the sink's own record has reached
//!    each of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::registry::Registry;
use tokio::time::Instant;

use super::failure::TaskFailure;
use super::upstream::{Arrival, LOOK, Upstream};
use super::{Reach, given_up};
use crate::source::given_up::GivenUp;
use crate::source::probe::{Probe, TopicEnds};
use crate::task::Tell;

/// How often the step is told while nothing moves.
const TOLD: Duration = Duration::from_secs(1);

/// The way from the source to the mirror.
pub(in crate::sink) struct Stream<'s> {
    pub(in crate::sink) upstream: Box<dyn Upstream + 's>,
    /// The sink's own record.
    pub(in crate::sink) record: &'s dyn OwnRecord,
    /// Topic of each table.
    pub(in crate::sink) topics: HashMap<String, String>,
    pub(in crate::sink) probe: Probe,
    pub(in crate::sink) given_up: GivenUp,
    /// Longest time for one position.
    pub(in crate::sink) timeout: Duration,
}

#[async_trait]
impl Reach for Stream<'_> {
    async fn reach(&mut self, table: &str, tell: &Tell) -> Result<String, TaskFailure> {
        let topic = self.topics.get(table).cloned().ok_or_else(|| {
            TaskFailure::failed(format!("table {table} is not one of the sink's"))
        })?;
        let deadline = Instant::now() + self.timeout;
        let position = self.upstream.take(tell).await?;
        let to = Awaited { position: &position, timeout: self.timeout, deadline, tell };
        self.arrived(&to).await?;
        let ends =
            self.probe.ends(&topic).await.map_err(|error| {
                TaskFailure::failed(error.to_string()).hint("make Kafka reachable")
            })?;
        self.applied(&topic, &ends, &to).await?;
        Ok(position)
    }

    async fn given_up(
        &mut self,
        table: &str,
        columns: &[String],
    ) -> Result<HashSet<Vec<String>>, TaskFailure> {
        let Some(topic) = self.topics.get(table) else { return Ok(HashSet::new()) };
        let failed = |error: &dyn std::fmt::Display| TaskFailure::failed(error.to_string());
        let keys = self.given_up.keys(topic).await.map_err(|error| failed(&error))?;
        let registry = Registry::new(&self.given_up.kafka).map_err(|error| failed(&error))?;
        given_up::decoded(&registry, &keys, columns).await
    }
}

impl Stream<'_> {
    /// Waits until Kafka has everything up to the position.
    async fn arrived(&self, to: &Awaited<'_>) -> Result<(), TaskFailure> {
        let way_out = "see cdc health for the connector; a longer --timeout if it only lags";
        let mut told = None;
        while let Arrival::Pending(at) = self.upstream.arrived(to.position).await? {
            to.missing(&at, way_out, &mut told)?;
            tokio::time::sleep(self.upstream.pause()).await;
        }
        Ok(())
    }

    /// Waits for the sink.
    async fn applied(
        &self,
        topic: &str,
        ends: &TopicEnds,
        to: &Awaited<'_>,
    ) -> Result<(), TaskFailure> {
        let way_out = "see cdc health for the sink; a longer --timeout if it only lags";
        let mut told = None;
        while let Some(behind) = furthest_behind(&self.record.own(topic).await?, ends, topic)? {
            to.missing(&behind, way_out, &mut told)?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// A position of the source that is waited for.
struct Awaited<'a> {
    position: &'a str,
    timeout: Duration,
    deadline: Instant,
    tell: &'a Tell,
}

impl Awaited<'_> {
    /// Tells now and then what is missing, until the time is over.
    fn missing(
        &self,
        what: &str,
        way_out: &str,
        told: &mut Option<Instant>,
    ) -> Result<(), TaskFailure> {
        let waiting = format!("position {} of the source: {what}", self.position);
        if Instant::now() >= self.deadline {
            let message = format!("not reached in {:?}: {waiting}", self.timeout);
            return Err(TaskFailure::not_reached(message).hint(way_out));
        }
        if told.is_none_or(|at| at.elapsed() >= TOLD) {
            self.tell.step(&waiting);
            *told = Some(Instant::now());
        }
        Ok(())
    }
}

/// Where the sink stands in a partition by its own record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sink) struct Own {
    pub(in crate::sink) partition: i32,
    pub(in crate::sink) next: i64,
    pub(in crate::sink) topic_id: String,
}

/// The sink's own record of how far it has come.
#[async_trait]
pub(in crate::sink) trait OwnRecord: Send + Sync {
    /// Where it stands in the partitions of a topic.
    async fn own(&self, topic: &str) -> Result<Vec<Own>, TaskFailure>;
}

/// The partition that is furthest behind its end; `None`: all have reached it.
fn furthest_behind(
    own: &[Own],
    ends: &TopicEnds,
    topic: &str,
) -> Result<Option<String>, TaskFailure> {
    let mut furthest: Option<(i64, String)> = None;
    for (partition, end) in (0..).zip(&ends.high) {
        let row = own.iter().find(|row| row.partition == partition);
        let (missing, at) = match row {
            Some(row) if row.topic_id != *ends.topic_id.0 => {
                let message = format!(
                    "the sink's position on {topic}[{partition}] counts in another topic of that \
                     name (id {}, now {})",
                    row.topic_id, ends.topic_id
                );
                return Err(TaskFailure::failed(message).hint("see cdc health for the way out"));
            }
            Some(row) => (end - row.next, format!("at {} of {end}", row.next)),
            None => (*end, format!("nowhere yet, the log ends at {end}")),
        };
        if missing > 0 && furthest.as_ref().is_none_or(|(most, _)| missing > *most) {
            furthest = Some((missing, format!("the sink is {at} in {topic}[{partition}]")));
        }
    }
    Ok(furthest.map(|(_, text)| text))
}

#[cfg(test)]
mod tests {
    use cdc_shared::offset::TopicId;

    use super::*;

    fn own(partition: i32, next: i64, id: &str) -> Own {
        Own { partition, next, topic_id: id.to_owned() }
    }

    fn behind(own: &[Own], high: &[i64]) -> Result<Option<String>, TaskFailure> {
        let ends = TopicEnds { topic_id: TopicId("a".into()), high: high.to_vec() };
        furthest_behind(own, &ends, "t")
    }

    #[test]
    fn every_partition_must_have_reached_its_end() {
        let ok = |own: &[Own], high: &[i64]| assert_eq!(behind(own, high).unwrap(), None);
        ok(&[own(0, 5, "a"), own(1, 9, "a")], &[5, 7]);
        ok(&[own(0, 5, "a")], &[5, 0]);
        let late = behind(&[own(0, 5, "a"), own(1, 1, "a")], &[6, 7]).unwrap().unwrap();
        assert_eq!(late, "the sink is at 1 of 7 in t[1]");
        let unknown = behind(&[], &[3]).unwrap().unwrap();
        assert!(unknown.contains("nowhere yet"), "{unknown}");
        let other = behind(&[own(0, 5, "b")], &[5]).unwrap_err();
        assert!(other.message.contains("another topic") && !other.not_reached);
    }
}
