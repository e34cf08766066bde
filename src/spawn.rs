//! Starting the command: everything is prepared first, so that between clone and exec nothing is allocated.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::cli::OPTIONS_VARIABLE;
use crate::exit::refusal::{self, Refusal};
use crate::setup;
use crate::sys::Errno;
use crate::sys::action::Action;
use crate::sys::entry::{self, Arguments};
use crate::sys::process::{self, Group, Launch, LaunchError, Started, WaitStatus, launch};
use crate::sys::signal::SignalSet;

/// Where programs are looked for if PATH is not set, as execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Room for the longest pid and a zero byte.
const PID_ROOM: usize = 11;

/// The command, and how it starts.
pub struct Command<'a> {
    /// The program's own arguments, the last `words` of which are the command's.
    pub arguments: Arguments,
    /// How many.
    pub words: usize,
    /// Its first word.
    pub name: &'a OsStr,
    /// The pid that sexton was started with, outside a new PID namespace: the one that LISTEN_PID may name.
    pub started_as: u32,
    /// Group and session.
    pub group: Group,
    /// The terminal to hand over.
    pub terminal: Option<BorrowedFd<'a>>,
    /// What the new process does to itself before the exec.
    pub actions: &'a [Action],
    /// How its environment differs from ours.
    pub environment: &'a setup::environment::Environment,
    /// The signal mask to start with.
    pub mask: SignalSet,
    /// Signals to set ignored before the exec.
    pub ignore: SignalSet,
    /// Signals to set to the default before the exec.
    pub reset: SignalSet,
}

/// Why the command does not run.
pub enum SpawnError {
    /// No process could be made.
    Clone(Errno),
    /// This action failed.
    Action(usize, Errno),
    /// The program could not be executed.
    Exec(Refusal),
}

/// Starts the command. All signals must be blocked.
pub fn spawn(command: &Command<'_>) -> Result<Started, SpawnError> {
    let mut environment = Environment::new(command.environment, command.started_as);
    let search = (!command.name.as_bytes().contains(&b'/')).then(|| environment.path().to_owned());
    let mut try_with = |paths: &[u8], argv| {
        launch(&Launch {
            paths,
            argv,
            envp: environment.pointers(),
            pid_text: environment.pid_text(),
            group: command.group,
            terminal: command.terminal.map(|fd| fd.as_raw_fd()),
            actions: command.actions,
            mask: command.mask,
            ignore: command.ignore,
            reset: command.reset,
        })
    };
    let mut result = try_with(&candidates(command.name, search.as_deref()), command.arguments.last(command.words));
    if let Err(LaunchError::Exec(Errno::ENOEXEC)) = result
        && let Some(file) = refusal::refused_file(command.name, search.as_deref())
        && refusal::is_text(&file)
        && let Ok(file) = CString::new(file.into_os_string().as_bytes())
    {
        // A text without #! line, which shells and execvp(3) take for a shell script.
        let shell = c"/bin/sh";
        let mut argv = vec![shell.as_ptr(), file.as_ptr()];
        argv.extend(command.arguments.last_pointers(command.words).iter().skip(1));
        argv.push(ptr::null());
        result = try_with(shell.to_bytes_with_nul(), argv.as_ptr());
    }
    result.map_err(|error| match error {
        LaunchError::Clone(errno) => SpawnError::Clone(errno),
        LaunchError::Action(index, errno) => SpawnError::Action(index, errno),
        LaunchError::Exec(errno) => SpawnError::Exec(refusal::explain(command.name, search.as_deref(), errno)),
    })
}

