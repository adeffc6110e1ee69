//! What worker and coordinator share. A type lives here only if both binaries use it; they meet
//! in [`api`] over HTTP and in [`control`] over the control topic, and never depend on each other.

pub mod api;
pub mod audit;
pub mod avro;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod control;
pub mod dlq;
pub mod envelope;
pub mod error;
pub mod exit;
pub mod hex;
pub mod http;
pub mod iso;
pub mod json;
pub mod kafka;
pub mod metrics;
pub mod mysql;
pub mod offset;
pub mod pg_text;
pub mod postgres;
pub mod probe;
pub mod registry;
pub mod schema;
pub mod source_position;
pub mod task;
pub mod telemetry;
pub mod tls;
