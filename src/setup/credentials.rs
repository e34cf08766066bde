//! Who the command runs as, and what it may (credentials(7), capabilities(7)).
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

    /// Whether the command can gain no privilege by an exec.
    pub fn no_new_privileges(&self) -> bool {
        false
    }

    /// What the command does to itself.
    pub fn command(&self) -> Steps<'_> {
        Vec::new()
    }
}
