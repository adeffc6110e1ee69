//! The whole platform end to end, on the real services that `deploy/local/stack up` starts and the
//! real binaries that `cargo build --workspace` made.

#![expect(clippy::unwrap_used, reason = "a failure here is the test's")]

mod bad_input;
mod crash;
mod happy;
mod holds;
mod records;
mod replica;
mod secure;
mod verify;
