//! The whole platform end to end, on the real services that `deploy/local/stack up` starts and the
//! real binaries that `cargo build --workspace` made.

mod crash;
mod happy;
mod bad_input;
mod holds;
mod records;
