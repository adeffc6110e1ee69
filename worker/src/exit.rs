//! How the process ends: one code per kind of failure, so that whoever supervises it knows whether
//! another start can help. The numbers are those of sysexits.

use std::process::ExitCode;

use cdc_shared::config::ConfigErrors;

use crate::admin::AdminError;
use crate::sink::SinkError;

/// The code a process ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Asked to stop, and drained.
    Clean = 0,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// Something this process cannot do without is not there (`EX_UNAVAILABLE`).
    Dependency = 69,
    /// A fault in the program (`EX_SOFTWARE`).
    Bug = 70,
    /// Start me again (`EX_TEMPFAIL`).
    Restart = 75,
    /// The configuration is wrong: another start meets the same (`EX_CONFIG`).
    Config = 78,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

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
            Self::Admin(_) | Self::Dependency(_) => Exit::Dependency,
            Self::KafkaFatal(_) | Self::Interrupted | Self::DrainTimeout(_) => Exit::Restart,
            Self::Task(_) => Exit::Bug,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Disposition;

    #[test]
    fn codes_are_those_that_supervisors_know() {
        use Exit::{Bug, Clean, Config, Dependency, Restart, Usage};
        let codes = [Clean, Usage, Dependency, Bug, Restart, Config].map(Exit::code);
        assert_eq!(codes, [0, 64, 69, 70, 75, 78]);
    }

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
        assert_eq!(Failure::KafkaFatal("fenced".into()).exit(), Exit::Restart);
        assert_eq!(Failure::Task("consumer".into()).exit(), Exit::Bug);
    }
}
