//! A signal's number and its names.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// A signal number, 1 to 64: Linux's own numbering, real-time signals included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Signal(u8);

/// The first real-time signal that programs may use, as the C libraries count it (`SIGRTMIN`; the kernel's is 32).
const RTMIN: u8 = 34;
/// The last signal (`SIGRTMAX`, `_NSIG` in the kernel).
const RTMAX: u8 = 64;

/// Names without SIG, by number; `signal(7)`, x86 and Arm column.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Second names for the same numbers.
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

macro_rules! signals {
    ($($name:ident = $number:literal),*) => { $(#[doc = concat!("SIG", stringify!($name))] pub const $name: Self = Self($number);)* };
}

impl Signal {
    signals!(
        HUP = 1,
        INT = 2,
        QUIT = 3,
        KILL = 9,
        PIPE = 13,
        TERM = 15,
        CHLD = 17,
        CONT = 18,
        STOP = 19,
        TSTP = 20,
        TTIN = 21,
        TTOU = 22
    );
    /// How many signals there are; they are numbered from 1.
    pub const COUNT: u8 = RTMAX;

    /// The signal with this number, if there is one.
    pub fn new(number: i64) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| (1..=RTMAX).contains(n)).map(Self)
    }

    /// The number, as the system calls take it.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }

    /// The number, as a byte.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// Every signal, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=RTMAX).map(Self)
    }

    /// Whether the kernel queues each one that is sent (`signal(7)`, real-time signals).
    pub fn is_realtime(self) -> bool {
        self.0 > 31
    }

    /// Whether this signal usually asks a program to end, and so starts the clock of `--kill-after`.
    pub fn asks_to_stop(self) -> bool {
        matches!(self, Self::TERM | Self::INT | Self::QUIT | Self::HUP)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n @ 1..=31 => write!(f, "SIG{}", NAMES[usize::from(n) - 1]),
            n @ 32..RTMIN => write!(f, "SIG{n}"),
            RTMIN => f.write_str("SIGRTMIN"),
            RTMAX => f.write_str("SIGRTMAX"),
            n => write!(f, "SIGRTMIN+{}", n - RTMIN),
        }
    }
}

/// Why a text names no signal.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownSignal;

impl fmt::Display for UnknownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such signal: use a name (TERM, SIGTERM, RTMIN+1) or a number from 1 to 64")
    }
}

impl std::error::Error for UnknownSignal {}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Reads `TERM`, `SIGTERM`, `15`, `RTMIN+2`, `SIGRTMAX-1`; letters in either case.
    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().and_then(Self::new).ok_or(UnknownSignal);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            return u8::try_from(index + 1).map(Self).map_err(|_| UnknownSignal);
        }
        if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            return Ok(Self(*number));
        }
        let number = if let Some(offset) = name.strip_prefix("RTMIN") {
            i64::from(RTMIN) + real_time_offset(offset, '+')?
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            i64::from(RTMAX) - real_time_offset(offset, '-')?
        } else {
            return Err(UnknownSignal);
        };
        Self::new(number).filter(|signal| signal.0 >= RTMIN).ok_or(UnknownSignal)
    }
}

/// Reads what stands behind RTMIN or RTMAX: nothing, or `sign` and a number.
fn real_time_offset(text: &str, sign: char) -> Result<i64, UnknownSignal> {
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.strip_prefix(sign).ok_or(UnknownSignal)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UnknownSignal);
    }
    digits.parse::<u8>().map(i64::from).map_err(|_| UnknownSignal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_names_with_and_without_sig_numbers_and_real_time() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("CLD", 17),
            ("POLL", 29),
            ("RTMIN", 34),
            ("RTMIN+1", 35),
            ("SIGRTMAX", 64),
            ("RTMAX-2", 62),
            ("RTMIN+30", 64),
            ("64", 64),
            ("32", 32),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
        }
    }

    #[test]
    fn s9_what_does_not_exist_is_refused() {
        for text in ["", "0", "65", "-1", "FOO", "SIG", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMAX-31", "RTMIN+", "1x"] {
            assert_eq!(text.parse::<Signal>(), Err(UnknownSignal), "{text}");
        }
    }

    #[test]
    fn every_name_reads_back() {
        for signal in Signal::all() {
            let text = signal.to_string();
            if (32..34).contains(&signal.0) {
                assert_eq!(text, format!("SIG{}", signal.0));
            } else {
                assert_eq!(text.parse(), Ok(signal), "{text}");
            }
        }
    }
}
