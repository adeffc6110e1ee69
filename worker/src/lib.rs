//! The worker: one process serves one sink.

pub mod change;
pub mod sink;
pub mod source;
pub mod status;
