//! The worker's parts against real counterparts: one binary, so that it links once.

mod postgres;
mod support;
mod webhook;
