//! Names of users and groups, from the files themselves (passwd(5), group(5)): NSS is no business of a static program.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use crate::setup::step::SetupError;

/// A user or group as it was asked for: by number, or by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// Whether or not a file knows it.
    Number(u32),
    /// To be looked up.
    Name(String),
}

impl Who {
    /// A text of digits is a number. `None`: empty, or not a possible id (the highest stands for "no change").
    pub fn of(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().filter(|id| *id != u32::MAX).map(Self::Number);
        }
        (!text.contains([':', ',', '\0', '\n'])).then(|| Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A user that was found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct User {
    /// Its id.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its name, if it has one.
    pub name: Option<Vec<u8>>,
    /// Its home; empty if it has none.
    pub home: Vec<u8>,
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// More than any such file has; a longer one is a trap.
const MOST: u64 = 16 << 20;

/// The file's content. What an image has in its place may be anything: a pipe would wait for ever.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > MOST {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// The file in which somebody is looked up. A name needs one; a number does not, but one that is there and cannot be
/// read may say otherwise than what goes without it.
fn searched(path: &str, who: &Who) -> Result<Vec<u8>, SetupError> {
    read(path).or_else(|error| match who {
        Who::Number(_) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Who::Number(_) => {
            Err(unread(path, &error, "the group is looked up there; give it too (--user UID:GID)".into()))
        }
        Who::Name(name) => {
            Err(unread(path, &error, format!("{name:?} is looked up there; give a number, which needs no file")))
        }
    })
}

fn unread(path: &str, error: &io::Error, advice: String) -> SetupError {
    SetupError::io(format!("open({path:?})"), error, advice)
}

fn not_in(path: &str, name: &str) -> SetupError {
    SetupError::found(format!("{name:?}"), format!("not in {path} of the command's root; give a number"))
}

/// The user, with a group other than its own if one is given. A number that is not in /etc/passwd has group 0 and no
/// home, as docker has it.
pub fn user(who: &Who, given: Option<&Who>) -> Result<User, SetupError> {
    let text = match (searched(PASSWD, who), who, given) {
        // But for its home all is known.
        (Err(_), Who::Number(_), Some(_)) => Vec::new(),
        (text, ..) => text?,
    };
    let mut user = match (find_user(&text, who), who) {
        (Some(user), _) => user,
        (None, Who::Number(uid)) => User { uid: *uid, ..User::default() },
        (None, Who::Name(name)) => return Err(not_in(PASSWD, name)),
    };
    if let Some(given) = given {
        user.gid = group(given)?;
    }
    Ok(user)
}

/// The group's id.
pub fn group(who: &Who) -> Result<u32, SetupError> {
    match who {
        Who::Number(gid) => Ok(*gid),
        Who::Name(name) => find_group(&searched(GROUP, who)?, name).ok_or_else(|| not_in(GROUP, name)),
    }
}

/// Adds the groups that /etc/group, if there is one, says this user is a member of.
pub fn add_groups_of(name: &[u8], groups: &mut Vec<u32>) -> Result<(), SetupError> {
    match read(GROUP) {
        Ok(text) => add_memberships(&text, name, groups),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(unread(GROUP, &error, "the user's groups are looked up there; give them (--groups)".into()));
        }
    }
    Ok(())
}

/// The fields of a line; what is missing is empty. (One closure for all: three copies of a chain of iterators are 2 kB.)
fn each_entry(text: &[u8], visit: &mut dyn FnMut(&[&[u8]; 6])) {
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields: [&[u8]; 6] = Default::default();
        for (to, from) in fields.iter_mut().zip(line.split(|byte| *byte == b':')) {
            *to = from;
        }
        visit(&fields);
    }
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// `name:password:uid:gid:comment:home:shell`
fn find_user(text: &[u8], who: &Who) -> Option<User> {
    let mut found = None;
    each_entry(text, &mut |[name, _, uid, gid, _, home]| {
        let (Some(uid), Some(gid)) = (number(uid), number(gid)) else { return };
        let is_asked = match who {
            Who::Number(number) => *number == uid,
            Who::Name(asked) => asked.as_bytes() == *name,
        };
        if is_asked && found.is_none() {
            found = Some(User { uid, gid, name: Some(name.to_vec()), home: home.to_vec() });
        }
    });
    found
}

/// `name:password:gid:member,member`
fn find_group(text: &[u8], asked: &str) -> Option<u32> {
    let mut found = None;
    each_entry(text, &mut |[name, _, gid, ..]| {
        if found.is_none() && asked.as_bytes() == *name {
            found = number(gid);
        }
    });
    found
}

fn add_memberships(text: &[u8], user: &[u8], groups: &mut Vec<u32>) {
    each_entry(text, &mut |[_, _, gid, members, ..]| {
        if let Some(gid) = number(gid)
            && members.split(|byte| *byte == b',').any(|member| member == user)
            && !groups.contains(&gid)
        {
            groups.push(gid);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n#x\nbad\nann:x:1000:100:Ann,,,:/home/ann:/bin/sh\n\
        1000:x:7:8::/seven:\nshort:x:9:9\nneg:x:-1:0::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:ann\nwheel:x:10:root,ann\nann:x:1000:\nann2:x:5:ann2,annx\n";

    fn name(name: &str) -> Who {
        Who::Name(name.into())
    }

    #[test]
    fn c1_users_are_found_by_name_or_number() {
        let ann = User { uid: 1000, gid: 100, name: Some(b"ann".to_vec()), home: b"/home/ann".to_vec() };
        assert_eq!(find_user(PASSWD, &name("ann")), Some(ann.clone()));
        assert_eq!(find_user(PASSWD, &Who::Number(1000)), Some(ann), "digits are a number, whoever is called so");
        let short = User { uid: 9, gid: 9, name: Some(b"short".to_vec()), home: vec![] };
        assert_eq!(find_user(PASSWD, &name("short")), Some(short));
        for who in [name("an"), name("bad"), name("neg"), name(""), Who::Number(5)] {
            assert_eq!(find_user(PASSWD, &who), None, "{who}");
        }
    }

    #[test]
    fn c1_groups_are_found_and_memberships_are_by_whole_names() {
        let memberships = |name| {
            let mut groups = vec![100];
            add_memberships(GROUP, name, &mut groups);
            groups
        };
        assert_eq!(find_group(GROUP, "wheel"), Some(10));
        assert_eq!(find_group(GROUP, "whee"), None);
        assert_eq!(memberships(b"ann"), [100, 10]);
        assert_eq!(memberships(b"root"), [100, 10]);
        assert_eq!(memberships(b"nobody"), [100]);
    }

    #[test]
    fn c1_digits_are_a_number() {
        assert_eq!(Who::of("1000"), Some(Who::Number(1000)));
        assert_eq!(Who::of("-1"), Some(name("-1")));
        assert_eq!(Who::of("ann"), Some(name("ann")));
        for bad in ["", "4294967295", "4294967296", "a:b", "a,b"] {
            assert_eq!(Who::of(bad), None, "{bad}");
        }
    }
}
