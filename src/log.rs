//! Lines on stderr that never block and never kill.
//!
//! The `log` macros lead through env_logger to [`Stderr`]. A pipe that nobody reads, a closed descriptor, a stopped
//! terminal: the line is dropped and counted, and the next one that fits tells how many are missing.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use crate::cli::Personality;
use crate::sys::{Errno, fd};

/// The environment variable that sets what is logged, in `env_logger`'s words: `debug`, `sexton::supervise=info`.
pub const VARIABLE: &str = "SEXTON_LOG";

/// The longest line that a pipe takes whole or not at all (`PIPE_BUF`, pipe(7)).
const LINE_LIMIT: usize = 4096;

/// Sends log records to stderr. `verbosity`: -1 errors, 0 warnings, 1 what happens, 2 or more each orphan too.
pub fn start(personality: Personality, verbosity: i8) {
    let level = match verbosity {
        ..=-1 => LevelFilter::Error,
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2.. => LevelFilter::Debug,
    };
    let mut builder = Builder::new();
    builder.filter_level(level);
    if let Some(filters) = std::env::var_os(VARIABLE).as_deref().and_then(std::ffi::OsStr::to_str) {
        builder.parse_filters(filters);
    }
    builder.target(Target::Pipe(Box::new(Stderr::default())));
    builder.format(move |line, record| match personality {
        // Scripts look for tini's warnings in tini's form.
        Personality::Tini => {
            let level = match record.level() {
                Level::Error => "FATAL",
                Level::Warn => "WARN ",
                Level::Info => "INFO ",
                Level::Debug | Level::Trace => "DEBUG",
            };
            writeln!(line, "[{level} tini ({})] {}", std::process::id(), record.args())
        }
        other => writeln!(line, "{}: {}", other.name(), record.args()),
    });
    // It fails only if there is a logger already, which then stays.
    let _ = builder.try_init();
    take_memory();
}

/// While this is set, lines are made and not written.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// A line that is longer than any of ours: what `env_logger` allocates for its first line, in this thread and for ever, it
/// has from now on. Later there may be none (H3).
fn take_memory() {
    IS_QUIET.store(true, Ordering::Relaxed);
    // The loop's lines may be the only ones that are let through.
    log::error!(target: "sexton::supervise", "{:256}", "");
    IS_QUIET.store(false, Ordering::Relaxed);
}

/// Writes one line of its own, whatever is logged: for the error that ends the program.
pub fn complain(line: &str) {
    let mut text = String::with_capacity(line.len() + 10);
    text.push_str("sexton: ");
    // One line, whatever bytes a name in it has.
    text.extend(line.chars().map(|c| if c.is_control() { '?' } else { c }));
    text.push('\n');
    let _ = Stderr::default().write(text.as_bytes());
}

/// Standard error, written to without waiting.
#[derive(Default)]
pub struct Stderr {
    way: Option<Way>,
    dropped: u64,
}

/// How to write without waiting; chosen at the first line.
enum Way {
    /// A file: writing does not wait.
    Plain,
    /// A socket.
    Socket,
    /// The same pipe or terminal, opened once more: only so can it be non-blocking without the command's stderr being so.
    Reopened(OwnedFd),
    /// No way to open it again (no /proc, another user's pipe): look first, then write.
    Polled,
    /// There is no stderr.
    Closed,
}

impl Way {
    fn choose() -> Self {
        match fd::stderr_kind() {
            None => Self::Closed,
            Some(fd::Kind::File) => Self::Plain,
            Some(fd::Kind::Socket) => Self::Socket,
            Some(fd::Kind::Stream) => {
                let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
                open("/proc/self/fd/2", flags, Mode::empty()).map_or(Self::Polled, Self::Reopened)
            }
        }
    }

    fn write(&self, line: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Plain => fd::write(fd::stderr(), line),
            Self::Socket => fd::send_now(fd::stderr(), line),
            Self::Reopened(own) => fd::write(own.as_fd(), line),
            Self::Polled => {
                let mut set = [PollFd::new(fd::stderr(), PollFlags::POLLOUT)];
                if poll(&mut set, PollTimeout::ZERO)? == 0 {
                    return Err(Errno::EAGAIN);
                }
                match fd::write_now(fd::stderr(), line) {
                    Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM | Errno::ESPIPE) => {
                        fd::write(fd::stderr(), line)
                    }
                    other => other,
                }
            }
            Self::Closed => Err(Errno::EBADF),
        }
    }
}

impl Write for Stderr {
    /// Takes every line; one that does not fit is counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if IS_QUIET.load(Ordering::Relaxed) {
            return Ok(line.len());
        }
        let way = self.way.get_or_insert_with(Way::choose);
        let fitting = line.get(..LINE_LIMIT).unwrap_or(line);
        if self.dropped > 0 {
            let mut missing = io::Cursor::new([0; 80]);
            let _ = writeln!(missing, "sexton: {} lines of this log did not fit and are missing", self.dropped);
            let length = usize::try_from(missing.position()).unwrap_or(0);
            if missing.get_ref().get(..length).is_some_and(|text| way.write(text).is_ok()) {
                self.dropped = 0;
            }
        }
        if way.write(fitting).is_err() {
            self.dropped = self.dropped.saturating_add(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
