//! The options of limits, and of the command's environment.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Options, row, text};
use crate::cli::{Invalid, Row};
use crate::setup::environment;
use crate::setup::limits::NAMES;
use crate::sys::limit::{Limit, UNLIMITED};

const LIMITS: &str = "Limits and environment";

/// Its rows, in the order of the help.
pub const ROWS: &[Row] = &[
    row("ulimit", None, "NAME=SOFT[:HARD]", LIMITS, "a limit, such as nofile=1024:4096 (repeatable)", ulimit),
    row("oom-score-adj", None, "NUMBER", LIMITS, "-1000 to 1000: the higher, the sooner it is killed", |o, value| {
        o.setup.limits.oom_score = Some(whole(value, -1000, 1000)?);
        Ok(())
    }),
    row("nice", None, "NUMBER", LIMITS, "-20 to 19: the higher, the less it gets", |o, value| {
        o.setup.limits.nice = Some(whole(value, -20, 19)?);
        Ok(())
    }),
    row("umask", None, "OCTAL", LIMITS, "permissions that new files do not get, such as 027", umask),
    row("env", None, "NAME[=VALUE]", LIMITS, "set a variable, or pass it through (repeatable)", |o, value| {
        environment::check(value.as_bytes())?;
        o.setup.environment.variables.push(value.to_owned());
        Ok(())
    }),
    row("env-file", None, "FILE", LIMITS, "variables from a file, a line each (repeatable)", |o, value| {
        if value.is_empty() {
            return Err("write a file".into());
        }
        o.setup.environment.files.push(value.into());
        Ok(())
    }),
    row("clear-env", None, "", LIMITS, "pass nothing on but what these options give", |o, _| {
        o.setup.environment.clear = true;
        Ok(())
    }),
];

fn ulimit(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let (name, values) = text(value)?.split_once('=').ok_or("write NAME=SOFT[:HARD], such as nofile=1024:4096")?;
    let (_, resource, _) = NAMES.iter().find(|(known, ..)| *known == name).ok_or_else(|| {
        let names: Vec<_> = NAMES.iter().map(|(known, ..)| *known).collect();
        format!("{name:?} is no limit; there are {}", names.join(" "))
    })?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (amount(soft)?, amount(hard)?);
    if soft > hard {
        return Err("the soft limit is above the hard one; write SOFT:HARD".into());
    }
    options.setup.limits.limit(Limit { resource: *resource, soft, hard });
    Ok(())
}

fn amount(value: &str) -> Result<u64, Invalid> {
    match value {
        "-1" | "unlimited" => Ok(UNLIMITED),
        _ => digits(value, 10).ok_or_else(|| format!("{value:?} is no amount: use a number, or unlimited")),
    }
}

/// A number without a sign.
fn digits(value: &str, radix: u32) -> Option<u64> {
    let all = value.bytes().all(|byte| char::from(byte).is_digit(radix));
    u64::from_str_radix(value, radix).ok().filter(|_| all)
}

fn whole(value: &OsStr, least: i32, most: i32) -> Result<i32, Invalid> {
    let number = text(value).ok().and_then(|text| text.parse().ok()).filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("use a whole number from {least} to {most}"))
}

fn umask(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let mask = text(value).ok().and_then(|text| digits(text, 8)).and_then(|mask| u32::try_from(mask).ok());
    let mask = mask.filter(|mask| *mask <= 0o777).ok_or("use octal digits from 0 to 777, such as 027")?;
    options.setup.limits.umask = Some(mask);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{refused, taken};
    use super::*;

    #[test]
    fn c1_limits_have_dockers_names() {
        let limit = |value: &str| {
            let limit = taken(ROWS, "ulimit", value).setup.limits.limits[0];
            (limit.soft, limit.hard)
        };
        assert_eq!(limit("nofile=3"), (3, 3));
        assert_eq!(limit("as=1:unlimited"), (1, UNLIMITED));
        assert_eq!(limit("core=-1"), (UNLIMITED, UNLIMITED));
        for (name, ..) in NAMES {
            assert_eq!(limit(&format!("{name}=0:1")), (0, 1));
        }
        for bad in ["", "nofile", "nofile=", "nofile=x", "nofile=5:3", "nofile=-2", "nofile=+1", "nofile=-1:5", "n=1"] {
            let _ = refused(ROWS, "ulimit", bad);
        }
        assert!(refused(ROWS, "ulimit", "files=1").contains("nofile"));
        let mut options = taken(ROWS, "ulimit", "nofile=3");
        ulimit(&mut options, "nofile=4".as_ref()).unwrap();
        assert_eq!(options.setup.limits.limits.len(), 1, "the later one counts");
    }

    #[test]
    fn c1_numbers_have_their_bounds() {
        for (option, good, bad) in [
            ("oom-score-adj", ["-1000", "1000"], ["-1001", "1001", "", "x", "1.5"]),
            ("nice", ["-20", "19"], ["-21", "20", "", "x", "0x1"]),
            ("umask", ["0", "0777"], ["1000", "8", "", "-1", "+7"]),
        ] {
            for value in good {
                let _ = taken(ROWS, option, value);
            }
            for value in bad {
                assert!(refused(ROWS, option, value).contains("use "), "{option} {value}");
            }
        }
        assert_eq!(taken(ROWS, "umask", "027").setup.limits.umask, Some(0o27));
    }

    #[test]
    fn c1_variables_have_names() {
        assert_eq!(taken(ROWS, "env", "A=b=c").setup.environment.variables, ["A=b=c"]);
        assert_eq!(taken(ROWS, "env", "A").setup.environment.variables, ["A"]);
        for bad in ["", "=x", "SEXTON_OPTS=x", "SEXTON_OPTS"] {
            let _ = refused(ROWS, "env", bad);
        }
        assert!(refused(ROWS, "env-file", "").contains("file"));
    }
}
