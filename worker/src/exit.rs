//! Why a worker ends, and with which code, so that whoever supervises it knows whether another
//! start can help.

use cdc_shared::config::ConfigErrors;
use cdc_shared::exit::Exit;

use crate::admin::AdminError;
use crate::sink::SinkError;

/// Why a worker ends other than by a clean drain. A record, a sink that cannot be reached and a
/// coordinator that is away are never among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// The configuration.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// A setting that only its use could prove wrong: a certificate file, a client property.
    #[error("{0}")]
    Setting(String),
    /// The sink says that configuration or binary do not fit it ([`crate::sink::Progress::Fatal`]).
    #[error("sink {sink_id}: {error}")]
    Sink {
        /// The sink.
        sink_id: String,
        /// What it said.
        #[source]
        error: Box<SinkError>,
    },
    /// The address for `/livez`, `/readyz` and `/metrics`.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Something outside that a command needs at once.
    #[error("{0}")]
    Dependency(String),
    /// The Kafka client is beyond repair (fenced, protocol not supported): a new one may work.
    #[error("kafka client: {0}")]
    KafkaFatal(String),
    /// Told to end at once, before everything was drained. What was not durable is read again.
    #[error("ended by a second signal before the drain was complete")]
    Interrupted,
    /// The time for the drain was over. What was not durable is read again.
    #[error("drain not complete after {0:?}")]
    DrainTimeout(std::time::Duration),
    /// A task ended that must not end.
    #[error("task {0} ended unexpectedly")]
    Task(String),
}

impl Failure {
    /// Which code it gives.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Config(_) | Self::Setting(_) | Self::Sink { .. } => Exit::Config,
            Self::Admin(_) | Self::Dependency(_) => Exit::Unavailable,
            Self::KafkaFatal(_) | Self::Interrupted | Self::DrainTimeout(_) => Exit::TempFail,
            Self::Task(_) => Exit::Software,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Disposition;

    #[test]
    fn another_start_is_asked_for_only_when_it_can_help() {
        let fatal = SinkError {
            code: "sqlstate_42804".into(),
            message: "column a: wrong type".into(),
            hint: None,
            disposition: Disposition::Fatal,
            source: None,
        };
        let failure = Failure::Sink { sink_id: "pg".into(), error: Box::new(fatal) };
        assert_eq!(failure.to_string(), "sink pg: column a: wrong type");
        assert_eq!(failure.exit(), Exit::Config);
        assert_eq!(Failure::KafkaFatal("fenced".into()).exit(), Exit::TempFail);
        assert_eq!(Failure::Task("consumer".into()).exit(), Exit::Software);
    }
}
