//! The inits that `check` asks: the words that start one, and how each known one spells an option.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::signal::Signal;

/// A command prefix: what stands before the command of a container.
#[derive(Clone, Debug)]
pub struct Init {
    /// As the report calls it.
    pub name: String,
    /// Whose options it has.
    pub kind: Kind,
    /// The program; absent: the command itself is PID 1.
    pub program: Option<PathBuf>,
    /// All words, the program's as it was written.
    pub words: Vec<OsString>,
}

/// Whose options an init has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// sexton under its own name.
    Sexton,
    /// tini and docker-init.
    Tini,
    /// dumb-init.
    DumbInit,
    /// catatonit and podman-init.
    Catatonit,
    /// No init at all.
    None,
    /// Anything else: only what needs no option can be asked.
    Other,
}

/// Something that is an option of some inits, the usual behaviour of others, and unknown to the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Signals go to the command's process group.
    Group,
    /// Signals go to the command only.
    CommandOnly,
    /// One signal is forwarded as another; `None`: not at all.
    Rewrite(Signal, Option<Signal>),
    /// Each reaped orphan is named.
    NameReaped,
    /// The sender of each signal is named.
    NameSender,
    /// As many lines on stderr as it can.
    Verbose,
    /// Exit code 143 becomes 0.
    MapCode,
    /// Everything is killed half a second after the first TERM.
    KillAfter,
    /// Leftovers are waited for, without a signal.
    Wait,
    /// USR1 comes when the parent dies.
    ParentDeath,
}

/// How a wish is written: words behind the program's name, and a variable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spelling {
    /// Words.
    pub words: Vec<String>,
    /// A variable and its value.
    pub variable: Option<(&'static str, &'static str)>,
}

impl Wish {
    /// What it is, behind "has no option".
    pub fn what(self) -> &'static str {
        match self {
            Self::Group => "to signal a group",
            Self::CommandOnly => "to signal the command only",
            Self::Rewrite(..) => "to rewrite signals",
            Self::NameReaped => "to name what it reaps",
            Self::NameSender => "to name a signal's sender",
            Self::Verbose => "to be verbose",
            Self::MapCode => "to map exit codes",
            Self::KillAfter => "to kill after a time",
            Self::Wait => "to wait for leftovers",
            Self::ParentDeath => "for the parent's death",
        }
    }

    /// How this kind of init spells it. `None`: it has no such option.
    pub fn spelled(self, kind: Kind) -> Option<Spelling> {
        use Kind::{Catatonit, DumbInit, Sexton, Tini};
        let words: &[&str] = match (self, kind) {
            (Self::Group, Sexton | Tini | Catatonit) => &["-g"],
            (Self::CommandOnly, DumbInit) => &["-c"],
            // It signals a group without; and nobody else does unless asked to.
            (Self::Group, DumbInit) | (Self::CommandOnly, _) => &[],
            (Self::Rewrite(from, to), Sexton | DumbInit) => {
                let rule = format!("{}:{}", from.number(), to.map_or(0, Signal::number));
                return Some(Spelling { words: vec!["-r".into(), rule], variable: None });
            }
            (Self::NameReaped, Sexton | Tini) => &["-w"],
            (Self::NameSender, Sexton) | (Self::Verbose, DumbInit) => &["-v"],
            (Self::Verbose, Sexton) => &["-vv", "-w"],
            (Self::Verbose, Tini) => &["-vvv", "-w"],
            (Self::Verbose, Catatonit) => {
                return Some(Spelling { words: Vec::new(), variable: Some(("CATATONIT_DEBUG", "1")) });
            }
            (Self::MapCode, Sexton | Tini) => &["-e", "143"],
            (Self::KillAfter, Sexton) => &["-k", "500ms"],
            (Self::Wait, Sexton) => &["--wait"],
            (Self::ParentDeath, Sexton | Tini) => &["-p", "SIGUSR1"],
            _ => return None,
        };
        Some(Spelling { words: words.iter().map(|word| (*word).to_owned()).collect(), variable: None })
    }
}

/// The peers that are asked if none is named, with the words behind them.
const PEERS: [(&str, &[&str]); 3] = [("tini", &["--"]), ("dumb-init", &[]), ("catatonit", &["--"])];

