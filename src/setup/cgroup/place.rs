//! Where groups are to be made, and what is to be written in them: from the options and what is mounted.
#![forbid(unsafe_code)]

use super::Wanted;
use super::limit::{Asked, Setting, UNLIMITED, What, controller};
use crate::cgroupfs::{self, Hierarchy};
use crate::setup::step::SetupError;

/// The group of one hierarchy, to be made.
#[derive(Debug)]
pub struct Place {
    /// In which hierarchy.
    pub hierarchy: Hierarchy,
    /// The group above, seen from the hierarchy's top: empty, or with a slash before it.
    pub below: String,
    /// What is written.
    pub settings: Vec<Setting>,
    /// Without it there is no start; else it only makes the end easier.
    pub needed: bool,
}

/// All that is mounted.
pub fn hierarchies() -> Result<Vec<Hierarchy>, SetupError> {
    cgroupfs::hierarchies()
        .map_err(|error| SetupError::io("open(\"/proc/self/mountinfo\")", &error, "needs /proc, to find the cgroups"))
}

/// The group above, in this hierarchy: empty for its top, or with a slash before it; `None`: it is below sexton's own, which cannot be seen.
pub fn below(wanted: &Wanted, hierarchy: &Hierarchy) -> Option<String> {
    let parent = wanted.parent.as_deref().unwrap_or_default();
    let mut way = String::new();
    if !parent.starts_with('/') {
        let own = hierarchy.own.as_deref()?;
        if !own.is_empty() {
            way.push('/');
            way.push_str(own);
        }
        way.push('/');
    }
    way.push_str(parent);
    while way.ends_with('/') {
        way.pop();
    }
    Some(way)
}

/// Where which groups are to be made.
pub fn places(wanted: &Wanted) -> Result<Vec<Place>, SetupError> {
    let mut places = Vec::new();
    // The first is the one in which all can be killed in one go, and so the others are empty when they are removed. If no
    // limit needs it, it is tried all the same.
    for hierarchy in hierarchies()? {
        let below = below(wanted, &hierarchy);
        let no_settings = Vec::new();
        places.push((below, Place { hierarchy, below: String::new(), settings: no_settings, needed: false }));
    }
    for what in What::all() {
        for asked in wanted.asked.iter().filter(|asked| asked.what == what) {
            add(&mut places, wanted, asked, false)?;
        }
        // Docker's default.
        let memory = wanted.number(What::Memory).filter(|_| what == What::MemorySwap);
        if let (Some(memory), None) = (memory, wanted.number(what)) {
            let number = if memory == UNLIMITED { memory } else { memory.saturating_mul(2) };
            add(&mut places, wanted, &Asked { what, number, text: String::new() }, true)?;
        }
    }
    if wanted.asked.is_empty() {
        let Some((_, first)) = places.first_mut() else {
            return Err(SetupError::found("--cgroup-name", "no cgroups are mounted here; mount them, or leave it out"));
        };
        first.needed = true;
    }
    let mut chosen = Vec::new();
    for (index, (below, place)) in places.into_iter().enumerate() {
        if !place.needed && (index > 0 || !place.hierarchy.kills_together()) {
            continue;
        }
        match below {
            Some(below) => chosen.push(Place { below, ..place }),
            None if place.needed => {
                return Err(SetupError::found(
                    place.hierarchy.top,
                    "what is mounted here does not show sexton's own cgroup; name another with --cgroup-parent /PATH, or \
                     mount cgroups anew in this cgroup namespace",
                ));
            }
            None => {}
        }
    }
    Ok(chosen)
}

/// Adds a limit to the place of its controller.
fn add(
    places: &mut [(Option<String>, Place)],
    wanted: &Wanted,
    asked: &Asked,
    implied: bool,
) -> Result<(), SetupError> {
    for (_, place) in places.iter_mut() {
        let unified = place.hierarchy.unified;
        let (option, file) = asked.file(unified);
        // The first file of the controller that has one: of some it has none in version 2.
        let (_, any) = asked.file(false);
        let name = if file.is_empty() { controller(any) } else { controller(file) };
        // The files of the groups themselves.
        if !(place.hierarchy.has(name) || (unified && name == "cgroup")) {
            continue;
        }
        if file.is_empty() {
            return Err(SetupError::found(
                format!("{option}: {any}"),
                "the memory controller of cgroup v2 has no such file; leave the option out, or boot with cgroup v1 \
                 (systemd.unified_cgroup_hierarchy=0)",
            ));
        }
        let value = asked.value(unified, wanted.number(What::Memory))?;
        place.settings.push(Setting { option, file: file.to_owned(), value, implied });
        place.needed = true;
        return Ok(());
    }
    let (option, file) = asked.file(false);
    let unified = places.iter().find(|(_, place)| place.hierarchy.unified);
    let listed = unified.map_or("cgroup v2, which is not mounted".to_owned(), |(_, place)| {
        format!("{}/cgroup.controllers", place.hierarchy.top)
    });
    let name = controller(file);
    Err(SetupError::found(
        format!("{option}: {file}: no cgroup controller {name}"),
        format!(
            "it is neither mounted as cgroup v1 nor in {listed}; enable it there, boot with cgroup_enable={name}, or leave \
             the option out"
        ),
    ))
}
