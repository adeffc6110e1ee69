//! How a command ends when it does not end well: an exit code of `sysexits.h`, one sentence, and
//! where there is one, the way out.

use std::error::Error;
use std::fmt;

pub use cdc_shared::exit::Exit;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed, where, and why. It may have several lines.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// A service at `address` that cannot be reached.
    pub fn unreachable(service: &str, address: &str, cause: &str) -> Self {
        Self::new(Exit::Unavailable, format!("cannot reach {service} at {address}: {cause}"))
    }

    /// The same failure with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  way out: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_its_way_out() {
        let failure = Failure::new(Exit::Config, "slot x is taken").hint("choose another");
        assert_eq!(failure.to_string(), "slot x is taken\n  way out: choose another");
    }
}
