//! The worker: one process serves one sink.

pub mod change;
pub mod sink;
