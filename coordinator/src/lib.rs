//! The coordinator: control plane of one pipeline, never on the data path.
//!
//! It keeps watermarks, commits the pipeline's group, tells workers what operators want, and says
//! how everything is. If it is away, every sink goes on.

pub mod control;
pub mod error;
pub mod fleet;
pub mod group;
pub mod health;
mod http;
pub mod leader;
mod metrics;
pub mod monitor;
pub mod ports;
pub mod run;
pub mod state;
pub mod watermark;

pub use error::CoordinatorError;
pub use run::{ServeOptions, run};
