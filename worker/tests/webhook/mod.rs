//! The webhook sink against a receiver that misbehaves.

mod connection;
mod driver;
mod failures;
mod ordering;
mod receiver;
