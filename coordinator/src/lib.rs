//! The coordinator, control plane of one pipeline and never on its data path, and the command
//! line of the whole platform.
//!
//! It keeps watermarks, commits the pipeline's group, tells workers what operators want, and says
//! how everything is. If it is away, every sink goes on.

pub mod cli;
pub mod connect;
mod consume;
pub mod control;
pub mod deploy;
pub mod dlq;
pub mod error;
pub mod fleet;
pub mod group;
pub mod health;
mod http;
pub mod kafka;
pub mod leader;
mod metrics;
pub mod monitor;
pub mod run;
pub mod scaling;
pub mod schema;
pub mod source;
pub mod state;
mod supervise;
pub mod task;
pub mod watermark;

pub use error::CoordinatorError;
pub use run::{ServeOptions, run};
