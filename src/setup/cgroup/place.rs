//! Where groups are to be made, and what is to be written in them: from the options and what is mounted.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Controller, Device, Setting, Wanted, v1, v2};
use crate::cgroupfs::{Hierarchy, hierarchies};
use crate::setup::step::SetupError;
use crate::sys::Errno;

/// The group of one hierarchy, to be made.
#[derive(Debug)]
pub struct Place<'a> {
    /// In which hierarchy.
    pub hierarchy: Hierarchy,
    /// The group above, seen from the hierarchy's top.
    pub below: PathBuf,
    /// The controllers of version 2 that it needs.
    pub controllers: Vec<&'a str>,
    /// What is written.
    pub settings: Vec<Setting<'a>>,
    /// Without it there is no start; else it only makes the end easier.
    pub needed: bool,
}

impl Place<'_> {
    /// The path of the group above.
    pub fn path(&self) -> PathBuf {
        self.hierarchy.top.join(&self.below)
    }
}

fn read() -> Result<Vec<Hierarchy>, SetupError> {
    let mut found = hierarchies().map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        SetupError::call("open(\"/proc/self/mountinfo\")", errno, "needs /proc, to find the cgroups")
    })?;
    // Those first in which all can be killed in one go.
    found.sort_by_key(|hierarchy| (!hierarchy.unified, !hierarchy.has("freezer")));
    Ok(found)
}

/// The group above, in this hierarchy; `None`: sexton's own is wanted, and cannot be seen.
fn below(wanted: &Wanted, hierarchy: &Hierarchy) -> Option<PathBuf> {
    let parent = wanted.parent.as_deref().unwrap_or(Path::new(""));
    match parent.strip_prefix("/") {
        Ok(absolute) => Some(absolute.to_owned()),
        Err(_) => hierarchy.own.as_ref().map(|own| own.join(parent)),
    }
}

/// The groups above in all hierarchies: where sextons that are dead by now may have left theirs.
pub fn parents(wanted: &Wanted) -> Result<Vec<PathBuf>, SetupError> {
    let path = |hierarchy: &Hierarchy| Some(hierarchy.top.join(below(wanted, hierarchy)?));
    Ok(read()?.iter().filter_map(path).collect())
}

/// Where which groups are to be made.
pub fn places(wanted: &Wanted) -> Result<Vec<Place<'_>>, SetupError> {
    let mut places = Places { wanted, hierarchies: read()?, found: Vec::new() };
    for controller in Controller::ALL.into_iter().filter(|controller| wanted.needs(*controller)) {
        let index = places.find(|it| it.has(controller.name(it.unified))).ok_or_else(|| {
            let option = v1::settings(wanted, controller).ok().and_then(|list| Some(list.first()?.option));
            places.missing(option.unwrap_or("--blkio-weight"), controller.name(true))
        })?;
        let unified = places.unified(index);
        let settings = if unified { v2::settings(wanted, controller)? } else { v1::settings(wanted, controller)? };
        places.add(index, Some(controller.name(unified)), settings)?;
    }
    for (file, value) in &wanted.conf {
        let controller = file.split('.').next().unwrap_or_default();
        // The files of the groups themselves, in version 2.
        let is_core = controller == "cgroup";
        let index = places
            .find(|it| if is_core { it.unified } else { it.has(controller) })
            .ok_or_else(|| places.missing("--cgroup-conf", controller))?;
        let setting = Setting {
            file: file.as_str().into(),
            value: value.as_str().into(),
            ..Setting::new("--cgroup-conf", "", "")
        };
        places.add(index, (!is_core).then_some(controller), vec![setting])?;
    }
    places.add_one_for_the_end()?;
    Ok(places.found)
}

struct Places<'a> {
    wanted: &'a Wanted,
    hierarchies: Vec<Hierarchy>,
    found: Vec<Place<'a>>,
}

impl<'a> Places<'a> {
    /// Version 1 before version 2: a controller is in one of them only, but names of version 2's own files repeat.
    fn find(&self, mut is_it: impl FnMut(&Hierarchy) -> bool) -> Option<usize> {
        self.hierarchies.iter().position(&mut is_it)
    }

