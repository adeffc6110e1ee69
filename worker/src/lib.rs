//! The worker: one process serves one sink.

pub mod admin;
pub mod change;
pub mod exit;
pub mod metrics;
pub mod pipeline;
pub mod progress;
pub mod sink;
pub mod source;
pub mod status;
