use std::time::Duration;

use cdc_shared::config::{BreakerConfig, Operation, SinkConfig};

use super::super::bench_test::{
    Bench, Call, Choice, KNOWN, LATE, SOON, UNKNOWN, next, position, refusal, skip, told, until,
};
use super::*;

/// Runs a task to the end of its phase.
fn run(mut task: PartitionTask) -> tokio::task::JoinHandle<(PartitionTask, Phase)> {
    tokio::spawn(async move {
        let phase = task.running().await;
        (task, phase)
    })
}

async fn hold_of(
    running: tokio::task::JoinHandle<(PartitionTask, Phase)>,
) -> (PartitionTask, Hold) {
    let ended = tokio::time::timeout(SOON, running).await.expect("a hold in time");
    match ended.unwrap() {
        (task, Phase::Held(hold)) => (task, hold),
        (_, other) => panic!("{other:?}"),
    }
}

/// Else the loop turns as fast as it can for as long as nothing comes.
#[tokio::test]
async fn a_partition_with_nothing_to_offer_rests() {
    let (mut task, bench) = Bench::new(Choice::default()).await;
    let mut delivery = task.start(&position(0));
    assert!(matches!(task.pump(&mut delivery), Ok(false)), "nothing came yet");
    bench.feed(0, &[KNOWN]).await;
    let chunk = task.chunks.recv().await.unwrap();
    task.take(chunk);
    assert!(matches!(task.pump(&mut delivery), Ok(false)), "all was offered");
}

#[tokio::test]
async fn nothing_passes_a_rejected_row_that_the_dead_letter_queue_does_not_have() {
    let (task, mut bench) = Bench::new(Choice::batches(1, Duration::from_millis(1))).await;
    let running = run(task);
    bench.feed(0, &[KNOWN, KNOWN, KNOWN]).await;
    assert_eq!([bench.call().await, bench.call().await], [Call::Push(0), Call::Flush(1)]);
    assert_eq!(bench.call().await, Call::Push(1), "the next batch is open");
    bench.answer(Progress::Rejected { offset: None, error: refusal() }).await;
    let (task, hold) = hold_of(running).await;
    assert_eq!(told(&hold), ("dlq_disabled", Some(0)));
    let flushed: Vec<_> =
        bench.all_calls().into_iter().filter(|call| matches!(call, Call::Flush(_))).collect();
    assert_eq!(flushed, [], "a flush would move the position past offset 0");
    assert_eq!(task.position().unwrap().next, next(0));
}

#[tokio::test]
async fn a_reject_that_comes_while_a_schema_is_fetched_is_not_forgotten() {
    let (task, mut bench) = Bench::new(Choice::default()).await;
    let running = run(task);
    bench.feed(0, &[KNOWN, LATE]).await;
    assert_eq!(bench.call().await, Call::Push(0));
    bench.answer(Progress::Rejected { offset: Some(0), error: refusal() }).await;
    // The answer is taken before the schema is there.
    until(|| bench.answers.capacity() == bench.answers.max_capacity()).await;
    bench.release_schema();
    let (_, hold) = hold_of(running).await;
    assert_eq!(told(&hold), ("dlq_disabled", Some(0)));
}

#[tokio::test]
async fn records_before_one_that_holds_are_delivered_first() {
    let (task, mut bench) = Bench::new(Choice::batches(100, Duration::from_millis(100))).await;
    let running = run(task);
    bench.feed(0, &[KNOWN, KNOWN, UNKNOWN, KNOWN]).await;
    assert_eq!([bench.call().await, bench.call().await], [Call::Push(0), Call::Push(1)]);
    assert_eq!(bench.call().await, Call::Flush(2));
    bench.answer(Progress::Durable(next(2))).await;
    let (task, hold) = hold_of(running).await;
    assert_eq!(told(&hold), ("unknown_schema", Some(2)));
    assert_eq!(task.position().unwrap().next, next(2));
}

