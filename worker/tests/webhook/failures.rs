//! Answers that are not success.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdc_shared::backoff::RetryPolicy;
use cdc_worker::sink::Disposition;
use cdc_worker::sink::retry::TroubleReporter;
use cdc_worker::sink::webhook::WebhookSink;

use super::driver::{Driver, QUICK, config};
use super::receiver::{Answer, Receiver};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_in_every_way_misses_no_event_and_no_order() {
    let receiver = Receiver::start(|delivery| match (delivery.offset % 11, delivery.attempt) {
        (0, 1) => Answer::Status(503),
        (1, 1) => Answer::Cut,
        (2, 1) => Answer::Hang,
        (3, 1..=3) => Answer::Status(401),
        (4, 1..=2) => Answer::Status(404),
        (5, 1) => Answer::With(302, &[("location", "/elsewhere")], ""),
        (6, 1) => Answer::Status(408),
        (7, 1) => Answer::Endless(500),
        (8, 1) => Answer::Endless(200),
        (9, 1) => Answer::Status(304),
        _ => Answer::Status(200),
    })
    .await;
    let mut config = config(&receiver.url());
    config.timeout_seconds = 0.5;
    let sink = WebhookSink::new(&config).unwrap();
    let mut driver = Driver::on(&sink, &receiver, 0, QUICK);
    driver.push_all(0..300, 20);
    driver.until_durable(300).await;
    driver.check_order();
    for offset in 0..300 {
        let expected = match offset % 11 {
            3 => 4,
            4 => 3,
            8 | 10 => 1,
            _ => 2,
        };
        assert_eq!(receiver.attempts(offset).len(), expected, "{offset}");
    }
    driver.until("trouble is over", |driver| driver.trouble.borrow().is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_is_probed_by_one_request_at_a_time() {
    let back = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start({
        let back = back.clone();
        move |_| Answer::Status(if back.load(Ordering::SeqCst) { 200 } else { 503 })
    })
    .await;
    let mut driver = Driver::new(&receiver);
    driver.push_all(0..1000, 1000);
    driver
        .until("degraded", |driver| {
            driver.trouble.borrow().as_ref().is_some_and(|trouble| trouble.exhausted)
        })
        .await;
    let seen = receiver.deliveries().len();
    driver.until("ten probes more", |_| receiver.deliveries().len() >= seen + 10).await;
    let deliveries = receiver.deliveries();
    assert!(deliveries[seen..].iter().all(|delivery| delivery.concurrent == 1));
    assert!(seen <= 150, "{seen} requests against a receiver that is away");
    assert_eq!(driver.durable, 0);
    back.store(true, Ordering::SeqCst);
    driver.until_durable(1000).await;
    driver.check_order();
    assert_eq!(receiver.acknowledged().len(), 1000);
    assert!(driver.trouble.borrow().is_none());
    assert!(driver.rejected.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_that_always_fails_holds_up_its_key_alone() {
    let receiver = Receiver::start(|delivery| match delivery.offset {
        5 => Answer::Status(500),
        _ => Answer::Status(200),
    })
    .await;
    let mut driver = Driver::new(&receiver);
    driver.push_all(0..1000, 100);
    driver.until("all other keys", |_| receiver.acknowledged().len() == 990).await;
    driver
        .until("degraded", |driver| {
            driver.trouble.borrow().as_ref().is_some_and(|trouble| trouble.exhausted)
        })
        .await;
    assert_eq!(driver.durable, 5);
    assert!(receiver.attempts(105).is_empty());
    driver.settle(5);
    driver.until_durable(1000).await;
    driver.check_order();
    assert!(driver.trouble.borrow().is_none());
}

#[tokio::test]
async fn a_refused_event_is_named_and_the_others_go_on() {
    for status in [400, 413, 415, 422] {
        let receiver = Receiver::start(move |delivery| match delivery.offset {
            1 => Answer::With(status, &[], "no\n\nsuch   \u{1b}field"),
            _ => Answer::Status(200),
        })
        .await;
        let mut driver = Driver::new(&receiver);
        driver.push_all(0..20, 4);
        driver.until("rejection", |driver| !driver.rejected.is_empty()).await;
        driver.until("other keys", |_| receiver.acknowledged().len() == 15).await;
        driver.until_durable(1).await;
        let (offset, error) = &driver.rejected[0];
        assert_eq!((*offset, error.disposition), (1, Disposition::Reject));
        assert_eq!(error.code, format!("http_{status}"));
        assert!(error.message.ends_with(": no such field"), "{}", error.message);
        assert!(!error.message.contains("hunter2"), "{}", error.message);
        assert_eq!((driver.durable, receiver.attempts(1).len()), (1, 1));
        driver.settle(1);
        driver.until_durable(20).await;
        driver.check_order();
    }
}

#[tokio::test]
async fn a_receiver_that_is_gone_stops_the_sink_until_a_reset() {
    let back = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start({
        let back = back.clone();
        move |_| Answer::Status(if back.load(Ordering::SeqCst) { 200 } else { 410 })
    })
    .await;
    let mut config = config(&receiver.url());
    config.max_in_flight = 1;
    let sink = WebhookSink::new(&config).unwrap();
    let mut driver = Driver::on(&sink, &receiver, 0, QUICK);
    driver.push_all(0..20, 20);
    driver.until("stop", |driver| driver.stopped.is_some()).await;
    let error = driver.stopped.take().unwrap();
    assert_eq!((error.code.as_str(), error.disposition), ("http_410", Disposition::Stop));
    assert!(error.hint.is_some());
    let nothing_more = futures::poll!(driver.writer.progress());
    assert!(nothing_more.is_pending());
    assert_eq!(receiver.deliveries().len(), 1);
    back.store(true, Ordering::SeqCst);
    driver.writer.reset(super::driver::position(0));
    driver.push_all(0..20, 20);
    driver.until_durable(20).await;
}

#[tokio::test]
async fn retry_after_is_the_least_wait() {
    let receiver = Receiver::start(|delivery| match (delivery.offset, delivery.attempt) {
        (0, 1) => Answer::With(429, &[("retry-after", "1")], ""),
        _ => Answer::Status(200),
    })
    .await;
    let mut driver = Driver::new(&receiver);
    driver.push_all(0..2, 2);
    driver.until_durable(2).await;
    let attempts = receiver.attempts(0);
    assert_eq!(attempts.len(), 2);
    assert!(attempts[1].at - attempts[0].at >= Duration::from_secs(1));
    // The clock of each attempt is its own, the id is not.
    assert!(attempts[1].header("webhook-timestamp") > attempts[0].header("webhook-timestamp"));
    assert_eq!(attempts[1].header("webhook-id"), attempts[0].header("webhook-id"));
}

#[tokio::test]
async fn a_success_whose_body_never_ends_is_a_success() {
    let receiver = Receiver::start(|delivery| match delivery.offset {
        0 => Answer::Stuck(200),
        1 => Answer::Endless(202),
        _ => Answer::With(200, &[], "thanks"),
    })
    .await;
    let mut driver = Driver::new(&receiver);
    driver.push_all(0..10, 1);
    driver.until_durable(10).await;
    assert_eq!(receiver.deliveries().len(), 10);
}

#[tokio::test]
async fn with_a_limit_of_attempts_an_event_ends_as_rejected() {
    let receiver = Receiver::start(|_| Answer::Status(503)).await;
    let sink = WebhookSink::new(&config(&receiver.url())).unwrap();
    let policy = RetryPolicy { max_attempts: 3, ..QUICK };
    let mut driver = Driver::with(&sink, &receiver, 0, TroubleReporter::new(policy, true));
    driver.push_all(0..30, 30);
    driver.until("rejections", |driver| driver.rejected.len() == 30).await;
    assert_eq!(receiver.deliveries().len(), 90);
    for offset in 0..30 {
        driver.settle(offset);
    }
    driver.until_durable(30).await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Receiver::start(|_| Answer::Status(200)).await;
    let location: &'static str = elsewhere.url().leak();
    let headers: &'static [_] = vec![("location", location)].leak();
    let receiver = Receiver::start(move |delivery| match delivery.attempt {
        1..=3 => Answer::With([301, 307, 308][delivery.attempt - 1], headers, "secret"),
        _ => Answer::Status(200),
    })
    .await;
    let mut driver = Driver::new(&receiver);
    driver.push(0, "k");
    driver.until("trouble", |driver| driver.trouble.borrow().is_some()).await;
    let trouble = driver.trouble.borrow().clone().unwrap();
    assert!(!trouble.message.contains("secret"), "{}", trouble.message);
    driver.until_durable(1).await;
    assert_eq!(receiver.deliveries().len(), 4);
    assert!(elsewhere.deliveries().is_empty());
}
