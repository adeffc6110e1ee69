//! What an error of a lake means for delivery.

use cdc_iceberg::{Kind, LakeError};
use cdc_shared::offset::TopicPartition;

use crate::sink::{Disposition, SinkError};

/// What to do about it.
///
/// | Error | disposition |
/// |---|---|
/// | catalog or warehouse out of reach, or they refuse us | Retry |
/// | a commit without an answer, others committed first | Retry: the next attempt looks first |
/// | table gone, replaced, taken back to before the sink, or none that it can write | Stop |
/// | a setting, the program itself | Fatal |
fn disposition(kind: Kind) -> Disposition {
    match kind {
        Kind::Unavailable | Kind::Unknown | Kind::Contended => Disposition::Retry(None),
        Kind::Missing | Kind::Replaced | Kind::Unfit => Disposition::Stop,
        Kind::Configuration | Kind::Internal => Disposition::Fatal,
    }
}

/// An error of the lake as the sink tells it.
pub(super) fn sink_error(doing: &str, error: LakeError) -> SinkError {
    SinkError {
        code: error.code.to_owned(),
        message: format!("{doing}: {}", error.message),
        hint: error.hint,
        disposition: disposition(error.kind),
        source: error.source,
    }
}

/// The same for one of several partitions that it concerns.
pub(super) fn told(doing: &str, error: &LakeError) -> SinkError {
    SinkError {
        code: error.code.to_owned(),
        message: format!("{doing}: {}", error.message),
        hint: error.hint.clone(),
        disposition: disposition(error.kind),
        source: None,
    }
}

/// Rows that the table can never take: the first of them is looked for, and not given up.
pub(super) fn refused(doing: &str, error: LakeError) -> SinkError {
    SinkError { disposition: Disposition::RejectAndStop, ..sink_error(doing, error) }
}

/// A row under its new key waits for the partition of its old one.
pub(super) fn waiting(tp: &TopicPartition) -> SinkError {
    SinkError {
        code: "waiting_for_moved_row".to_owned(),
        message: format!(
            "{tp} has a row under its new key, and the partition of its old key is behind"
        ),
        hint: Some("if that partition is held, see there".to_owned()),
        disposition: Disposition::Retry(None),
        source: None,
    }
}

/// What the program does not expect of itself.
pub(super) fn internal(message: String) -> SinkError {
    SinkError {
        code: "internal".to_owned(),
        message,
        hint: None,
        disposition: Disposition::Fatal,
        source: None,
    }
}
