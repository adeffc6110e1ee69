//! The control topic's follower and the dead letter queue against a real Kafka: the one of
//! `deploy/local`, which `make test-integration` starts. Without it these tests fail.
//! (librdkafka's mock broker has no controller, so topic ids cannot be asked of it.)

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod source;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cdc_shared::api::{Directive, DirectiveState};
use cdc_shared::backoff::RetryPolicy;
use cdc_shared::config::{DlqConfig, KafkaConfig, process_variables};
use cdc_shared::control::{ControlRecord, control_topic};
use cdc_shared::kafka::{client_config, consumer_config, producer_config};
use cdc_shared::offset::{TopicId, TopicPartition};
use cdc_worker::pipeline::dlq::{DeadLetter, Dlq, DlqUnavailable};
use cdc_worker::source::control::{ControlFollower, ControlView};
use cdc_worker::source::record::Record;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

fn kafka_at(bootstrap_servers: String) -> KafkaConfig {
    KafkaConfig { bootstrap_servers, ..KafkaConfig::default() }
}

fn real() -> KafkaConfig {
    let address = process_variables().remove("CDC_LOCAL_KAFKA_BOOTSTRAP_SERVERS");
    kafka_at(address.expect("CDC_LOCAL_KAFKA_BOOTSTRAP_SERVERS, as `deploy/local/stack env` says"))
}

/// A name that no other test and no earlier run has used.
fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{name}-{}-{}", now.as_micros(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn admin(kafka: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    client_config(kafka).create().unwrap()
}

async fn create_topic(kafka: &KafkaConfig, topic: &str) {
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = admin(kafka).create_topics([&new], &AdminOptions::new()).await.unwrap();
        match &answer[0] {
            Ok(_) => return,
            // The deletion of its namesake is still under way.
            Err((_, code)) => assert!(Instant::now() < deadline, "create {topic}: {code}"),
        }
    }
}

fn directive(sink: &str, state: DirectiveState) -> ControlRecord {
    ControlRecord::Directive {
        sink: sink.into(),
        topic: None,
        directive: Directive { state, reason: "test".into() },
        by: "me@here".into(),
        at_ms: 1,
    }
}

fn put(producer: &BaseProducer, topic: &str, record: &ControlRecord) {
    let value = serde_json::to_vec(record).unwrap();
    put_raw(producer, topic, &record.key(), Some(&value));
}

fn put_raw(producer: &BaseProducer, topic: &str, key: &str, value: Option<&[u8]>) {
    let mut record = BaseRecord::<str, [u8]>::to(topic).key(key).partition(0);
    record.payload = value;
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

fn plain_producer(kafka: &KafkaConfig) -> BaseProducer {
    producer_config(kafka).create().unwrap()
}

fn follow(kafka: &KafkaConfig, group: &str) -> watch::Receiver<ControlView> {
    ControlFollower::start(kafka, group, group, CancellationToken::new()).unwrap()
}

async fn until(
    view: &mut watch::Receiver<ControlView>,
    what: &str,
    is: impl Fn(&ControlView) -> bool,
) -> ControlView {
    let waited = tokio::time::timeout(DEADLINE, view.wait_for(|view| is(view))).await;
    waited.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}")).expect(what).clone()
}

fn state_of(view: &ControlView, sink: &str) -> DirectiveState {
    view.state.directive(sink, None).state
}

#[tokio::test]
async fn a_topic_is_waited_for_read_to_its_end_and_followed() {
    let (kafka, group) = (real(), unique("g"));
    let topic = control_topic(&group);
    let mut view = follow(&kafka, &group);
    // It has asked at least once, and got no topic.
    let early = tokio::time::timeout(Duration::from_millis(500), view.changed()).await;
    assert!(early.is_err(), "a missing topic is no empty one");

    create_topic(&kafka, &topic).await;
    until(&mut view, "the empty topic is complete", |view| view.complete).await;
    let producer = plain_producer(&kafka);
    put(&producer, &topic, &directive("wh", DirectiveState::Pause));
    producer.flush(DEADLINE).unwrap();
    let paused = |view: &ControlView| state_of(view, "wh") == DirectiveState::Pause;
    until(&mut view, "the directive", paused).await;
    put_raw(&producer, &topic, "directive/wh", None);
    producer.flush(DEADLINE).unwrap();
    until(&mut view, "the tombstone", |view| !paused(view)).await;
}

