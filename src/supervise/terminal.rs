//! Who has the terminal: decisions only.
#![forbid(unsafe_code)]

/// What is known about the terminal at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The foreground group of our controlling terminal; `None`: there is no such terminal.
    pub foreground: Option<i32>,
    /// Our own process group.
    pub own_group: i32,
}

/// Whether the command's new group gets the terminal: only if it is ours to give (Y1).
pub fn hands_over(facts: Facts) -> bool {
    // Group 0 stands for one outside our PID namespace, which never is ours.
    facts.own_group != 0 && facts.foreground == Some(facts.own_group)
}

/// What to do when the command has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnStop {
    /// Leave it so.
    Leave,
    /// Take the terminal back, stop too, and once continued hand it over again and continue the command.
    Suspend,
}

/// A stopped command under PID 1 stays stopped: nobody could continue PID 1. Elsewhere the shell that sees sexton as
/// its job must see it stop (Y2).
pub fn on_stop(is_pid1: bool, handed_over: bool) -> OnStop {
    if !is_pid1 && handed_over { OnStop::Suspend } else { OnStop::Leave }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y1_only_what_is_ours_is_handed_over() {
        let facts = |foreground, own_group| Facts { foreground, own_group };
        assert!(hands_over(facts(Some(5), 5)));
        assert!(!hands_over(facts(Some(6), 5)));
        assert!(!hands_over(facts(None, 5)));
        assert!(!hands_over(facts(Some(0), 0)));
    }

    #[test]
    fn y2_only_a_job_of_a_shell_suspends() {
        assert_eq!(on_stop(false, true), OnStop::Suspend);
        assert_eq!(on_stop(true, true), OnStop::Leave);
        assert_eq!(on_stop(false, false), OnStop::Leave);
    }
}
