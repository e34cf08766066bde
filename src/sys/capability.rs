//! A process's capability sets (capabilities(7)): read here, changed by the command itself ([`super::change`]).

use super::Errno;
use crate::setup::capability::Capabilities;

/// The three sets of capget(2) and capset(2).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sets {
    /// What is in force.
    pub effective: Capabilities,
    /// What may be in force.
    pub permitted: Capabilities,
    /// What is kept over an exec of a file that has it inheritable.
    pub inheritable: Capabilities,
}

/// `struct __user_cap_header_struct`: 64 capabilities, and this process.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`, Linux 2.6.26.
const VERSION_3: u32 = 0x2008_0522;
const HEADER: Header = Header { version: VERSION_3, pid: 0 };

/// `struct __user_cap_data_struct`: effective, permitted, inheritable; the lower 32 first, then the upper.
type Data = [[u32; 3]; 2];

#[allow(clippy::cast_possible_truncation)] // The halves of 64 bits.
const fn halves(set: Capabilities) -> [u32; 2] {
    [set.0 as u32, (set.0 >> 32) as u32]
}

/// `capget(2)` of this process.
pub fn own() -> Result<Sets, Errno> {
    let mut header = HEADER;
    let mut data: Data = Default::default();
    // SAFETY: both are live, and of the layout that version 3 stands for.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let set = |index: usize| Capabilities(u64::from(data[0][index]) | u64::from(data[1][index]) << 32);
    Ok(Sets { effective: set(0), permitted: set(1), inheritable: set(2) })
}

/// `capset(2)` of this process. Allocates nothing. EPERM: more than is permitted. What is no longer both permitted and
/// inheritable leaves the ambient set too.
pub fn set_own(sets: &Sets) -> Result<(), Errno> {
    let mut header = HEADER;
    let (effective, permitted) = (halves(sets.effective), halves(sets.permitted));
    let inheritable = halves(sets.inheritable);
    let data: Data = [0, 1].map(|half| [effective[half], permitted[half], inheritable[half]]);
    // SAFETY: both are live, and of the layout that version 3 stands for.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// The bounding set, `prctl(PR_CAPBSET_READ)`: of the numbers that this kernel knows.
pub fn bounding() -> Result<Capabilities, Errno> {
    let mut set = Capabilities::NONE;
    for number in 0..Capabilities::MOST {
        // SAFETY: passes integers only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) }) {
            Ok(0) => {}
            Ok(_) => set = set.and(Capabilities::only(number)),
            // The kernel knows no more.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_the_sets_are_those_of_proc() {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            Capabilities(u64::from_str_radix(line.trim(), 16).unwrap())
        };
        let expected = Sets { effective: field("CapEff:"), permitted: field("CapPrm:"), inheritable: field("CapInh:") };
        assert_eq!(own(), Ok(expected));
        assert_eq!(bounding(), Ok(field("CapBnd:")));
        assert_eq!(halves(Capabilities(0x1_0000_0002)), [2, 1]);
    }
}
