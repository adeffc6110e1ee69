//! How the coordinator learns where this worker is, and what it wants of it.

pub mod client;
pub mod reporter;
