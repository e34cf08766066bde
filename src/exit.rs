//! What an end means: wait status to exit code, and in words.
#![forbid(unsafe_code)]

pub mod refusal;

use std::fmt;

use crate::sys::process::WaitStatus;

/// The exit code that stands for this end: its own, or 128+n for signal n (X1).
pub fn code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(code) => code,
        WaitStatus::Signaled(signal) | WaitStatus::Stopped(signal) => 128 + signal.byte(),
    }
}

impl fmt::Display for WaitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Signaled(signal) => write!(f, "was ended by {signal}"),
            Self::Stopped(signal) => write!(f, "was stopped by {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Signal;

    #[test]
    fn x1_every_code_and_every_signal() {
        for value in 0..=255 {
            assert_eq!(code(WaitStatus::Exited(value)), value);
        }
        for signal in Signal::all() {
            assert_eq!(i32::from(code(WaitStatus::Signaled(signal))), 128 + signal.number());
        }
    }
}
