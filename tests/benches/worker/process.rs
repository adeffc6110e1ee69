//! The platform's processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::Error;

/// Longest wait for anything that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// One process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// When it was started.
    pub(crate) started: Instant,
}

impl Process {
    /// Starts a binary of this build, with its output in `log`.
    pub(crate) fn start(binary: &str, arguments: &[&str], log: PathBuf) -> Result<Self, Error> {
        Self::start_program(&folder()?.join(binary), arguments, log)
    }

    /// Starts any program.
    pub(crate) fn start_program(
        program: &Path,
        arguments: &[&str],
        log: PathBuf,
    ) -> Result<Self, Error> {
        let output = File::create(&log)?;
        let started = Instant::now();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let program = program.display();
                format!(
                    "{program}: {error}; cargo build --release -p cdc-worker -p cdc-coordinator"
                )
            })?;
        Ok(Self { child, log, started })
    }

    /// An error with the log's end, if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("it ended ({status}): {}", self.log_end()).into()),
        }
    }

    /// The last lines of its log.
    pub(crate) fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// A size of `/proc/PID/status` in MB: `VmHWM`, `VmRSS`.
    pub(crate) fn memory(&self, name: &str) -> Result<f64, Error> {
        let pid = self.child.id().ok_or("the process has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: f64 = line.unwrap_or_default().trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// CPU seconds that it has used, in user mode and in the kernel.
    pub(crate) fn cpu(&self) -> Result<f64, Error> {
        cpu_of(&self.child.id().ok_or("the process has ended")?.to_string())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)?;
        }
        tokio::time::timeout(PATIENCE, self.child.wait()).await??;
        Ok(())
    }
}

/// CPU seconds of a process, by its number or `self` (`proc_pid_stat(5)`: utime and stime).
pub(crate) fn cpu_of(pid: &str) -> Result<f64, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks = ticks.sum::<Result<f64, _>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Where cargo puts the binaries: the benchmark lies in `deps` beside them.
fn folder() -> Result<PathBuf, Error> {
    let this = std::env::current_exe()?;
    let deps = this.parent().ok_or("no folder")?;
    Ok(deps.parent().ok_or("no folder")?.to_owned())
}

/// Waits until an address answers 200.
pub(crate) async fn answers(address: &str, process: &mut Process) -> Result<(), Error> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        process.check()?;
        if client.get(address).send().await.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{address} is not ready: {}", process.log_end()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
