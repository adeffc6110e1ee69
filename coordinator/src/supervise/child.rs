//! One worker process and the rule by which it is started again.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use cdc_shared::backoff::RetryPolicy;
use cdc_shared::exit::Exit;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::complain;

/// A worker that ran this long had started well: the next failure is a new one.
const STEADY: Duration = Duration::from_secs(60);

/// How one sink's worker is started.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) sink: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Put before each of its lines; empty when lines are JSON.
    pub(super) prefix: String,
    pub(super) grace: Duration,
}

/// When to end: first to drain, then at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    pub(super) drain: CancellationToken,
    pub(super) kill: CancellationToken,
}

/// How a worker's supervision ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to stop, and left in time.
    Drained,
    /// It was told to stop and had to be killed. What it held is delivered again.
    Killed,
    /// It says that its configuration is wrong: to start it again would change nothing.
    Misconfigured(String),
}

impl Worker {
    /// Keeps the worker running until it is told to stop.
    pub(super) async fn supervise(self, stop: Stop, backoff: RetryPolicy) -> Ended {
        let mut attempt = 0;
        loop {
            let begun = Instant::now();
            let reason = match self.start() {
                Ok(child) => match self.watch(child, &stop).await {
                    Watched::Stopped(ended) => return ended,
                    Watched::Exited(status) if status.code().is_some_and(Exit::is_final) => {
                        return Ended::Misconfigured(status.to_string());
                    }
                    Watched::Exited(status) => status.to_string(),
                },
                Err(error) => format!("cannot start {}: {error}", self.program.display()),
            };
            attempt = if begun.elapsed() >= STEADY { 1 } else { attempt + 1 };
            let delay = backoff.delay(attempt, fastrand::f64());
            tracing::warn!(sink = %self.sink, %reason, delay_ms = delay.as_millis() as u64,
                "worker ended, starting it again");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.drain.cancelled() => return Ended::Drained,
            }
        }
    }

    fn start(&self) -> std::io::Result<Child> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            // Held open for as long as we live: its end tells the worker that we were killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C reaches only us, and we tell it to drain once. Reaching it
            // twice would mean "at once".
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(lines) = child.stdout.take() {
            tokio::spawn(forward(lines, self.prefix.clone()));
        }
        if let Some(lines) = child.stderr.take() {
            tokio::spawn(forward(lines, self.prefix.clone()));
        }
        tracing::info!(sink = %self.sink, pid = child.id(), "worker started");
        Ok(child)
    }

    async fn watch(&self, mut child: Child, stop: &Stop) -> Watched {
        // Taken, because waiting for a child closes what it still has of it.
        let _open = child.stdin.take();
        tokio::select! {
            status = child.wait() => {
                return Watched::Exited(status.unwrap_or_default());
            }
            () = stop.drain.cancelled() => {}
        }
        terminate(&child);
        tokio::select! {
            _ = child.wait() => return Watched::Stopped(Ended::Drained),
            () = tokio::time::sleep(self.grace) => {}
            () = stop.kill.cancelled() => {}
        }
        if let Err(error) = child.kill().await {
            tracing::warn!(sink = %self.sink, %error, "cannot kill the worker");
        }
        Watched::Stopped(Ended::Killed)
    }
}

enum Watched {
    Exited(ExitStatus),
    Stopped(Ended),
}

fn terminate(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::warn!(%error, "cannot signal the worker");
    }
}

/// Copies lines to our own log stream.
async fn forward(from: impl AsyncRead + Unpin, prefix: String) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // To the end whatever comes and whoever reads: a worker whose lines nobody takes would fail.
    while from.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        complain(&format_args!("{prefix}{}", text.trim_end_matches(['\r', '\n'])));
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(script: &str) -> Worker {
        Worker {
            sink: "s".into(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            prefix: String::new(),
            grace: Duration::from_secs(20),
        }
    }

    fn quick() -> RetryPolicy {
        RetryPolicy {
            initial_wait: Duration::from_millis(1),
            max_wait: Duration::from_millis(5),
            ..RetryPolicy::default()
        }
    }

    #[tokio::test]
    async fn a_wrong_configuration_is_not_tried_again() {
        let ended = worker("exit 78").supervise(Stop::default(), quick()).await;
        assert_eq!(ended, Ended::Misconfigured("exit status: 78".into()));
    }

    #[tokio::test]
    async fn a_worker_that_dies_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("starts");
        let file = file.display();
        // The third start finds two lines of the former ones.
        let script = format!("echo x >> {file}; [ $(wc -l < {file}) -lt 3 ] && exit 1; exit 64");
        let ended = worker(&script).supervise(Stop::default(), quick()).await;
        assert!(matches!(ended, Ended::Misconfigured(_)));
        let starts = std::fs::read_to_string(dir.path().join("starts")).unwrap();
        assert_eq!(starts.lines().count(), 3);
    }

    /// Waits for a file to appear.
    async fn appears(path: &std::path::Path) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !path.exists() {
            assert!(Instant::now() < deadline, "{} never appeared", path.display());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn stopping_drains_first_and_kills_on_the_second_signal() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let polite =
            format!("trap 'exit 0' TERM; touch {}; while :; do sleep 0.02; done", ready.display());
        let stop = Stop::default();
        let running = tokio::spawn(worker(&polite).supervise(stop.clone(), quick()));
        appears(&ready).await;
        stop.drain.cancel();
        assert_eq!(running.await.unwrap(), Ended::Drained);

        let ready = dir.path().join("deaf");
        let deaf = format!("trap '' TERM; touch {}; while :; do sleep 0.02; done", ready.display());
        let stop = Stop::default();
        let running = tokio::spawn(worker(&deaf).supervise(stop.clone(), quick()));
        appears(&ready).await;
        stop.drain.cancel();
        stop.kill.cancel();
        assert_eq!(running.await.unwrap(), Ended::Killed);
    }
}