#[tokio::test]
async fn a_batch_that_is_halved_on_the_way_to_a_hold_is_offered_again() {
    let (task, mut bench) = Bench::new(Choice::batches(100, Duration::from_millis(1))).await;
    let running = run(task);
    bench.feed(0, &[KNOWN, KNOWN, UNKNOWN]).await;
    let mut calls = Vec::new();
    while calls.last() != Some(&Call::Flush(2)) {
        calls.push(bench.call().await);
    }
    bench.answer(Progress::Rejected { offset: None, error: refusal() }).await;
    assert_eq!(bench.call().await, Call::Reset(0));
    assert_eq!([bench.call().await, bench.call().await], [Call::Push(0), Call::Flush(1)]);
    bench.answer(Progress::Durable(next(1))).await;
    while bench.call().await != Call::Flush(2) {}
    bench.answer(Progress::Rejected { offset: None, error: refusal() }).await;
    let (task, hold) = hold_of(running).await;
    assert_eq!(told(&hold), ("dlq_disabled", Some(1)), "the earlier of two");
    assert_eq!(task.position().unwrap().next, next(1));
}

#[tokio::test]
async fn a_full_queue_without_effect_does_not_wait_for_the_interval() {
    let sink = SinkConfig { operations: vec![Operation::Delete], ..SinkConfig::default() };
    let limits = Choice::batches(100, Duration::from_millis(100));
    let (task, mut bench) = Bench::new(Choice { sink, max_records: 4, ..limits }).await;
    let running = run(task);
    let began = std::time::Instant::now();
    bench.feed(0, &[KNOWN; 4]).await;
    assert_eq!(bench.call().await, Call::Flush(4));
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    running.abort();
}

#[tokio::test]
async fn a_skip_reaches_a_record_that_the_sink_already_has() {
    let (task, mut bench) = Bench::new(Choice::default()).await;
    let running = run(task);
    bench.feed(0, &[KNOWN, KNOWN]).await;
    assert_eq!([bench.call().await, bench.call().await], [Call::Push(0), Call::Push(1)]);
    bench.control_says(0, &[skip(0, 1)]);
    while bench.call().await != Call::Settle(0) {}
    bench.answer(Progress::Durable(next(2))).await;
    bench.commands.send(PartitionCommand::Finish { grace: SOON, lost: false }).await.unwrap();
    let (task, _) = tokio::time::timeout(SOON, running).await.unwrap().unwrap();
    assert_eq!(task.position().unwrap().next, next(2));
    let counters = task.shared.status.counters();
    assert_eq!((counters.delivered, counters.skipped), (1, 1));
}

#[tokio::test]
async fn a_dead_letter_under_way_ends_a_drain_as_soon_as_it_is_acknowledged() {
    let (mut task, mut bench) = Bench::new(Choice::default()).await;
    let mut delivery = task.start(&position(0));
    bench.feed(0, &[KNOWN]).await;
    let chunk = task.chunks.recv().await.unwrap();
    task.take(chunk);
    let fetch = task.fetch(KNOWN).await;
    assert!(matches!(fetch, Unblocked::Schema(Ok(()))));
    assert!(task.pump(&mut delivery).is_ok());
    delivery.blocked = Some(Box::pin(async { Unblocked::DeadLettered(0, Ok(())) }));
    bench.answer(Progress::Durable(next(1))).await;
    let began = std::time::Instant::now();
    let grace = Duration::from_secs(20);
    // The answer to `settle` is what moves the watermark.
    let phase = task.finish(delivery, grace, false).await;
    assert!(matches!(phase, Phase::Ended));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(bench.all_calls().contains(&Call::Settle(0)));
    assert_eq!(task.shared.status.counters().dead_lettered, 1);
}

#[tokio::test]
async fn what_the_sink_took_between_two_rejects_counts_before_the_second() {
    let breaker = BreakerConfig { max_consecutive: 2, max_share_percent: 0, window: 1 };
    let (mut task, bench) = Bench::new(Choice { breaker, ..Choice::default() }).await;
    let mut delivery = task.start(&position(0));
    bench.feed(0, &[KNOWN; 3]).await;
    let chunk = task.chunks.recv().await.unwrap();
    task.take(chunk);
    task.fetch(KNOWN).await;
    assert!(task.pump(&mut delivery).is_ok());
    for offset in [0, 2] {
        task.rejected(&mut delivery, Some(offset), refusal());
    }
    assert!(task.next_reject(&mut delivery).is_none());
    delivery.blocked = None;
    task.dead_lettered(&mut delivery, 0);
    let durable = Progress::Durable(next(2));
    assert!(task.progressed(&mut delivery, durable).await.is_none());
    assert!(task.next_reject(&mut delivery).is_none(), "two rejects, but not in a row");
}
