//! What will be done: options and facts, resolved before anything happens.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::cli::options::Rewrites;
use crate::cli::{Options, Personality};
use crate::setup::Setup;
use crate::supervise::stop::Rules;
use crate::sys::process::Group;
use crate::sys::signal::SignalSet;

/// What sexton was started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inherited {
    /// The mask.
    pub mask: SignalSet,
    /// Whether SIGCHLD was ignored.
    pub child_ignored: bool,
    /// Our pid at the start.
    pub pid: u32,
}

/// How the loop is to behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How the container ends.
    pub stop: Rules,
    /// What each signal is forwarded as.
    pub rewrites: Rewrites,
    /// Forward to the command's group.
    pub to_group: bool,
    /// Name each reaped orphan.
    pub warn_reaped: bool,
    /// TSTP, TTIN and TTOU stop sexton itself as well.
    pub suspend_with_command: bool,
}

/// The plan of one start.
#[derive(Debug)]
pub struct Plan {
    /// Whose manners.
    pub personality: Personality,
    /// What is set up before.
    pub setup: Setup,
    /// How many of the last words are the command.
    pub command_words: usize,
    /// The command's group.
    pub group: Group,
    /// The command's signal mask.
    pub mask: SignalSet,
    /// Whether the command gets SIGCHLD ignored, as it was inherited.
    pub ignore_child: bool,
    /// Our pid at the start.
    pub started_as: u32,
    /// Whether all its dispositions are set to the default.
    pub reset_signals: bool,
    /// The loop's part.
    pub behaviour: Behaviour,
}

/// Resolves the options. An error is a wrong combination of them.
pub fn resolve(options: &mut Options, inherited: Inherited) -> Result<Plan, String> {
    options.setup.check()?;
    if options.pause && options.setup.concerns_command() {
        return Err(
            "--pause runs no command, so there is none to have a user, capabilities, limits, a cgroup, variables, a \
                    folder or a filter; leave these options out"
                .into(),
        );
    }
    let reset = options.reset_signals;
    Ok(Plan {
        personality: options.personality,
        setup: std::mem::take(&mut options.setup),
        command_words: options.command_words,
        group: options.group,
        mask: if reset { SignalSet::EMPTY } else { inherited.mask },
        ignore_child: inherited.child_ignored && !reset,
        started_as: inherited.pid,
        reset_signals: reset,
        behaviour: Behaviour {
            stop: Rules {
                grace: options.grace,
                kill_after: options.kill_after,
                stop_delay: options.stop_delay,
                wait: options.wait,
                term_group_at_end: options.term_group_at_end,
                pause: options.pause,
            },
            rewrites: options.rewrites.clone(),
            to_group: options.to_group,
            warn_reaped: options.warn_reaped,
            suspend_with_command: options.suspend_with_command,
        },
    })
}

impl Behaviour {
    /// How the process outside a new PID namespace behaves towards the one inside: it passes everything on as it is,
    /// and all rules apply inside.
    pub fn outside() -> Self {
        Self {
            stop: Rules {
                grace: Duration::ZERO,
                kill_after: None,
                stop_delay: Duration::ZERO,
                wait: false,
                term_group_at_end: false,
                pause: false,
            },
            rewrites: Rewrites::default(),
            to_group: false,
            warn_reaped: false,
            suspend_with_command: false,
        }
    }
}
