//! Looks at the world every second and, while leading, makes P and the control topic follow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cdc_shared::clock::unix_ms;
use cdc_shared::config::{LagConfig, seconds};
use cdc_shared::control::ControlState;
use cdc_shared::offset::TopicPartition;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::plan::{GroupHold, Plan, due, missing_records, plan};
use super::{Members, Observation, observe};
use crate::control::ControlError;
use crate::kafka::{KafkaTrouble, ask};
use crate::leader::ELECTION_TIMEOUT;
use crate::monitor::Stall;
use crate::state::Coordinator;

/// How often P is looked at.
pub const TICK: Duration = Duration::from_secs(1);
/// How often offsets that do not move are committed again, so that the broker (seven days by
/// default) does not drop them.
const RECOMMIT: Duration = Duration::from_secs(4 * 3600);

/// What the latest tick found and did.
#[derive(Clone, Debug, Default)]
pub struct GroupView {
    /// The latest look, absent before the first.
    pub seen: Option<Arc<Observation>>,
    /// The pairs that count.
    pub members: Arc<Members>,
    /// What keeps P.
    pub holds: Vec<GroupHold>,
    /// Why Kafka or the control topic did not do what the tick wanted.
    pub error: Option<String>,
    /// Live members of P, who keep us from committing.
    pub intruders: Vec<String>,
    /// Where P stands still though the sinks go on.
    pub stall: Stall,
}

impl GroupView {
    /// The partitions on which P has stood still for longer than it may, and the one that has
    /// longest.
    pub fn stalled(
        &self,
        config: &LagConfig,
        now: Instant,
    ) -> Option<(usize, &TopicPartition, Duration)> {
        let limit = seconds(config.group_seconds);
        if limit.is_zero() { None } else { self.stall.longer_than(limit, now) }
    }
}

/// The ticking part of the coordinator.
pub struct GroupTicker {
    view: watch::Sender<Arc<GroupView>>,
    nudge: Notify,
    /// Commits of P that failed since the start.
    pub commit_failures: AtomicU64,
}

/// When each offset was last committed by this process.
type CommitTimes = BTreeMap<TopicPartition, Instant>;

impl Default for GroupTicker {
    fn default() -> Self {
        Self {
            view: watch::Sender::default(),
            nudge: Notify::new(),
            commit_failures: AtomicU64::new(0),
        }
    }
}

impl GroupTicker {
    /// The latest look.
    pub fn view(&self) -> Arc<GroupView> {
        Arc::clone(&self.view.borrow())
    }

