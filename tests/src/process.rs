//! The real binaries, as child processes whose output goes to files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Where a binary of the workspace was built: beside the test's own executable.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(Path::parent).unwrap();
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// A child process, killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it printed, both streams.
    pub log: PathBuf,
}

impl Process {
    /// Starts `program`; its output goes to `log`.
    pub fn start(program: &Path, arguments: &[String], log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { child, log }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        let _ = kill_process(self.pid(), Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        let _ = kill_process(self.pid(), Signal::CONT);
    }

    /// SIGHUP: read the configuration again.
    pub fn hang_up(&self) {
        let _ = kill_process(self.pid(), Signal::HUP);
    }

    /// SIGTERM, and waits for its end.
    pub async fn drain(&mut self) -> ExitStatus {
        let _ = kill_process(self.pid(), Signal::TERM);
        self.ended("a drained process ends", Duration::from_secs(40)).await
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self, what: &str, within: Duration) -> ExitStatus {
        wait::until(what, within, async || self.child.try_wait().unwrap().ok_or("still running"))
            .await
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Time that it has had of the machine's cores so far.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // Behind the name, which may hold anything: user and system time are the 14th and 15th field.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Peak resident memory so far, in KiB.
    pub fn peak_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
