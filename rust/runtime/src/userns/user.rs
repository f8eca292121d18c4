//! Who the command runs as: names looked up in the container's own /etc/passwd and
//! /etc/group, by the rules of Docker's `--user` (passwd(5), group(5)).

use crate::start_error::{Code, StartError};

/// A user, ready for setuid(2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user id inside the container.
    pub uid: u32,
    /// The group id inside the container.
    pub gid: u32,
    /// Supplementary groups, without `gid` twice.
    pub groups: Vec<u32>,
    /// The home directory, when passwd knows the user.
    pub home: Option<String>,
    /// A working directory that was made for it and shall be its own, where owners are emulated.
    pub made_home: Option<String>,
}

/// A line of passwd.
struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// Reads `name|uid[:group|gid]`. A number absent from passwd is taken as it is.
///
/// # Errors
/// `bad-user` for a name nobody has, in Docker's words.
pub fn resolve(wanted: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, StartError> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let number = if user.is_empty() { Some(0) } else { number(user) };
    let account = accounts(passwd)
        .find(|account| account.name == user.as_bytes() && !user.is_empty() || Some(account.uid) == number);
    let mut identity = match (&account, number) {
        (Some(account), _) => Identity {
            uid: account.uid,
            gid: account.gid,
            groups: Vec::new(),
            home: Some(String::from_utf8_lossy(account.home).into_owned()),
            made_home: None,
        },
        (None, Some(uid)) => Identity { uid, ..Identity::default() },
        (None, None) => {
            return Err(bad(format!("unable to find user {user}: no matching entries in passwd file")));
        }
    };
    match (wanted_group, account) {
        (Some(wanted), _) => identity.gid = group_id(wanted, group)?,
        (None, Some(account)) => identity.groups = memberships(account.name, group),
        (None, None) => {}
    }
    Ok(identity)
}

/// The id of a group by name or number.
///
/// # Errors
/// `bad-user` for an unknown name.
pub fn group_id(wanted: &str, group: &[u8]) -> Result<u32, StartError> {
    lines(group)
        .find_map(|fields| {
            (field(&fields, 0) == wanted.as_bytes()).then(|| numeric(field(&fields, 2))).flatten()
        })
        .or_else(|| number(wanted))
        .ok_or_else(|| bad(format!("unable to find group {wanted}: no matching entries in group file")))
}

/// The home directory of a uid.
pub fn home_of(uid: u32, passwd: &[u8]) -> Option<String> {
    let account = accounts(passwd).find(|account| account.uid == uid)?;
    Some(String::from_utf8_lossy(account.home).into_owned())
}

fn bad(message: String) -> StartError {
    StartError::new(Code::BadUser, "find the user", message)
}

fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    lines(passwd).filter_map(|fields| {
        let (uid, gid) = (numeric(field(&fields, 2))?, numeric(field(&fields, 3))?);
        Some(Account { name: field(&fields, 0), uid, gid, home: field(&fields, 5) })
    })
}

fn memberships(name: &[u8], group: &[u8]) -> Vec<u32> {
    lines(group)
        .filter(|fields| field(fields, 3).split(|byte| *byte == b',').any(|member| member == name))
        .filter_map(|fields| numeric(field(&fields, 2)))
        .collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && line[0] != b'#')
        .map(|line| line.split(|byte| *byte == b':').collect())
}

fn field<'a>(fields: &[&'a [u8]], index: usize) -> &'a [u8] {
    fields.get(index).copied().unwrap_or_default()
}

fn numeric(text: &[u8]) -> Option<u32> {
    number(std::str::from_utf8(text).ok()?)
}

/// An id: digits only, below the value that means "no change" to setuid(2).
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\npostgres:x:70:71::/var/lib/pg:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\naudio:x:11:root,postgres\nssl:x:101:postgres\npostgres:x:71:\n";

    fn ids(wanted: &str) -> (u32, u32, Vec<u32>) {
        let identity = resolve(wanted, PASSWD, GROUP).unwrap();
        (identity.uid, identity.gid, identity.groups)
    }

    #[test]
    fn names_numbers_and_groups_mean_what_docker_means() {
        assert_eq!(ids("postgres"), (70, 71, vec![11, 101]));
        assert_eq!(ids("70"), (70, 71, vec![11, 101]));
        assert_eq!(ids("postgres:audio"), (70, 11, vec![]));
        assert_eq!(ids("postgres:5"), (70, 5, vec![]));
        assert_eq!(ids("1234"), (1234, 0, vec![]));
        assert_eq!(ids("1234:77"), (1234, 77, vec![]));
        assert_eq!(ids(":audio"), (0, 11, vec![]));
        assert_eq!(ids("0"), (0, 0, vec![11]));
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        let user = resolve("nobody", PASSWD, GROUP).unwrap_err();
        assert_eq!(user.message, "unable to find user nobody: no matching entries in passwd file");
        let group = resolve("root:nogroup", PASSWD, GROUP).unwrap_err();
        assert_eq!(group.message, "unable to find group nogroup: no matching entries in group file");
        assert!(resolve("4294967295", PASSWD, GROUP).is_err());
        assert!(resolve("-1", PASSWD, GROUP).is_err());
        assert!(resolve("+1", PASSWD, GROUP).is_err());
    }

    #[test]
    fn home_comes_from_passwd_and_a_container_without_one_has_none() {
        assert_eq!(home_of(70, PASSWD).as_deref(), Some("/var/lib/pg"));
        assert_eq!(home_of(70, b""), None);
        assert_eq!(resolve("0", b"", b"").unwrap(), Identity::default());
    }
}
