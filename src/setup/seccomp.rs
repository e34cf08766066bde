//! Which system calls the command may make (seccomp(2)).
#![forbid(unsafe_code)]

pub mod calls;
pub mod json;
pub mod profile;
pub mod program;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::utsname::uname;

use super::capability::Capabilities;
use super::credentials::{self, out_of_reach, own_bounding};
use super::step::{SetupError, State, Step, Steps};
use crate::sys::action::Action;
use crate::sys::change::Change;
use crate::sys::seccomp::{Instruction, LONGEST};
use json::Value;
use profile::Target;

/// What is wanted.
#[derive(Default, Debug)]
pub struct Wanted {
    /// `--seccomp`.
    pub file: Option<PathBuf>,
}

/// A filter, read.
#[derive(Debug)]
pub enum Filter {
    /// The program itself.
    Program(Vec<Instruction>),
    /// Rules, which depend on the command's capabilities.
    Profile(Value),
}

impl Wanted {
    /// What goes together and what does not.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// The file is read out here: in there it may not be.
    pub fn outside(&self) -> Steps<'_> {
        self.file.iter().map(|file| Box::new(Read(file)) as Box<dyn Step>).collect()
    }

    /// Sexton out here goes without the filter, out of the command's reach.
    pub fn between(&self) -> Steps<'_> {
        self.file.iter().map(|_| Box::new(OutOfReach) as Box<dyn Step>).collect()
    }

    /// The filter is prepared; the command sets it.
    pub fn command<'a>(&'a self, credentials: &'a credentials::Wanted) -> Steps<'a> {
        self.file.iter().map(|file| Box::new(Set(file, credentials)) as Box<dyn Step>).collect()
    }
}

fn wrong(file: &Path, why: String) -> SetupError {
    SetupError::found(format!("--seccomp {}", file.display()), why)
}

struct Read<'a>(&'a Path);

impl Step for Read<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let content = fs::read(self.0).map_err(|error| {
            SetupError::io(
                format!("open({:?})", self.0.to_string_lossy()),
                &error,
                "--seccomp must name a file that can be read",
            )
        })?;
        let target = target(own_bounding()?)?;
        let filter = if content.trim_ascii_start().starts_with(b"{") {
            // What is wrong is found out here already, whatever the capabilities in there.
            json::parse(&content).map_err(|wrong| wrong.to_string()).and_then(|value| {
                profile::compile(&value, target)?;
                Ok(Filter::Profile(value))
            })
        } else {
            program_of(&content).map(Filter::Program)
        };
        state.filter = Some(filter.map_err(|why| wrong(self.0, why))?);
        Ok(())
    }
}

impl fmt::Display for Read<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read the system call filter {}", self.0.display())
    }
}

/// What a profile asks for. Unknown, its rules would not hold.
fn target(bounding: Capabilities) -> Result<Target, SetupError> {
    let names = uname().map_err(|errno| SetupError::call("uname()", errno, "a seccomp filter may forbid it"))?;
    let kernel = names.release().to_str().and_then(profile::version);
    Ok(Target { bounding, kernel: kernel.unwrap_or_default() })
}

/// An array of `struct sock_filter`, as the machine has it: code, two jumps, value.
fn program_of(content: &[u8]) -> Result<Vec<Instruction>, String> {
    let (instructions, rest) = content.as_chunks::<8>();
    if !rest.is_empty() || instructions.is_empty() || instructions.len() > LONGEST {
        return Err(format!(
            "neither a JSON object nor BPF: 1 to {LONGEST} instructions of 8 bytes, and these are {} bytes",
            content.len()
        ));
    }
    let instruction = |[c, d, jt, jf, k @ ..]: &[u8; 8]| Instruction {
        code: u16::from_ne_bytes([*c, *d]),
        jt: *jt,
        jf: *jf,
        k: u32::from_ne_bytes(*k),
    };
    Ok(instructions.iter().map(instruction).collect())
}

struct Set<'a>(&'a Path, &'a credentials::Wanted);

impl Step for Set<'_> {
    fn run(&self, state: &mut State) -> Result<(), SetupError> {
        let (program, flags) = match state.filter.take() {
            None => return Ok(()),
            Some(Filter::Program(program)) => (program, 0),
            Some(Filter::Profile(profile)) => {
                let target = target(self.1.bounding()?)?;
                profile::compile(&profile, target).map_err(|why| wrong(self.0, why))?
            }
        };
        out_of_reach();
        state.actions.push(Action::Change(Change::Filter(program, flags)));
        Ok(())
    }
}

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.1.no_new_privileges() { "last of all" } else { "before its credentials change" };
        write!(f, "it makes only the system calls that {} lets pass, from now on ({place})", self.0.display())
    }
}

struct OutOfReach;

impl Step for OutOfReach {
    fn run(&self, _: &mut State) -> Result<(), SetupError> {
        out_of_reach();
        Ok(())
    }
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody without privilege may trace this sexton, which goes without the filter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_bpf_is_whole_instructions() {
        let mut bytes = 0x20_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 2]);
        bytes.extend(7_u32.to_ne_bytes());
        assert_eq!(program_of(&bytes), Ok(vec![Instruction { code: 0x20, jt: 1, jf: 2, k: 7 }]));
        assert!(program_of(&bytes.repeat(LONGEST)).is_ok());
        for bad in [&[][..], &bytes[..7], &bytes.repeat(LONGEST + 1)] {
            assert!(program_of(bad).unwrap_err().contains(&format!("{} bytes", bad.len())));
        }
    }
}
