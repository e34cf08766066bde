//! Who the command runs as, and what it may (credentials(7), capabilities(7)).
//!
//! The command does all of it to itself; sexton keeps what it has, so that it can forward signals to whomever.
#![forbid(unsafe_code)]

pub mod accounts;

use std::ffi::CString;
use std::fmt;
use std::fs;

use nix::sys::prctl::set_dumpable;

use super::capability::Capabilities;
use super::step::{SetupError, State, Step, Steps};
use crate::sys::action::Action;
use crate::sys::capability::{Sets, bounding, own};
use crate::sys::change::{Change, has_groups, may_set_groups};
use accounts::Who;

/// What is wanted.
#[derive(Default, Debug)]
pub struct Wanted {
    /// `--user`: the user, and a group other than its own.
    pub user: Option<(Who, Option<Who>)>,
    /// `--groups`: these supplementary groups, and none of the user's.
    pub groups: Option<Vec<Who>>,
    /// `--cap-add` and `--cap-drop`.
    pub choice: Option<Choice>,
    /// `--ambient-caps`.
    pub ambient: bool,
    /// `--no-new-privs`.
    pub no_new_privileges: bool,
}

/// Which capabilities there are to be; the order of the options does not matter (as docker has it).
#[derive(Clone, Copy, Default, Debug)]
pub struct Choice {
    /// Those added by name.
    pub add: Capabilities,
    /// `--cap-add ALL`: all that sexton has.
    pub add_all: bool,
    /// Those dropped by name.
    pub drop: Capabilities,
    /// `--cap-drop ALL`.
    pub drop_all: bool,
}

impl Choice {
    /// What is left of `base`, and what comes to it.
    fn of(self, base: Capabilities) -> Capabilities {
        match self {
            Self { add_all: true, .. } => base.without(self.drop),
            Self { drop_all: true, .. } => self.add,
            _ => base.without(self.drop).and(self.add),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { add_all: true, .. } | Self { drop_all: false, .. } => {
                write!(f, "those of sexton without {}", self.drop)?;
                if self.add_all || self.add.is_empty() { Ok(()) } else { write!(f, ", and {}", self.add) }
            }
            _ => self.add.fmt(f),
        }
    }
}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self) -> Result<(), String> {
        if self.ambient && self.choice.is_none() {
            return Err("--ambient-caps keeps what --cap-drop and --cap-add leave; give these, such as \
                        --cap-drop ALL --cap-add NET_BIND_SERVICE"
                .into());
        }
        Ok(())
    }

    /// Whether the command can gain no privilege by an exec.
    pub fn no_new_privileges(&self) -> bool {
        self.no_new_privileges
    }

    /// The command's bounding set.
    pub fn bounding(&self) -> Result<Capabilities, SetupError> {
        let now = own_bounding()?;
        Ok(self.choice.map_or(now, |choice| choice.of(now)))
    }

    /// What the command does to itself.
    pub fn command(&self) -> Steps<'_> {
        let mut steps = Steps::new();
        // While CAP_SETPCAP is there.
        if let Some(choice) = self.choice {
            steps.push(Box::new(Bounding(choice)));
        }
        if self.user.is_some() || self.groups.is_some() {
            steps.push(Box::new(Identity(self)));
        }
        // A change of the user has cleared the effective set, so these come after it.
        if self.choice.is_some() || self.user.is_some() {
            steps.push(Box::new(Hold(self)));
        }
        if self.no_new_privileges {
            steps.push(Box::new(NoNewPrivileges));
        }
        steps
    }
}

fn push(state: &mut State, change: Change) {
    state.actions.push(Action::Change(change));
}

/// `CAP_SETGID`.
const SETGID: u8 = 6;

const FILTERED: &str = "a seccomp filter may forbid it";

fn own_sets() -> Result<Sets, SetupError> {
    own().map_err(|errno| SetupError::call("capget()", errno, FILTERED))
}