impl Init {
    /// From `--init`: `COMMAND` or `NAME=COMMAND`, in a shell's quoting; the empty one is no init.
    pub fn from_words(text: &str) -> Result<Self, String> {
        let (name, line) = match text.split_once('=') {
            Some((name, line)) if !name.contains(['/', ' ', '"', '\'']) && !name.is_empty() => (Some(name), line),
            _ => (None, text),
        };
        let words = shlex::split(line).ok_or_else(|| format!("--init '{text}': a quote is not closed"))?;
        let Some(first) = words.first() else {
            return Ok(Self {
                name: name.unwrap_or("none").to_owned(),
                kind: Kind::None,
                program: None,
                words: Vec::new(),
            });
        };
        let program = find(first).ok_or_else(|| format!("--init '{text}': no program {first}"))?;
        let base = Path::new(first).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = match base.as_str() {
            "sexton" => Kind::Sexton,
            "tini" | "tini-static" | "docker-init" => Kind::Tini,
            "dumb-init" => Kind::DumbInit,
            "catatonit" | "podman-init" => Kind::Catatonit,
            _ => Kind::Other,
        };
        let options = words.get(1..).unwrap_or_default().iter().map(String::as_str).filter(|word| *word != "--");
        let usual_name = || std::iter::once(base.as_str()).chain(options).collect::<Vec<_>>().join(" ");
        Ok(Self {
            name: name.map_or_else(usual_name, str::to_owned),
            kind,
            program: Some(program),
            words: words.into_iter().map(OsString::from).collect(),
        })
    }

    /// Those that are asked if none is named: sexton beside this program or in PATH, and the peers in PATH.
    pub fn usual() -> Vec<Self> {
        let beside = std::env::current_exe().ok().map(|own| own.with_file_name("sexton"));
        let beside = beside.filter(|path| is_executable(path)).map(|path| path.to_string_lossy().into_owned());
        let sexton = shlex::try_quote(beside.as_deref().unwrap_or("sexton")).map(|word| format!("{word} --"));
        let peers = PEERS.iter().map(|(name, words)| [&[*name], *words].concat().join(" "));
        sexton.into_iter().chain(peers).filter_map(|line| Self::from_words(&line).ok()).collect()
    }

    /// The words before a command's: those of the prefix, with the wish's between the program's name and the rest.
    pub fn words_with(&self, spelling: &Spelling) -> Vec<OsString> {
        let Some((program, rest)) = self.words.split_first() else { return Vec::new() };
        let options = spelling.words.iter().map(OsString::from);
        std::iter::once(program.clone()).chain(options).chain(rest.iter().cloned()).collect()
    }

    /// The prefix in a shell's quoting.
    pub fn line(&self) -> String {
        let words = self.words.iter().map(|word| {
            shlex::bytes::try_quote(word.as_bytes()).map_or_else(
                |_| word.to_string_lossy().into_owned(),
                |word| String::from_utf8_lossy(&word).into_owned(),
            )
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A program by its path, or in PATH.
fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return std::path::absolute(name).ok().filter(|path| is_executable(path));
    }
    let folders = std::env::var_os("PATH")?;
    let absolute = |folder: PathBuf| std::path::absolute(folder.join(name)).ok();
    std::env::split_paths(&folders).filter_map(absolute).find(|path| is_executable(path))
}

/// Whether the pattern, in which `*` stands for any text and `?` for one character, is all of the name.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| name.get(at..).is_some_and(|name| matches(rest.as_str(), name)))
        }
        Some(first) => {
            let mut name = name.chars();
            name.next()
                .is_some_and(|character| (first == '?' || first == character) && matches(rest.as_str(), name.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_split_as_a_shell_does() {
        let init = Init::from_words("/bin/sh -c '\"$0\" \"$@\"; exit $?'").unwrap();
        assert_eq!((init.kind, init.words.len()), (Kind::Other, 3));
        assert_eq!(init.words[2], "\"$0\" \"$@\"; exit $?");
        let init = Init::from_words("shell=sh -c 'exec \"$0\" \"$@\"'").unwrap();
        assert_eq!((init.name.as_str(), init.words[0].to_str()), ("shell", Some("sh")));
        let none = Init::from_words(" ").unwrap();
        assert_eq!((none.kind, none.name.as_str(), none.program.is_none()), (Kind::None, "none", true));
        for (text, why) in [("sh 'x", "a quote is not closed"), ("/no/such x", "no program /no/such")] {
            let error = Init::from_words(text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn options_come_right_behind_the_program() {
        let tini = Init {
            name: "tini".into(),
            kind: Kind::Tini,
            program: Some("/tini".into()),
            words: vec!["tini".into(), "--".into()],
        };
        let spelling = Wish::Group.spelled(tini.kind).unwrap();
        assert_eq!(tini.words_with(&spelling), ["tini", "-g", "--"]);
        let rewrite = Wish::Rewrite(Signal::TERM, None);
        assert_eq!(rewrite.spelled(Kind::DumbInit).unwrap().words, ["-r", "15:0"]);
        assert_eq!(rewrite.spelled(Kind::Tini), None);
        assert_eq!(Wish::CommandOnly.spelled(Kind::Other), Some(Spelling::default()));
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("s2*", "s2-fault", true),
            ("*fault", "s2-fault", true),
            ("s2", "s2-fault", false),
            ("s?-*", "s2-fault", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
