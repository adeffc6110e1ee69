//! A task done by `cdc-worker` itself, when no worker of the sink lives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_shared::config::{Loaded, PipelineConfig};
use cdc_shared::task::{TaskEnd, TaskKind};
use tokio_util::sync::CancellationToken;

use super::{ConfigFiles, TaskContext, Tell, carry_out, failed, sweeps};
use crate::exit::Failure;
use crate::source::control::ControlFollower;
use crate::source::given_up::Skipped;
use crate::source::probe::Probe;

/// Longest time to read the control topic.
const CONTROL: Duration = Duration::from_secs(20);

/// Carries a task out, telling each step on standard error.
///
/// # Errors
/// The sink's group has members, or Kafka cannot say so.
pub async fn run(
    loaded: Loaded,
    files: &ConfigFiles,
    sink_id: &str,
    mut kind: TaskKind,
) -> Result<TaskEnd, Failure> {
    let config = Arc::new(loaded.config);
    let sink = config
        .sink(sink_id)
        .cloned()
        .ok_or_else(|| Failure::Usage(format!("sink {sink_id} is not in the configuration")))?;
    name_topics(&config, &mut kind);
    let group = config.sink_group(sink_id);
    let probe =
        Probe::new(&config.kafka, &group).map_err(|error| Failure::Setting(error.to_string()))?;
    refuse_members(&config, &probe, &group, &sink, kind.name()).await?;
    let (source, connector) = match files.upstream(sink_id) {
        Ok(sections) => sections,
        Err(why) => return Ok(failed(why)),
    };
    let skipped = skipped(&config, sink_id).await?;
    let context = TaskContext {
        config,
        sink,
        source,
        connector,
        probe,
        options: kind.comparison().cloned().unwrap_or_default(),
        sweep: sweeps(&kind),
        skipped,
        tell: on_standard_error(kind.name()),
    };
    Ok(Box::pin(carry_out(&context)).await)
}

/// Tables may be named instead of topics.
fn name_topics(config: &PipelineConfig, kind: &mut TaskKind) {
    for topic in kind.topics_mut().into_iter().flatten() {
        if config.source.tables.contains(topic) {
            *topic = config.topic(topic);
        }
    }
}

async fn refuse_members(
    config: &PipelineConfig,
    probe: &Probe,
    group: &str,
    sink: &cdc_shared::config::SinkConfig,
    name: &str,
) -> Result<(), Failure> {
    let topics: Vec<String> =
        config.sink_tables(sink).iter().map(|table| config.topic(table)).collect();
    let lives = probe.has_members(group, &topics).await;
    match lives {
        Ok(false) => Ok(()),
        Ok(true) => Err(Failure::Usage(format!(
            "group {group} has members: a worker of sink {} lives, which does this itself: \
             cdc {name} FILE --sink {}",
            sink.sink_id, sink.sink_id
        ))),
        Err(error) => Err(Failure::Dependency(error.to_string())),
    }
}

/// What the control topic says of records that the sink may pass.
async fn skipped(config: &PipelineConfig, sink_id: &str) -> Result<Vec<Skipped>, Failure> {
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let mut control =
        ControlFollower::start(&config.kafka, &config.group_id, &config.sink_group(sink_id), stop)
            .map_err(|error| Failure::Setting(error.to_string()))?;
    let read = tokio::time::timeout(CONTROL, control.wait_for(|view| view.complete)).await;
    match read {
        Ok(Ok(view)) => Ok(Skipped::of(&view.state, sink_id)),
        _ => Err(Failure::Dependency(format!(
            "the control topic {} could not be read in {CONTROL:?}: is Kafka at {}, and was the \
             pipeline deployed?",
            config.control_topic(),
            config.kafka.bootstrap_servers
        ))),
    }
}

fn on_standard_error(name: &str) -> Tell {
    let last = Mutex::new(String::new());
    Tell::new(name, move |report| {
        // A lock that a panic has broken only loses a line.
        let Ok(mut last) = last.lock() else { return };
        if *last != report.step {
            report.step.clone_into(&mut last);
            eprintln!("{} …", report.step);
        }
    })
}
