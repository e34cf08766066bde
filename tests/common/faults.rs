//! One system call of a program, or of what it starts, fails: seccomp's user notification lets the tester answer each
//! (seccomp_unotify(2)).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;

use sexton::setup::seccomp::calls::number;
use sexton::sys::Errno;
use sexton::sys::process::pidfd_open;
use sexton::sys::seccomp::{allow, answer, jump_if_equal, load};

use super::{Init, Output};

/// Calls that do not fail, or whose failure nobody has to tell: memory, signals, ends. And what happens between the
/// filter's start and the program's, when nobody answers yet.
const UNASKED: [i64; 25] = [
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_umask,
    libc::SYS_execve,
    libc::SYS_dup3,
    libc::SYS_wait4,
];

/// Those that a setup may make, by name.
const NAMES: &str = "access capget capset chdir chroot clone fadvise64 fchdir fcntl flock fstatfs getdents64 getcwd \
    getgroups getpriority getrandom ioctl lseek mkdir mkdirat mknod mknodat mount mount_setattr move_mount newfstatat \
    open openat open_tree pipe2 pivot_root poll ppoll pread64 prctl prlimit64 read readlink readlinkat recvfrom rmdir \
    seccomp sendto setdomainname setgroups sethostname setns setpgid setpriority setresgid setresuid setsockopt \
    signalfd4 socket statfs statx symlinkat umount2 uname unlinkat unshare vfork waitid write arch_prctl";

/// Where the program that is started has the listener.
const LISTENER: i32 = 200;

/// A call of the setup: by which of the two processes, and its how many-eth it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    pub is_outside: bool,
    pub index: usize,
    pub number: i64,
    pub first: u64,
}

impl Call {
    /// Its name, and its first argument.
    pub fn name(&self) -> String {
        let known = NAMES.split_ascii_whitespace().find(|name| number(name).map(i64::from) == Some(self.number));
        let side = if self.is_outside { "outside" } else { "inside" };
        format!("{side} {}: {}({:#x})", self.index, known.unwrap_or("?"), self.first)
    }
}

/// What is to fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub call: Call,
    /// Every call of its kind fails, as in a kernel that does not have it.
    pub always: bool,
    pub errno: Errno,
}

impl Fault {
    fn hits(&self, call: &Call) -> bool {
        let is_kind =
            self.call.number == call.number && (call.number != libc::SYS_prctl || self.call.first == call.first);
        let is_it = (self.call.is_outside, self.call.index) == (call.is_outside, call.index);
        if self.always { is_kind } else { is_it }
    }
}

/// Runs sexton to its end; of the calls that it makes until the command runs, some fail. Returns all of them.
pub fn run(init: Init, fault: Option<Fault>) -> (Output, Vec<Call>) {
    let running = init.not_pid1().prepare(install).start();
    let outside = running.pid.unsigned_abs();
    let pidfd = pidfd_open(running.pid).unwrap();
    // SAFETY: passes integers only.
    let listener = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), LISTENER, 0) };
    assert!(listener >= 0, "pidfd_getfd: {}", io::Error::last_os_error());
    // SAFETY: the call has just made it, and nobody else owns it.
    let listener = unsafe { OwnedFd::from_raw_fd(i32::try_from(listener).unwrap()) };
    let answering = thread::spawn(move || answer_all(&listener, outside, fault));
    let output = running.finish();
    (output, answering.join().unwrap())
}

/// In the process that is to be the program.
fn install() -> io::Result<()> {
    let mut program = [allow(); 2 * UNASKED.len() + 2];
    program[0] = load(0);
    for (pair, call) in program[1..].chunks_exact_mut(2).zip(UNASKED) {
        pair[0] = jump_if_equal(u32::try_from(call).unwrap_or(0), 0, 1);
    }
    program[2 * UNASKED.len() + 1] = answer(libc::SECCOMP_RET_USER_NOTIF);
    let length = u16::try_from(program.len()).unwrap_or(0);
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the filter is live, and so is its program, of that many instructions.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) };
    // SAFETY: passes integers only.
    let copied = listener >= 0 && unsafe { libc::dup3(i32::try_from(listener).unwrap_or(-1), LISTENER, 0) } >= 0;
    if copied { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn answer_all(listener: &OwnedFd, outside: u32, fault: Option<Fault>) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut command_runs = false;
    while let Some(asked) = receive(listener) {
        let name = fs::read_to_string(format!("/proc/{}/comm", asked.pid)).unwrap_or_default();
        let is_sexton = name == "sexton\n";
        // Before it there may be the one that denies newer calls.
        command_runs |= !is_sexton && !calls.is_empty();
        let mut errno = 0;
        if is_sexton && !command_runs {
            let is_outside = asked.pid == outside;
            let index = calls.iter().filter(|call| call.is_outside == is_outside).count();
            let (number, first) = (i64::from(asked.data.nr), asked.data.args[0]);
            let call = Call { is_outside, index, number, first };
            errno = fault.filter(|fault| fault.hits(&call)).map_or(0, |fault| fault.errno as i32);
            calls.push(call);
        }
        let go_on = if errno == 0 { GO_ON } else { 0 };
        let mut answer = libc::seccomp_notif_resp { id: asked.id, val: 0, error: -errno, flags: go_on };
        // SAFETY: the answer is live, and of the type that the request states. Who asked may be dead.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw mut answer) };
    }
    calls
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND`: `_IOWR('!', 0, struct seccomp_notif)`, and 1 with its answer.
const RECEIVE: libc::c_ulong = 0xC000_2100 | (size_of::<libc::seccomp_notif>() as libc::c_ulong) << 16;
const SEND: libc::c_ulong = 0xC000_2101 | (size_of::<libc::seccomp_notif_resp>() as libc::c_ulong) << 16;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`: the call is made, as if nobody had been asked.
const GO_ON: u32 = 1;

/// The next call; `None`: nobody is left who could make one.
fn receive(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the structure is live, and one.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
        if poll.revents & libc::POLLIN == 0 {
            return None;
        }
        // SAFETY: all zeros are a valid one, and what the kernel demands.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: it is live, and of the type that the request states.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked) } == 0 {
            return Some(asked);
        }
    }
}
