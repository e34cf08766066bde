//! Which inits are measured.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::command;
use crate::lab::deny::Answer;

/// The init that ratios are to, if none is named.
const BASE: &str = "tini-static";
/// The peers, each measured if it is in PATH.
const PEERS: [&str; 3] = ["tini", "dumb-init", "catatonit"];

/// An init to measure.
#[derive(Clone, Debug)]
pub struct Init {
    /// As the report calls it.
    pub name: String,
    /// The program, as a path, its options, and the bench's command.
    pub words: Vec<OsString>,
    /// How many of the words are the init's own.
    pub own_words: usize,
    /// It runs under the filter of `sexton-lab deny`: as on a kernel without pidfds.
    pub denied: Option<Answer>,
}

impl Init {
    fn new(name: &str, program: &Path, options: &[&str]) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| format!("readlink(/proc/self/exe): {error}"))?;
        let mut words = vec![program.as_os_str().to_owned()];
        words.extend(options.iter().map(OsString::from));
        let own_words = words.len();
        words.extend([own.into_os_string(), command::WORD.into()]);
        Ok(Self { name: name.to_owned(), words, own_words, denied: None })
    }

    /// The bench's command without any init.
    pub fn none() -> Result<Self, String> {
        let mut none = Self::new("no init", Path::new(""), &[])?;
        none.words.remove(0);
        none.own_words = 0;
        Ok(none)
    }

    /// From `--init`: `CMD` or `NAME=CMD`, in a shell's quoting.
    pub fn from_words(text: &str) -> Result<Self, String> {
        let (name, line) = match text.split_once('=') {
            Some((name, line)) if !name.contains('/') && !name.contains(" -") && !line.is_empty() => (Some(name), line),
            _ => (None, text),
        };
        let words = shlex::split(line).ok_or_else(|| format!("--init '{text}': a quote is not closed"))?;
        let (first, options) = words.split_first().ok_or_else(|| format!("--init '{text}': no command"))?;
        let program = find(first).ok_or_else(|| format!("--init '{text}': no program {first}"))?;
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let base = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.map_or_else(|| [&[base.as_str()], &options[..]].concat().join(" "), str::to_owned);
        Self::new(&name, &program, &options)
    }

    /// The size of its program, in bytes.
    pub fn file_size(&self) -> u64 {
        self.words.first().and_then(|path| fs::metadata(path).ok()).map_or(0, |metadata| metadata.len())
    }
}

/// A program by its path, or in PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let executable = |path: &Path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return fs::canonicalize(name).ok().filter(|path| executable(path)).map(|_| std::path::absolute(name).ok())?;
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| executable(path))
}

/// What is measured if nothing is named: tini-static as the base; sexton in its three gears; its release build; the peers.
pub fn usual() -> Result<Vec<Init>, String> {
    let mut inits = Vec::new();
    if let Some(path) = find(BASE) {
        inits.push(Init::new(BASE, &path, &[])?);
    }
    for (name, path) in sextons() {
        inits.push(Init::new(&name, &path, &[])?);
        if name == "sexton" {
            let old_kernel = "ENOSYS".parse().ok();
            inits.push(Init { denied: old_kernel, ..Init::new("sexton gear 2", &path, &[])? });
            inits.push(Init::new("sexton gear 3", &path, &["-w"])?);
        }
    }
    for peer in PEERS {
        if let Some(path) = find(peer) {
            inits.push(Init::new(peer, &path, &[])?);
        }
    }
    Ok(inits)
}

/// `sexton` (`SEXTON_BIN`, or the one beside this program) and its release build, `sexton dist` (`SEXTON_DIST`, or
/// `dist/x86_64/sexton` beside the build folder), as far as they are there.
pub fn sextons() -> Vec<(String, PathBuf)> {
    let folder = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let sexton = std::env::var_os("SEXTON_BIN").map_or_else(|| folder.join("sexton"), PathBuf::from);
    let sexton = sexton.to_str().and_then(find);
    // target/release, or target/x86_64-unknown-linux-gnu/release
    let beside = folder.ancestors().skip(1).take(2).map(|folder| folder.join("dist/x86_64/sexton"));
    let mut dist = std::env::var_os("SEXTON_DIST").map(PathBuf::from).into_iter().chain(beside);
    let dist = dist.find_map(|path| find(path.to_str()?));
    let both = [("sexton", sexton), ("sexton dist", dist)];
    both.into_iter().filter_map(|(name, path)| Some((name.to_owned(), path?))).collect()
}

/// Keeps those that a pattern names: `*` stands for anything.
pub fn only(inits: Vec<Init>, patterns: &[String]) -> Result<Vec<Init>, String> {
    if let Some(pattern) = patterns.iter().find(|pattern| !inits.iter().any(|init| matches(pattern, &init.name))) {
        let names: Vec<_> = inits.iter().map(|init| init.name.as_str()).collect();
        return Err(format!("--only '{pattern}': no such init; there are: {}", names.join(", ")));
    }
    let named = |init: &Init| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, &init.name));
    Ok(inits.into_iter().filter(named).collect())
}

/// Whether the pattern, in which `*` stands for any text, is all of the name.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(rest, name.split_at(at).1))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("tini", "tini", true),
            ("tini", "tini-static", false),
            ("tini*", "tini-static", true),
            ("*gear*", "sexton gear 2", true),
            ("sexton*3", "sexton gear 2", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_init_has_a_name_and_words() {
        let init = Init::from_words("shell=/bin/sh -c 'exec \"$0\" \"$@\"'").unwrap();
        assert_eq!((init.name.as_str(), init.own_words), ("shell", 3));
        assert_eq!(init.words[..3], ["/bin/sh", "-c", "exec \"$0\" \"$@\""]);
        assert_eq!(Init::from_words("sh -e").unwrap().name, "sh -e");
        for (text, why) in
            [("", "no command"), ("sh 'x", "a quote is not closed"), ("/no/such x", "no program /no/such")]
        {
            let error = Init::from_words(text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
    }
}
