//! One pipeline with its coordinator, and the workers of its sinks.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;

use super::process::{Process, answers};
use super::{Bench, Error};

/// A running coordinator and its pipeline file.
pub(crate) struct Pipeline {
    file: PathBuf,
    folder: PathBuf,
    coordinator: Process,
}

/// A sink's lines in the pipeline file, from `sink_type` on.
pub(crate) struct SinkLines {
    pub(crate) id: String,
    pub(crate) lines: Vec<String>,
}

impl Pipeline {
    /// Writes the file, starts the coordinator and waits until it is ready.
    pub(crate) async fn start(
        bench: &Bench,
        name: &str,
        max_buffered: usize,
        sinks: &[SinkLines],
    ) -> Result<Self, Error> {
        let id = format!("{}-{name}", bench.run);
        let folder = bench.folder.path().to_owned();
        let file = folder.join(format!("{name}.yaml"));
        let address = free_address()?;
        let mut text = format!(
            "pipeline_id: {id}\n\
             topic_prefix: {run}\n\
             max_buffered_messages: {max_buffered}\n\
             source:\n  database: bench\n  password: unused\n  tables: [public.orders, public.idle, public.mixed, \
             public.inserts, public.updates, public.deletes, public.moves]\n\
             kafka:\n  bootstrap_servers: {kafka}\n  schema_registry_url: {registry}\n\
             coordinator:\n  bind: {address}\n  watermark_store: memory\n\
             sinks:\n",
            run = bench.run,
            kafka = bench.stack.kafka(),
            registry = bench.stack.registry(),
        );
        for SinkLines { id, lines } in sinks {
            let _ = write!(text, "  - sink_id: {id}\n    {}\n", lines.join("\n    "));
        }
        std::fs::write(&file, text)?;
        let shown = file.display().to_string();
        let log = folder.join(format!("{name}-coordinator.log"));
        let mut coordinator = Process::start("cdc", &["serve", &shown], log)?;
        answers(&format!("http://{address}/readyz"), &mut coordinator).await?;
        Ok(Self { file, folder, coordinator })
    }

    /// Starts the worker of a sink; also where it answers.
    pub(crate) fn worker(&self, sink: &str) -> Result<(Process, String), Error> {
        let address = free_address()?;
        let file = self.file.display().to_string();
        let arguments = ["run", &file, "--sink", sink, "--admin", &address];
        let log = self.folder.join(format!("{sink}.log"));
        Ok((Process::start("cdc-worker", &arguments, log)?, address))
    }

    /// Ends the coordinator.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.coordinator.stop().await
    }
}

fn free_address() -> Result<String, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
