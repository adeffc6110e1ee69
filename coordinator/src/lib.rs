//! The coordinator, and the command line of the whole platform.

pub mod cli;
pub mod connect;
mod consume;
pub mod deploy;
pub mod source;
mod supervise;
