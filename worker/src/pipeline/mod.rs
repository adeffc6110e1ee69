//! What happens to the records of one partition between Kafka and the sink.

pub mod breaker;
pub mod dlq;
