//! The worker: one process serves one sink.
//!
//! Reading order: [`run`] puts everything together; [`source`] is the one Kafka consumer;
//! [`pipeline`] has a task per partition, where a record is decoded, offered to the [`sink`], and
//! its watermark kept; [`progress`] tells the coordinator. `ARCHITECTURE.md` follows one record.

pub mod admin;
pub mod change;
pub mod exit;
pub mod metrics;
pub mod pipeline;
pub mod progress;
pub mod run;
pub mod sink;
pub mod source;
pub mod status;
pub mod task;
pub mod whole;
