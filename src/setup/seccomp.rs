//! Which system calls the command may make (seccomp(2)).
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

    /// The filter is prepared; the command sets it.
    pub fn command(&self) -> Steps<'_> {
        Vec::new()
    }
}
