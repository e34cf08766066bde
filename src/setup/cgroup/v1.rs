//! What version 1 alone demands (Documentation/admin-guide/cgroup-v1 of the kernel).
#![forbid(unsafe_code)]

use super::folder::Folder;
use crate::setup::step::SetupError;

/// A new cpuset has neither CPUs nor memory nodes, and nobody can join it: it gets those of the group above.
pub fn fill_cpuset(above: &Folder, folder: &Folder) -> Result<(), SetupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if folder.read(file)?.trim_ascii().is_empty() {
            let all = above.read(file)?;
            folder.try_write(file, all.trim_ascii()).map_err(|errno| {
                SetupError::call(folder.call("write", file, &all), errno, "the cpuset controller refused")
            })?;
        }
    }
    Ok(())
}
