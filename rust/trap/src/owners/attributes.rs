//! Extended attributes: which are kept here, who may set them, and what setting one does.
//!
//! `security.capability`, `trusted.*` and access lists are those that no user may set, so they are remembered with the
//! owner. xattr(7), acl(5), capabilities(7).

use std::borrow::Cow;

use rustix::io::Errno;

use super::{Record, ACCESS_LIST, CAPABILITY, DEFAULT_LIST};
use crate::credentials::{capability, Credentials, FileCapabilities};
use crate::permission::{allows, entries, list_under_mode, mode_of_list, mode_set, owns, Facts, WRITE};

/// XATTR_SIZE_MAX.
pub const LARGEST_VALUE: usize = 64 * 1024;
/// XATTR_NAME_MAX.
const LONGEST_NAME: usize = 255;
const TRUSTED: &[u8] = b"trusted.";

/// Who keeps an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The file system, for everybody who may write the file.
    Disk,
    /// The record: no user may set it.
    Record,
    /// Nobody: overlay's own, and what only the host's root could have.
    Nobody,
}

/// See [`Keeper`].
pub fn keeper(name: &[u8]) -> Keeper {
    match name {
        CAPABILITY | ACCESS_LIST | DEFAULT_LIST => Keeper::Record,
        _ if name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.") => Keeper::Nobody,
        _ if name.starts_with(b"user.") => Keeper::Disk,
        _ if name.starts_with(TRUSTED) => Keeper::Record,
        _ => Keeper::Nobody,
    }
}

/// A name as a call gives it.
///
/// # Errors
/// ERANGE: it is empty or too long.
pub fn name(text: Vec<u8>) -> Result<Vec<u8>, Errno> {
    if text.is_empty() || text.len() > LONGEST_NAME {
        return Err(Errno::RANGE);
    }
    Ok(text)
}

/// Whether someone may set or remove an attribute that a record keeps.
///
/// # Errors
/// EPERM.
pub fn may_set(who: &Credentials, name: &[u8], owner: u32) -> Result<(), Errno> {
    let may = match name {
        CAPABILITY => who.can(capability::SETFCAP),
        ACCESS_LIST | DEFAULT_LIST => owns(who, owner),
        _ => who.can(capability::SYS_ADMIN),
    };
    may.then_some(()).ok_or(Errno::PERM)
}

/// Whether someone may set or remove a `user.` attribute: whoever may write, but in a sticky directory's own only its owner.
/// Where there can be none the kernel says so, whoever asks.
///
/// # Errors
/// EACCES, EPERM.
pub fn may_write(who: &Credentials, file: Facts<'_>) -> Result<(), Errno> {
    let kind = file.mode & 0o170_000;
    if kind == 0o040_000 && file.mode & 0o1000 != 0 && !owns(who, file.uid) {
        return Err(Errno::PERM);
    }
    if has_room(file.mode) && !allows(who, file, WRITE) {
        return Err(Errno::ACCESS);
    }
    Ok(())
}

/// Whether files of this type can have `user.` attributes.
pub fn has_room(mode: u32) -> bool {
    matches!(mode & 0o170_000, 0o100_000 | 0o040_000)
}

/// What setxattr(2) does to a file's record; the answer is another mode that the file has to get with an access list.
///
/// # Errors
/// EACCES, EEXIST, EINVAL, ENODATA, EOPNOTSUPP, EPERM.
pub fn set(
    who: &Credentials,
    file: Facts<'_>,
    record: &mut Record,
    (name, value): (Vec<u8>, Vec<u8>),
    flags: i32,
) -> Result<Option<u32>, Errno> {
    if name == ACCESS_LIST || name == DEFAULT_LIST {
        return set_list(who, file, record, name, value);
    }
    if name == CAPABILITY {
        FileCapabilities::parse(&value).ok_or(Errno::INVAL)?;
    }
    may_set(who, &name, file.uid)?;
    let is_there = record.xattrs.contains_key(&name);
    if flags & libc::XATTR_CREATE != 0 && is_there {
        return Err(Errno::EXIST);
    }
    if flags & libc::XATTR_REPLACE != 0 && !is_there {
        return Err(Errno::NODATA);
    }
    record.xattrs.insert(name, value);
    Ok(None)
}

/// What removexattr(2) does to a file's record: whether there was one, and the mode that the file has to get.
///
/// # Errors
/// ENODATA, EOPNOTSUPP, EPERM.
pub fn remove(
    who: &Credentials,
    file: Facts<'_>,
    record: &mut Record,
    name: &[u8],
) -> Result<(bool, Option<u32>), Errno> {
    if name == ACCESS_LIST || name == DEFAULT_LIST {
        let had = record.xattrs.contains_key(name);
        return Ok((had, set_list(who, file, record, name.to_vec(), Vec::new())?));
    }
    may_set(who, name, file.uid)?;
    record.xattrs.remove(name).map(|_| (true, None)).ok_or(Errno::NODATA)
}

