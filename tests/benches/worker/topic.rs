//! The full topic: half snapshot reads, 40 % updates, 10 % deletes and their tombstones, mixed,
//! in four partitions by key.

use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use cdc_shared::avro::{CellBuf, Plan};
use cdc_shared::envelope::ValueSchema;
use cdc_shared::json::{JsonOptions, Unavailable, write_envelope};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::envelopes::{SCHEMA, envelope};
use super::stack::Stack;
use super::{Bench, Error};

/// Partitions of the topic of webhook and events.
pub(crate) const PARTITIONS: usize = 4;

pub(crate) const KEY_SCHEMA: &str = r#"{"type":"record","name":"Key","namespace":"shop.public.orders","fields":[{"name":"id","type":"long"}]}"#;

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
        create(&admin, &name, PARTITIONS).await?;
        create(&admin, &idle(bench), PARTITIONS).await?;
        let ids = register(&bench.stack, &name).await?;
        let stack = bench.stack.clone();
        tokio::task::spawn_blocking(move || fill(&stack, name, records, ids)).await?
    }

    /// Removes both topics.
    pub(crate) async fn delete(&self, bench: &Bench) {
        delete(bench, &[&self.name, &idle(bench)]).await;
    }
}

fn idle(bench: &Bench) -> String {
    format!("{}.public.idle", bench.run)
}

pub(crate) fn admin(stack: &Stack) -> Result<AdminClient<DefaultClientContext>, Error> {
    Ok(ClientConfig::new().set("bootstrap.servers", stack.kafka()).create()?)
}

/// Creates a topic.
pub(crate) async fn create(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    partitions: usize,
) -> Result<(), Error> {
    let topic = NewTopic::new(name, partitions as i32, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await?;
    made.into_iter().try_for_each(|made| made.map(drop)).map_err(|(name, code)| {
        format!("topic {name} cannot be created: {code}; is the stack up (make up)?").into()
    })
}

/// Removes topics.
pub(crate) async fn delete(bench: &Bench, names: &[&str]) {
    let Ok(admin) = admin(&bench.stack) else { return };
    if let Err(error) = admin.delete_topics(names, &AdminOptions::new()).await {
        eprintln!("topics {names:?} stay: {error}");
    }
}

/// Registers the schemas of a topic's keys and values; their ids.
pub(crate) async fn register(stack: &Stack, topic: &str) -> Result<(i32, i32), Error> {
    let key = register_one(stack, &format!("{topic}-key"), KEY_SCHEMA).await?;
    Ok((key, register_one(stack, &format!("{topic}-value"), SCHEMA).await?))
}

async fn register_one(stack: &Stack, subject: &str, schema: &str) -> Result<i32, Error> {
    let address = format!("{}/subjects/{subject}/versions", stack.registry());
    let body = serde_json::json!({ "schema": schema });
    let answer = reqwest::Client::builder().no_proxy().build()?.post(&address).json(&body);
    let answer: serde_json::Value = answer.send().await?.error_for_status()?.json().await?;
    let id = answer.get("id").and_then(serde_json::Value::as_i64);
    let id = id.ok_or_else(|| format!("{address} answered {answer}"))?;
    Ok(i32::try_from(id)?)
}

fn fill(stack: &Stack, name: String, records: usize, ids: (i32, i32)) -> Result<Topic, Error> {
    let no_references: [(&str, &str); 0] = [];
    let values = ValueSchema::of(Plan::compile(ids.1, SCHEMA, &no_references)?.into());
    let schema = Schema::parse_str(SCHEMA)?;
    let mut filler = Filler::new(stack, name, PARTITIONS, ids, &schema)?;
    let mut random = fastrand::Rng::with_seed(11);
    let mut events = Vec::with_capacity(records);
    for n in 0..records {
        let partition = n % PARTITIONS;
        // The last record of a partition has an effect, so that the end can be seen at the sink.
        let op = match random.u8(0..10) {
            _ if n + PARTITIONS >= records => "u",
            0..5 => "r",
            5..9 => "u",
            _ => "d",
        };
        let (offset, datum) = filler.send(partition, n, op, &envelope(op, n, &mut random))?;
        events.push(Event {
            partition: partition as i32,
            offset,
            key: format!(r#"{{"id":{n}}}"#),
            value: json(&values, &datum)?,
        });
    }
    let (name, messages, bytes) = filler.finish()?;
    Ok(Topic { name, events, messages, mean_bytes: bytes / records })
}

/// Writes change events into a topic.
pub(crate) struct Filler<'s> {
    producer: FillProducer,
    writer: GenericDatumWriter<'s>,
    topic: String,
    /// Of keys and values.
    ids: (i32, i32),
    ends: Vec<i64>,
    /// Of all values.
    bytes: usize,
}

impl<'s> Filler<'s> {
    pub(crate) fn new(
        stack: &Stack,
        topic: String,
        partitions: usize,
        ids: (i32, i32),
        schema: &'s Schema,
    ) -> Result<Self, Error> {
        let producer: FillProducer = ClientConfig::new()
            .set("bootstrap.servers", stack.kafka())
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .set("batch.size", "262144")
            .set("queue.buffering.max.kbytes", "262144")
            .create()?;
        let writer = GenericDatumWriter::builder(schema).build()?;
        Ok(Self { producer, writer, topic, ids, ends: vec![0; partitions], bytes: 0 })
    }

    /// Sends an event, and the tombstone of a delete; the event's offset and its datum.
    pub(crate) fn send(
        &mut self,
        partition: usize,
        n: usize,
        op: &str,
        event: &Value,
    ) -> Result<(i64, Vec<u8>), Error> {
        self.send_with(partition, n, op, event, None)
    }

    /// The same with a header.
    pub(crate) fn send_with(
        &mut self,
        partition: usize,
        n: usize,
        op: &str,
        event: &Value,
        header: Option<(&str, &str)>,
    ) -> Result<(i64, Vec<u8>), Error> {
        let key = framed(self.ids.0, &zigzag(n as i64));
        let mut datum = Vec::with_capacity(512);
        self.writer.write_value_ref(&mut datum, event)?;
        let value = framed(self.ids.1, &datum);
        self.bytes += value.len();
        send(&self.producer, &self.topic, partition, &key, Some(&value), header)?;
        let offset = self.ends[partition];
        self.ends[partition] += 1;
        if op == "d" {
            send(&self.producer, &self.topic, partition, &key, None, None)?;
            self.ends[partition] += 1;
        }
        Ok((offset, datum))
    }

    /// Waits until everything is there; the topic, the ends of its partitions, summed, and the
    /// bytes of all values.
    pub(crate) fn finish(self) -> Result<(String, i64, usize), Error> {
        self.producer.flush(Duration::from_secs(60))?;
        Ok((self.topic, self.ends.iter().sum(), self.bytes))
    }
}

fn send(
    producer: &FillProducer,
    topic: &str,
    partition: usize,
    key: &[u8],
    value: Option<&[u8]>,
    header: Option<(&str, &str)>,
) -> Result<(), Error> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition as i32).key(key);
    if let Some(value) = value {
        record = record.payload(value);
    }
    if let Some((key, value)) = header {
        let header = Header { key, value: Some(value) };
        record = record.headers(OwnedHeaders::new().insert(header));
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
