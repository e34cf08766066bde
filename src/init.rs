//! The way of a start, from the first instruction to the exit code.
#![forbid(unsafe_code)]

use std::ffi::{OsString, c_int};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use log::warn;
use nix::unistd::{chdir, getpid, getppid};

use crate::cli::{self, Options, Output, Personality, Request};
use crate::foreground::Foreground;
use crate::plan::{self, Behaviour, Inherited, Plan};
use crate::setup::step::State;
use crate::setup::{Side, Stage};
use crate::signal::Signal;
use crate::spawn::{self, Command, SpawnError};
use crate::supervise::{self, Policy};
use crate::sys::action::Action;
use crate::sys::entry::Arguments;
use crate::sys::process::{self, Group, Started};
use crate::sys::signal::{self, Disposition, Queued, SignalFd, SignalSet};
use crate::sys::{Errno, errno_name, fd};
use crate::{exit, log as logging};

/// Why it failed, in one line, and the exit code for it.
struct Failure {
    line: String,
    code: u8,
}

/// The whole program: from the C library's start-up code to the exit code.
pub fn start(arguments: Arguments) -> c_int {
    // First of all (S1): as PID 1 a signal that comes before this is gone.
    let mask = signal::set_mask(SignalSet::FULL);
    // Ignored, it would make every child vanish together with its status (R2).
    let child_ignored = signal::set_disposition(Signal::CHLD, Disposition::Default);
    fd::fill_standard();
    let code = run(arguments, Inherited { mask, child_ignored, pid: std::process::id() }).unwrap_or_else(|failure| {
        logging::complain(&failure.line);
        failure.code
    });
    c_int::from(code)
}

fn run(arguments: Arguments, inherited: Inherited) -> Result<u8, Failure> {
    let words = arguments.words();
    let variable = |name: &str| std::env::var_os(name);
    let request = cli::parse(&words, &variable).map_err(|e| Failure { line: e.to_string(), code: e.code })?;
    let mut options = match request {
        Request::Print(output, text) => return print(output, &text),
        Request::Run(options) => options,
    };
    let plan = plan::resolve(&mut options, inherited)
        .map_err(|line| Failure { line, code: options.personality.codes().usage })?;
    let mut stage = Stage::of(&plan.setup);
    if options.explain {
        let command = words.get(words.len() - plan.command_words..).and_then(<[_]>::first);
        return print(Output::Stdout, &stage.explain(command.map(OsString::as_os_str)));
    }
    // What sexton needs itself it has before the command runs: from then on nothing ends it (H3).
    let signals = SignalFd::open().map_err(|errno| Failure {
        line: format!("signalfd4(): {}: {}", errno_name(errno), advice_on_signalfd(errno)),
        code: options.personality.codes().setup,
    })?;
    if let Some(signal) = options.parent_death {
        arm_parent_death(signal, &options)?;
    }
    let side =
        stage.run().map_err(|error| Failure { line: error.to_string(), code: options.personality.codes().setup })?;
    let is_inside = matches!(side, Side::Inside);
    let result = match side {
        Side::Outside(inside, held) => Ok(watch_inside(inside, held, signals, &mut stage.state, &options)),
        Side::Only | Side::Inside => be_init(arguments, &words, signals, &mut stage.state, &plan, &options),
    };
    if !is_inside {
        stage.undo();
    }
    result
}

/// The init itself: starts the command, lets go of what is the command's, and stays to the end.
fn be_init(
    arguments: Arguments,
    words: &[OsString],
    signals: SignalFd,
    state: &mut State,
    plan: &Plan,
    options: &Options,
) -> Result<u8, Failure> {
    let is_pid1 = getpid().as_raw() == 1;
    let subreaper = if is_pid1 { Ok(()) } else { process::become_subreaper() };
    if plan.group == Group::Session(true) {
        process::give_terminal_up();
    }
    let foreground = if plan.group == Group::Own { Foreground::ours() } else { None };
    let command = if plan.behaviour.stop.pause {
        // Nobody else is there to be in the cgroup namespace.
        for action in &state.actions {
            action.perform().map_err(|errno| not_done(action, errno, plan.personality))?;
        }
        None
    } else {
        Some(start_command(arguments, words, state, plan, foreground.as_ref())?)
    };
    state.release();
    // From here on nothing ends sexton but the command's end.
    let pidfd = command.as_ref().and_then(|command| command.pidfd.as_ref());
    let_go(&[Some(signals.as_fd()), pidfd.map(AsFd::as_fd), foreground.as_ref().map(AsFd::as_fd)], state);
    logging::start(plan.personality, options.verbosity);
    if let Err(errno) = subreaper {
        warn!("prctl(PR_SET_CHILD_SUBREAPER): {}: orphans go to another process", errno_name(errno));
    }
    if plan.personality == Personality::Tini && !is_pid1 && !options.subreaper_asked {
        warn!(
            "not running as PID 1 and no -s: with tini itself zombie reaping won't work; \
             sexton has made itself a child subreaper"
        );
    }
    let status = stay(command, signals, plan.behaviour.clone(), foreground, options);
    Ok(options.exit_codes.apply(exit::code(status)))
}

