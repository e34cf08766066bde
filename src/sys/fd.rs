//! Descriptors: those that were inherited, and writing without waiting.

use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::Errno;

/// The most descriptors that are closed one by one where neither close_range(2) nor /proc is there.
const FALLBACK_LIMIT: RawFd = 65_536;

/// A standard descriptor, 0 to 2, for calls that want one. Sexton keeps all three open from its first moment on.
fn standard(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: fill_standard() saw to it that 0, 1 and 2 are open, and nothing here closes them, only replaces.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Standard input.
pub fn stdin() -> BorrowedFd<'static> {
    standard(0)
}

/// Standard error.
pub fn stderr() -> BorrowedFd<'static> {
    standard(2)
}

/// Puts a harmless CLOEXEC descriptor wherever 0, 1 or 2 is closed, so that nothing of ours lands there; the command
/// finds them closed as before. Returns whether stderr was open.
pub fn fill_standard() -> bool {
    let mut set = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: set is a live array of three; with a timeout of 0 the call only looks.
    unsafe { libc::poll(set.as_mut_ptr(), 3, 0) };
    let closed = |entry: &libc::pollfd| entry.revents & libc::POLLNVAL != 0;
    for entry in &set {
        if closed(entry) {
            // open(2) takes the lowest free number: this one, as those below are open by now. Kept on purpose.
            if let Ok(fd) = open_root() {
                std::mem::forget(fd);
            }
        }
    }
    !closed(&set[2])
}

/// `open("/", O_PATH)`: a descriptor that can be neither read nor written, and needs no /dev/null.
fn open_root() -> Result<OwnedFd, Errno> {
    // SAFETY: the path is a C string constant.
    let fd = Errno::result(unsafe { libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC) })?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets stdin and stdout go: both become `/`, opened O_PATH.
pub fn release_stdin_stdout() {
    let Ok(root) = open_root() else { return };
    for fd in [0, 1] {
        // SAFETY: passes integers only; what 0 and 1 were is not used again by sexton.
        unsafe { libc::dup3(root.as_raw_fd(), fd, libc::O_CLOEXEC) };
    }
}

/// Closes every descriptor above 2 but those in `keep`, which must be sorted.
///
/// `close_range(2)`, Linux 5.9; without it what /proc/self/fd lists, and without /proc each number below the limit.
pub fn close_inherited(keep: &[RawFd]) {
    let mut first = 3;
    for fd in keep.iter().copied().filter(|fd| *fd > 2) {
        close_between(first, fd - 1);
        first = fd + 1;
    }
    close_between(first, RawFd::MAX);
}

fn close_between(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: passes integers only; all descriptors that sexton itself owns are outside the range.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the structure is live and of the type that the call fills.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) } == 0;
    // SAFETY: read only if the call succeeded and so filled it.
    let limit = if known { unsafe { limit.assume_init() }.rlim_max } else { 1024 };
    let highest = highest_open().unwrap_or_else(|| RawFd::try_from(limit).unwrap_or(RawFd::MAX).min(FALLBACK_LIMIT));
    for fd in first..=last.min(highest) {
        // SAFETY: as above: nobody in this process owns a descriptor of this range. EBADF is no harm.
        unsafe { libc::close(fd) };
    }
}

/// The highest open descriptor, from /proc/self/fd.
fn highest_open() -> Option<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
}

/// How a write without waiting has to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Regular files and block devices: writing never waits for a reader.
    File,
    /// A socket: `MSG_DONTWAIT`.
    Socket,
    /// A pipe, terminal or other device: a full one blocks.
    Stream,
}

/// `fstat(2)`: what stderr is; where that cannot be told, something that could block. `None`: it is closed.
pub fn stderr_kind() -> Option<Kind> {
    // SAFETY: a stat of zeros is valid; it consists of integers.
    let mut stat: libc::stat = unsafe { zeroed() };
    // SAFETY: the structure is live and of the type that the call fills.
    if unsafe { libc::fstat(2, &raw mut stat) } != 0 {
        return (Errno::last() != Errno::EBADF).then_some(Kind::Stream);
    }
    Some(match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG | libc::S_IFBLK => Kind::File,
        libc::S_IFSOCK => Kind::Socket,
        _ => Kind::Stream,
    })
}

/// `write(2)`. EPIPE comes with SIGPIPE, which is blocked; the loop drops it as its own doing.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the bytes are live and only read.
    let count = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    Errno::result(count).map(isize::unsigned_abs)
}

/// `send(2)` with `MSG_DONTWAIT | MSG_NOSIGNAL`. EAGAIN: the socket's buffer is full.
pub fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes are live and only read.
    let count = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    Errno::result(count).map(isize::unsigned_abs)
}

/// `pwritev2(2)` at the current position with `RWF_NOWAIT`, for pipes since Linux 6.4. EOPNOTSUPP: not for this file.
pub fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the vector holds one live buffer, which the call only reads; -1 twice means the current position.
    let count =
        unsafe { libc::syscall(libc::SYS_pwritev2, fd.as_raw_fd(), &raw const vector, 1, -1, -1, libc::RWF_NOWAIT) };
    Errno::result(count).map(|count| usize::try_from(count).unwrap_or(0))
}

/// Standard input, output and error.
pub fn all_standard() -> [BorrowedFd<'static>; 3] {
    [standard(0), standard(1), standard(2)]
}

/// `fcntl(F_DUPFD_CLOEXEC)`: the same open file under another number, above 2.
pub fn duplicate(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    // SAFETY: passes integers only.
    let copy = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) }).ok()?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// `flock(2)` without waiting: the lock is that of the open file, so it ends with the last descriptor of it.
pub fn lock(fd: BorrowedFd<'_>, exclusive: bool) -> Result<(), Errno> {
    let operation = libc::LOCK_NB | if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: passes integers only.
    Errno::result(unsafe { libc::flock(fd.as_raw_fd(), operation) }).map(drop)
}

/// Room for at least one entry of a folder: its header and a name of 255 bytes (`NAME_MAX`), and then some.
const ENTRIES_ROOM: usize = 2048;
/// Where `struct linux_dirent64` has its own length, and its name.
const ENTRY_LENGTH: usize = 16;
const ENTRY_NAME: usize = 19;

/// `getdents64(2)`: the names in a folder, read without an allocation.
pub struct NamesOf<'a> {
    folder: BorrowedFd<'a>,
    entries: [u8; ENTRIES_ROOM],
    at: usize,
    end: usize,
}

impl<'a> NamesOf<'a> {
    /// Those behind the folder's current position.
    pub fn new(folder: BorrowedFd<'a>) -> Self {
        Self { folder, entries: [0; ENTRIES_ROOM], at: 0, end: 0 }
    }

    /// The next name; `None` at the end, or where the folder cannot be read.
    pub fn read(&mut self) -> Option<&[u8]> {
        if self.at >= self.end {
            let room = self.entries.as_mut_ptr();
            // SAFETY: the buffer is live, and its size is passed along.
            let count = unsafe { libc::syscall(libc::SYS_getdents64, self.folder.as_raw_fd(), room, ENTRIES_ROOM) };
            self.end = usize::try_from(count).ok().filter(|count| *count > 0)?;
            self.at = 0;
        }
        let entry = self.entries.get(self.at..self.end)?;
        let length = entry.get(ENTRY_LENGTH..ENTRY_LENGTH + 2)?;
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        self.at += length.max(1);
        entry.get(ENTRY_NAME..length)?.split(|byte| *byte == 0).next()
    }
}
