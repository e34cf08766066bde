//! Namespaces: new ones, those of others, and what is set in them (namespaces(7)).
#![forbid(unsafe_code)]

use std::ffi::{OsStr, c_int};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::sethostname;

use super::step::{SetupError, State, Step};
use crate::sys::action::Action;
use crate::sys::{Errno, errno_of, namespace};

/// The kinds of namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Users, groups and capabilities.
    User,
    /// Mounts.
    Mount,
    /// Hostname and domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network devices, addresses, ports.
    Net,
    /// Process ids.
    Pid,
    /// The root of the cgroups that are seen.
    Cgroup,
    /// The boot-time and monotonic clocks.
    Time,
}

impl Kind {
    /// All of them, in the order in which they are made and joined: a user namespace first, as it owns the others.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Cgroup, Self::Ipc, Self::Uts, Self::Net, Self::Time, Self::Pid, Self::Mount];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mount",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// By its name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its file in /proc/PID/ns.
    pub fn file(self) -> &'static str {
        if self == Self::Mount { "mnt" } else { self.name() }
    }

    /// Its flag for clone(2), unshare(2) and setns(2).
    pub fn flag(self) -> c_int {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Net => libc::CLONE_NEWNET,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => namespace::CLONE_NEWTIME,
        }
    }

    fn flag_name(self) -> &'static str {
        match self {
            Self::User => "CLONE_NEWUSER",
            Self::Mount => "CLONE_NEWNS",
            Self::Uts => "CLONE_NEWUTS",
            Self::Ipc => "CLONE_NEWIPC",
            Self::Net => "CLONE_NEWNET",
            Self::Pid => "CLONE_NEWPID",
            Self::Cgroup => "CLONE_NEWCGROUP",
            Self::Time => "CLONE_NEWTIME",
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Kinds(c_int);

impl Kinds {
    /// Adds one.
    pub fn add(&mut self, kind: Kind) {
        self.0 |= kind.flag();
    }

    /// Whether this one is there.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & kind.flag() != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are there, in the order of [`Kind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// Without this one.
    #[must_use]
    pub fn without(self, kind: Kind) -> Self {
        Self(self.0 & !kind.flag())
    }

    /// All flags.
    pub fn flags(self) -> c_int {
        self.0
    }

    /// The flags' names, as strace writes them.
    pub fn flag_names(self) -> String {
        self.iter().map(Kind::flag_name).collect::<Vec<_>>().join("|")
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Kind::name).collect();
        f.write_str(&names.join(", "))
    }
}

/// What is wanted of namespaces.
#[derive(Default, Debug)]
pub struct Wanted {
    /// To make new.
    pub unshare: Kinds,
    /// To enter, by their files.
    pub join: Vec<(Kind, PathBuf)>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `--boottime`: what CLOCK_BOOTTIME is ahead, in seconds.
    pub boottime: Option<i64>,
    /// `--monotonic`: what CLOCK_MONOTONIC is ahead, in seconds.
    pub monotonic: Option<i64>,
}

impl Wanted {
    /// Whether this kind is new or joined: whether what is set in it stays in it.
    pub fn own(&self, kind: Kind) -> bool {
        self.unshare.has(kind) || self.joins(kind)
    }

    /// Whether this kind is joined.
    pub fn joins(&self, kind: Kind) -> bool {
        self.join.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether some process must be new for it: a PID namespace has none but new ones, and the maps of a user namespace
    /// are written from outside.
    pub fn need_two(&self) -> bool {
        self.unshare.has(Kind::Pid) || self.unshare.has(Kind::User)
    }

    /// What goes together and what does not.
    pub fn check(&self) -> Result<(), String> {
        for (index, (kind, _)) in self.join.iter().enumerate() {
            let name = kind.name();
            if self.unshare.has(*kind) {
                return Err(format!("--join {name} and --unshare {name}: a namespace is either new or another's"));
            }
            if self.join.iter().take(index).any(|(earlier, _)| earlier == kind) {
                return Err(format!("--join {name}: given twice"));
            }
        }
        for (option, given, kind) in
            [("--hostname", self.hostname.is_some(), Kind::Uts), ("--domainname", self.domainname.is_some(), Kind::Uts)]
        {
            if given && !self.own(kind) {
                return Err(format!("{option} would rename the machine; add --unshare {}", kind.name()));
            }
        }
        for (option, given) in [("--boottime", self.boottime), ("--monotonic", self.monotonic)] {
            if given.is_some() && !self.unshare.has(Kind::Time) {
                return Err(format!("{option} needs a time namespace of its own; add --unshare time"));
            }
        }
        Ok(())
    }
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => "not permitted; run as root (CAP_SYS_ADMIN), or add user to --unshare",
        Errno::EINVAL => "this kernel has no such namespace, or does not let this process change it",
        Errno::ENOSPC | Errno::EUSERS => "too many namespaces, or nested too deep; see /proc/sys/user/max_*_namespaces",
        Errno::EAGAIN => "no more processes; a pids limit or RLIMIT_NPROC is reached",
        Errno::ENOMEM => "no memory for a process; raise the memory limit",
        Errno::ENOSYS => "this kernel or a seccomp filter does not have it",
        _ => "the kernel refused",
    }
}

/// Why clone(2) with these flags failed.
pub fn clone_failed(kinds: Kinds, errno: Errno) -> SetupError {
    SetupError::call(format!("clone({})", kinds.flag_names()), errno, advice(errno))
}

/// Opens the namespaces to join while their paths mean what was meant: later other ones are mounted.
pub struct OpenJoined<'a>(pub &'a Wanted);

