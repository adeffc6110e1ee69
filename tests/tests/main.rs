//! The whole platform end to end, on the real services that `deploy/local/stack up` starts and the
//! real binaries that `cargo build --workspace` made.

#![expect(clippy::unwrap_used, reason = "a failure here is the test's")]

mod away;
mod bad_input;
mod between;
mod control;
mod crash;
mod groups;
mod happy;
mod holds;
mod leader;
mod mysql;
mod mysql_mirror;
mod records;
mod rejects;
mod replica;
mod schema;
mod schema_policy;
mod secure;
mod signals;
mod source_shapes;
mod start;
mod verify;
