//! One look at the world: topics, ends of logs, P, and every sink's watermarks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use cdc_shared::config::PipelineConfig;
use cdc_shared::control::ControlState;
use cdc_shared::offset::{Position, TopicPartition};

use super::plan::commit_counts;
use crate::fleet::Fleet;
use crate::kafka::{Cluster, CommittedOffsets, KafkaTrouble, TopicFacts, ask};
use crate::watermark::{SinkWatermarks, WatermarkStore, rule};

/// The watermarks of one sink, or why they cannot be read.
type SinkProgress = Result<SinkWatermarks, String>;

/// What was seen at one time.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When the look began: everything here is at least as new.
    pub begun: Instant,
    /// Source topics that exist.
    pub topics: BTreeMap<String, TopicFacts>,
    /// End of what is committed in each log.
    pub ends: BTreeMap<TopicPartition, i64>,
    /// P.
    pub committed: CommittedOffsets,
    /// By sink.
    pub watermarks: BTreeMap<String, SinkProgress>,
    /// Positions taken from the commits of the sinks' groups, further than the store's, to be put
    /// into it.
    pub rebuilt: Vec<(String, Vec<(TopicPartition, Position)>)>,
}

impl Observation {
    /// The position of a sink on a partition.
    pub fn position(&self, sink: &str, tp: &TopicPartition) -> Option<&Position> {
        self.watermarks.get(sink)?.as_ref().ok()?.get(tp)
    }

    /// Every partition of the topics that exist.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        partitions(&self.topics)
    }
}

/// The (sink, topic) pairs that count for P.
pub type Members = BTreeSet<(String, String)>;

/// The pairs that count: kept in the control topic, enabled in the configuration (unless removed
/// since this process started), or reporting.
pub fn members(
    config: &PipelineConfig,
    control: &ControlState,
    fleet: &Fleet,
    removed: &Members,
) -> Members {
    let mut members: Members =
        control.members().map(|(sink, topic)| (sink.to_owned(), topic.to_owned())).collect();
    for sink in config.sinks.iter().filter(|sink| sink.enabled) {
        let topics = config.sink_tables(sink).iter().map(|table| config.topic(table));
        let pairs = topics.map(|topic| (sink.sink_id.clone(), topic));
        members.extend(pairs.filter(|pair| !removed.contains(pair)));
    }
    for worker in fleet.workers(Instant::now()).into_iter().filter(|worker| worker.live) {
        let sink = worker.heartbeat.sink_id;
        let topics = worker.heartbeat.partitions.into_iter().map(|report| report.topic);
        members.extend(topics.map(|topic| (sink.clone(), topic)));
    }
    members
}

/// Looks.
///
/// # Errors
/// When Kafka does not answer. A store that does not answer is part of the picture.
pub async fn observe(
    config: &PipelineConfig,
    cluster: &Arc<Cluster>,
    store: &dyn WatermarkStore,
    control: &ControlState,
    members: &Members,
) -> Result<Observation, KafkaTrouble> {
    let begun = Instant::now();
    let names: BTreeSet<String> = members.iter().map(|(_, topic)| topic.clone()).collect();
    let topics = ask(cluster, move |cluster| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        cluster.topics(&names)
    })
    .await?;
    let mut watermarks = BTreeMap::new();
    for sink in members.iter().map(|(sink, _)| sink) {
        if !watermarks.contains_key(sink) {
            let read = store.read(sink).await.map_err(|error| error.to_string());
            watermarks.insert(sink.clone(), read);
        }
    }
    let mut observation = Observation {
        begun,
        topics,
        ends: BTreeMap::new(),
        committed: CommittedOffsets::new(),
        watermarks,
        rebuilt: Vec::new(),
    };
    rebuild(config, cluster, control, members, &mut observation).await?;
    // Last: a position that was read after its log's end would seem to lie beyond it.
    let (partitions, group) = (observation.partitions(), config.group_id.clone());
    (observation.ends, observation.committed) = ask(cluster, move |cluster| {
        Ok((cluster.ends(&partitions)?, cluster.committed(&group, &partitions)?))
    })
    .await?;
    Ok(observation)
}

/// Fills and moves watermarks that a readable store has not, or not so far, from the commits of the
/// sinks' groups. They count for the same: a worker commits only what is durable. So P does not
/// stand still while no heartbeat comes (an emptied store, workers that report to a coordinator
/// that does not lead).
async fn rebuild(
    config: &PipelineConfig,
    cluster: &Arc<Cluster>,
    control: &ControlState,
    members: &Members,
    observation: &mut Observation,
) -> Result<(), KafkaTrouble> {
    let sinks: Vec<String> = observation.watermarks.keys().cloned().collect();
    for sink in sinks {
        let Some(Ok(known)) = observation.watermarks.get(&sink) else { continue };
        let counted: Vec<TopicPartition> = observation
            .partitions()
            .into_iter()
            .filter(|tp| members.contains(&(sink.clone(), tp.topic.to_string())))
            .collect();
        let group = config.sink_group(&sink);
        let committed = ask(cluster, move |cluster| cluster.committed(&group, &counted)).await?;
        let found: Vec<(TopicPartition, Position)> = committed
            .into_iter()
            .filter_map(|(tp, committed)| {
                let position = Position::from_commit(committed.next.get(), &committed.metadata)?;
                let live = &observation.topics.get(tp.topic.as_ref())?.id;
                let counts = commit_counts(&position, control.rewind(&sink, &tp), live)
                    && rule::advance(known.get(&tp), &position);
                counts.then_some((tp, position))
            })
            .collect();
        if let Some(Ok(known)) = observation.watermarks.get_mut(&sink) {
            known.extend(found.iter().cloned());
        }
        if !found.is_empty() {
            observation.rebuilt.push((sink, found));
        }
    }
    Ok(())
}

fn partitions(topics: &BTreeMap<String, TopicFacts>) -> Vec<TopicPartition> {
    topics
        .iter()
        .flat_map(|(topic, facts)| {
            (0..facts.partitions).map(|partition| TopicPartition::new(topic.as_str(), partition))
        })
        .collect()
}
