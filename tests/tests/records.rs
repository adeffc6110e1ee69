//! What may lie in a topic beside good change events.

use std::collections::BTreeSet;
use std::time::Duration;

use cdc_tests::kafka::{self, Producer, header};
use cdc_tests::pipeline::Pipeline;
use cdc_tests::proxy::Proxy;
use cdc_tests::receiver::Receiver;
use cdc_tests::record::{framed, long, register};
use cdc_tests::wait::{SOON, check, until};
use rdkafka::Message;
use serde_json::json;

/// Bad values with the dead letter's error type.
fn bad_values(schema: i32) -> Vec<(Vec<u8>, &'static str)> {
    let good = {
        let schemas = cdc_tests::record::Schemas { key: schema, value: schema };
        schemas.insert(1, "cut")
    };
    let mut wrong_magic = good.clone();
    wrong_magic[0] = 7;
    // A string that says it is longer than everything.
    let mut huge = Vec::new();
    long(&mut huge, 0);
    long(&mut huge, 1);
    long(&mut huge, 5);
    long(&mut huge, 1);
    long(&mut huge, i64::MAX);
    vec![
        (br#"{"id": 1, "name": "json"}"#.to_vec(), "bad_frame"),
        (wrong_magic, "bad_frame"),
        (good[..good.len() - 9].to_vec(), "bad_value"),
        (good[..3].to_vec(), "bad_frame"),
        (framed(schema, &huge), "bad_value"),
        (Vec::new(), "bad_frame"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_a_dead_letter_with_its_bytes_and_all_else_goes_on() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("dlq");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    let producer = Producer::default();
    let bad = bad_values(schemas.value);
    let mut good = BTreeSet::new();
    for (place, (value, _)) in bad.iter().enumerate() {
        producer.put(&topic, 0, &schemas.key(1), value);
        producer.put(&topic, 0, &schemas.key(1), &schemas.insert(1, "good"));
        good.insert((0, 2 * place as i64 + 1));
    }
    producer.put(&topic, 1, &schemas.key(2), &schemas.insert(2, "other partition"));
    good.insert((1, 0));
    // A key of another kind.
    producer.put(&topic, 1, b"plain key", &schemas.insert(3, "bad key"));
    // Deep: records within records, which the schema allows and the limits do not.
    let deep = json!({"type": "record", "name": "Node", "namespace": "deep", "fields": [
        {"name": "op", "type": "string"},
        {"name": "before", "type": ["null", "Node"], "default": null},
        {"name": "after", "type": ["null", "Node"], "default": null},
    ]});
    let deep = register(&format!("{topic}.deep-value"), &deep).await;
    let mut nested = Vec::new();
    for _ in 0..100_000 {
        nested.extend_from_slice(&[0, 2]);
    }
    producer.put(&topic, 1, &schemas.key(2), &framed(deep, &nested));
    producer.put(&topic, 1, &schemas.key(2), &schemas.insert(4, "last"));
    good.insert((1, 3));

    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    receiver.has(&good).await;
    pipeline.has_rows(&good, SOON).await;
    receiver.check_promise();

    let letters = kafka::read_all(&format!("{topic}.dlq"), 1);
    let letters: Vec<_> =
        letters.iter().filter(|l| header(l, "dlq.sink_id").as_deref() == Some("wh")).collect();
    assert_eq!(letters.len(), bad.len() + 2);
    for (place, (value, code)) in bad.iter().enumerate() {
        let offset = (2 * place).to_string();
        let letter = letters
            .iter()
            .find(|letter| {
                header(letter, "dlq.source_partition").as_deref() == Some("0")
                    && header(letter, "dlq.source_offset").as_deref() == Some(&offset)
            })
            .unwrap_or_else(|| panic!("offset {offset} has no letter"));
        assert_eq!(letter.payload(), Some(&value[..]), "offset {offset}");
        assert_eq!(letter.key(), Some(&schemas.key(1)[..]));
        assert_eq!(header(letter, "dlq.error_type").as_deref(), Some(*code), "offset {offset}");
        assert_eq!(header(letter, "dlq.source_topic").as_deref(), Some(&topic[..]));
        for name in ["dlq.error_message", "dlq.stacktrace", "dlq.timestamp", "dlq.topic_id"] {
            assert!(header(letter, name).is_some_and(|text| !text.is_empty()), "{name}");
        }
    }
    // P passes what is in the dead letter queue.
    pipeline.committed(0, 2 * bad.len() as i64).await;
    pipeline.committed(1, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_heartbeats_and_schema_changes_pass_without_effect() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("pass");
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let heartbeat = json!({
        "type": "record", "name": "Heartbeat", "namespace": "io.debezium.connector.common",
        "fields": [{"name": "ts_ms", "type": "long"}],
    });
    let schema_change = json!({
        "type": "record", "name": "SchemaChangeValue",
        "namespace": "io.debezium.connector.mysql",
        "fields": [{"name": "ddl", "type": ["null", "string"], "default": null}],
    });
    let heartbeat = register(&format!("{topic}.heartbeat-value"), &heartbeat).await;
    let schema_change = register(&format!("{topic}.change-value"), &schema_change).await;
    let producer = Producer::default();
    producer.put(&topic, 0, &schemas.key(1), &schemas.change("d", Some((1, "a")), None));
    producer.send(&topic, 0, Some(&schemas.key(1)), None);
    producer.put(&topic, 0, &schemas.key(1), &framed(heartbeat, &[2]));
    producer.put(&topic, 0, &schemas.key(1), &framed(schema_change, &[0]));
    producer.put(&topic, 0, &schemas.key(1), &schemas.insert(1, "again"));
    let _coordinator = pipeline.serve();
    let _workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    let expected = BTreeSet::from([(0, 0), (0, 4)]);
    receiver.has(&expected).await;
    pipeline.has_rows(&expected, SOON).await;
    pipeline.committed(0, 5).await;
    assert_eq!(kafka::events(&format!("{topic}.dlq"), 1), BTreeSet::new());
    let first = &receiver.deliveries()[0];
    assert_eq!(first.body["key"], json!({"id": 1}));
    assert_eq!(first.body["value"]["op"], "d");
    assert_eq!(first.body["value"]["before"], json!({"id": 1, "name": "a"}));
    assert_eq!(first.body["value"]["after"], json!(null));
    assert_eq!(first.body["metadata"], json!({"topic": topic, "partition": 0, "offset": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_schema_id_holds_its_partition_only_until_the_schema_is_there() {
    let receiver = Receiver::start().await;
    let origin = cdc_tests::stack::Stack::get().value("REGISTRY_ADDRESS");
    let proxy = Proxy::start(origin, None).await;
    let mut pipeline = Pipeline::new("unk");
    pipeline.config["kafka"]["schema_registry_url"] =
        json!(format!("{}/apis/ccompat/v7", proxy.address()));
    pipeline.webhook("wh", &receiver.url());
    let (schemas, topic) = (pipeline.topics(2).await, pipeline.topic());
    let other = cdc_tests::record::envelope_schema(&format!("{topic}.later"));
    let later = register(&format!("{topic}.later-value"), &other).await;
    let hidden = format!("/schemas/ids/{later}");
    proxy.hide(Some((&hidden, 404)));
    let producer = Producer::default();
    producer.put(&topic, 0, &schemas.key(1), &schemas.insert(1, "known"));
    let unknown = cdc_tests::record::Schemas { value: later, ..schemas };
    producer.put(&topic, 0, &schemas.key(1), &unknown.insert(1, "later"));
    for id in 0..20 {
        producer.put(&topic, 1, &schemas.key(id), &schemas.insert(id, "other"));
    }
    let _coordinator = pipeline.serve();
    let _worker = pipeline.worker("wh");
    let mut expected: BTreeSet<_> = (0..20).map(|offset| (1, offset)).collect();
    expected.insert((0, 0));
    receiver.has(&expected).await;
    until("health names the schema id", SOON, async || {
        let health = pipeline.sink_health("wh").await?;
        check(health["holds"].to_string().contains(&later.to_string()), health.to_string())
    })
    .await;
    assert_eq!(receiver.acknowledged(), expected);
    assert_eq!(kafka::events(&format!("{topic}.dlq"), 1), BTreeSet::new());
    proxy.hide(None);
    expected.insert((0, 1));
    receiver.has(&expected).await;

    // A schema that never comes: the operator passes the record.
    producer.put(&topic, 0, &schemas.key(1), &framed(1_999_999_999, &[2]));
    producer.put(&topic, 0, &schemas.key(1), &schemas.insert(1, "behind"));
    until("health names the unknown id", SOON, async || {
        let health = pipeline.sink_health("wh").await?;
        check(health["holds"].to_string().contains("1999999999"), health.to_string())
    })
    .await;
    let skip = ["skip", "FILE", "--sink", "wh", "--topic", &topic, "--partition", "0"];
    pipeline.command(&[&skip[..], &["--offset", "2"]].concat()).await;
    expected.insert((0, 3));
    receiver.has(&expected).await;
    pipeline.committed(0, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_and_a_slow_receiver_cost_neither_memory_nor_order() {
    let receiver = Receiver::start().await;
    let mut pipeline = Pipeline::new("big");
    pipeline.config["max_buffered_messages"] = json!(20);
    pipeline.webhook("wh", &receiver.url()).events("ev").await;
    let (schemas, topic) = (pipeline.topics(1).await, pipeline.topic());
    let producer = Producer::default();
    for id in 0..30 {
        let text = if id == 3 { "x".repeat(900_000) } else { "y".repeat(20_000) };
        producer.put(&topic, 0, &schemas.key(id % 3), &schemas.insert(id % 3, &text));
    }
    let _coordinator = pipeline.serve();
    let workers = [pipeline.worker("wh"), pipeline.worker("ev")];
    let expected = (0..30).map(|offset| (0, offset)).collect();
    receiver.has(&expected).await;
    pipeline.has_rows(&expected, Duration::from_secs(60)).await;
    receiver.check_promise();
    for worker in workers {
        let peak = worker.peak_kib().unwrap();
        assert!(peak < 100 * 1024, "{peak} KiB");
    }
}
