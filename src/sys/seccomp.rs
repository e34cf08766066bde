//! Classic BPF programs for seccomp(2).

use super::Errno;

/// One instruction.
pub type Instruction = libc::sock_filter;

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
pub const LONGEST: usize = 4096;

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

/// The same for greater than `value`.
pub const fn jump_if_greater(value: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, then, otherwise, value)
}

/// The same for `value` and above.
pub const fn jump_if_at_least(value: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, then, otherwise, value)
}

/// Skips `skip` instructions if what was loaded has none of these bits.
pub const fn jump_if_no_bit(bits: u32, skip: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, skip, bits)
}

/// Skips so many instructions, however many.
pub const fn jump(skip: u32) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, skip)
}

/// Keeps only these bits of what was loaded.
pub const fn keep_bits(bits: u32) -> Instruction {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, bits)
}

/// Ends with this answer, a `SECCOMP_RET_*` and its data.
pub const fn answer(value: u32) -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

/// Lets the call through.
pub const fn allow() -> Instruction {
    answer(libc::SECCOMP_RET_ALLOW)
}

/// Makes the call fail with this errno.
pub const fn refuse(errno: Errno) -> Instruction {
    answer(libc::SECCOMP_RET_ERRNO | errno as u32)
}

/// `seccomp(SECCOMP_SET_MODE_FILTER)`, Linux 3.17: the filter holds from now on for this process and all it starts.
/// Allocates nothing. EINVAL: no valid program; EACCES: neither no_new_privs nor CAP_SYS_ADMIN; ENOMEM: too long.
pub fn install(program: &[Instruction], flags: u32) -> Result<(), Errno> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: filter points to a live program of that many instructions, which the kernel copies and checks.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) })
        .map(drop)
}

/// The same behind `prctl(PR_SET_NO_NEW_PRIVS)`, so that no privilege is needed.
pub fn set_filter(program: &[Instruction]) -> Result<(), Errno> {
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    install(program, 0)
}
