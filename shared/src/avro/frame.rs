//! Confluent framing: one zero byte, the schema id in four big-endian bytes, the datum.

/// Splits a record's key or value into its schema id and its Avro datum.
///
/// # Errors
/// Says what is wrong with the first five bytes. The datum itself is not looked at.
pub fn frame(bytes: &[u8]) -> Result<(i32, &[u8]), FrameError> {
    match bytes {
        [] => Err(FrameError::Empty),
        [0, a, b, c, d, datum @ ..] => Ok((i32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [0, ..] => Err(FrameError::CutShort { len: bytes.len() }),
        [byte, ..] => Err(FrameError::Magic { byte: *byte }),
    }
}

/// Why bytes are not a framed Avro datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There is not a single byte (a tombstone is a *null* value, not an empty one).
    #[error("empty value where a framed avro datum was expected")]
    Empty,
    /// The first byte is not the magic byte 0.
    #[error(
        "wrong magic byte 0x{byte:02x}, expected 0x00: the record was not written by an avro \
         converter with confluent framing"
    )]
    Magic {
        /// The byte that was found.
        byte: u8,
    },
    /// The magic byte is right, the schema id is not complete.
    #[error("cut short: {len} bytes where the frame alone takes 5")]
    CutShort {
        /// Bytes there are.
        len: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_id_and_datum() {
        assert_eq!(frame(&[0, 0, 0, 1, 2, 9, 8]), Ok((258, &[9, 8][..])));
        assert_eq!(frame(&[0, 0, 0, 0, 7]), Ok((7, &[][..])));
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(frame(&[]), Err(FrameError::Empty));
        assert_eq!(frame(b"{\"a\":1}"), Err(FrameError::Magic { byte: b'{' }));
        assert_eq!(frame(&[0, 0, 0]), Err(FrameError::CutShort { len: 3 }));
        assert!(frame(b"{").unwrap_err().to_string().contains("0x7b"));
    }
}
