//! The pipeline's consumer group P: its offset of a partition is the lowest watermark of all
//! sinks that count.
//!
//! Nothing reads P to start from. It exists for people, for tools, and for a way back to a
//! consumer that knows only one group. So it may always wait, and it must never be too high.

mod observe;
pub mod plan;
mod tick;

pub use observe::{Members, Observation, members, observe};
pub use tick::{GroupTicker, GroupView, TICK};
