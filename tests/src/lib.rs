//! What the end-to-end tests stand on: the addresses of the local stack, pipelines of their own,
//! the real binaries as child processes, a receiver that remembers, records made by hand.
//!
//! Everything here panics with a sentence when it cannot do its work: it serves tests only.

#![expect(clippy::unwrap_used, reason = "support of tests: a failure here is a test's failure")]

pub mod acl;
pub mod browser;
pub mod catalog;
pub mod chaos;
pub mod front;
pub mod judge;
pub mod kafka;
pub mod lake;
pub mod mirror;
pub mod mysql;
pub mod pipeline;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod record;
pub mod redis;
pub mod stack;
pub mod wait;
pub mod wire;