/// Outside a new PID namespace: supervises the init inside, as any command.
fn watch_inside(inside: Started, held: OwnedFd, signals: SignalFd, state: &mut State, options: &Options) -> u8 {
    state.release();
    let foreground = Foreground::ours();
    if let Some(foreground) = &foreground {
        foreground.give(inside.pid);
    }
    let pidfd = inside.pidfd.as_ref().map(AsFd::as_fd);
    let_go(&[Some(signals.as_fd()), Some(held.as_fd()), pidfd, foreground.as_ref().map(AsFd::as_fd)], state);
    // The init inside tells of everything; only at -vv it is told twice.
    logging::start(options.personality, options.verbosity.min(0).max(options.verbosity - 1));
    let status = stay(Some(inside), signals, Behaviour::outside(), foreground, options);
    drop(held);
    exit::code(status)
}

fn stay(
    command: Option<Started>,
    signals: SignalFd,
    behaviour: Behaviour,
    foreground: Option<Foreground>,
    options: &Options,
) -> process::WaitStatus {
    let policy = Policy {
        stop: behaviour.stop,
        rewrites: behaviour.rewrites,
        to_group: behaviour.to_group,
        warn_reaped: behaviour.warn_reaped,
        reaped: if options.personality == Personality::Tini { "Reaped" } else { "reaped" },
        is_pid1: getpid().as_raw() == 1,
        suspend_with_command: behaviour.suspend_with_command,
        foreground,
    };
    supervise::supervise(command, signals, policy)
}

fn advice_on_signalfd(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE => "too few descriptors; raise RLIMIT_NOFILE (ulimit -n)",
        Errno::ENFILE => "no more open files in the system; raise /proc/sys/fs/file-max",
        _ => "needs Linux 2.6.27, and a seccomp profile that lets it pass",
    }
}

fn start_command(
    arguments: Arguments,
    words: &[OsString],
    state: &State,
    plan: &Plan,
    foreground: Option<&Foreground>,
) -> Result<Started, Failure> {
    let all = SignalSet::FULL;
    let command = Command {
        arguments,
        words: plan.command_words,
        name: words.get(words.len() - plan.command_words).map_or("".as_ref(), OsString::as_os_str),
        started_as: plan.started_as,
        group: plan.group,
        terminal: foreground.map(AsFd::as_fd),
        actions: &state.actions,
        environment: &state.environment,
        mask: plan.mask,
        ignore: if plan.ignore_child { SignalSet::only(Signal::CHLD) } else { SignalSet::EMPTY },
        reset: if plan.reset_signals { all } else { SignalSet::EMPTY },
    };
    let codes = plan.personality.codes();
    spawn::spawn(&command).map_err(|error| match error {
        SpawnError::Clone(errno) => {
            let advice = match errno {
                Errno::EAGAIN => "no process could be made; raise the pids limit or RLIMIT_NPROC",
                Errno::ENOMEM => "no memory for a process; raise the memory limit",
                _ => "no process could be made; a seccomp filter may forbid it",
            };
            Failure { line: format!("clone(CLONE_VM|CLONE_VFORK): {}: {advice}", errno_name(errno)), code: codes.setup }
        }
        SpawnError::Action(index, errno) => match state.actions.get(index) {
            Some(action) => not_done(action, errno, plan.personality),
            None => Failure { line: String::new(), code: codes.setup },
        },
        SpawnError::Exec(refusal) => {
            let code = if refusal.not_found { codes.not_found } else { codes.not_executable };
            Failure { line: refusal.to_string(), code }
        }
    })
}

fn not_done(action: &Action, errno: Errno, personality: Personality) -> Failure {
    let line = format!("{action}: {}: {}", errno_name(errno), action.advice(errno));
    Failure { line, code: personality.codes().setup }
}

/// Lets go of the working directory, of all descriptors but our own and the setup's, and of stdin and stdout (H1).
fn let_go(own: &[Option<BorrowedFd<'_>>], state: &State) {
    let keep = own.iter().flatten().copied().chain(state.kept());
    let mut numbers: Vec<RawFd> = keep.map(|fd| fd.as_raw_fd()).collect();
    numbers.sort_unstable();
    fd::close_inherited(&numbers);
    fd::release_stdin_stdout();
    let _ = chdir("/");
}

/// Arms `-p`. A parent that died before is known by our having another one afterwards.
fn arm_parent_death(signal: Signal, options: &Options) -> Result<(), Failure> {
    let parent = getppid();
    process::set_parent_death_signal(signal).map_err(|errno| Failure {
        line: format!("prctl(PR_SET_PDEATHSIG, {signal}): {}", errno_name(errno)),
        code: options.personality.codes().setup,
    })?;
    if getppid() != parent {
        let queued = Queued { pid: parent.as_raw(), uid: 0, value: 0 };
        let _ = signal::queue(getpid().as_raw(), signal, queued);
    }
    Ok(())
}

/// Prints what was asked for. A reader that is gone is no failure.
fn print(output: Output, text: &str) -> Result<u8, Failure> {
    let _ = match output {
        Output::Stdout => std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()),
        Output::Stderr => std::io::stderr().write_all(text.as_bytes()),
    };
    Ok(0)
}
