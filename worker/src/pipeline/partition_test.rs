use cdc_shared::api::DirectiveState;
use cdc_shared::control::ControlRecord;
use cdc_shared::offset::{Incarnation, TopicId};

use super::super::bench_test::{Bench, Choice, KNOWN, SOON, next, position, skip, tp, until};
use super::*;
use crate::source::start_position::StopCause;

fn rewind(incarnation: u64, topic_id: &str) -> ControlRecord {
    ControlRecord::Rewind {
        sink: "wh".into(),
        tp: tp(),
        topic_id: TopicId(topic_id.into()),
        incarnation: Incarnation(incarnation),
        to: next(0),
        id_generation: 0,
        accept_new_topic: false,
        reason: String::new(),
        by: "op".into(),
        at_ms: 0,
    }
}

fn wait_in(mut task: PartitionTask, hold: Hold) -> tokio::task::JoinHandle<(PartitionTask, Phase)> {
    tokio::spawn(async move {
        let phase = task.held(hold).await;
        (task, phase)
    })
}

/// Whether the hold is still there once everything that could end it was looked at.
async fn stays(waiting: &mut tokio::task::JoinHandle<(PartitionTask, Phase)>) -> bool {
    tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err()
}

#[tokio::test]
async fn a_pause_that_only_the_coordinator_told_holds_until_it_is_over() {
    let (task, bench) = Bench::new(Choice::default()).await;
    bench.reply(DirectiveState::Pause);
    let Some(Phase::Held(hold)) = task.held_by_directive() else { panic!("paused") };
    let mut waiting = wait_in(task, hold);
    assert!(stays(&mut waiting).await, "the control topic does not say so yet");
    bench.reply(DirectiveState::Run);
    let (_, phase) = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert!(matches!(phase, Phase::Running), "{phase:?}");
}

#[tokio::test]
async fn what_was_said_before_the_start_was_looked_for_does_not_end_its_stop() {
    for (at, old) in [(None, rewind(3, "old")), (None, rewind(3, "id")), (Some(7), skip(0, 9))] {
        let (mut task, bench) = Bench::new(Choice::default()).await;
        bench.control_says(4, &[old]);
        task.question.last = at.map(position);
        task.question.seen = task.shared.control_offset();
        let cause = StopCause { code: "topic_recreated", message: String::new(), offset: Some(7) };
        let hold = Hold::by_name(cause, task.question.seen);
        let mut waiting = wait_in(task, hold);
        assert!(stays(&mut waiting).await, "it would be met again at once, and again");
        bench.control_says(5, &[rewind(4, "new")]);
        let (_, phase) = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
        assert!(matches!(phase, Phase::Resolving), "{phase:?}");
    }
}

#[tokio::test]
async fn a_held_partition_gives_back_what_comes_late() {
    let (task, bench) = Bench::new(Choice::default()).await;
    let hold = Hold::stopped("breaker", String::new(), None, 0);
    let mut waiting = wait_in(task, hold);
    assert!(stays(&mut waiting).await);
    bench.feed(0, &[KNOWN; 3]).await;
    until(|| bench.flow.held() == 0).await;
    waiting.abort();
}
