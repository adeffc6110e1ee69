//! The worker's parts against real counterparts: one binary, so that it links once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something unforeseen happens"
)]

#[cfg(feature = "iceberg")]
mod iceberg;
mod postgres;
mod replica;
mod support;
mod types;
mod webhook;
