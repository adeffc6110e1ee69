//! How a task tells what it is doing.

use std::sync::{Arc, Mutex, PoisonError};

use cdc_shared::clock::unix_ms;
use cdc_shared::task::{TaskEnd, TaskReport};

type Publish = dyn Fn(&TaskReport) + Send + Sync;

/// Takes what a task tells. Cheap to clone.
#[derive(Clone)]
pub struct Tell {
    report: Arc<Mutex<TaskReport>>,
    publish: Arc<Publish>,
}

impl Tell {
    /// For a task that begins now; `publish` is given each new state.
    pub fn new(id: &str, publish: impl Fn(&TaskReport) + Send + Sync + 'static) -> Self {
        let report = TaskReport {
            id: id.to_owned(),
            began_ms: unix_ms(),
            step: "beginning".to_owned(),
            rows: 0,
            rows_expected: 0,
            end: None,
        };
        publish(&report);
        Self { report: Arc::new(Mutex::new(report)), publish: Arc::new(publish) }
    }

    /// What is done at the moment.
    pub fn step(&self, step: &str) {
        self.change(|report| step.clone_into(&mut report.step));
    }

    /// So many rows more were compared.
    pub fn rows(&self, more: u64) {
        self.change(|report| report.rows += more);
    }

    /// So many rows more are expected.
    pub fn expect(&self, more: u64) {
        self.change(|report| report.rows_expected += more);
    }

    /// The end.
    pub fn end(&self, end: TaskEnd) {
        self.change(|report| report.end = Some(end));
    }

    fn change(&self, change: impl FnOnce(&mut TaskReport)) {
        // Replaced field by field, so a panic elsewhere leaves it usable.
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut report);
        (self.publish)(&report);
    }
}
