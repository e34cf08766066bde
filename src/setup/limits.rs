//! Limits and settings of the process itself (getrlimit(2), oom_score_adj, nice, umask), and its environment.
#![forbid(unsafe_code)]

use super::step::Steps;

/// What is wanted.
#[derive(Clone, Default, Debug)]
pub struct Wanted {}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// What can be done outside only.
    pub fn outside(&self) -> Steps<'_> {
        Vec::new()
    }

    /// What the command does to itself.
    pub fn command(&self) -> Steps<'_> {
        Vec::new()
    }
}
