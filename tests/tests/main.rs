//! The whole platform end to end, on the real services that `deploy/local/stack up` starts and the
//! real binaries that `cargo build --workspace` made.

#![expect(clippy::unwrap_used, reason = "a failure here is the test's")]

mod access;
mod away;
mod bad_input;
mod between;
mod between_replica;
mod certificates;
mod console;
mod control;
mod crash;
mod dlq;
mod fuzz;
mod groups;
mod happy;
mod health;
mod holds;
mod iceberg;
mod iceberg_catalogs;
mod iceberg_rewind;
mod iceberg_rows;
mod iceberg_verify;
mod keys;
mod leader;
mod mysql;
mod mysql_mirror;
mod mysql_transactions;
mod records;
mod rejects;
mod replica;
mod restart;
mod restored;
mod rewind;
mod rewind_steps;
mod schema;
mod schema_policy;
mod secure;
mod signals;
mod source_shapes;
mod start;
mod transactions;
mod verify;
mod watches;
