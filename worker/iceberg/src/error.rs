//! What can go wrong with a lake, as far as a sink has to tell it apart.

use cdc_shared::error::caused_by;

use crate::warehouse::S3Error;

/// What an error means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Catalog or warehouse cannot be reached, or refuse us; nothing was changed.
    Unavailable,
    /// The catalog did not answer a commit: it may have been taken.
    Unknown,
    /// Others committed before us, again and again.
    Contended,
    /// The table is not there.
    Missing,
    /// The table is another one than the sink has filled, or was taken back to before the sink.
    Replaced,
    /// The table, or a change of it that the source asks for, is none that the sink can write.
    Unfit,
    /// A setting is wrong.
    Configuration,
    /// The program contradicts itself.
    Internal,
}

/// An error of a lake. Never holds row data or secrets.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LakeError {
    /// What it means.
    pub kind: Kind,
    /// Stable code.
    pub code: &'static str,
    /// What was tried, on what, and what came back.
    pub message: String,
    /// What an operator can do about it.
    pub hint: Option<String>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What functions of this crate give.
pub type Result<T> = std::result::Result<T, LakeError>;

impl LakeError {
    /// An error without a cause of its own.
    pub fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), hint: None, source: None }
    }

    /// With what an operator can do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With its cause, which is also told.
    #[must_use]
    pub fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        let message = format!("{}: {source}", self.message);
        Self { message, source: Some(Box::new(source)), ..self }
    }

    /// Files of a table that could not be read or written.
    pub(crate) fn warehouse(
        doing: &str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let Some(s3) = caused_by::<S3Error>(&source).cloned() else {
            return Self::new(Kind::Unavailable, "warehouse_unavailable", doing).caused_by(source);
        };
        let (code, hint) = s3.advice();
        Self::new(Kind::Unavailable, code, doing).caused_by(s3).hint(hint)
    }

    /// What the program should have made right.
    pub(crate) fn internal(
        doing: &str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::new(Kind::Internal, "internal", doing).caused_by(source)
    }
}