impl Step for OpenJoined<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        for (kind, path) in &self.0.join {
            let file = File::open(path).map_err(|error| {
                let advice = match errno_of(&error) {
                    Errno::ENOENT => "no such process or file",
                    Errno::EACCES | Errno::EPERM => "not permitted; run as that process's user, or as root",
                    _ => "it cannot be opened",
                };
                SetupError::io(format!("open({:?})", path.display()), &error, advice)
            })?;
            let _ = kind;
            state.namespaces.push(file.into());
        }
        Ok(())
    }
}

impl fmt::Display for OpenJoined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("open the namespaces to join:")?;
        for (_, path) in &self.0.join {
            write!(f, " {}", path.display())?;
        }
        Ok(())
    }
}

/// Joins an opened namespace. Of a PID namespace only new processes are members: the command will be one.
pub struct Join<'a>(pub &'a Wanted, pub Kind);

impl Step for Join<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let Some(index) = self.0.join.iter().position(|(kind, _)| *kind == self.1) else { return Ok(()) };
        let Some(opened) = state.namespaces.get(index) else { return Ok(()) };
        let flags = CloneFlags::from_bits_retain(self.1.flag());
        setns(opened.as_fd(), flags).map_err(|errno| {
            let advice = match errno {
                Errno::EINVAL => "it is no namespace of this kind, or is this process's own",
                Errno::EPERM => {
                    "not permitted; needs CAP_SYS_ADMIN in it, and joining its user namespace may give that"
                }
                _ => "the kernel refused",
            };
            let path = self.0.join.get(index).map(|(_, path)| path.display().to_string()).unwrap_or_default();
            SetupError::call(format!("setns({path:?}, {})", self.1.flag_name()), errno, advice)
        })
    }
}

impl fmt::Display for Join<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "join the {} namespace", self.1.name())
    }
}

/// Makes namespaces for this process itself.
pub struct Unshare(pub Kinds);

impl Step for Unshare {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        unshare(CloneFlags::from_bits_retain(self.0.flags()))
            .map_err(|errno| SetupError::call(format!("unshare({})", self.0.flag_names()), errno, advice(errno)))
    }
}

impl fmt::Display for Unshare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "new namespaces: {}", self.0)
    }
}

/// Makes a time namespace, sets its clocks, and enters it: clone(2) would enter it too, but then its clocks are set for
/// ever (time_namespaces(7)).
pub struct UnshareTime<'a>(pub &'a Wanted);

impl Step for UnshareTime<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let mut kinds = Kinds::default();
        kinds.add(Kind::Time);
        Unshare(kinds).run(state)?;
        for (clock, seconds) in [("monotonic", self.0.monotonic), ("boottime", self.0.boottime)] {
            let Some(seconds) = seconds else { continue };
            let line = format!("{clock} {seconds} 0\n");
            let written = File::options()
                .write(true)
                .open("/proc/self/timens_offsets")
                .and_then(|mut file| file.write_all(line.as_bytes()));
            written.map_err(|error| {
                let errno = errno_of(&error);
                let advice = match errno {
                    Errno::ERANGE => "the clock would be negative, or run over; take other seconds",
                    Errno::EPERM | Errno::EACCES => "not permitted; needs CAP_SYS_TIME in the user namespace",
                    _ => "needs Linux 5.6 and /proc",
                };
                SetupError::call(format!("write(\"/proc/self/timens_offsets\", {:?})", line.trim_end()), errno, advice)
            })?;
        }
        let path = "/proc/self/ns/time_for_children";
        let made =
            File::open(path).map_err(|error| SetupError::io(format!("open({path:?})"), &error, "needs /proc"))?;
        setns(made, CloneFlags::from_bits_retain(Kind::Time.flag()))
            .map_err(|errno| SetupError::call(format!("setns({path:?}, CLONE_NEWTIME)"), errno, advice(errno)))
    }
}

impl fmt::Display for UnshareTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a new time namespace")?;
        for (clock, seconds) in [("boottime", self.0.boottime), ("monotonic", self.0.monotonic)] {
            if let Some(seconds) = seconds {
                write!(f, ", {clock} {seconds:+} s")?;
            }
        }
        Ok(())
    }
}

/// A cgroup namespace has the command's own cgroup as its root, so that the command makes it, having joined.
pub struct UnshareCgroup;

impl Step for UnshareCgroup {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        state.actions.push(Action::Unshare(libc::CLONE_NEWCGROUP, "CLONE_NEWCGROUP"));
        Ok(())
    }
}

impl fmt::Display for UnshareCgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a new cgroup namespace, rooted where the command is")
    }
}

/// Sets the hostname.
pub struct Hostname<'a>(pub &'a str);

impl Step for Hostname<'_> {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        sethostname(OsStr::new(self.0))
            .map_err(|errno| SetupError::call(format!("sethostname({:?})", self.0), errno, name_advice(errno)))
    }
}

impl fmt::Display for Hostname<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the hostname {}", self.0)
    }
}

/// Sets the NIS domain name.
pub struct Domainname<'a>(pub &'a str);

impl Step for Domainname<'_> {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        namespace::set_domainname(self.0)
            .map_err(|errno| SetupError::call(format!("setdomainname({:?})", self.0), errno, name_advice(errno)))
    }
}

impl fmt::Display for Domainname<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the domain name {}", self.0)
    }
}

fn name_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EINVAL => "longer than 64 bytes",
        Errno::EPERM => "not permitted; needs CAP_SYS_ADMIN in the user namespace that owns the UTS namespace",
        _ => "the kernel refused",
    }
}
