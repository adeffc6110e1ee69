//! The webhook sink against a receiver that misbehaves.
#![expect(clippy::unwrap_used, reason = "a test ends where something unforeseen happens")]

mod connection;
mod driver;
mod failures;
mod ordering;
mod receiver;