/// Lists heed no flags, and an empty one is none.
fn set_list(
    who: &Credentials,
    file: Facts<'_>,
    record: &mut Record,
    name: Vec<u8>,
    value: Vec<u8>,
) -> Result<Option<u32>, Errno> {
    let list = if value.is_empty() { Vec::new() } else { entries(&value).ok_or(Errno::INVAL)? };
    let kind = file.mode & 0o170_000;
    if kind == 0o120_000 {
        return Err(Errno::OPNOTSUPP);
    }
    if name == DEFAULT_LIST && kind != 0o040_000 {
        return if list.is_empty() { Ok(None) } else { Err(Errno::ACCESS) };
    }
    may_set(who, &name, file.uid)?;
    let is_access = name == ACCESS_LIST;
    // Three entries say no more than the mode does.
    if list.is_empty() || (list.len() <= 3 && is_access) {
        record.xattrs.remove(&name);
    } else {
        record.xattrs.insert(name, value);
    }
    if !is_access {
        return Ok(None);
    }
    let bits = if list.is_empty() { file.mode & 0o777 } else { mode_of_list(&list) };
    let mode = mode_set(who, file, (file.mode & 0o7000) | bits);
    Ok((mode != file.mode & 0o7777).then_some(mode))
}

/// The value that someone sees of an attribute in a record of a file with a mode.
pub fn shown<'a>(who: &Credentials, record: &'a Record, name: &[u8], mode: u32) -> Option<Cow<'a, [u8]>> {
    let value = record.xattrs.get(name).filter(|_| sees(who, name))?;
    let under_mode = if name == ACCESS_LIST { list_under_mode(value, mode) } else { None };
    Some(under_mode.map_or(Cow::Borrowed(&value[..]), Cow::Owned))
}

/// The names that someone sees of a record's attributes, each with a NUL after it.
pub fn names(who: &Credentials, record: &Record) -> Vec<u8> {
    let seen = record.xattrs.keys().filter(|name| sees(who, name));
    seen.flat_map(|name| name.iter().copied().chain([0])).collect()
}

fn sees(who: &Credentials, name: &[u8]) -> bool {
    !name.starts_with(TRUSTED) || who.can(capability::SYS_ADMIN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    fn file(mode: u32) -> Facts<'static> {
        Facts { uid: 5, gid: 6, mode, access_list: None }
    }

    #[test]
    fn every_name_has_one_keeper() {
        let rows: [(&[u8], Keeper); 8] = [
            (b"security.capability", Keeper::Record),
            (b"system.posix_acl_access", Keeper::Record),
            (b"system.posix_acl_default", Keeper::Record),
            (b"trusted.x", Keeper::Record),
            (b"trusted.overlay.opaque", Keeper::Nobody),
            (b"user.x", Keeper::Disk),
            (b"user.overlay.opaque", Keeper::Nobody),
            (b"security.selinux", Keeper::Nobody),
        ];
        rows.iter().for_each(|(name, expected)| assert_eq!(keeper(name), *expected));
    }

    #[test]
    fn flags_tell_new_from_old_and_only_some_may() {
        let root = Credentials::new(0, 0, vec![], ALL, false);
        let ann = Credentials::new(5, 5, vec![], 0, false);
        let mut record = Record::default();
        let one = || (b"trusted.x".to_vec(), b"1".to_vec());
        let mut put = |who: &Credentials, flags| set(who, file(0o100_644), &mut record, one(), flags);
        assert_eq!(put(&ann, 0), Err(Errno::PERM));
        assert_eq!(put(&root, libc::XATTR_REPLACE), Err(Errno::NODATA));
        assert_eq!(put(&root, libc::XATTR_CREATE), Ok(None));
        assert_eq!(put(&root, libc::XATTR_CREATE), Err(Errno::EXIST));
        assert_eq!(names(&root, &record), b"trusted.x\0");
        assert_eq!((names(&ann, &record), shown(&ann, &record, b"trusted.x", 0)), (vec![], None));
    }

    #[test]
    fn an_access_list_makes_the_mode_and_short_ones_are_only_that() {
        let ann = Credentials::new(5, 5, vec![], 0, false);
        let list = |lines: &[(u16, u16)]| {
            let mut bytes = 2_u32.to_le_bytes().to_vec();
            for (tag, permissions) in lines {
                bytes.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
                bytes.extend(u32::MAX.to_le_bytes());
            }
            bytes
        };
        let mut record = Record::default();
        let mut put = |name: &[u8], value: Vec<u8>, mode| {
            let answer = set(&ann, file(mode), &mut record, (name.to_vec(), value), 0);
            (answer, record.xattrs.len())
        };
        let long = list(&[(1, 7), (4, 5), (8, 4), (0x10, 5), (0x20, 1)]);
        assert_eq!(put(ACCESS_LIST, long.clone(), 0o104_644), (Ok(Some(0o4751)), 1));
        assert_eq!(put(ACCESS_LIST, list(&[(1, 6), (4, 4), (0x20, 0)]), 0o100_751), (Ok(Some(0o640)), 0));
        assert_eq!(put(DEFAULT_LIST, long.clone(), 0o100_644), (Err(Errno::ACCESS), 0));
        assert_eq!(put(DEFAULT_LIST, long.clone(), 0o040_755), (Ok(None), 1));
        assert_eq!(put(DEFAULT_LIST, vec![], 0o040_755), (Ok(None), 0));
        assert_eq!(put(ACCESS_LIST, long, 0o120_777), (Err(Errno::OPNOTSUPP), 0));
        assert_eq!(put(ACCESS_LIST, vec![1], 0o100_644), (Err(Errno::INVAL), 0));
    }
}
