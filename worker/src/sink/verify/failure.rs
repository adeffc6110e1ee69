//! Why a comparison came to no result.

use cdc_shared::postgres::describe;

use crate::sink::SinkError;

/// Why a comparison came to no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct TaskFailure {
    /// What is in the way, with names and numbers.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether only the time was too short for the sink to reach the source's position.
    pub not_reached: bool,
}

impl TaskFailure {
    /// It cannot be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, not_reached: false }
    }

    /// The position was not reached in time.
    pub fn not_reached(message: impl Into<String>) -> Self {
        Self { not_reached: true, ..Self::failed(message) }
    }

    /// The same with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<SinkError> for TaskFailure {
    fn from(error: SinkError) -> Self {
        Self { message: error.message, hint: error.hint, not_reached: false }
    }
}

/// An answer of a server that is none. Errors of class 22 quote values.
pub(in crate::sink) fn database(
    place: &str,
    doing: &str,
    error: &tokio_postgres::Error,
) -> TaskFailure {
    let state = error.code().map(tokio_postgres::error::SqlState::code);
    let said = match state {
        Some(state) if state.starts_with("22") => {
            format!("a value cannot be read (SQLSTATE {state})")
        }
        _ => describe(error),
    };
    let failure = TaskFailure::failed(format!("{doing} at {place}: {said}"));
    match state {
        Some("42501") => failure.hint("grant the user SELECT on the table"),
        Some("57014") => failure.hint("the statement took too long: the server is busy, or the table has no index in the order of its key"),
        _ => failure,
    }
}