    /// Looks as soon as possible.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Ticks until `stop`.
    pub async fn run(&self, coordinator: &Coordinator, stop: &CancellationToken) {
        let mut committed_at = CommitTimes::new();
        let mut kept_alive = BTreeMap::new();
        while !stop.is_cancelled() {
            if coordinator.control.status().complete {
                let view = self.tick(coordinator, &mut committed_at).await;
                if coordinator.leads() {
                    keep_sink_groups(coordinator, &view, &mut kept_alive).await;
                }
                self.view.send_replace(Arc::new(view));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn tick(&self, coordinator: &Coordinator, committed_at: &mut CommitTimes) -> GroupView {
        let control = coordinator.control.state();
        let members = coordinator.members(&control);
        let mut view = GroupView { members: Arc::new(members), ..GroupView::default() };
        let looked = observe(
            &coordinator.config,
            &coordinator.cluster,
            coordinator.store.as_ref(),
            &control,
            &view.members,
        );
        let observation = match looked.await {
            Ok(observation) => observation,
            Err(error) => {
                // The last look stays: it is what is known.
                let last = self.view();
                view.seen.clone_from(&last.seen);
                view.stall.clone_from(&last.stall);
                view.holds.clone_from(&last.holds);
                view.error = Some(error.to_string());
                return view;
            }
        };
        view.stall = self.view().stall.clone();
        view.stall.look(&view.members, &observation, Instant::now());
        let wanted = plan(&view.members, &observation, &control);
        view.holds.clone_from(&wanted.holds);
        if coordinator.leads()
            && let Err(error) =
                self.act(coordinator, &view.members, &observation, &wanted, committed_at).await
        {
            view.intruders = intruders(coordinator, &error).await;
            view.error = Some(error.to_string());
        }
        view.seen = Some(Arc::new(observation));
        view
    }

    async fn act(
        &self,
        coordinator: &Coordinator,
        members: &Members,
        observation: &Observation,
        wanted: &Plan,
        committed_at: &mut CommitTimes,
    ) -> Result<(), TickError> {
        for (sink, found) in &observation.rebuilt {
            coordinator.store.advance(sink, found).await?;
        }
        let control = write_missing(coordinator, members, observation).await?;
        let now = Instant::now();
        let due = due(
            wanted,
            &observation.committed,
            |tp| control.group_start(tp).is_some(),
            |tp| committed_at.get(tp).is_none_or(|at| now - *at >= RECOMMIT),
        );
        // A process that was frozen since its look may have lost the lead meanwhile, and what it
        // saw is old.
        if due.is_empty()
            || !coordinator.leads()
            || observation.begun.elapsed() > ELECTION_TIMEOUT / 2
        {
            return Ok(());
        }
        let group = coordinator.config.group_id.clone();
        let offsets = due.clone();
        let committed =
            ask(&coordinator.cluster, move |cluster| cluster.commit(&group, &offsets)).await;
        if committed.is_err() {
            self.commit_failures.fetch_add(1, Ordering::Relaxed);
        }
        committed?;
        committed_at.extend(due.into_keys().map(|tp| (tp, now)));
        Ok(())
    }
}

/// Why a tick did not do all it wanted.
#[derive(Debug, thiserror::Error)]
enum TickError {
    #[error(transparent)]
    Kafka(#[from] KafkaTrouble),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Store(#[from] crate::watermark::StoreError),
}

/// Writes what the control topic lacks. What P had is copied before anything is committed.
async fn write_missing(
    coordinator: &Coordinator,
    members: &Members,
    observation: &Observation,
) -> Result<Arc<ControlState>, TickError> {
    let state = coordinator.control.state();
    if missing_records(members, observation, &state, unix_ms()).is_empty() {
        return Ok(state);
    }
    coordinator
        .control
        .write::<(), ControlError>(|state| {
            // A sink removed while this tick looked must not come back by it.
            let members = members.intersection(&coordinator.members(state)).cloned().collect();
            Ok((missing_records(&members, observation, state, unix_ms()), ()))
        })
        .await?;
    Ok(coordinator.control.state())
}

async fn intruders(coordinator: &Coordinator, error: &TickError) -> Vec<String> {
    let TickError::Kafka(KafkaTrouble::GroupInUse(group)) = error else { return Vec::new() };
    let group = group.clone();
    let found = ask(&coordinator.cluster, move |cluster| Ok(cluster.members(&group))).await;
    let found = found.unwrap_or_default();
    if found.is_empty() { vec!["a client that the broker does not name".to_owned()] } else { found }
}

/// Commits again what the groups of sinks without live workers have, so that it does not expire.
async fn keep_sink_groups(
    coordinator: &Coordinator,
    view: &GroupView,
    kept: &mut BTreeMap<String, Instant>,
) {
    let Some(seen) = &view.seen else { return };
    let now = Instant::now();
    for sink in seen.watermarks.keys() {
        if !coordinator.fleet.live(sink, now).is_empty() {
            // Its workers commit. Once they are gone the time counts from here.
            kept.insert(sink.clone(), now);
            continue;
        }
        if kept.get(sink).is_some_and(|at| now - *at < RECOMMIT) {
            continue;
        }
        let group = coordinator.config.sink_group(sink);
        let partitions: Vec<TopicPartition> = seen
            .partitions()
            .into_iter()
            .filter(|tp| view.members.contains(&(sink.clone(), tp.topic.to_string())))
            .collect();
        let kept_again = ask(&coordinator.cluster, move |cluster| {
            let begun = Instant::now();
            let committed = cluster.committed(&group, &partitions)?;
            // Were this process frozen in between, a worker might have come, moved on and gone.
            if begun.elapsed() > ELECTION_TIMEOUT / 2 {
                return Err(KafkaTrouble::Answer("the offsets came late".to_owned()));
            }
            cluster.commit(&group, &committed)
        });
        match kept_again.await {
            Ok(()) | Err(KafkaTrouble::GroupInUse(_)) => {
                kept.insert(sink.clone(), now);
            }
            Err(error) => tracing::debug!(sink, %error, "keep the offsets of an idle sink"),
        }
    }
}
