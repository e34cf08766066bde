//! Which cgroup hierarchies are mounted, where, and in which group of each this process is (cgroups(7)).
//!
//! Only what /proc/self/mountinfo and /proc/self/cgroup say counts; no path is taken for granted.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// One hierarchy, as this process sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hierarchy {
    /// Version 2.
    pub unified: bool,
    /// Its controllers, with blanks or commas between: of version 1 the options it was mounted with (`name=systemd` is
    /// one), of version 2 the top's `cgroup.controllers`.
    pub controllers: String,
    /// Where it is mounted.
    pub top: String,
    /// This process's group, seen from `top`, without slashes at its ends; `None`: what is mounted is another part of the
    /// hierarchy.
    pub own: Option<String>,
}

impl Hierarchy {
    /// Whether it has this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split([',', ' ', '\n']).any(|own| own == controller)
    }
}

/// A mount of a hierarchy: a line of mountinfo (proc_pid_mountinfo(5)).
#[derive(PartialEq, Eq, Debug)]
struct Mount<'a> {
    /// Major and minor number of its file system.
    device: (u32, u32),
    unified: bool,
    /// The group that is mounted.
    root: &'a str,
    /// Where, as it is written.
    top: &'a str,
    read_only: bool,
    /// The file system's options; the controllers are among them.
    options: &'a str,
}

/// All hierarchies that are mounted here, those first in which all processes of a group can be killed in one go. The error
/// is that of reading /proc.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let groups = fs::read("/proc/self/cgroup")?;
    let mut found = combine(&mounts, &groups, |mount| {
        // Something else may be mounted on top of a mount.
        let (major, minor) = mount.device;
        fs::metadata(unescaped(mount.top)).is_ok_and(|found| found.dev() == libc::makedev(major, minor))
    });
    for index in 0..found.len() {
        let Some(hierarchy) = found.get_mut(index) else { break };
        if hierarchy.unified {
            hierarchy.controllers =
                fs::read_to_string(format!("{}/cgroup.controllers", hierarchy.top)).unwrap_or_default();
        }
        if hierarchy.kills_together() {
            // Version 2 is listed last, and so comes first.
            found.swap(0, index);
        }
    }
    Ok(found)
}

impl Hierarchy {
    /// Whether all processes of a group can be killed at once, or frozen.
    pub fn kills_together(&self) -> bool {
        self.unified || self.has("freezer")
    }
}

/// The hierarchies of /proc/self/cgroup that are mounted: each by the mount that shows this process's group, and of
/// those by one that can be written.
fn combine(mountinfo: &[u8], groups: &[u8], is_there: impl Fn(&Mount<'_>) -> bool) -> Vec<Hierarchy> {
    let mut mounts = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        if let Some(mount) = mount(line).filter(&is_there) {
            mounts.push(mount);
        }
    }
    groups.split(|byte| *byte == b'\n').filter_map(|line| of_line(&mounts, line)).collect()
}

