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
    /// Its controllers, with commas or blanks between: of version 1 those of /proc/self/cgroup (`name=systemd` is one), of
    /// version 2 the top's `cgroup.controllers`.
    pub controllers: String,
    /// Where it is mounted.
    pub top: String,
    /// This process's group, seen from `top`, without a slash at its ends; `None`: what is mounted is another part of the
    /// hierarchy.
    pub own: Option<String>,
}

impl Hierarchy {
    /// Whether it has this controller.
    pub fn has(&self, controller: &str) -> bool {
        has_word(self.controllers.as_bytes(), controller.as_bytes())
    }

    /// Whether all processes of a group can be killed at once, or frozen.
    pub fn kills_together(&self) -> bool {
        self.unified || self.has("freezer")
    }
}

/// Whether a list has this word.
fn has_word(list: &[u8], word: &[u8]) -> bool {
    list.split(|byte| matches!(byte, b',' | b' ' | b'\n')).any(|own| own == word)
}

/// Takes what comes before the next `end` off a text, or all of it.
fn cut<'a>(text: &mut &'a [u8], end: u8) -> &'a [u8] {
    let length = text.iter().position(|byte| *byte == end).unwrap_or(text.len());
    let (first, rest) = text.split_at(length);
    *text = rest.get(1..).unwrap_or_default();
    first
}

/// A mount of a hierarchy: a line of mountinfo (proc_pid_mountinfo(5)).
#[derive(PartialEq, Eq, Debug)]
struct Mount<'a> {
    /// Major and minor number of its file system.
    device: &'a [u8],
    unified: bool,
    /// The group that is mounted.
    root: String,
    top: String,
    read_only: bool,
    /// The file system's options; the controllers are among them.
    options: &'a [u8],
}

/// All hierarchies that are mounted here, the first one in which all processes of a group can be killed in one go. The
/// error is that of reading /proc.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let groups = fs::read("/proc/self/cgroup")?;
    let mut found = combine(&mounts, &groups, |mount| {
        // Something else may be mounted on top of a mount.
        let device = fs::metadata(&mount.top).map_or(0, |found| found.dev());
        mount.device == format!("{}:{}", libc::major(device), libc::minor(device)).as_bytes()
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

/// The hierarchies of /proc/self/cgroup that are mounted: each by the mount that shows this process's group, and of
/// those by one that can be written.
fn combine(mut mountinfo: &[u8], mut groups: &[u8], is_there: impl Fn(&Mount<'_>) -> bool) -> Vec<Hierarchy> {
    let mut mounts = Vec::new();
    while !mountinfo.is_empty() {
        if let Some(mount) = mount(cut(&mut mountinfo, b'\n'))
            && is_there(&mount)
        {
            mounts.push(mount);
        }
    }
    let mut found = Vec::new();
    while !groups.is_empty() {
        found.extend(of_line(&mounts, cut(&mut groups, b'\n')));
    }
    found
}

/// A line of /proc/self/cgroup: `ID:CONTROLLERS:PATH`; of version 2 `0::PATH`.
fn of_line(mounts: &[Mount<'_>], mut line: &[u8]) -> Option<Hierarchy> {
    cut(&mut line, b':');
    let controllers = cut(&mut line, b':');
    let path = std::str::from_utf8(line).ok().filter(|path| path.starts_with('/'))?;
    let mut best = None;
    let mut best_rank = 0;
    for mount in mounts.iter().filter(|mount| mount.unified == controllers.is_empty()) {
        // Those that are mounted together are told together.
        if !mount.unified && !has_word(mount.options, cut(&mut &*controllers, b',')) {
            continue;
        }
        let own = below(&mount.root, path);
        let rank = 1 + 2 * u8::from(own.is_some()) + u8::from(!mount.read_only);
        if rank > best_rank {
            best_rank = rank;
            best = Some((mount, own));
        }
    }
    let (mount, own) = best?;
    let controllers = String::from_utf8_lossy(controllers).into_owned();
    Some(Hierarchy { unified: mount.unified, controllers, top: mount.top.clone(), own })
}

/// The way from the mounted group to this process's. Both are seen from the root of the cgroup namespace; what lies
/// outside of it begins with `/..`, and its name is not known.
fn below(root: &str, path: &str) -> Option<String> {
    // Without its slash the root of all is empty.
    let root = root.strip_suffix('/').unwrap_or(root);
    let mut way = path.strip_prefix(root)?.as_bytes();
    let whole = way;
    if !cut(&mut way, b'/').is_empty() {
        return None;
    }
    while !way.is_empty() {
        if cut(&mut way, b'/') == b".." {
            return None;
        }
    }
    whole.get(1..).map_or(Some(String::new()), |way| String::from_utf8(way.to_vec()).ok())
}

fn mount(mut line: &[u8]) -> Option<Mount<'_>> {
    let mut field = || cut(&mut line, b' ');
    field();
    field();
    let (device, root, top, own_options) = (field(), field(), field(), field());
    loop {
        match field() {
            b"-" => break,
            // The end, or the optional fields.
            b"" => return None,
            _ => {}
        }
    }
    let unified = match field() {
        b"cgroup" => false,
        b"cgroup2" => true,
        _ => return None,
    };
    field();
    let options = field();
    let read_only = own_options.starts_with(b"ro") || options.starts_with(b"ro");
    Some(Mount { device, unified, root: unescaped(root)?, top: unescaped(top)?, read_only, options })
}

/// Blank, tab, newline and backslash are written as `\ooo` (proc_pid_mountinfo(5), mangle() in fs/seq_file.c).
fn unescaped(mut text: &[u8]) -> Option<String> {
    let mut plain = cut(&mut text, b'\\').to_vec();
    while !text.is_empty() {
        let part = cut(&mut text, b'\\');
        let mut code = 0u8;
        for digit in part.get(..3)? {
            code = code.wrapping_mul(8).wrapping_add(digit.wrapping_sub(b'0'));
        }
        plain.push(code);
        plain.extend_from_slice(part.get(3..)?);
    }
    String::from_utf8(plain).ok()
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
        assert_eq!(own("/docker/1a").as_deref(), Some(""));
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
        for line in
            ["", "1 2", "1 2 0:5 / /proc rw - proc proc rw", "1 2 0:1 / /x rw -", "1 2 0:1 / /\\1 rw - cgroup2 n rw"]
        {
            assert_eq!(mount(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(found("1 2 0:38 / /x rw - cgroup2 n rw", "garbage\n1:\n"), []);
        assert_eq!(unescaped(b"a\\134b\\040c").as_deref(), Some("a\\b c"));
    }

    #[test]
    fn this_machine_can_be_read() {
        for hierarchy in hierarchies().unwrap() {
            let own = hierarchy.own.unwrap_or_default();
            assert!(fs::exists(format!("{}/{own}/cgroup.procs", hierarchy.top)).unwrap(), "{}", hierarchy.top);
        }
    }
}
