//! Classic BPF programs for seccomp(2).

use super::Errno;

/// One instruction.
pub type Instruction = libc::sock_filter;

#[allow(clippy::cast_possible_truncation)] // All codes are below 256 (linux/bpf_common.h).
const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code: code as u16, jt, jf, k }
}

/// Loads the 32 bits at this offset of `struct seccomp_data`.
pub const fn load(offset: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Skips `then` instructions if what was loaded equals `value`, `otherwise` if not.
pub const fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, otherwise, value)
}

/// Skips `skip` instructions if what was loaded has none of these bits.
pub const fn jump_if_no_bit(bits: u32, skip: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, skip, bits)
}

/// Keeps only these bits of what was loaded.
pub const fn keep_bits(bits: u32) -> Instruction {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, bits)
}

/// Lets the call through.
pub const fn allow() -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW)
}

/// Makes the call fail with this errno.
pub const fn refuse(errno: Errno) -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32)
}

/// `prctl(PR_SET_NO_NEW_PRIVS)` and `prctl(PR_SET_SECCOMP)`: the filter holds from now on for this process and all it
/// starts. EINVAL: not a valid program.
pub fn set_filter(program: &[Instruction]) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: filter points to a live program of that many instructions, which the kernel copies and checks.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) }).map(drop)
}
