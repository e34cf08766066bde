//! Clauses X: exit status, and what is said of a command that cannot be executed.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Awaited, Case, PASS, Room, Stop, Verdict, case, check, check_end};
use crate::lab::container::{Container, End};
use crate::lab::inits::{Spelling, Wish};

/// The rows.
pub const CASES: &[Case] = &[
    case("x1-codes", "X1", 0, "every exit code from 0 to 255 survives", codes),
    case("x1-signals", "X1", 0, "a command that signal n ended is 128+n", ended_by_signal),
    case("x2-mapped", "X2", 0, "exit code 143 is turned into 0", mapped),
    case("x3-not-found", "X3", 0, "a command that is not found is 127", not_found),
    case("x3-not-executable", "X3", 0, "a command that cannot be executed is 126", not_executable),
    case("x4-stdout", "X4", 0, "only the command writes to stdout, however verbose the init is", stdout),
    case("x5-junk", "X5", 16, "a file that is no program and no text is refused, and not run by a shell", junk),
    case("x5-interpreter", "X5", 16, "the interpreter that is missing is named", interpreter),
];

fn codes(room: &Room) -> Verdict {
    for code in 0..=255 {
        let mut container = room.with(&["exit", &code.to_string()]).start()?;
        check_end(container.end(), code)?;
    }
    PASS
}

fn ended_by_signal(room: &Room) -> Verdict {
    // The default action of the others is not to end the process.
    for number in (1..=64).filter(|n| ![17, 18, 19, 20, 21, 22, 23, 28].contains(n)) {
        let mut container = room.with(&["exit", "--signal", &number.to_string()]).start()?;
        check_end(container.end(), 128 + number)?;
    }
    PASS
}

fn mapped(room: &Room) -> Verdict {
    for (code, expected) in [(143, 0), (142, 142)] {
        let mut container = room.with_wish(Wish::MapCode, &["exit", &code.to_string()])?.start()?;
        check_end(container.end(), expected)?;
    }
    PASS
}

/// Runs a command that is no subject: the end and stderr.
fn run(room: &Room, command: &Path) -> Result<(End, Container), Stop> {
    let mut container = room.launch(&Spelling::default(), vec![command.into()]).start()?;
    let end = container.end().or_fail("an init that gives up")?;
    Ok((end, container))
}

fn not_found(room: &Room) -> Verdict {
    room.needs_init()?;
    let (end, _) = run(room, Path::new("/nowhere/at/all"))?;
    check(end.code() == 127, "exit code 127", end)?;
    PASS
}

fn not_executable(room: &Room) -> Verdict {
    room.needs_init()?;
    // A folder is there, and no program.
    let (end, _) = run(room, Path::new("/proc"))?;
    check(end.code() == 126, "exit code 126", end)?;
    PASS
}

fn stdout(room: &Room) -> Verdict {
    let mut container = room.with_wish(Wish::Verbose, &["orphan", "--count", "3", "--code", "3"])?.start()?;
    check_end(container.end(), 3)?;
    let text = container.rest().or_fail("an end of stdout")?;
    let foreign = text.lines().find(|line| !["ready", "done"].contains(line));
    check(foreign.is_none(), "nothing but the command's lines", format!("{:?}", foreign.unwrap_or_default()))?;
    PASS
}

/// Runs a file with this content.
fn run_file(room: &Room, content: &[u8]) -> Result<(End, Container), Stop> {
    room.needs_init()?;
    let file = room.folder()?.join("file");
    fs::write(&file, content)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    run(room, &file)
}

fn junk(room: &Room) -> Verdict {
    let (end, mut container) = run_file(room, b"\x7f\x01\x02\0\0\x03\n\necho run by a shell\nexit 0\n")?;
    let stdout = container.rest().or_fail("an end of stdout")?;
    check(end.code() != 0 && stdout.is_empty(), "a refusal", format!("{end}, and on stdout {stdout:?}"))?;
    PASS
}

fn interpreter(room: &Room) -> Verdict {
    let (end, container) = run_file(room, b"#!/nowhere/interpreter\n")?;
    let stderr = container.stderr_so_far();
    let said = stderr.lines().next().unwrap_or_default();
    check(end.code() != 0, "a refusal", end)?;
    check(stderr.contains("/nowhere/interpreter"), "/nowhere/interpreter is named", format!("{said:?}"))?;
    PASS
}
