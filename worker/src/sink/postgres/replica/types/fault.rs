//! What can be wrong with one value.

use cdc_shared::iso::IsoFault;

/// Why a value has no place in its column. Never the value itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// Stable code, the DLQ's `dlq.error_type`.
    pub(super) code: &'static str,
    /// What is wrong, to follow the column's name.
    pub(super) what: &'static str,
}

impl Fault {
    pub(super) const NUL_CHARACTER: Self = Self {
        code: "nul_character",
        what: "the text has a NUL character, which PostgreSQL cannot hold",
    };
    pub(super) const NUL_ESCAPE: Self = Self {
        code: "nul_character",
        what: "the JSON has a NUL character, which jsonb cannot hold",
    };
    pub(super) const NOT_A_NUMBER: Self =
        Self { code: "malformed_value", what: "the value is no number" };
    pub(super) const TOO_MANY_DIGITS: Self =
        Self { code: "too_many_digits", what: "the number has more digits than the column holds" };
    pub(super) const OUT_OF_RANGE: Self =
        Self { code: "out_of_range", what: "the value is beyond the range of the column's type" };
    pub(super) const FINER_THAN_MICROS: Self = Self {
        code: "too_many_digits",
        what: "the time is finer than a microsecond and would be rounded",
    };
    pub(super) const MALFORMED: Self =
        Self { code: "malformed_value", what: "the value cannot be read as the column's type" };
    pub(super) const OTHER_KIND: Self = Self {
        code: "unexpected_value",
        what: "the record holds a value of another kind than its schema says",
    };
}

impl From<IsoFault> for Fault {
    fn from(fault: IsoFault) -> Self {
        match fault {
            IsoFault::Malformed => Self::MALFORMED,
            IsoFault::OutOfRange => Self::OUT_OF_RANGE,
            IsoFault::FinerThanMicros => Self::FINER_THAN_MICROS,
        }
    }
}
