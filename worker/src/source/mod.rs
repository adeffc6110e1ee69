//! Where records come from: one Kafka consumer on its own thread, which never blocks on a sink.
//! Order per partition, assignment as messages.

mod client;
pub mod consumer;
pub mod control;
pub mod flow;
pub mod given_up;
pub mod letters;
pub mod probe;
pub mod rebalance;
pub mod record;
mod room;
pub mod slots;
pub mod start_position;
