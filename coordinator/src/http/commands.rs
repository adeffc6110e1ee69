//! Carries out an operator's command.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::{Extension, Json};
use cdc_shared::api::{Command, CommandReply, CommandRequest, RewindTarget};
use cdc_shared::clock::unix_ms;
use cdc_shared::dlq::LetterFilter;
use cdc_shared::offset::{Position, TopicPartition};
use cdc_shared::source_position::SourcePosition;

use super::access::Caller;
use super::checks;
use super::error::ApiError;
use crate::consume;
use crate::control::commands::{Known, TopicNow, decide};
use crate::dlq::source_topics;
use crate::fleet::Worker;
use crate::kafka::ask;
use crate::state::Coordinator;

/// Longest time to read a topic for a place in the source's log.
const LONGEST_SEARCH: Duration = Duration::from_secs(45);

pub(super) async fn carry_out(
    State(coordinator): State<Arc<Coordinator>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<CommandRequest>, JsonRejection>,
) -> Result<Json<CommandReply>, ApiError> {
    let Json(mut request) = body?;
    checks::command(&request).map_err(ApiError::invalid)?;
    request.by = caller.signed(&request.by);
    if !coordinator.leads() {
        return Err(ApiError::not_leader(coordinator.other_leader()));
    }
    let mut known = known(&coordinator);
    request.command = known.resolve(&request.command)?;
    look_up(&coordinator, &request.command, &mut known).await?;
    let ((message, task), control_offset) = coordinator
        .control
        .write::<(String, Option<String>), ApiError>(|control| {
            if let Command::RemoveSink { sink, topic } = &request.command {
                // Inside the lock, so that no tick puts it back in between.
                let pairs = coordinator.members(control);
                coordinator.remember_removed(pairs.into_iter().filter(|(of, of_topic)| {
                    of == sink && topic.as_ref().is_none_or(|topic| topic == of_topic)
                }));
            }
            let effect = decide(&request, &known, control)?;
            Ok((effect.changes, (effect.message, effect.task)))
        })
        .await?;
    if let Command::RemoveSink { sink, topic } = &request.command {
        coordinator.store.forget(sink, topic.as_deref()).await.map_err(|e| ApiError::store(&e))?;
        if topic.is_none() {
            coordinator.fleet.forget(sink);
        }
    }
    super::count(&coordinator.metrics.commands);
    coordinator.group.nudge();
    tracing::info!(by = request.by, control_offset, "{message}");
    Ok(Json(CommandReply { message, control_offset, task }))
}

fn known(coordinator: &Coordinator) -> Known {
    let config = &coordinator.config;
    let mut sinks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for sink in &config.sinks {
        let topics = config.sink_tables(sink).iter().map(|table| config.topic(table));
        sinks.entry(sink.sink_id.clone()).or_default().extend(topics);
    }
    for (sink, topic) in coordinator.members(&coordinator.control.state()) {
        let topics = sinks.entry(sink).or_default();
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    let workers = coordinator.fleet.workers(Instant::now());
    Known {
        sinks,
        topic_prefix: config.topic_prefix.clone(),
        live: live(workers),
        now_ms: unix_ms(),
        types: config.sinks.iter().map(|sink| (sink.sink_id.clone(), sink.sink_type)).collect(),
        ..Known::default()
    }
}

/// Sinks with live workers, and the topics that these have to do with.
fn live(workers: Vec<Worker>) -> BTreeMap<String, BTreeSet<String>> {
    let mut live: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for worker in workers.into_iter().filter(|worker| worker.live) {
        let topics = worker.heartbeat.partitions.into_iter().map(|report| report.topic);
        live.entry(worker.heartbeat.sink_id).or_default().extend(topics);
    }
    live
}

/// Reads a topic for the first record of each partition at or after a place in the source's log.
async fn look_for(
    coordinator: &Coordinator,
    topic: &str,
    place: &SourcePosition,
) -> Result<BTreeMap<i32, i64>, ApiError> {
    let config = &coordinator.config;
    let source = config.source.source_type;
    if !place.fits(source) {
        let message = format!("{place} is no place in a log of {}", source.name());
        return Err(ApiError::invalid(message));
    }
    let searched = tokio::time::timeout(
        LONGEST_SEARCH,
        consume::first_at(&config.kafka, &coordinator.registry, topic, place),
    );
    match searched.await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(failure)) => Err(ApiError::unsearched(failure.message)),
        Err(_) => Err(ApiError::unsearched(format!(
            "{topic} was not read to {place} within {} s",
            LONGEST_SEARCH.as_secs()
        ))),
    }
}

