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
    /// Its home.
    pub home: Option<Vec<u8>>,
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// More than any such file has; a longer one is a trap.
const MOST: u64 = 16 << 20;

/// The file's content. What an image has in its place may be anything: a pipe would wait for ever.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}

/// Looks up in a file. A number needs no file; a name does.
fn search<T>(path: &str, who: &Who, find: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, SetupError> {
    match (read(path), who) {
        (Ok(text), _) => match (find(&text), who) {
            (None, Who::Name(name)) => Err(SetupError::found(
                format!("{name:?}"),
                format!("not in {path} of the command's root; give a number"),
            )),
            (found, _) => Ok(found),
        },
        (Err(_), Who::Number(_)) => Ok(None),
        (Err(error), Who::Name(name)) => {
            let advice = format!("{name:?} is looked up there; give a number, which needs no file");
            Err(SetupError::io(format!("open({path:?})"), &error, advice))
        }
    }
}

/// The user. A number that is not in /etc/passwd has group 0 and no home, as docker has it.
pub fn user(who: &Who) -> Result<User, SetupError> {
    let unknown = || User { uid: if let Who::Number(uid) = who { *uid } else { 0 }, ..User::default() };
    Ok(search(PASSWD, who, |text| find_user(text, who))?.unwrap_or_else(unknown))
}

/// The group's id.
pub fn group(who: &Who) -> Result<u32, SetupError> {
    if let Who::Number(gid) = who {
        return Ok(*gid);
    }
    Ok(search(GROUP, who, |text| find_group(text, who))?.unwrap_or_default())
}

/// The groups that /etc/group says this user is a member of.
pub fn groups_of(name: &[u8]) -> Vec<u32> {
    read(GROUP).map(|text| memberships(&text, name)).unwrap_or_default()
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Lines, each as its fields.
fn entries(text: &[u8]) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':'))
}

fn matches(who: &Who, name: &[u8], id: u32) -> bool {
    match who {
        Who::Number(number) => *number == id,
        Who::Name(asked) => asked.as_bytes() == name,
    }
}

/// `name:password:uid:gid:comment:home:shell`
fn find_user(text: &[u8], who: &Who) -> Option<User> {
    entries(text).find_map(|mut fields| {
        let name = fields.next()?;
        let (uid, gid) = (number(fields.nth(1)?)?, number(fields.next()?)?);
        let home = fields.nth(1).filter(|home| !home.is_empty()).map(<[u8]>::to_vec);
        matches(who, name, uid).then(|| User { uid, gid, name: Some(name.to_vec()), home })
    })
}

/// `name:password:gid:member,member`
fn find_group(text: &[u8], who: &Who) -> Option<u32> {
    entries(text).find_map(|mut fields| {
        let name = fields.next()?;
        let gid = number(fields.nth(1)?)?;
        matches(who, name, gid).then_some(gid)
    })
}

fn memberships(text: &[u8], user: &[u8]) -> Vec<u32> {
    let gids = entries(text).filter_map(|mut fields| {
        let gid = number(fields.nth(2)?)?;
        fields.next()?.split(|byte| *byte == b',').any(|member| member == user).then_some(gid)
    });
    gids.collect()
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
        let ann = User { uid: 1000, gid: 100, name: Some(b"ann".to_vec()), home: Some(b"/home/ann".to_vec()) };
        assert_eq!(find_user(PASSWD, &name("ann")), Some(ann.clone()));
        assert_eq!(find_user(PASSWD, &Who::Number(1000)), Some(ann), "digits are a number, whoever is called so");
        let short = User { uid: 9, gid: 9, name: Some(b"short".to_vec()), home: None };
        assert_eq!(find_user(PASSWD, &name("short")), Some(short));
        for who in [name("an"), name("bad"), name("neg"), name(""), Who::Number(5)] {
            assert_eq!(find_user(PASSWD, &who), None, "{who}");
        }
    }

    #[test]
    fn c1_groups_are_found_and_memberships_are_by_whole_names() {
        assert_eq!(find_group(GROUP, &name("wheel")), Some(10));
        assert_eq!(find_group(GROUP, &name("whee")), None);
        assert_eq!(memberships(GROUP, b"ann"), [100, 10]);
        assert_eq!(memberships(GROUP, b"root"), [10]);
        assert!(memberships(GROUP, b"nobody").is_empty());
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
