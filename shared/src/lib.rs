//! What both binaries share.

pub mod config;
