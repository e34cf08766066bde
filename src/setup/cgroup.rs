//! Cgroups: limits on what the command and all below it use (cgroups(7)).
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use super::step::Steps;

/// What is wanted.
#[derive(Clone, Default, Debug)]
pub struct Wanted {}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Before anything is new: the groups are made, and their limits written.
    pub fn outside(&self) -> Steps<'_> {
        Vec::new()
    }

    /// The command joins.
    pub fn command(&self) -> Steps<'_> {
        Vec::new()
    }
}

/// The command's cgroups, made.
#[derive(Debug)]
pub struct Group {}

impl Group {
    /// Descriptors that are needed until the end.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::empty()
    }
}
