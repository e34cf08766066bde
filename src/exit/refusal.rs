//! Why a command could not be executed, found out after the kernel said no (X5).
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::sys::{Errno, errno_name};

/// The part of a file that the kernel looks at (`BINPRM_BUF_SIZE`, include/uapi/linux/binfmts.h).
const HEAD: usize = 256;

/// A failed execve(2), explained.
#[derive(Debug)]
pub struct Refusal {
    command: OsString,
    errno: Errno,
    reason: String,
    /// Whether there is no such command, as opposed to one that cannot be executed.
    pub not_found: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.command.to_string_lossy();
        write!(f, "execve({command:?}): {}: {}", errno_name(self.errno), self.reason)
    }
}

/// Finds out why `command` was refused with `errno`. `search` is PATH if it was looked for there.
pub fn explain(command: &OsStr, search: Option<&OsStr>, errno: Errno) -> Refusal {
    let (not_found, reason) = if command.is_empty() {
        (true, "an empty command; name a program".into())
    } else {
        match (find(command, search), search) {
            (Some(file), _) => why_not(&file, errno),
            (None, Some(path)) => {
                let path = path.to_string_lossy();
                (true, format!("not found in PATH ({path}); give its full path, or set PATH"))
            }
            (None, None) => (true, why_missing(Path::new(command), errno)),
        }
    };
    Refusal { command: command.to_owned(), errno, reason, not_found }
}

/// The file that execution was refused for: in PATH the first that is there.
fn find(command: &OsStr, search: Option<&OsStr>) -> Option<PathBuf> {
    let there = |path: &PathBuf| path.symlink_metadata().is_ok();
    match search {
        None => Some(PathBuf::from(command)).filter(there),
        Some(path) => std::env::split_paths(path).map(|folder| folder.join(command)).find(there),
    }
}

fn why_missing(path: &Path, errno: Errno) -> String {
    match errno {
        Errno::EACCES => "a folder on the way may not be searched; run as another user, or chmod +x it".into(),
        Errno::ENOTDIR => "a part of the path is a file, not a folder".into(),
        Errno::ENAMETOOLONG => "the path is too long".into(),
        _ => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists());
            match parent {
                Some(parent) => format!("no such file, nor the folder {}", parent.display()),
                None => "no such file".into(),
            }
        }
    }
}

/// Whether the file counts as not found, and what is wrong with it.
fn why_not(file: &Path, errno: Errno) -> (bool, String) {
    let shown = file.display();
    let Ok(meta) = fs::metadata(file) else {
        return (
            true,
            match fs::read_link(file) {
                Ok(target) => format!("{shown} is a symbolic link to {}, which is not there", target.display()),
                Err(_) => format!("{shown} may not be looked at"),
            },
        );
    };
    let refused = |reason: String| (false, reason);
    if meta.is_dir() {
        return refused(format!("{shown} is a directory"));
    }
    match errno {
        Errno::EACCES => {
            if meta.permissions().mode() & 0o111 == 0 {
                return refused(format!("{shown} has no execute permission; chmod +x it"));
            }
            if statvfs(file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC)) {
                return refused(format!(
                    "{shown} is on a file system mounted noexec; remount it exec, or move the file"
                ));
            }
            if let Some(reason) = interpreter_trouble(file) {
                return refused(reason);
            }
            refused(format!("{shown} may not be executed by this user"))
        }
        Errno::ETXTBSY => refused(format!("{shown} is open for writing")),
        Errno::E2BIG => refused("the arguments and the environment are too long".into()),
        Errno::EAGAIN => refused("this user has too many processes; raise its limit (--ulimit nproc)".into()),
        Errno::ENOMEM => refused("no memory for it (a memory limit?)".into()),
        Errno::EPERM | Errno::ENOSYS => refused(format!(
            "{shown}: forbidden (a security module, a seccomp filter, or its file capabilities are not all permitted here)"
        )),
        _ => refused(
            interpreter_trouble(file)
                .unwrap_or_else(|| what_it_is(&head(file).unwrap_or_default(), &shown.to_string())),
        ),
    }
}

fn head(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    let count = File::open(file).ok()?.read(&mut bytes).ok()?;
    bytes.truncate(count);
    Some(bytes)
}