#[tokio::test]
async fn what_cannot_be_read_hides_nothing_else() {
    let (kafka, group) = (real(), unique("g"));
    let topic = control_topic(&group);
    create_topic(&kafka, &topic).await;
    let producer = plain_producer(&kafka);
    put_raw(&producer, &topic, "future/x", Some(br#"{"kind":"from_the_future"}"#));
    put_raw(&producer, &topic, "directive/wh", Some(b"not json"));
    put(&producer, &topic, &directive("pg", DirectiveState::Stop));
    producer.flush(DEADLINE).unwrap();
    let mut view = follow(&kafka, &group);
    let view = until(&mut view, "complete", |view| view.complete).await;
    assert_eq!(state_of(&view, "pg"), DirectiveState::Stop);
    assert_eq!(state_of(&view, "wh"), DirectiveState::Run);
    assert_eq!(view.state.offset(), 3);
}

#[tokio::test]
async fn a_stop_ends_the_thread_even_without_kafka() {
    let stop = CancellationToken::new();
    let kafka = kafka_at("127.0.0.1:1".to_owned());
    let mut view = ControlFollower::start(&kafka, "g", "g.wh", stop.clone()).unwrap();
    stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, view.changed()).await;
    assert!(ended.expect("the thread ends").is_err(), "its end of the channel is gone");
}

#[tokio::test]
async fn only_committed_records_count_and_markers_at_the_end_are_no_gap() {
    let (kafka, group) = (real(), unique("g"));
    let topic = control_topic(&group);
    create_topic(&kafka, &topic).await;
    let mut config = producer_config(&kafka);
    config.set("transactional.id", &topic);
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    put(&producer, &topic, &directive("wh", DirectiveState::Pause));
    producer.commit_transaction(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    put(&producer, &topic, &directive("wh", DirectiveState::Stop));
    producer.flush(DEADLINE).unwrap();
    producer.abort_transaction(DEADLINE).unwrap();

    let mut view = follow(&kafka, &group);
    let first = until(&mut view, "complete", |view| view.complete).await;
    assert_eq!(state_of(&first, "wh"), DirectiveState::Pause, "an aborted record has no effect");
    assert_eq!(first.state.offset(), 4, "two records and two markers");

    producer.begin_transaction().unwrap();
    put(&producer, &topic, &directive("wh", DirectiveState::Stop));
    producer.flush(DEADLINE).unwrap();
    let mut second = follow(&kafka, &group);
    let open = until(&mut second, "complete", |view| view.complete).await;
    assert_eq!(
        state_of(&open, "wh"),
        DirectiveState::Pause,
        "an open transaction is not waited for"
    );
    producer.commit_transaction(DEADLINE).unwrap();
    let committed = Instant::now();
    let stopped = |view: &ControlView| state_of(view, "wh") == DirectiveState::Stop;
    until(&mut view, "the commit", stopped).await;
    let latency = committed.elapsed();
    // A few milliseconds on an idle machine; the bound only tells pushing from polling.
    println!("a commit was seen after {latency:?}");
    assert!(latency < Duration::from_secs(2), "seen after {latency:?}");
    until(&mut second, "the commit", stopped).await;
}

#[tokio::test]
async fn a_topic_created_again_replaces_the_state_once_it_is_read() {
    let (kafka, group) = (real(), unique("g"));
    let topic = control_topic(&group);
    create_topic(&kafka, &topic).await;
    let producer = plain_producer(&kafka);
    put(&producer, &topic, &directive("old", DirectiveState::Pause));
    producer.flush(DEADLINE).unwrap();
    let mut view = follow(&kafka, &group);
    until(&mut view, "complete", |view| view.complete).await;

    admin(&kafka).delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].clone().unwrap();
    create_topic(&kafka, &topic).await;
    let producer = plain_producer(&kafka);
    // Longer than before, so that the old position lies within the new log.
    for sink in ["a", "b", "c"] {
        put(&producer, &topic, &directive(sink, DirectiveState::Stop));
    }
    producer.flush(DEADLINE).unwrap();
    let fresh = |view: &ControlView| state_of(view, "old") == DirectiveState::Run;
    let view = until(&mut view, "the new topic's state", fresh).await;
    assert!(view.complete);
    assert!(["a", "b", "c"].iter().all(|sink| state_of(&view, sink) == DirectiveState::Stop));
}

fn dlq(kafka: &KafkaConfig, config: &DlqConfig) -> Dlq {
    let retry = RetryPolicy {
        initial_wait: Duration::from_millis(10),
        max_wait: Duration::from_millis(50),
        ..RetryPolicy::default()
    };
    Dlq::new(kafka, config, "wh", retry)
}

async fn send(dlq: &Dlq, topic: &str, record: &Record) -> Result<(), DlqUnavailable> {
    let cause = std::io::Error::other("inner cause");
    let letter = DeadLetter {
        tp: &TopicPartition::new(topic, 3),
        topic_id: &TopicId("abc".into()),
        record,
        schema_id: Some(7),
        error_type: "http_422",
        error_message: "the receiver says no",
        cause: Some(&cause),
        attempts: 2,
    };
    tokio::time::timeout(DEADLINE, dlq.send(letter)).await.expect("an answer in time")
}

fn read(kafka: &KafkaConfig, topic: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = consumer_config(kafka, "reader").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut messages, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while messages.len() < count && Instant::now() < deadline {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            messages.push(message.detach());
        }
    }
    messages
}

