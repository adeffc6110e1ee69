//! Where records come from: one Kafka consumer on its own thread, which never blocks on a sink.
//! Order per partition, assignment as messages.

pub mod record;