/// Says so if the file names an interpreter (in its `#!` line or its ELF header) that cannot be had.
fn interpreter_trouble(file: &Path) -> Option<String> {
    let head = head(file)?;
    let shown = file.display();
    let (interpreter, what) = if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let word = line.split(blank).find(|word| !word.is_empty()).unwrap_or(b"");
        if word.is_empty() {
            return Some(format!("{shown} has a #! line that names no interpreter"));
        }
        (OsString::from_vec(word.to_vec()), "the interpreter of its #! line")
    } else {
        (elf_interpreter(file)?, "its ELF loader")
    };
    let path = Path::new(&interpreter);
    let name = interpreter.to_string_lossy();
    if name.ends_with('\r') {
        return Some(format!("{shown}: its #! line ends in a carriage return (DOS line ends); remove it"));
    }
    match fs::metadata(path) {
        Err(_) => Some(format!("{shown} is there, but {what}, {name}, is missing")),
        Ok(meta) if meta.is_dir() || meta.permissions().mode() & 0o111 == 0 => {
            Some(format!("{shown} is there, but {what}, {name}, is not executable"))
        }
        Ok(_) => None,
    }
}

/// The path in an ELF file's `PT_INTERP` segment (elf(5)), for 64-bit little-endian files.
fn elf_interpreter(file: &Path) -> Option<OsString> {
    use std::os::unix::fs::FileExt;
    let head = head(file)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let half = |at: usize| head.get(at..at + 2).map(|b| u64::from(b[0]) | u64::from(b[1]) << 8);
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (table, size, count) = (word(&head, 32)?, half(54)?, half(56)?);
    let handle = File::open(file).ok()?;
    for index in 0..count.min(64) {
        let mut entry = [0; 56];
        handle.read_exact_at(&mut entry, table.checked_add(index * size)?).ok()?;
        if entry.starts_with(&[3, 0, 0, 0]) {
            let length = usize::try_from(word(&entry, 32)?).ok()?.min(4096);
            let mut text = vec![0; length];
            handle.read_exact_at(&mut text, word(&entry, 8)?).ok()?;
            text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(length));
            return Some(OsString::from_vec(text));
        }
    }
    None
}

/// Machines by their number in an ELF header (`e_machine`, elf(5)).
const MACHINES: [(u16, &str); 10] = [
    (3, "i386"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

/// What a file is that the kernel does not execute.
fn what_it_is(head: &[u8], shown: &str) -> String {
    if head.is_empty() {
        return format!("{shown} is empty or may not be read");
    }
    if head.starts_with(b"\x7fELF") {
        let big_endian = head.get(5) == Some(&2);
        let machine = head.get(18..20).map(|b| if big_endian { [b[1], b[0]] } else { [b[0], b[1]] });
        let number = machine.map_or(0, u16::from_le_bytes);
        let name = MACHINES.iter().find(|(known, _)| *known == number);
        return match name {
            Some((_, name)) if *name == std::env::consts::ARCH => format!("{shown} is a damaged ELF file"),
            Some((_, name)) => {
                format!("{shown} is for {name}, this machine is {}; use an image for this one", std::env::consts::ARCH)
            }
            None => {
                format!("{shown} is for another machine (ELF number {number}), this one is {}", std::env::consts::ARCH)
            }
        };
    }
    format!("{shown} is no program: neither ELF nor text with a #! line")
}

/// Whether a file without `#!` is a text that a shell can make something of: not empty, and no zero byte nor control
/// character in its first bytes.
pub fn is_text(path: &Path) -> bool {
    let Some(head) = head(path) else { return false };
    let printable = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b | 0x20..=0x7e | 0x80..);
    !head.is_empty() && !head.starts_with(b"#!") && head.iter().all(printable)
}

/// Where in PATH the file is that the kernel refused with ENOEXEC.
pub fn refused_file(command: &OsStr, search: Option<&OsStr>) -> Option<PathBuf> {
    let executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    match search {
        None => Some(PathBuf::from(command)).filter(executable),
        Some(path) => path
            .as_bytes()
            .split(|byte| *byte == b':')
            .map(|folder| Path::new(OsStr::from_bytes(if folder.is_empty() { b"." } else { folder })).join(command))
            .find(executable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x5_a_foreign_machine_is_named() {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(64, 0);
        head[18] = 183;
        assert!(what_it_is(&head, "x").starts_with("x is for aarch64, this machine is "));
        head[18] = 250;
        assert!(what_it_is(&head, "x").contains("250"));
        assert!(what_it_is(b"", "x").contains("empty"));
        assert!(what_it_is(b"\x01\x02", "x").contains("no program"));
    }

    #[test]
    fn x5_a_loader_is_read_from_the_header() {
        // The test program is static or dynamic, as the build likes; /bin/sh is dynamic on every distribution that has it.
        if let Some(loader) = elf_interpreter(Path::new("/bin/sh")) {
            assert!(loader.to_string_lossy().contains("ld-"), "{loader:?}");
        }
        assert_eq!(elf_interpreter(Path::new("/proc/self/stat")), None);
    }
}
