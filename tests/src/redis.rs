//! A Redis of a test's own, which may lose its data and be away.

use std::path::PathBuf;

use serde_json::json;

use crate::pipeline::Pipeline;
use crate::process::Process;
use crate::stack::free_port;

/// A server that keeps nothing on disk.
#[derive(Debug)]
pub struct Redis {
    arguments: Vec<String>,
    log: PathBuf,
    process: Process,
}

impl Redis {
    /// Starts one and makes it the watermark store of `pipeline`.
    pub fn start(pipeline: &mut Pipeline) -> Self {
        let port = free_port().to_string();
        pipeline.config["coordinator"]["watermark_store"] = json!("redis");
        pipeline.config["redis"] = json!({"url": format!("redis://127.0.0.1:{port}")});
        let arguments: Vec<String> =
            ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
                .map(ToOwned::to_owned)
                .into();
        let log = pipeline.dir().join("redis.log");
        let process = Process::start("redis-server".as_ref(), &arguments, log.clone());
        Self { arguments, log, process }
    }

    /// SIGKILL; its data is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, empty.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = Process::start("redis-server".as_ref(), &self.arguments, self.log.clone());
    }
}
