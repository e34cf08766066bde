//! Which cgroup hierarchies are mounted, where, and in which group of each this process is (cgroups(7)).
//!
//! Only what /proc/self/mountinfo and /proc/self/cgroup say counts; no path is taken for granted.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// One hierarchy, as this process sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hierarchy {
    /// Version 2.
    pub unified: bool,
    /// Its controllers: of version 1 those it was mounted with (`name=systemd` is one), of version 2 those in the top's
    /// `cgroup.controllers`.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub top: PathBuf,
    /// This process's group below `top`; `None`: what is mounted is another part of the hierarchy.
    pub own: Option<PathBuf>,
}

/// A mount of a hierarchy: a line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    /// Major and minor number of its file system.
    device: (u32, u32),
    unified: bool,
    /// The group that is mounted.
    root: PathBuf,
    top: PathBuf,
    read_only: bool,
    /// The file system's options; the controllers are among them.
    options: Vec<String>,
}

impl Hierarchy {
    /// Whether it has this controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

/// All hierarchies that are mounted here. The error is that of reading /proc.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let groups = fs::read("/proc/self/cgroup")?;
    // Something else may be mounted on top of a mount.
    let mounts = mounts.split(|byte| *byte == b'\n').filter_map(mount).filter(|mount| {
        let device = fs::metadata(&mount.top).map(|found| found.dev());
        device.is_ok_and(|device| (libc::major(device), libc::minor(device)) == mount.device)
    });
    let mut found = combine(&mounts.collect::<Vec<_>>(), &groups);
    for hierarchy in found.iter_mut().filter(|hierarchy| hierarchy.unified) {
        let text = fs::read_to_string(hierarchy.top.join("cgroup.controllers")).unwrap_or_default();
        hierarchy.controllers = text.split_ascii_whitespace().map(str::to_owned).collect();
    }
    Ok(found)
}

/// The hierarchies of /proc/self/cgroup that are mounted: each by the mount that shows this process's group, and of
/// those by one that can be written.
fn combine(mounts: &[Mount], groups: &[u8]) -> Vec<Hierarchy> {
    groups.split(|byte| *byte == b'\n').filter_map(|line| of_line(mounts, line)).collect()
}

/// A line of /proc/self/cgroup: `ID:CONTROLLERS:PATH`; of version 2 `0::PATH`.
fn of_line(mounts: &[Mount], line: &[u8]) -> Option<Hierarchy> {
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let (_, controllers, path) = (fields.next()?, std::str::from_utf8(fields.next()?).ok()?, fields.next()?);
    let unified = controllers.is_empty();
    let controllers: Vec<String> = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let path = PathBuf::from(OsString::from_vec(path.to_vec()));
    let is_of_line = |mount: &&Mount| {
        mount.unified == unified && controllers.iter().all(|controller| mount.options.contains(controller))
    };
    let best =
        mounts.iter().filter(is_of_line).max_by_key(|mount| (below(&mount.root, &path).is_some(), !mount.read_only))?;
    Some(Hierarchy { unified, controllers, top: best.top.clone(), own: below(&best.root, &path) })
}

/// The way from the mounted group to this process's. Both are seen from the root of the cgroup namespace; what lies
/// outside of it begins with `/..`, and its name is not known.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let way = path.strip_prefix(root).ok()?;
    way.components().all(|part| matches!(part, Component::Normal(_))).then(|| way.to_owned())
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut device = std::str::from_utf8(fields.nth(2)?).ok()?.split(':').map(str::parse);
    let device = (device.next()?.ok()?, device.next()?.ok()?);
    let (root, top, own_options) = (fields.next()?, fields.next()?, fields.next()?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let unified = match fields.next()? {
        b"cgroup" => false,
        b"cgroup2" => true,
        _ => return None,
    };
    let is_read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
    let options = fields.nth(1)?;
    Some(Mount {
        device,
        unified,
        root: unescaped(root),
        top: unescaped(top),
        read_only: is_read_only(own_options) || is_read_only(options),
        options: String::from_utf8_lossy(options).split(',').map(str::to_owned).collect(),
    })
}

/// Blank, tab, newline and backslash are written as `\ooo` (proc_pid_mountinfo(5), mangle() in fs/seq_file.c).
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        if let Some(digits) = octal {
            bytes.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
            rest = after.get(3..).unwrap_or(&[]);
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mountinfo: &str, groups: &str) -> Vec<Hierarchy> {
        let mounts: Vec<_> = mountinfo.lines().filter_map(|line| mount(line.as_bytes())).collect();
        combine(&mounts, groups.as_bytes())
    }

    fn hierarchy(unified: bool, controllers: &[&str], top: &str, own: Option<&str>) -> Hierarchy {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        Hierarchy { unified, controllers, top: top.into(), own: own.map(PathBuf::from) }
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
                hierarchy(false, &["name=systemd"], "/sys/fs/cgroup/systemd", Some("a:b")),
                hierarchy(false, &["cpu", "cpuacct"], "/cg/cpu it", Some("user/x")),
                hierarchy(true, &[], "/sys/fs/cgroup/unified", Some("")),
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
        assert_eq!(found(&mount("/"), "0::/in")[0].own, Some("in".into()));
    }

    #[test]
    fn g1_of_several_mounts_the_one_that_can_be_used_is_taken() {
        let mounts = "1 2 0:38 / /ro ro - cgroup2 none rw\n2 2 0:38 /else /else rw - cgroup2 none rw\n\
            3 2 0:38 / /rw rw - cgroup2 none rw\n4 2 0:38 / /super rw - cgroup2 none ro";
        assert_eq!(found(mounts, "0::/x"), [hierarchy(true, &[], "/rw", Some("x"))]);
    }

    #[test]
    fn lines_of_other_kinds_say_nothing() {
        for line in ["", "1 2", "1 2 0:5 / /proc rw - proc proc rw", "1 2 x / / rw - cgroup2 n rw", "1 2 0:1 / /x rw -"]
        {
            assert_eq!(mount(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(found("1 2 0:38 / /x rw - cgroup2 n rw", "garbage\n1:\n"), []);
        assert_eq!(unescaped(b"a\\134b\\09\\"), PathBuf::from("a\\b\\09\\"));
    }

    #[test]
    fn this_machine_can_be_read() {
        for hierarchy in hierarchies().unwrap() {
            let own = hierarchy.own.unwrap_or_default();
            assert!(hierarchy.top.join(own).join("cgroup.procs").exists(), "{:?}", hierarchy.top);
        }
    }
}
