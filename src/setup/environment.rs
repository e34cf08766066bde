//! The command's environment: what sexton was started with, less what is not passed on, and more.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::step::{SetupError, State, Step, Steps};
use crate::cli::OPTIONS_VARIABLE;

/// What is wanted.
#[derive(Default, Debug)]
pub struct Wanted {
    /// `--clear-env`.
    pub clear: bool,
    /// `--env-file`.
    pub files: Vec<PathBuf>,
    /// `--env`: `NAME=VALUE`, or the NAME of one to pass through.
    pub variables: Vec<OsString>,
}

/// How the environment changes: what it is, once the steps have run.
#[derive(Default, Debug)]
pub struct Environment {
    /// Begin with nothing.
    pub clear: bool,
    /// `NAME=VALUE`, the later over the earlier, and all over what was there.
    pub variables: Vec<CString>,
}

impl Wanted {
    /// The files are read out here: in there they may not be.
    pub fn outside(&self) -> Steps<'_> {
        let mut steps = Steps::new();
        if self.clear || !self.files.is_empty() || !self.variables.is_empty() {
            steps.push(Box::new(Resolve(self)));
        }
        steps
    }
}

/// Whether a text is `NAME=VALUE` or NAME. The error is what is wrong with it.
pub fn check(variable: &[u8]) -> Result<(), &'static str> {
    let name = name(variable);
    if name.is_empty() {
        return Err("a variable needs a name; write NAME=VALUE, or NAME to pass it through");
    }
    if name == OPTIONS_VARIABLE.as_bytes() {
        return Err("SEXTON_OPTS is sexton's own, and never passed on");
    }
    Ok(())
}

/// The part before the `=`.
pub fn name(variable: &[u8]) -> &[u8] {
    variable.split(|byte| *byte == b'=').next().unwrap_or(variable)
}

struct Resolve<'a>(&'a Wanted);

impl Step for Resolve<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        state.environment.clear = self.0.clear;
        let variables = &mut state.environment.variables;
        for path in &self.0.files {
            let shown = path.to_string_lossy();
            let text = std::fs::read(path).map_err(|error| {
                SetupError::io(format!("open({shown:?})"), &error, "--env-file must name a file that can be read")
            })?;
            let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
            for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
                let variable =
                    variable_of(line).map_err(|why| SetupError::found(format!("{shown:?}, line {number}"), why))?;
                variables.extend(variable.and_then(resolved));
            }
        }
        variables.extend(self.0.variables.iter().filter_map(|variable| resolved(variable.as_bytes())));
        Ok(())
    }
}

impl fmt::Display for Resolve<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.clear {
            "the command's environment: empty"
        } else {
            "the command's environment: as here"
        })?;
        for path in &self.0.files {
            write!(f, ", then from {}", path.display())?;
        }
        for variable in &self.0.variables {
            // A value may be a secret.
            write!(f, ", then {}", OsStr::from_bytes(name(variable.as_bytes())).display())?;
        }
        Ok(())
    }
}

/// A line of an env-file in docker's format: blanks before it, empty ones and comments do not count; a value is all behind
/// the `=`, quotes and blanks too.
fn variable_of(line: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    check(line)?;
    if name(line).iter().any(u8::is_ascii_whitespace) {
        return Err("blanks in a name; write NAME=VALUE");
    }
    if line.contains(&0) { Err("a zero byte; this is no text") } else { Ok(Some(line)) }
}

/// `NAME=VALUE` as it is; a NAME alone with the value that it has here, if any.
fn resolved(variable: &[u8]) -> Option<CString> {
    if variable.contains(&b'=') {
        return CString::new(variable).ok();
    }
    let value = std::env::var_os(OsStr::from_bytes(variable))?;
    CString::new([variable, b"=", value.as_bytes()].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_an_env_file_is_in_dockers_format() {
        for (line, variable) in [
            (&b"A=1"[..], Some(&b"A=1"[..])),
            (b"  A=\"1\" # x ", Some(b"A=\"1\" # x ")),
            (b"A=b=c", Some(b"A=b=c")),
            (b"A=", Some(b"A=")),
            (b"A", Some(b"A")),
            (b"A=1\r", Some(b"A=1")),
            (b"", None),
            (b" \t", None),
            (b" # A=1", None),
        ] {
            assert_eq!(variable_of(line), Ok(variable), "{line:?}");
        }
        for line in [&b"=1"[..], b"A B=1", b"A =1", b"export A", b"A=\0", b"SEXTON_OPTS=x"] {
            assert!(variable_of(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn c1_a_name_alone_is_passed_through_if_it_is_there() {
        let path = std::env::var_os("PATH").unwrap();
        assert_eq!(resolved(b"PATH").unwrap().as_bytes(), [b"PATH=", path.as_bytes()].concat());
        assert_eq!(resolved(b"NO_SUCH_VARIABLE_HERE"), None);
        assert_eq!(resolved(b"A=").unwrap().as_bytes(), b"A=");
    }
}
