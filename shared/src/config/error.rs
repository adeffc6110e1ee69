//! What is wrong with a configuration, and where.

use std::fmt;
use std::sync::Arc;

/// A place in a file, or a variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Path of the file as it was given, `template …`, or the variable's name.
    pub source: Arc<str>,
    /// Line, from 1; 0 where there are no lines.
    pub line: u32,
}

/// What the source of a built-in template begins with.
pub(super) const TEMPLATE: &str = "template ";

impl Place {
    /// Whether this is a place in a built-in template, which no user can mend.
    pub(super) fn is_built_in(&self) -> bool {
        self.source.starts_with(TEMPLATE)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.source),
            line => write!(f, "{}:{line}", self.source),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written.
    pub place: Place,
    /// Dotted path of the setting, such as `sinks[1].postgres.port`; empty for a whole file.
    pub path: String,
    /// What is wrong and how to mend it. Never the value of a secret.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.place, self.message)
        } else {
            write!(f, "{}: {}: {}", self.place, self.path, self.message)
        }
    }
}

/// Everything that is wrong, in the order of the files. Its text has one line per error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
