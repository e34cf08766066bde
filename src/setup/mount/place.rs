//! The place of a mount beneath the new root, found so that nothing in there can lead out.
//!
//! The way is walked part by part: each is opened relative to the one before, and never through a symbolic link, whose
//! text is taken as part of the way instead. `..` goes back to a folder that was come through, and no farther than the
//! root. So neither a link nor another process that changes the way meanwhile leads anywhere else; a link of /proc that
//! is more than its text is only its text here. openat2(2) with RESOLVE_IN_ROOT would do the same from Linux 5.6 on, but
//! as missing folders are made on the way and older kernels need this walk anyway, it is the only one.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, umask};

use crate::sys::Errno;
use crate::sys::mount::read_link;

/// What is done about a place that is not there.
#[derive(Clone, Copy)]
pub enum Missing<'a> {
    /// Nothing: ENOENT.
    Fail,
    /// A folder is made, and those on the way to it.
    Folder,
    /// The same, or an empty file if this is no folder.
    Like(BorrowedFd<'a>),
}

/// The most links and folders to be made on one way: as many links as the kernel follows (path_resolution(7)), and then
/// some.
const TURNS: usize = 128;

/// Opens (O_PATH) what is at `path` beneath `root`. ELOOP: too many links; EBUSY: it is the root itself.
pub fn find(root: BorrowedFd<'_>, path: &Path, missing: Missing<'_>) -> Result<OwnedFd, Errno> {
    let any = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut turns = 0;
    let mut come: Vec<OwnedFd> = Vec::new();
    let mut ahead = path.as_os_str().as_bytes().to_vec();
    loop {
        let start = ahead.iter().position(|byte| *byte != b'/').unwrap_or(ahead.len());
        ahead = ahead.split_off(start);
        if ahead.is_empty() {
            return come.pop().ok_or(Errno::EBUSY);
        }
        let end = ahead.iter().position(|byte| *byte == b'/').unwrap_or(ahead.len());
        let behind = ahead.split_off(end);
        let name = CString::new(std::mem::replace(&mut ahead, behind)).map_err(|_| Errno::EINVAL)?;
        if name.as_bytes() == b"." {
            continue;
        }
        if name.as_bytes() == b".." {
            come.pop();
            continue;
        }
        let here = come.last().map_or(root, AsFd::as_fd);
        let is_last = ahead.iter().all(|byte| *byte == b'/');
        match openat(here, name.as_c_str(), any | OFlag::O_DIRECTORY, Mode::empty()) {
            Ok(folder) => come.push(folder),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let found = openat(here, name.as_c_str(), any, Mode::empty())?;
                match read_link(found.as_fd(), c"") {
                    Ok(text) => {
                        turns += 1;
                        if text.starts_with(b"/") {
                            come.clear();
                        }
                        put_before(&mut ahead, text);
                    }
                    Err(Errno::EINVAL | Errno::ENOENT) if is_last => come.push(found),
                    Err(Errno::EINVAL | Errno::ENOENT) => return Err(Errno::ENOTDIR),
                    Err(errno) => return Err(errno),
                }
            }
            Err(Errno::ENOENT) if !matches!(missing, Missing::Fail) => {
                turns += 1;
                make(here, &name, if is_last { missing } else { Missing::Folder })?;
                put_before(&mut ahead, name.into_bytes());
            }
            Err(errno) => return Err(errno),
        }
        if turns > TURNS {
            return Err(Errno::ELOOP);
        }
    }
}

/// What is ahead begins with a slash, or is empty.
fn put_before(ahead: &mut Vec<u8>, mut path: Vec<u8>) {
    path.extend_from_slice(ahead);
    *ahead = path;
}