/// A line of /proc/self/cgroup: `ID:CONTROLLERS:PATH`; of version 2 `0::PATH`.
fn of_line(mounts: &[Mount<'_>], line: &[u8]) -> Option<Hierarchy> {
    let (_, rest) = std::str::from_utf8(line).ok()?.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let mut best: Option<(&Mount<'_>, Option<String>)> = None;
    for mount in mounts {
        let is_it = mount.unified == controllers.is_empty()
            && (mount.unified || controllers.split(',').all(|name| mount.options.split(',').any(|own| own == name)));
        if is_it {
            let own = below(mount.root, path);
            let is_better = best
                .as_ref()
                .is_none_or(|(other, seen)| (own.is_some(), !mount.read_only) > (seen.is_some(), !other.read_only));
            if is_better {
                best = Some((mount, own));
            }
        }
    }
    let (mount, own) = best?;
    Some(Hierarchy { unified: mount.unified, controllers: controllers.to_owned(), top: unescaped(mount.top), own })
}

/// The way from the mounted group to this process's. Both are seen from the root of the cgroup namespace; what lies
/// outside of it begins with `/..`, and its name is not known.
fn below(root: &str, path: &str) -> Option<String> {
    let way = path.strip_prefix(&*unescaped(root.trim_end_matches('/')))?;
    let is_seen = (way.is_empty() || way.starts_with('/')) && way.split('/').all(|part| part != "..");
    is_seen.then(|| way.trim_matches('/').to_owned())
}

fn mount(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = std::str::from_utf8(line).ok()?.split(' ');
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, top, own_options) = (fields.next()?, fields.next()?, fields.next()?);
    while fields.next()? != "-" {}
    let unified = match fields.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options = fields.nth(1)?;
    // The other options of the mount, such as `relatime`, are no names of controllers.
    let read_only = own_options.starts_with("ro") || options.starts_with("ro");
    Some(Mount { device, unified, root, top, read_only, options })
}

/// Blank, tab, newline and backslash are written as `\ooo` (proc_pid_mountinfo(5), mangle() in fs/seq_file.c).
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.map_or('\\', char::from));
        plain.push_str(if code.is_some() { part.get(3..).unwrap_or_default() } else { part });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mountinfo: &str, groups: &str) -> Vec<Hierarchy> {
        combine(mountinfo.as_bytes(), groups.as_bytes(), |_| true)
    }

    fn hierarchy(unified: bool, controllers: &str, top: &str, own: Option<&str>) -> Hierarchy {
        Hierarchy { unified, controllers: controllers.into(), top: top.into(), own: own.map(str::to_owned) }
    }

    #[test]
    fn g1_hybrid_is_told_from_what_is_mounted() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /cg/cpu\\040it rw,relatime shared:5 master:1 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let groups = "9:name=systemd:/a:b\n4:memory:/not/mounted\n1:cpu,cpuacct:/user/x\n0::/\n";
        assert_eq!(
            found(mounts, groups),
            [
                hierarchy(false, "name=systemd", "/sys/fs/cgroup/systemd", Some("a:b")),
                hierarchy(false, "cpu,cpuacct", "/cg/cpu it", Some("user/x")),
                hierarchy(true, "", "/sys/fs/cgroup/unified", Some("")),
            ]
        );
    }

    /// Docker with the host's cgroup namespace mounts the container's own group.
    #[test]
    fn g1_a_mounted_part_is_seen_from_its_own_root() {
        let mounts = "1 2 0:29 /docker/1a /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory";
        let own = |path: &str| found(mounts, &format!("4:memory:{path}"))[0].own.clone();
        assert_eq!(own("/docker/1a"), Some("".into()));
        assert_eq!(own("/docker/1a/b"), Some("b".into()));
        assert_eq!(own("/docker/1ab"), None, "another group whose name begins alike");
        assert_eq!(own("/"), None);
    }

    #[test]
    fn g1_groups_outside_of_the_cgroup_namespace_have_no_name() {
        let mount = |root: &str| format!("1 2 0:38 {root} /mnt rw - cgroup2 none rw");
        assert_eq!(found(&mount("/.."), "0::/")[0].own, None, "mounted before the namespace was made");
        assert_eq!(found(&mount("/"), "0::/../other")[0].own, None, "moved out of the namespace");
        assert_eq!(found(&mount("/.."), "0::/../beside")[0].own, Some("beside".into()));
        assert_eq!(found(&mount("/"), "0::/in")[0].own, Some("in".into()));
    }

    #[test]
    fn g1_of_several_mounts_the_one_that_can_be_used_is_taken() {
        let mounts = "1 2 0:38 / /ro ro - cgroup2 none rw\n2 2 0:38 /else /else rw - cgroup2 none rw\n\
            3 2 0:38 / /rw rw - cgroup2 none rw\n4 2 0:38 / /super rw - cgroup2 none ro";
        assert_eq!(found(mounts, "0::/x"), [hierarchy(true, "", "/rw", Some("x"))]);
    }

    #[test]
    fn lines_of_other_kinds_say_nothing() {
        for line in ["", "1 2", "1 2 0:5 / /proc rw - proc proc rw", "1 2 x / / rw - cgroup2 n rw", "1 2 0:1 / /x rw -"]
        {
            assert_eq!(mount(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(found("1 2 0:38 / /x rw - cgroup2 n rw", "garbage\n1:\n"), []);
        assert_eq!(unescaped("a\\134b\\09\\"), "a\\b\\09\\");
    }

    #[test]
    fn this_machine_can_be_read() {
        for hierarchy in hierarchies().unwrap() {
            let own = hierarchy.own.unwrap_or_default();
            assert!(fs::exists(format!("{}/{own}/cgroup.procs", hierarchy.top)).unwrap(), "{}", hierarchy.top);
        }
    }
}