/// Runs a program of the system to its end, looked for in PATH: `words` begins with its own name.
pub fn run_helper(name: &str, words: &[CString]) -> Result<WaitStatus, Errno> {
    let search = std::env::var_os("PATH").unwrap_or_else(|| OsString::from(DEFAULT_PATH));
    let argv: Vec<_> = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
    let started = launch(&Launch {
        paths: &candidates(OsStr::new(name), Some(&search)),
        argv: argv.as_ptr(),
        envp: entry::environment(),
        pid_text: None,
        group: Group::Same,
        terminal: None,
        actions: &[],
        mask: SignalSet::EMPTY,
        ignore: SignalSet::EMPTY,
        reset: SignalSet::EMPTY,
    });
    match started {
        Ok(started) => process::wait_gone(started.pid).ok_or(Errno::ECHILD),
        Err(LaunchError::Clone(errno) | LaunchError::Action(_, errno) | LaunchError::Exec(errno)) => Err(errno),
    }
}

/// The paths to try, each ended by a zero byte. An empty part of PATH is the working directory.
fn candidates(name: &OsStr, search: Option<&OsStr>) -> Vec<u8> {
    let name = name.as_bytes();
    let Some(search) = search.filter(|_| !name.is_empty()) else {
        return [name, b"\0"].concat();
    };
    let mut paths = Vec::with_capacity(256);
    for folder in search.as_bytes().split(|byte| *byte == b':') {
        if !folder.is_empty() {
            paths.extend_from_slice(folder);
            paths.push(b'/');
        }
        paths.extend_from_slice(name);
        paths.push(0);
    }
    paths
}

/// The command's environment: our own with its changes, less SEXTON_OPTS, and with LISTEN_PID rewritten if it named us.
struct Environment<'a> {
    /// `NAME=VALUE` each.
    variables: Vec<(*const c_char, &'a [u8])>,
    /// The same for execve(2).
    pointers: Vec<*const c_char>,
    /// `LISTEN_PID=` and room for a number; the new process writes its own pid there.
    listen_pid: Option<Vec<u8>>,
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

impl<'a> Environment<'a> {
    fn new(changes: &'a setup::environment::Environment, started_as: u32) -> Self {
        let inherited = entry::variables().filter(|_| !changes.clear);
        let mut variables: Vec<(*const c_char, &'a [u8])> = inherited.collect::<Vec<_>>();
        for variable in &changes.variables {
            let name = setup::environment::name(variable.to_bytes());
            variables.retain(|(_, text)| setup::environment::name(text) != name);
            variables.push((variable.as_ptr(), variable.to_bytes()));
        }
        variables.retain(|(_, text)| setup::environment::name(text) != OPTIONS_VARIABLE.as_bytes());
        // sd_listen_fds(3) counts only for the process whose pid it names.
        let own = started_as.to_string();
        let names_us = |text: &[u8]| text.strip_prefix(LISTEN_PID).is_some_and(|pid| pid == own.as_bytes());
        let listen_pid =
            variables.iter().any(|(_, text)| names_us(text)).then(|| [LISTEN_PID, &[0; PID_ROOM]].concat());
        let pointers = variables.iter().map(|(pointer, text)| match &listen_pid {
            Some(own) if text.starts_with(LISTEN_PID) => own.as_ptr().cast(),
            _ => *pointer,
        });
        let pointers = pointers.chain([ptr::null()]).collect();
        Self { variables, pointers, listen_pid }
    }

    /// Where the command is looked for: its own PATH.
    fn path(&self) -> &'a OsStr {
        let path = self.variables.iter().find_map(|(_, text)| text.strip_prefix(b"PATH="));
        path.map_or(OsStr::new(DEFAULT_PATH), OsStr::from_bytes)
    }

    fn pointers(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    fn pid_text(&mut self) -> Option<*mut u8> {
        self.listen_pid.as_mut()?.get_mut(LISTEN_PID.len()..).map(<[u8]>::as_mut_ptr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_slash_is_not_searched_for() {
        assert_eq!(candidates(OsStr::new("./x"), None), b"./x\0");
    }

    #[test]
    fn each_part_of_path_is_tried_and_the_empty_one_is_here() {
        let paths = candidates(OsStr::new("x"), Some(OsStr::new("/a:/b::")));
        assert_eq!(paths, b"/a/x\0/b/x\0x\0x\0");
    }
}