/// Makes a folder or a file. One that has come into being meanwhile is as good.
fn make(here: BorrowedFd<'_>, name: &CStr, what: Missing<'_>) -> Result<(), Errno> {
    let is_folder = match what {
        Missing::Like(model) => fstat(model)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits(),
        _ => true,
    };
    // Others are to reach it, whatever sexton was started with.
    let before = umask(Mode::from_bits_retain(0o022));
    let made = if is_folder {
        mkdirat(here, name, Mode::from_bits_retain(0o777))
    } else {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(here, name, flags, Mode::from_bits_retain(0o666)).map(drop)
    };
    umask(before);
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::PathBuf;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let base = std::env::temp_dir().join(format!("sexton-place-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&base);
            fs::create_dir_all(base.join("root/in/side")).unwrap();
            fs::create_dir_all(base.join("outside")).unwrap();
            fs::write(base.join("root/file"), "").unwrap();
            Self(base)
        }

        fn find(&self, path: &str, missing: Missing<'_>) -> Result<u64, Errno> {
            let root = fs::File::open(self.0.join("root")).unwrap();
            let found = find(root.as_fd(), Path::new(path), missing)?;
            Ok(fstat(found).unwrap().st_ino)
        }

        fn inode(&self, path: &str) -> u64 {
            fs::metadata(self.0.join(path)).unwrap().ino()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn n4_dots_and_links_stay_beneath_the_root() {
        let tree = Tree::new("links");
        let outside = tree.0.join("outside");
        symlink("/in", tree.0.join("root/absolute")).unwrap();
        symlink(&outside, tree.0.join("root/out")).unwrap();
        symlink("../../outside", tree.0.join("root/in/up")).unwrap();
        symlink("loop", tree.0.join("root/loop")).unwrap();
        symlink("/", tree.0.join("root/top")).unwrap();
        let side = tree.inode("root/in/side");
        for path in
            ["/in/side", "in//./side/", "/../../in/side", "/absolute/side", "/in/../absolute/side", "/top/in/side"]
        {
            assert_eq!(tree.find(path, Missing::Fail), Ok(side), "{path}");
        }
        assert_eq!(tree.find("/file", Missing::Fail), Ok(tree.inode("root/file")));
        for (path, errno) in [
            ("/out", Errno::ENOENT),
            ("/in/up", Errno::ENOENT),
            ("/../outside", Errno::ENOENT),
            ("/nowhere/x", Errno::ENOENT),
            ("/file/x", Errno::ENOTDIR),
            ("/loop", Errno::ELOOP),
            ("/", Errno::EBUSY),
            ("/top", Errno::EBUSY),
            ("/in/..", Errno::EBUSY),
        ] {
            assert_eq!(tree.find(path, Missing::Fail), Err(errno), "{path}");
        }
    }

    #[test]
    fn n4_what_is_missing_is_made_beneath_the_root() {
        let tree = Tree::new("made");
        symlink("../../outside/new", tree.0.join("root/in/up")).unwrap();
        tree.find("/in/up/deep", Missing::Folder).unwrap();
        assert_eq!(fs::read_dir(tree.0.join("outside")).unwrap().count(), 0);
        assert!(tree.0.join("root/outside/new/deep").is_dir());
        let model = fs::File::open(tree.0.join("root/file")).unwrap();
        tree.find("/a/b/c", Missing::Like(model.as_fd())).unwrap();
        assert!(tree.0.join("root/a/b").is_dir() && tree.0.join("root/a/b/c").is_file());
    }

    #[test]
    fn n4_a_link_that_is_swapped_in_meanwhile_leads_nowhere_else() {
        let tree = Tree::new("race");
        let (base, stop) = (tree.0.clone(), std::sync::atomic::AtomicBool::new(false));
        let outside = tree.inode("outside");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (way, aside) = (base.join("root/way"), base.join("root/aside"));
                fs::create_dir_all(way.join("outside")).unwrap();
                symlink("../..", &aside).unwrap();
                let swap = |one: &Path, other: &Path| {
                    let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                    nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, one, nix::fcntl::AT_FDCWD, other, flags).unwrap();
                };
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    swap(&way, &aside);
                }
            });
            let found: Vec<_> = (0..3000).map(|_| tree.find("/way/../way/outside/new", Missing::Folder)).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(found.iter().any(Result::is_ok), "{found:?}");
            assert!(!found.contains(&Ok(outside)));
        });
        assert_eq!(fs::read_dir(tree.0.join("outside")).unwrap().count(), 0);
    }
}
