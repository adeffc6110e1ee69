//! What lies behind an error.

use std::error::Error;
use std::io;

/// The innermost cause of an error.
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a dyn Error {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

/// The causes of an error, outermost first. An [`io::Error`] carries another error that its
/// `source` leaves out.
pub fn causes<'e>(error: &'e dyn Error) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| {
        let cause: &'e (dyn Error + 'static) = *cause;
        match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(carried) => Some(carried as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}

/// The outermost cause of this type.
pub fn caused_by<E: Error + 'static>(error: &dyn Error) -> Option<&E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn what_an_io_error_carries_is_a_cause() {
        let number = "x".parse::<u8>().unwrap_err();
        let error = Outer(io::Error::other(number.clone()));
        assert_eq!(caused_by::<std::num::ParseIntError>(&error), Some(&number));
        assert!(caused_by::<io::Error>(&error).is_some());
        assert!(caused_by::<Outer>(&error).is_none());
        assert_eq!(causes(&error).count(), 2);
    }
}
