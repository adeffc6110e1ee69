//! Integration tests of the worker's parts against real servers.

mod postgres;
mod support;
