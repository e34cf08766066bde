//! Network devices of a new network namespace.
#![forbid(unsafe_code)]

use super::namespaces;
use super::step::Steps;

/// What is wanted.
#[derive(Clone, Default, Debug)]
pub struct Wanted {}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self, namespaces: &namespaces::Wanted) -> Result<(), String> {
        Ok(())
    }

    /// Whether something has to be done outside the new namespace.
    pub fn needs_outside(&self) -> bool {
        false
    }

    /// Outside, while the process inside waits: links are made and moved in.
    pub fn between(&self) -> Steps<'_> {
        Vec::new()
    }

    /// In the new namespace: links are configured.
    pub fn inside<'a>(&'a self, namespaces: &'a namespaces::Wanted) -> Steps<'a> {
        Vec::new()
    }
}
