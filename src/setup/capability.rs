//! Capabilities by name and number (capabilities(7)).
#![forbid(unsafe_code)]

use std::fmt;

/// In the order of their numbers (include/uapi/linux/capability.h). Linux 5.9 added the last one so far.
const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE \
    SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL \
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

/// A set of capabilities: each a bit, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// How many there can ever be (`struct __user_cap_data_struct`, version 3, has two words).
    pub const MOST: u8 = 64;

    /// None.
    pub const NONE: Self = Self(0);

    /// The one of this number.
    pub const fn only(number: u8) -> Self {
        Self(1 << number)
    }

    /// The one of this name, with or without CAP_, in any case. The error is the nearest name there is.
    pub fn named(name: &str) -> Result<Self, &'static str> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        for (number, known) in (0..Self::MOST).zip(NAMES.split(' ')) {
            if known == bare {
                return Ok(Self::only(number));
            }
        }
        Err(NAMES.split(' ').min_by_key(|known| strsim::levenshtein(known, bare)).unwrap_or_default())
    }

    /// Whether it holds this number.
    pub const fn has(self, number: u8) -> bool {
        self.0 & 1 << number != 0
    }

    /// Those in either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that the other has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it holds none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers it holds.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..Self::MOST).filter(move |number| self.has(*number))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut comma = "";
        for number in self.numbers() {
            f.write_str(comma)?;
            comma = ",";
            match NAMES.split(' ').nth(usize::from(number)) {
                Some(name) => f.write_str(name)?,
                None => write!(f, "{number}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_names_are_in_any_case_with_or_without_cap() {
        for name in ["NET_RAW", "net_raw", "CAP_NET_RAW", "cap_Net_Raw"] {
            assert_eq!(Capabilities::named(name), Ok(Capabilities::only(13)), "{name}");
        }
        assert_eq!(Capabilities::named("CHOWN"), Ok(Capabilities(1)));
        assert_eq!(Capabilities::named("CHECKPOINT_RESTORE"), Ok(Capabilities(1 << 40)));
        assert_eq!(Capabilities::named("NETRAW"), Err("NET_RAW"));
        assert!(Capabilities::named("").is_err() && Capabilities::named("CAP_").is_err());
    }

    #[test]
    fn c1_sets_are_told_by_name() {
        assert_eq!(Capabilities(0).to_string(), "none");
        assert_eq!(Capabilities(1 << 13 | 1 << 21).to_string(), "NET_RAW,SYS_ADMIN");
        assert_eq!(Capabilities(1 << 50).to_string(), "50");
    }
}
