//! Monitors take no input: they look at the world, tell what they see, and change nothing.

mod lag;

pub use lag::{LagMonitor, LagReport, PartitionLag, SinkLag};