fn headers(message: &OwnedMessage) -> BTreeMap<String, String> {
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    let headers = message.headers().unwrap();
    headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
}

#[tokio::test]
async fn a_letter_holds_the_record_as_it_came_and_the_reason() {
    let (kafka, topic) = (real(), unique("t"));
    let dead_letters = format!("{topic}.dlq");
    create_topic(&kafka, &dead_letters).await;
    let dlq = dlq(&kafka, &DlqConfig::default());
    let own = vec![("trace".to_owned(), b"1".to_vec())];
    let record = Record::new(41, 5, Some(b"\0key"), Some(b"\0\xffvalue")).with_headers(own);
    send(&dlq, &topic, &record).await.unwrap();
    send(&dlq, &topic, &Record::new(42, 5, Some(b""), None)).await.unwrap();
    let letters = read(&kafka, &dead_letters, 2);
    assert_eq!(letters[0].key(), Some(&b"\0key"[..]));
    assert_eq!(letters[0].payload(), Some(&b"\0\xffvalue"[..]));
    assert_eq!((letters[1].key(), letters[1].payload()), (Some(&b""[..]), None));
    let mut found = headers(&letters[0]);
    let time: jiff::Timestamp = found.remove("dlq.timestamp").unwrap().parse().unwrap();
    assert!(time.duration_until(jiff::Timestamp::now()).as_secs() < 60);
    let expected = [
        ("dlq.attempts", "2"),
        ("dlq.error_message", "the receiver says no"),
        ("dlq.error_type", "http_422"),
        ("dlq.schema_id", "7"),
        ("dlq.sink_id", "wh"),
        ("dlq.source_offset", "41"),
        ("dlq.source_partition", "3"),
        ("dlq.source_topic", topic.as_str()),
        ("dlq.stacktrace", "the receiver says no\ncaused by: inner cause"),
        ("dlq.topic_id", "abc"),
        ("trace", "1"),
    ];
    assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[tokio::test]
async fn a_kafka_that_is_away_is_waited_for() {
    let (kafka, topic) = (real(), unique("t"));
    create_topic(&kafka, &format!("{topic}.dlq")).await;
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap();
    drop(door);
    let dlq = dlq(&kafka_at(address.to_string()), &DlqConfig::default());
    let record = Record::new(1, 5, None, Some(b"v"));
    let mut sent = std::pin::pin!(send(&dlq, &topic, &record));
    let early = tokio::time::timeout(Duration::from_secs(1), &mut sent).await;
    assert!(early.is_err(), "nobody listens, so there is no answer of either kind");
    let door = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = door.accept().await {
            let mut outer = TcpStream::connect(&kafka.bootstrap_servers).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            });
        }
    });
    sent.await.unwrap();
}

#[tokio::test]
async fn what_only_a_person_can_mend_is_said_by_name() {
    let (kafka, topic) = (real(), unique("t"));
    create_topic(&kafka, &format!("{topic}.dlq")).await;
    let off = dlq(&kafka, &DlqConfig { enabled: false, ..DlqConfig::default() });
    let record = Record::new(1, 5, None, Some(b"v"));
    assert_eq!(send(&off, &topic, &record).await.unwrap_err().code, "dlq_disabled");

    let dlq = dlq(&kafka, &DlqConfig::default());
    for (mebibytes, refused_by) in [(18, "our client"), (2, "the broker")] {
        let huge = Record::new(2, 5, None, Some(&vec![0; mebibytes * 1024 * 1024]));
        let refusal = send(&dlq, &topic, &huge).await.expect_err(refused_by);
        assert_eq!(refusal.code, "dlq_record_too_large", "refused by {refused_by}");
        send(&dlq, &topic, &record).await.expect("it goes on after a refusal");
    }
}

#[tokio::test]
async fn a_dead_letter_topic_is_never_created_by_a_letter() {
    let (kafka, topic) = (real(), unique("t"));
    let dlq = dlq(&kafka, &DlqConfig::default());
    let record = Record::new(1, 5, None, Some(b"v"));
    let missing = send(&dlq, &topic, &record).await.unwrap_err();
    assert_eq!(missing.code, "dlq_topic_missing");
    let dead_letters = format!("{topic}.dlq");
    let ids = |admin: &AdminClient<DefaultClientContext>| {
        cdc_shared::kafka::topic_ids(admin.inner(), &[&dead_letters], DEADLINE).unwrap()
    };
    assert!(ids(&admin(&kafka)).is_empty());
    create_topic(&kafka, &dead_letters).await;
    send(&dlq, &topic, &record).await.unwrap();
    admin(&kafka).delete_topics(&[&dead_letters], &AdminOptions::new()).await.unwrap();
    let gone = send(&dlq, &topic, &record).await.unwrap_err();
    assert_eq!(gone.code, "dlq_topic_missing", "also when it disappears later");
    assert!(ids(&admin(&kafka)).is_empty());
}
