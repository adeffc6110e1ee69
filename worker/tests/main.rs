//! The worker's parts against real counterparts.

mod webhook;
