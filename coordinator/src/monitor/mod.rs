//! Monitors take no input: they look at the world, tell what they see, and change nothing, but that a
//! connector that has failed is started again a few times.

mod alarm;
mod lag;
mod pace;
mod restart;
mod silence;

pub use alarm::LagLevel;
pub use lag::{LagMonitor, LagReport, PartitionLag, SinkLag};
pub use pace::{Look, Pace};
pub use restart::Restarts;
pub use silence::{Pulse, Stall};
