//! The options of credentials and of the system call filter.
#![forbid(unsafe_code)]

use std::ffi::OsStr;

use super::{Options, row, text};
use crate::cli::{Invalid, Row};
use crate::setup::capability::Capabilities;
use crate::setup::credentials::Choice;
use crate::setup::credentials::accounts::Who;

const CREDENTIALS: &str = "Credentials";

/// Its rows, in the order of the help.
pub const ROWS: &[Row] = &[
    row(
        "user",
        None,
        "USER[:GROUP]",
        CREDENTIALS,
        "the command's user, by name or number, from its own root's\n/etc/passwd and /etc/group",
        user,
    ),
    row("groups", None, "GROUP,...", CREDENTIALS, "these supplementary groups; empty: none", groups),
    row(
        "cap-add",
        None,
        "LIST",
        CREDENTIALS,
        "add capabilities, such as NET_ADMIN, or ALL (repeatable)",
        |o, value| {
            let choice = choice(o);
            capabilities(value, &mut choice.add, &mut choice.add_all)
        },
    ),
    row("cap-drop", None, "LIST", CREDENTIALS, "drop capabilities, or ALL but those added (repeatable)", |o, value| {
        let choice = choice(o);
        capabilities(value, &mut choice.drop, &mut choice.drop_all)
    }),
    row(
        "ambient-caps",
        None,
        "",
        CREDENTIALS,
        "keep capabilities over exec, also as another user than root",
        |o, _| {
            o.setup.credentials.ambient = true;
            Ok(())
        },
    ),
    row(
        "no-new-privs",
        None,
        "",
        CREDENTIALS,
        "no exec gives privilege: no set-user-ID, no file capabilities",
        |o, _| {
            o.setup.credentials.no_new_privileges = true;
            Ok(())
        },
    ),
    row("seccomp", None, "FILE", CREDENTIALS, "filter system calls: docker's JSON profile, or BPF", |o, value| {
        if value.is_empty() {
            return Err("write a file".into());
        }
        o.setup.seccomp.file = Some(value.into());
        Ok(())
    }),
];

fn who(name: &str, what: &str) -> Result<Who, Invalid> {
    Who::of(name).ok_or_else(|| format!("{name:?} is no {what}: use a name, or a number below 4294967295"))
}

fn user(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let value = text(value)?;
    let (user, group) = match value.split_once(':') {
        Some((user, group)) => (user, Some(who(group, "group")?)),
        None => (value, None),
    };
    options.setup.credentials.user = Some((who(user, "user")?, group));
    Ok(())
}

fn groups(options: &mut Options, value: &OsStr) -> Result<(), Invalid> {
    let names = text(value)?.split(',').filter(|_| !value.is_empty());
    options.setup.credentials.groups = Some(names.map(|name| who(name, "group")).collect::<Result<_, _>>()?);
    Ok(())
}

fn choice(options: &mut Options) -> &mut Choice {
    options.setup.credentials.choice.get_or_insert_default()
}

fn capabilities(value: &OsStr, set: &mut Capabilities, all: &mut bool) -> Result<(), Invalid> {
    for name in text(value)?.split(',') {
        if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
            *all = true;
            continue;
        }
        let found = Capabilities::named(name)
            .map_err(|nearest| format!("{name:?} is no capability; did you mean {nearest}? (or ALL)"))?;
        *set = set.and(found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{refused, taken};
    use super::*;

    #[test]
    fn c1_users_and_groups() {
        let user = |value: &str| taken(ROWS, "user", value).setup.credentials.user;
        let name = |name: &str| Who::Name(name.into());
        assert_eq!(user("ann"), Some((name("ann"), None)));
        assert_eq!(user("1000:users"), Some((Who::Number(1000), Some(name("users")))));
        let groups = |value: &str| taken(ROWS, "groups", value).setup.credentials.groups;
        assert_eq!(groups("1,users"), Some(vec![Who::Number(1), name("users")]));
        assert_eq!(groups(""), Some(vec![]));
        for bad in ["", ":", "ann:", ":1", "4294967295", "1:2:3", "a,b"] {
            assert!(refused(ROWS, "user", bad).contains("a number"), "{bad}");
        }
        for bad in [",", "a,,b", "4294967295"] {
            assert!(refused(ROWS, "groups", bad).contains("a number"), "{bad}");
        }
    }

    #[test]
    fn c1_capabilities_are_lists_of_names() {
        let choice = |option: &str, value: &str| taken(ROWS, option, value).setup.credentials.choice.unwrap();
        assert_eq!(choice("cap-add", "net_raw,CAP_CHOWN").add, Capabilities(1 << 13 | 1));
        assert!(choice("cap-drop", "all").drop_all && choice("cap-add", "CHOWN,ALL").add_all);
        assert!(refused(ROWS, "cap-add", "NETADMIN").contains("did you mean NET_ADMIN?"));
        for bad in ["", ",", "CHOWN,", "CAP_"] {
            assert!(refused(ROWS, "cap-drop", bad).contains("no capability"), "{bad}");
        }
    }

    #[test]
    fn c1_a_filter_is_a_file() {
        assert_eq!(taken(ROWS, "seccomp", "x.json").setup.seccomp.file, Some("x.json".into()));
        assert!(refused(ROWS, "seccomp", "").contains("file"));
    }
}
