//! A terminal: its master side is ours, its slave side the init's.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::common::{Init, PATIENCE};

/// A pseudo-terminal that somebody sits at.
pub struct Pty {
    master: Option<OwnedFd>,
    slave: Option<OwnedFd>,
    /// All that was shown and not yet expected.
    shown: Vec<u8>,
}

impl Pty {
    /// A new one.
    pub fn open() -> Self {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: both descriptors are live; name, settings and size may be null.
        let result = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        assert_eq!(result, 0, "openpty: {}", io::Error::last_os_error());
        for fd in [master, slave] {
            // SAFETY: passes integers only.
            assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
        }
        // SAFETY: passes integers only.
        assert_eq!(unsafe { libc::fcntl(master, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        // SAFETY: the descriptor is new, and nobody else's.
        let master = unsafe { OwnedFd::from_raw_fd(master) };
        // SAFETY: as above.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        Self { master: Some(master), slave: Some(slave), shown: Vec::new() }
    }

    /// The slave side, once more.
    pub fn slave(&self) -> OwnedFd {
        self.slave.as_ref().expect("the slave side is let go").try_clone().unwrap()
    }

    /// Starts nothing yet: an init whose stdin, stdout and stderr are this terminal, which is its controlling terminal.
    pub fn all_of(&self, init: Init) -> Init {
        let init = init.stdin(self.slave()).stdout(self.slave()).stderr(self.slave());
        init.prepare(|| lead_session(0))
    }

    /// The same, but stdout and stderr are pipes as ever.
    pub fn stdin_of(&self, init: Init) -> Init {
        init.stdin(self.slave()).prepare(|| lead_session(0))
    }

    /// Lets our own copy of the slave side go: when the last of the others does, the master sees the end.
    pub fn let_slave_go(&mut self) {
        self.slave = None;
    }

    fn master(&self) -> i32 {
        self.master.as_ref().expect("hung up").as_raw_fd()
    }

    /// Types.
    pub fn write(&self, text: &str) {
        // SAFETY: the text is live and only read.
        let count = unsafe { libc::write(self.master(), text.as_ptr().cast(), text.len()) };
        assert_eq!(count, text.len().cast_signed());
    }

    /// Waits until this is shown, after all that was expected before; returns all up to it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read();
            if let Some(at) = self.shown.windows(text.len()).position(|window| window == text.as_bytes()) {
                let seen = self.shown.drain(..at + text.len()).collect::<Vec<_>>();
                return String::from_utf8_lossy(&seen).into_owned();
            }
            let shown = String::from_utf8_lossy(&self.shown);
            assert!(Instant::now() < deadline, "{text:?} is not in {shown:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            // SAFETY: the buffer is live and of this size.
            let count = unsafe { libc::read(self.master(), buffer.as_mut_ptr().cast(), buffer.len()) };
            match usize::try_from(count) {
                Ok(count) if count > 0 => self.shown.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
    }

    /// The foreground group, by its number in our own PID namespace; 0: none.
    pub fn foreground(&self) -> i32 {
        let mut group = 0;
        // SAFETY: TIOCGPGRP fills one pid_t, which is live.
        unsafe { libc::ioctl(self.master(), libc::TIOCGPGRP, &raw mut group) };
        group
    }

    /// Changes the window's size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one winsize, which is live.
        assert_eq!(unsafe { libc::ioctl(self.master(), libc::TIOCSWINSZ, &raw const size) }, 0);
    }

    /// Nobody sits there any more.
    pub fn hang_up(&mut self) {
        self.slave = None;
        self.master = None;
    }
}

/// Becomes the leader of a new session whose controlling terminal is `fd`; for the process that becomes the init.
pub fn lead_session(fd: i32) -> io::Result<()> {
    // SAFETY: no arguments.
    let session = unsafe { libc::setsid() };
    // SAFETY: the request takes an integer.
    let terminal = unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) };
    if session > 0 && terminal == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// In the process that becomes the init: makes another group the terminal's foreground, that of a child which waits.
pub fn leave_foreground(fd: i32) -> io::Result<()> {
    // SAFETY: this process was just forked; the child only makes system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        for fd in 0..1024 {
            // SAFETY: nothing in this process uses a descriptor afterwards.
            unsafe { libc::close(fd) };
        }
        // SAFETY: passes integers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: passes integers only.
    let group = unsafe { libc::setpgid(child, child) };
    // SAFETY: TIOCSPGRP reads one pid_t, which is live.
    let foreground = unsafe { libc::ioctl(fd, libc::TIOCSPGRP, &raw const child) };
    if child > 0 && group == 0 && foreground == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// In the process that becomes the init: opens the terminal of this path as controlling terminal, and keeps no
/// descriptor of it.
pub fn take_terminal(path: &CStr) -> io::Result<()> {
    // SAFETY: no arguments.
    unsafe { libc::setsid() };
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the request takes an integer; opening made it ours already if it is allowed to.
    unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) };
    // SAFETY: the descriptor is ours, and not used again.
    drop(unsafe { File::from_raw_fd(fd) });
    Ok(())
}
