//! What both binaries share.

pub mod avro;
pub mod envelope;
pub mod json;
