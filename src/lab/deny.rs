//! A kernel of old, or a strict container engine, on any machine: newer system calls are refused.
#![forbid(unsafe_code)]

use std::str::FromStr;

use super::Trouble;
use crate::sys::Errno;
use crate::sys::seccomp::{Instruction, allow, jump_if_equal, jump_if_no_bit, keep_bits, load, refuse, set_filter};

/// What a refused call answers.
#[derive(Clone, Copy, Debug)]
pub struct Answer(Errno);

impl FromStr for Answer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "ENOSYS" => Ok(Self(Errno::ENOSYS)),
            "EPERM" => Ok(Self(Errno::EPERM)),
            _ => Err("use ENOSYS or EPERM"),
        }
    }
}

/// Calls that are refused whatever their arguments.
const CALLS: [i64; 11] = [
    libc::SYS_clone3,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_close_range,
    libc::SYS_openat2,
    libc::SYS_faccessat2,
    libc::SYS_pwritev2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
];

/// Offsets in `struct seccomp_data` (seccomp(2)): the call's number, and the low halves of its first two arguments.
const NUMBER: u32 = 0;
const FIRST: u32 = 16;
const SECOND: u32 = 24;

/// `CLONE_PIDFD`.
const CLONE_PIDFD: u32 = 0x1000;
/// The type and number of `PIDFD_GET_INFO`, whatever size of structure the request states.
const PIDFD_GET_INFO: u32 = 0xFF0B;

/// Refuses newer calls from now on, to this process and all that it starts.
pub fn install(answer: Answer) -> Result<(), Trouble> {
    set_filter(&program(answer.0)).map_err(|errno| Trouble(format!("seccomp(SECCOMP_SET_MODE_FILTER): {errno}")))
}

fn program(errno: Errno) -> Vec<Instruction> {
    let mut program = vec![load(NUMBER)];
    for call in CALLS {
        program.push(jump_if_equal(number(call), 0, 1));
        program.push(refuse(errno));
    }
    // clone(CLONE_PIDFD)
    program.push(jump_if_equal(number(libc::SYS_clone), 0, 4));
    program.push(load(FIRST));
    program.push(jump_if_no_bit(CLONE_PIDFD, 1));
    program.push(refuse(errno));
    program.push(allow());
    // ioctl(PIDFD_GET_INFO)
    program.push(jump_if_equal(number(libc::SYS_ioctl), 0, 4));
    program.push(load(SECOND));
    program.push(keep_bits(0xFFFF));
    program.push(jump_if_equal(PIDFD_GET_INFO, 0, 1));
    program.push(refuse(errno));
    program.push(allow());
    program
}

fn number(call: i64) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}