/// What is not known here would not be dropped.
pub fn own_bounding() -> Result<Capabilities, SetupError> {
    bounding().map_err(|errno| SetupError::call("prctl(PR_CAPBSET_READ)", errno, FILTERED))
}

/// What no exec can bring back.
struct Bounding(Choice);

impl Step for Bounding {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let now = own_bounding()?;
        let missing = self.0.add.without(own_sets()?.permitted.within(now));
        if !missing.is_empty() {
            return Err(SetupError::found(
                format!("--cap-add {missing}"),
                "sexton itself has it not, so it cannot give it; let the engine give it (docker run --cap-add), run as \
                 root, or add --unshare user",
            ));
        }
        let dropped = now.without(self.0.of(now));
        if !dropped.is_empty() {
            push(state, Change::DropBounding(dropped));
        }
        Ok(())
    }
}

impl fmt::Display for Bounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command's capability bounding set: {}", self.0)
    }
}

/// Groups, group and user, in this order: afterwards there is no right to the others.
struct Identity<'a>(&'a Wanted);

impl Step for Identity<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let mut groups = Vec::new();
        for who in self.0.groups.iter().flatten() {
            groups.push(accounts::group(who)?);
        }
        let Some((who, given)) = &self.0.user else {
            push(state, Change::Groups(groups));
            return Ok(());
        };
        let user = accounts::user(who, given.as_ref())?;
        if self.0.groups.is_none() {
            // The group itself among them, or leaving it by a set-group-ID program would lift what is denied to it.
            groups.push(user.gid);
            if let (Some(name), None) = (&user.name, given) {
                accounts::add_groups_of(name, &mut groups)?;
            }
        }
        if self.0.ambient && user.uid != 0 {
            push(state, Change::KeepCapabilities);
        }
        // With the capability it is the user namespace that forbids it (user_namespaces(7)); then they stay. Not where a
        // filter does: there they may be root's.
        let allowed_here = || fs::read("/proc/self/setgroups").is_ok_and(|text| text == b"allow\n");
        let forbidden = || Ok(own_sets()?.effective.has(SETGID) && !may_set_groups() && !allowed_here());
        if self.0.groups.is_some() || !(has_groups(&groups) || forbidden()?) {
            push(state, Change::Groups(groups));
        }
        push(state, Change::Group(user.gid));
        push(state, Change::User(user.uid));
        state.user = Some(user.uid);
        // First, so that any other HOME that is asked for is over it.
        let home: &[u8] = if user.home.is_empty() { b"/" } else { &user.home };
        let home = [b"HOME=", home].concat();
        if let Ok(home) = CString::new(home) {
            state.environment.variables.insert(0, home);
        }
        Ok(())
    }
}

impl fmt::Display for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command runs")?;
        if let Some((user, group)) = &self.0.user {
            write!(f, " as user {user}")?;
            match group {
                Some(group) => write!(f, ", group {group}")?,
                None => f.write_str(", its group")?,
            }
        }
        match (&self.0.groups, &self.0.user) {
            (Some(groups), _) if groups.is_empty() => f.write_str(", in no supplementary groups")?,
            (Some(groups), _) => {
                f.write_str(", in supplementary groups")?;
                groups.iter().try_for_each(|group| write!(f, " {group}"))?;
            }
            (None, Some((_, None))) => f.write_str(" and supplementary groups")?,
            _ => {}
        }
        f.write_str(" (names are looked up in its own root's /etc)")
    }
}

/// The capabilities that the command holds.
struct Hold<'a>(&'a Wanted);

impl Hold<'_> {
    /// The sets, and what of them is ambient. `None`: as the kernel leaves them.
    fn sets(&self, changed: Option<u32>, now: Sets, bounding: Capabilities) -> Option<(Sets, Capabilities)> {
        let becomes_other = changed.is_some_and(|uid| uid != 0);
        let Some(choice) = self.0.choice else {
            // Also what a user other than root would have kept.
            return becomes_other.then(|| (Sets::default(), Capabilities::NONE));
        };
        let wanted = choice.of(now.permitted).within(bounding);
        let all = |inheritable| Sets { effective: wanted, permitted: wanted, inheritable };
        Some(match (self.0.ambient, becomes_other) {
            (true, _) => (all(wanted), wanted),
            (false, true) => (Sets::default(), Capabilities::NONE),
            (false, false) => (all(now.inheritable.within(wanted)), Capabilities::NONE),
        })
    }
}