/// Looks up what a skip or rewind needs to know of its topic.
async fn look_up(
    coordinator: &Coordinator,
    command: &Command,
    known: &mut Known,
) -> Result<(), ApiError> {
    if let Command::Replay { filter, .. } | Command::DropLetters { filter, .. } = command {
        coordinator.letters.refresh(&coordinator.cluster, source_topics(coordinator)).await?;
        // Those that are settled are meant too, so that they can be told.
        let filter = LetterFilter { state: None, ..filter.clone() };
        let control = coordinator.control.state();
        known.letters = coordinator.letters.choose(&control, &filter).await;
        return Ok(());
    }
    let (Command::Skip { sink, topic, .. } | Command::Rewind { sink, topic, .. }) = command else {
        return Ok(());
    };
    let (name, group) = (topic.clone(), coordinator.config.sink_group(sink));
    let time = match command {
        Command::Rewind { to: RewindTarget::Timestamp(ms), .. } => Some(*ms),
        _ => None,
    };
    let found = ask(&coordinator.cluster, move |cluster| {
        let Some(facts) = cluster.topics(&[&name])?.remove(&name) else { return Ok(None) };
        let partitions: Vec<TopicPartition> = (0..facts.partitions)
            .map(|partition| TopicPartition::new(name.as_str(), partition))
            .collect();
        let (starts, ends) = (cluster.starts(&partitions)?, cluster.ends(&partitions)?);
        let ranges = partitions.iter().map(|tp| (starts[tp], ends[tp])).collect();
        let committed = cluster.committed(&group, &partitions)?;
        let at_time = time.map(|ms| cluster.at_time(&partitions, ms)).transpose()?;
        Ok(Some((TopicNow { id: facts.id, ranges }, committed, at_time.unwrap_or_default())))
    })
    .await?;
    let Some((now, committed, at_time)) = found else { return Ok(()) };
    known.topic = Some(now);
    known.first_at = at_time.into_iter().map(|(tp, offset)| (tp.partition, offset)).collect();
    if let Command::Rewind { to: RewindTarget::SourcePosition(place), .. } = command {
        known.first_at = look_for(coordinator, topic, place).await?;
    }
    let stored = coordinator.store.read(sink).await.map_err(|error| ApiError::store(&error))?;
    let of_commits = committed.into_iter().filter_map(|(tp, committed)| {
        Some((tp, Position::from_commit(committed.next.get(), &committed.metadata)?))
    });
    known.recreated = recreated(coordinator, sink, topic);
    let reported = coordinator.fleet.workers(Instant::now()).into_iter().flat_map(|worker| {
        let ours = worker.heartbeat.sink_id == *sink;
        worker.heartbeat.partitions.into_iter().filter(move |_| ours).filter_map(|report| {
            let tp = TopicPartition::new(report.topic, report.partition);
            Some((tp, report.position?))
        })
    });
    let all = stored.into_iter().chain(of_commits).chain(reported);
    known.positions = highest(all.filter(|(tp, _)| tp.topic.as_ref() == topic));
    Ok(())
}

/// The highest position of each partition.
fn highest(positions: impl Iterator<Item = (TopicPartition, Position)>) -> BTreeMap<i32, Position> {
    let of = |position: &Position| (position.incarnation, position.next);
    let mut highest: BTreeMap<i32, Position> = BTreeMap::new();
    for (tp, position) in positions {
        if highest.get(&tp.partition).is_none_or(|known| of(&position) > of(known)) {
            highest.insert(tp.partition, position);
        }
    }
    highest
}

/// Partitions that the sink's workers hold because their progress counts in another topic.
fn recreated(coordinator: &Coordinator, sink: &str, topic: &str) -> BTreeSet<i32> {
    let workers = coordinator.fleet.workers(Instant::now()).into_iter();
    let live = workers.filter(|worker| worker.live && worker.heartbeat.sink_id == sink);
    let reports = live.flat_map(|worker| worker.heartbeat.partitions);
    reports
        .filter(|report| {
            let code = report.hold.as_ref().map(|hold| hold.code.as_str());
            report.topic == topic && code == Some("topic_recreated")
        })
        .map(|report| report.partition)
        .collect()
}
