//! The webhook sink beside a bare client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::pipeline::{Pipeline, SinkLines};
use super::process::{PATIENCE, answers};
use super::receiver::Receiver;
use super::table::Table;
use super::topic::Topic;
use super::{Bench, Error, Pass};

const IN_FLIGHT: usize = 64;
/// The default, which is what users run.
const MAX_BUFFERED: usize = 1_000;
/// What a worker that has nothing to do is given to come to rest.
const REST: Duration = Duration::from_secs(3);

pub(crate) async fn measure(bench: &Bench, topic: &Topic, table: &mut Table) -> Result<(), Error> {
    let receiver = Receiver::start().await?;
    let sinks: Vec<_> = (0..bench.passes)
        .map(|pass| sink(&format!("webhook-{pass}"), "public.orders", &receiver))
        .chain([sink("idle", "public.idle", &receiver)])
        .collect();
    let pipeline = Pipeline::start(bench, "webhook", MAX_BUFFERED, &sinks).await?;
    table.idle = idle(&pipeline).await?;
    let bodies: Arc<[Bytes]> = topic.events.iter().map(|event| body(topic, event)).collect();
    for pass in 0..bench.passes {
        let bare = bare(&receiver, bodies.clone()).await?;
        eprintln!("webhook: bare client {bare:.0} records/s");
        table.webhook_bare.push(bare);
        let measured = worker(&pipeline, &format!("webhook-{pass}"), &receiver, topic).await?;
        eprintln!("webhook: worker {:.0} records/s", measured.rate);
        table.webhook.push(measured);
    }
    pipeline.stop().await
}

fn sink(id: &str, source: &str, receiver: &Receiver) -> SinkLines {
    let lines = [
        "sink_type: webhook".to_owned(),
        format!("tables: [{source}]"),
        format!("webhook: {{ url: '{}', max_in_flight: {IN_FLIGHT} }}", receiver.url),
    ];
    SinkLines { id: id.to_owned(), lines: lines.into() }
}

/// The body that the worker sends for an event.
fn body(topic: &Topic, event: &super::topic::Event) -> Bytes {
    let super::topic::Event { partition, offset, key, value } = event;
    format!(
        r#"{{"key":{key},"value":{value},"metadata":{{"topic":"{}","partition":{partition},"offset":{offset}}}}}"#,
        topic.name
    )
    .into()
}

async fn idle(pipeline: &Pipeline) -> Result<f64, Error> {
    let (mut process, address) = pipeline.worker("idle")?;
    answers(&format!("http://{address}/readyz"), &mut process).await?;
    tokio::time::sleep(REST).await;
    let memory = process.memory("VmRSS")?;
    process.stop().await?;
    Ok(memory)
}

async fn worker(
    pipeline: &Pipeline,
    sink: &str,
    receiver: &Receiver,
    topic: &Topic,
) -> Result<Pass, Error> {
    receiver.expect(topic.events.len());
    let (mut process, _) = pipeline.worker(sink)?;
    let Ok((first, last)) = tokio::time::timeout(PATIENCE, receiver.complete()).await else {
        process.check()?;
        let (count, end) = (receiver.count(), process.log_end());
        return Err(format!("{sink}: {count} of {} events came: {end}", topic.events.len()).into());
    };
    let peak = process.memory("VmHWM")?;
    let pass = Pass {
        rate: (topic.events.len() - 1) as f64 / (last - first).as_secs_f64(),
        first: (first - process.started).as_secs_f64(),
        peak,
    };
    process.stop().await?;
    Ok(pass)
}

/// The same bodies from memory: so many loops, each one request at a time.
async fn bare(receiver: &Receiver, bodies: Arc<[Bytes]>) -> Result<f64, Error> {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(IN_FLIGHT).build()?;
    receiver.expect(bodies.len());
    let next = Arc::new(AtomicUsize::new(0));
    let url: reqwest::Url = receiver.url.parse()?;
    let loops = (0..IN_FLIGHT).map(|_| {
        let (client, url, bodies, next) =
            (client.clone(), url.clone(), bodies.clone(), next.clone());
        tokio::spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let request = client.post(url.clone()).body(body.clone());
                let request = request.header("content-type", "application/json");
                request.send().await?.error_for_status()?.bytes().await?;
            }
            Ok::<_, reqwest::Error>(())
        })
    });
    let start = Instant::now();
    for ended in loops.collect::<Vec<_>>() {
        ended.await??;
    }
    let (first, last) = receiver.complete().await;
    debug_assert!(first >= start);
    Ok((bodies.len() - 1) as f64 / (last - first).as_secs_f64())
}
