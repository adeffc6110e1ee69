//! How a process of ours ends: one code per kind of failure, by `sysexits.h`, so that a script or a
//! supervisor knows whether another start can help. (`health` has a scale of its own.)

use std::process::ExitCode;

/// The code a process ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Did what was asked; a worker: drained.
    Done = 0,
    /// The command line is wrong.
    Usage = 64,
    /// What was read makes no sense.
    Data = 65,
    /// A file that was named cannot be read.
    NoInput = 66,
    /// A service that is needed at once cannot be reached, or does not answer in time.
    Unavailable = 69,
    /// A fault in a service or in this program.
    Software = 70,
    /// Not now, but another start may help.
    TempFail = 75,
    /// Our credentials are refused.
    NoPerm = 77,
    /// The configuration is wrong, or in conflict with what exists: another start meets the same.
    Config = 78,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether the process said that the same start would end in the same way.
    pub fn is_final(code: i32) -> bool {
        [Self::Usage, Self::NoInput, Self::Config].iter().any(|exit| i32::from(exit.code()) == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_that_supervisors_know() {
        use Exit::{Config, Data, Done, NoInput, NoPerm, Software, TempFail, Unavailable, Usage};
        let codes = [Done, Usage, Data, NoInput, Unavailable, Software, TempFail, NoPerm, Config]
            .map(Exit::code);
        assert_eq!(codes, [0, 64, 65, 66, 69, 70, 75, 77, 78]);
        assert_eq!(
            (0..=255).filter(|code| Exit::is_final(*code)).collect::<Vec<_>>(),
            [64, 66, 78]
        );
    }
}
