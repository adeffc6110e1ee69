//! Integration tests of the worker's parts against real servers.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

mod postgres;
mod support;
