//! Order per key, windows, and how far everything is durable.

use cdc_worker::change::Operation;
use cdc_worker::sink::Sink;
use cdc_worker::sink::webhook::WebhookSink;

use super::driver::{Driver, QUICK, TOPIC, change, config, position};
use super::receiver::{Answer, Receiver};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_once_and_keys_run_side_by_side() {
    let receiver = Receiver::start(|_| Answer::Status(204)).await;
    let mut driver = Driver::new(&receiver);
    driver.push_all(0..2000, 50);
    driver.until_durable(2000).await;
    driver.check_order();
    let deliveries = receiver.deliveries();
    assert_eq!(deliveries.len(), 2000);
    assert!(deliveries.iter().any(|delivery| delivery.concurrent > 1));
    assert!(deliveries.iter().all(|delivery| delivery.concurrent <= 50), "one per key");
    let first = &deliveries[0];
    assert_eq!((first.topic.as_str(), first.method.as_str()), (TOPIC, "POST"));
    assert_eq!(first.header("content-type"), "application/json");
    assert!(driver.trouble.borrow().is_none());
}

#[tokio::test]
async fn events_without_a_key_are_in_order_among_themselves() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let mut driver = Driver::new(&receiver);
    for offset in 0..100 {
        driver.writer.push(&change(offset, None, Operation::Create)).unwrap();
    }
    driver.until_durable(100).await;
    let offsets: Vec<_> = receiver.deliveries().iter().map(|delivery| delivery.offset).collect();
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn tombstones_and_ranges_without_effect_move_the_position() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let mut driver = Driver::new(&receiver);
    driver.push(3, "k");
    driver.writer.push(&change(4, Some(b"k"), Operation::Tombstone)).unwrap();
    driver.writer.flush(position(10));
    assert!(!driver.writer.in_flight());
    driver.until_durable(10).await;
    assert_eq!(receiver.deliveries().len(), 1);
    driver.writer.flush(position(20));
    driver.until_durable(20).await;
}

#[tokio::test]
async fn tombstones_are_sent_when_asked_for() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let mut config = config(&receiver.url());
    config.send_tombstones = true;
    let sink = WebhookSink::new(&config).unwrap();
    let mut driver = Driver::on(&sink, &receiver, 0, QUICK);
    driver.writer.push(&change(0, Some(b"k"), Operation::Tombstone)).unwrap();
    driver.until_durable(1).await;
    assert_eq!(receiver.deliveries().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_share_the_limit_fairly() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let mut config = config(&receiver.url());
    config.max_in_flight = 4;
    let sink = WebhookSink::new(&config).unwrap();
    let mut drivers = [0, 1].map(|partition| Driver::on(&sink, &receiver, partition, QUICK));
    for driver in &mut drivers {
        driver.push_all(0..500, 500);
    }
    let [one, two] = &mut drivers;
    tokio::join!(one.until_durable(500), two.until_durable(500));
    let deliveries = receiver.deliveries();
    assert_eq!(deliveries.len(), 1000);
    assert!(deliveries.iter().all(|delivery| delivery.concurrent <= 4));
    let of_one = deliveries[..500].iter().filter(|delivery| delivery.partition == 0).count();
    assert!((150..=350).contains(&of_one), "{of_one} of the first 500");
}

#[tokio::test]
async fn the_window_has_an_end() {
    let receiver = Receiver::start(|_| Answer::Hang).await;
    let mut driver = Driver::new(&receiver);
    let mut offset = 0;
    while driver.writer.has_room() {
        driver.push(offset, "k");
        offset += 1;
        assert!(offset <= 10_000);
    }
    driver.until("one attempt", |_| receiver.deliveries().len() == 1).await;
    assert_eq!(driver.durable, 0);
}

#[tokio::test]
async fn after_a_reset_the_same_events_go_out_under_the_same_ids() {
    let receiver = Receiver::start(|delivery| match delivery.attempt {
        1 => Answer::Hang,
        _ => Answer::Status(200),
    })
    .await;
    let mut driver = Driver::new(&receiver);
    driver.push_all(0..10, 10);
    driver.until("all under way", |_| receiver.deliveries().len() == 10).await;
    driver.writer.reset(position(0));
    driver.push_all(0..10, 10);
    driver.until_durable(10).await;
    driver.check_order();
    assert_eq!(receiver.deliveries().len(), 20);
    let sink = WebhookSink::new(&config(&receiver.url())).unwrap();
    assert!(!sink.keeps_position());
}