impl Step for Hold<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        // Without a choice it does not matter.
        let bounding = if self.0.choice.is_some() { self.0.bounding()? } else { Capabilities::NONE };
        if let Some((sets, ambient)) = self.sets(state.user, own_sets()?, bounding) {
            push(state, Change::Capabilities(sets));
            if !ambient.is_empty() {
                push(state, Change::Ambient(ambient));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Hold<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.choice, self.0.ambient, &self.0.user) {
            (Some(choice), true, _) => write!(f, "it holds, and keeps over any exec: {choice}"),
            (None, ..) => f.write_str("it holds no capabilities, unless it is root"),
            (Some(choice), false, None) => write!(f, "it holds: {choice}"),
            (Some(choice), false, Some(_)) => {
                write!(f, "it holds as root: {choice}; as any other user none (--ambient-caps gives them)")
            }
        }
    }
}

/// No exec gives any privilege: neither set-user-ID bits nor file capabilities count.
struct NoNewPrivileges;

impl Step for NoNewPrivileges {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        out_of_reach();
        push(state, Change::NoNewPrivileges);
        Ok(())
    }
}

impl fmt::Display for NoNewPrivileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it gains no privilege by any exec (no_new_privs)")
    }
}

/// Sexton stays without what binds the command. A command of the same user must not get around it by tracing sexton
/// (ptrace(2): who is not dumpable is traced with CAP_SYS_PTRACE only). A change of credentials does this by itself.
pub fn out_of_reach() {
    let _ = set_dumpable(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Capabilities = Capabilities(1);
    const B: Capabilities = Capabilities(2);
    const C: Capabilities = Capabilities(4);
    const ALL: Capabilities = Capabilities(7);

    #[test]
    fn c1_what_is_added_and_dropped_is_as_docker_has_it() {
        let of = |add, add_all, drop, drop_all, base| Choice { add, add_all, drop, drop_all }.of(base);
        let none = Capabilities::NONE;
        assert_eq!(of(none, false, A, false, ALL), Capabilities(6));
        assert_eq!(of(A, false, none, true, ALL), A);
        assert_eq!(of(none, false, none, true, ALL), none);
        assert_eq!(of(none, true, A, false, ALL), Capabilities(6));
        assert_eq!(of(none, true, none, true, ALL), ALL, "added wins");
        assert_eq!(of(A, false, A, false, ALL), ALL, "added wins");
        assert_eq!(of(C, false, A, false, B), Capabilities(6));
    }

    #[test]
    fn c2_who_holds_what() {
        let now = Sets { effective: ALL, permitted: ALL, inheritable: B };
        let wanted = |choice, ambient| Wanted { choice, ambient, ..Wanted::default() };
        let only_a = Some(Choice { add: A, drop_all: true, ..Choice::default() });
        let root = |inheritable| Sets { effective: A, permitted: A, inheritable };
        let none = Capabilities::NONE;
        for (wanted, user, expected) in [
            (wanted(None, false), None, None),
            (wanted(None, false), Some(0), None),
            (wanted(None, false), Some(1000), Some((Sets::default(), none))),
            (wanted(only_a, false), None, Some((root(none), none))),
            (wanted(only_a, false), Some(0), Some((root(none), none))),
            (wanted(only_a, false), Some(1000), Some((Sets::default(), none))),
            (wanted(only_a, true), Some(1000), Some((root(A), A))),
            (wanted(only_a, true), None, Some((root(A), A))),
        ] {
            assert_eq!(Hold(&wanted).sets(user, now, A), expected, "{wanted:?} {user:?}");
        }
    }
}