    fn unified(&self, index: usize) -> bool {
        self.hierarchies.get(index).is_some_and(|hierarchy| hierarchy.unified)
    }

    fn missing(&self, option: &str, controller: &str) -> SetupError {
        let unified = self.hierarchies.iter().find(|hierarchy| hierarchy.unified);
        let advice = match (unified, controller) {
            (None, "cgroup") => {
                "cgroup v2 has its files, and is not mounted here; mount it, or leave the option out".into()
            }
            (Some(_), "blkio") => "cgroup v2 calls this controller io; see its files".into(),
            (Some(unified), _) => format!(
                "neither is it mounted as cgroup v1, nor does {:?} list it; enable it above, boot with cgroup_enable={controller}, \
                 or leave the option out",
                unified.top.join("cgroup.controllers").display()
            ),
            (None, _) => format!(
                "not mounted as cgroup v1, and cgroup v2 is not mounted; mount one of them, boot with \
                 cgroup_enable={controller}, or leave the option out"
            ),
        };
        SetupError::found(format!("{option}: cgroup controller {controller}"), advice)
    }

    /// Adds settings to the group of a hierarchy.
    fn add(&mut self, index: usize, controller: Option<&'a str>, settings: Vec<Setting<'a>>) -> Result<(), SetupError> {
        let Some(hierarchy) = self.hierarchies.get(index) else { return Ok(()) };
        let is_same = |place: &&mut Place<'_>| place.hierarchy.top == hierarchy.top;
        let place = if let Some(place) = self.found.iter_mut().find(is_same) {
            place
        } else {
            let below = below(self.wanted, hierarchy).ok_or_else(|| {
                SetupError::found(
                    format!("{:?}", hierarchy.top.display()),
                    "what is mounted here does not show sexton's own cgroup; name one with --cgroup-parent /PATH, or mount \
                     cgroups anew in this cgroup namespace",
                )
            })?;
            self.found.push(Place {
                hierarchy: hierarchy.clone(),
                below,
                controllers: Vec::new(),
                settings: Vec::new(),
                needed: true,
            });
            let Some(place) = self.found.last_mut() else { return Ok(()) };
            place
        };
        if let Some(controller) = controller.filter(|name| !place.controllers.contains(name)) {
            place.controllers.push(controller);
        }
        place.settings.extend(settings);
        Ok(())
    }

    /// In version 2 all in a group can be killed at once, and in version 1 they can be frozen: if no limit needs such a
    /// hierarchy, a group is tried there all the same. It comes first, so that the others are empty when they are removed.
    fn add_one_for_the_end(&mut self) -> Result<(), SetupError> {
        let is_one = |hierarchy: &Hierarchy| hierarchy.unified || hierarchy.has("freezer");
        if !self.found.iter().any(|place| is_one(&place.hierarchy)) {
            let is_alone = self.found.is_empty();
            let Some(index) = self.find(|it| is_one(it) || (is_alone && it.own.is_some())) else {
                return if is_alone { Err(self.missing("--cgroup-name", "cgroup")) } else { Ok(()) };
            };
            match self.add(index, None, Vec::new()) {
                Err(why) if is_alone => return Err(why),
                _ => {}
            }
            if let Some(place) = self.found.last_mut().filter(|_| !is_alone) {
                place.needed &= !is_one(&place.hierarchy);
            }
        }
        self.found.sort_by_key(|place| !is_one(&place.hierarchy));
        Ok(())
    }
}

/// A disk as the kernel numbers it, `MAJOR:MINOR`.
pub fn disk(device: &Device) -> Result<String, SetupError> {
    let path = &device.path;
    let found = fs::metadata(path).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        SetupError::call(format!("stat({path:?})"), errno, "name a disk that is there, such as /dev/sda")
    })?;
    if !found.file_type().is_block_device() {
        return Err(SetupError::found(format!("{path:?}"), "no block device; name a disk, such as /dev/sda"));
    }
    Ok(format!("{}:{}", libc::major(found.rdev()), libc::minor(found.rdev())))
}
