//! The full topic: half snapshot reads, 40 % updates, 10 % deletes and their tombstones, mixed,
//! in four partitions by key.

use std::time::Duration;

use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;
use cdc_shared::avro::{CellBuf, Plan};
use cdc_shared::envelope::ValueSchema;
use cdc_shared::json::{JsonOptions, Unavailable, write_envelope};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::envelopes::{SCHEMA, envelope};
use super::stack::Stack;
use super::{Bench, Error};

/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 4;

const KEY_SCHEMA: &str = r#"{"type":"record","name":"Key","namespace":"shop.public.orders","fields":[{"name":"id","type":"long"}]}"#;

/// An envelope as the sinks must see it.
pub(crate) struct Event {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// The topic and what is in it.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) events: Vec<Event>,
    /// Ends of the partitions, summed.
    pub(crate) messages: i64,
    pub(crate) mean_bytes: usize,
}

type FillProducer = ThreadedProducer<DefaultProducerContext>;

impl Topic {
    /// Creates it, registers its schemas and fills it; beside it an empty topic `….idle`.
    pub(crate) async fn fill(bench: &Bench, records: usize) -> Result<Self, Error> {
        let name = format!("{}.public.orders", bench.run);
        let admin = admin(&bench.stack)?;
        for name in [name.as_str(), &idle(bench)] {
            let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1));
            let made = admin.create_topics([&topic], &AdminOptions::new()).await?;
            made.into_iter().try_for_each(|made| made.map(drop)).map_err(|(name, code)| {
                format!("topic {name} cannot be created: {code}; is the stack up (make up)?")
            })?;
        }
        let key_id = register(&bench.stack, &format!("{name}-key"), KEY_SCHEMA).await?;
        let value_id = register(&bench.stack, &format!("{name}-value"), SCHEMA).await?;
        let stack = bench.stack.kafka().to_owned();
        tokio::task::spawn_blocking(move || fill(&stack, name, records, key_id, value_id)).await?
    }

    /// Removes both topics.
    pub(crate) async fn delete(&self, bench: &Bench) {
        let Ok(admin) = admin(&bench.stack) else { return };
        let idle = idle(bench);
        if let Err(error) = admin.delete_topics(&[&self.name, &idle], &AdminOptions::new()).await {
            eprintln!("topic {} stays: {error}", self.name);
        }
    }
}

fn idle(bench: &Bench) -> String {
    format!("{}.public.idle", bench.run)
}

fn admin(stack: &Stack) -> Result<AdminClient<DefaultClientContext>, Error> {
    Ok(ClientConfig::new().set("bootstrap.servers", stack.kafka()).create()?)
}

async fn register(stack: &Stack, subject: &str, schema: &str) -> Result<i32, Error> {
    let address = format!("{}/subjects/{subject}/versions", stack.registry());
    let body = serde_json::json!({ "schema": schema });
    let answer = reqwest::Client::builder().no_proxy().build()?.post(&address).json(&body);
    let answer: serde_json::Value = answer.send().await?.error_for_status()?.json().await?;
    let id = answer.get("id").and_then(serde_json::Value::as_i64);
    let id = id.ok_or_else(|| format!("{address} answered {answer}"))?;
    Ok(i32::try_from(id)?)
}

fn fill(
    kafka: &str,
    name: String,
    records: usize,
    key_id: i32,
    value_id: i32,
) -> Result<Topic, Error> {
    let producer: FillProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("batch.size", "262144")
        .set("queue.buffering.max.kbytes", "262144")
        .create()?;
    let schema = Schema::parse_str(SCHEMA)?;
    let writer = GenericDatumWriter::builder(&schema).build()?;
    let no_references: [(&str, &str); 0] = [];
    let values = ValueSchema::of(Plan::compile(value_id, SCHEMA, &no_references)?.into());
    let mut random = fastrand::Rng::with_seed(11);
    let mut ends = [0_i64; PARTITIONS as usize];
    let mut events = Vec::with_capacity(records);
    let mut bytes = 0;
    for n in 0..records {
        let partition = n % ends.len();
        // The last record of a partition has an effect, so that the end can be seen at the sink.
        let op = match random.u8(0..10) {
            _ if n + ends.len() >= records => "u",
            0..5 => "r",
            5..9 => "u",
            _ => "d",
        };
        let key = framed(key_id, &zigzag(n as i64));
        let mut datum = Vec::with_capacity(512);
        writer.write_value(&mut datum, envelope(op, n, &mut random))?;
        let value = framed(value_id, &datum);
        bytes += value.len();
        send(&producer, &name, partition, &key, Some(&value))?;
        events.push(Event {
            partition: partition as i32,
            offset: ends[partition],
            key: format!(r#"{{"id":{n}}}"#),
            value: json(&values, &datum)?,
        });
        ends[partition] += 1;
        if op == "d" {
            send(&producer, &name, partition, &key, None)?;
            ends[partition] += 1;
        }
    }
    producer.flush(Duration::from_secs(60))?;
    let messages = ends.iter().sum();
    Ok(Topic { name, events, messages, mean_bytes: bytes / records })
}

fn send(
    producer: &FillProducer,
    topic: &str,
    partition: usize,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), Error> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition as i32).key(key);
    if let Some(value) = value {
        record = record.payload(value);
    }
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

fn framed(id: i32, datum: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(datum);
    message
}

/// An Avro long.
fn zigzag(number: i64) -> Vec<u8> {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn json(values: &ValueSchema, datum: &[u8]) -> Result<String, Error> {
    let plan = values.envelope().ok_or("no envelope's schema")?;
    let mut cells = CellBuf::new();
    let root = plan.plan().decode(datum, &mut cells)?;
    let envelope = plan.envelope(root, &cells)?;
    let mut out = Vec::with_capacity(1024);
    write_envelope(&envelope, &JsonOptions::default(), &mut out, &mut Unavailable::default())?;
    Ok(String::from_utf8(out)?)
}
