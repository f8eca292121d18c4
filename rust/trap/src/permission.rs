//! Whether someone may: the kernel's rules for modes, owners and access lists, with the owners that are remembered.
//!
//! inode_permission of path_resolution(7), acl(5), and the exceptions of capabilities(7).

use crate::credentials::{capability, Credentials, KEEP};

/// Search or execute.
pub const EXECUTE: u32 = 1;
/// Write.
pub const WRITE: u32 = 2;
/// Read.
pub const READ: u32 = 4;

/// What a file says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// With the type.
    pub mode: u32,
    /// The value of `system.posix_acl_access`.
    pub access_list: Option<&'a [u8]>,
}

impl Facts<'_> {
    fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// Whether `who` may do all of `wanted` with the file.
pub fn allows(who: &Credentials, file: Facts<'_>, wanted: u32) -> bool {
    if grants(who, file, wanted) {
        return true;
    }
    let overrides = who.can(capability::DAC_OVERRIDE);
    if file.is_directory() {
        return overrides || (who.can(capability::DAC_READ_SEARCH) && wanted & WRITE == 0);
    }
    if wanted == READ && who.can(capability::DAC_READ_SEARCH) {
        return true;
    }
    overrides && (wanted & EXECUTE == 0 || file.mode & 0o111 != 0)
}

/// Whether `who` counts as the file's owner.
pub fn owns(who: &Credentials, uid: u32) -> bool {
    who.uid.fs == uid || who.can(capability::FOWNER)
}

/// Whether a file of this owner and group may be given away (chown(2)); without CAP_CHOWN: to oneself, and to a group one is in.
pub fn may_give(who: &Credentials, (owner, group): (u32, u32), uid: u32, gid: u32) -> bool {
    if who.can(capability::CHOWN) {
        return true;
    }
    let uid_stays = uid == KEEP || (who.uid.fs == owner && uid == owner);
    let gid_may = gid == KEEP || (who.uid.fs == owner && (who.is_in(gid) || gid == group));
    uid_stays && gid_may
}

/// `fs.protected_hardlinks` of proc(5): one may link only to what one owns, or could change without it.
pub fn may_link(who: &Credentials, file: Facts<'_>) -> bool {
    let is_plain = file.mode & 0o170_000 == 0o100_000 && file.mode & 0o4000 == 0;
    let is_harmless = is_plain && file.mode & 0o2010 != 0o2010;
    owns(who, file.uid) || (is_harmless && allows(who, file, READ | WRITE))
}

/// The permission bits that a file has after chown(2) by `who`: what made others its owner goes.
pub fn mode_given(who: &Credentials, file: Facts<'_>) -> u32 {
    let mode = file.mode & 0o7777;
    if file.is_directory() {
        return mode;
    }
    let keeps_set_gid = mode & 0o010 == 0 && may_set_gid(who, file.gid);
    mode & if keeps_set_gid { 0o3777 } else { 0o1777 }
}

/// The permission bits that a file has when `who` has cut it short: what would make its user somebody else goes, in a user
/// namespace for root, too.
pub fn mode_cut(who: &Credentials, file: Facts<'_>) -> u32 {
    match file.mode & 0o170_000 {
        0o100_000 => mode_given(who, file),
        _ => file.mode & 0o7777,
    }
}

/// The permission bits that chmod(2) by `who` gives: setgid is for a group that one is in.
pub fn mode_set(who: &Credentials, file: Facts<'_>, wanted: u32) -> u32 {
    wanted & if may_set_gid(who, file.gid) { 0o7777 } else { 0o5777 }
}

/// Whether a file of a group may be made setgid.
pub fn may_set_gid(who: &Credentials, group: u32) -> bool {
    who.is_in(group) || who.can(capability::FSETID)
}

/// The kernel's acl_permission_check.
fn grants(who: &Credentials, file: Facts<'_>, wanted: u32) -> bool {
    let has = |bits: u32| bits & wanted == wanted;
    if who.uid.fs == file.uid {
        return has(file.mode >> 6);
    }
    // A list whose mask is empty is not looked at.
    let list = file.access_list.filter(|_| file.mode & 0o070 != 0);
    if let Some(answer) = list.and_then(|list| list_grants(who, file, list, wanted)) {
        return answer;
    }
    has(if who.is_in(file.gid) { file.mode >> 3 } else { file.mode })
}

const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;

/// acl(5), "access check algorithm", from the second step on. The mask is the mode's group bits. `None`: no line is about
/// `who`.
fn list_grants(who: &Credentials, file: Facts<'_>, list: &[u8], wanted: u32) -> Option<bool> {
    let mask = file.mode >> 3;
    let entries = entries(list)?;
    let has = |bits: u32| bits & wanted == wanted;
    if let Some(entry) = entries.iter().find(|entry| entry.tag == USER && entry.id == who.uid.fs) {
        return Some(has(entry.permissions & mask));
    }
    let is_theirs = |entry: &&ListEntry| match entry.tag {
        GROUP_OBJ => who.is_in(file.gid),
        GROUP => who.is_in(entry.id),
        _ => false,
    };
    let mut groups = entries.iter().filter(is_theirs).peekable();
    groups.peek()?;
    // One line has to say it all.
    Some(groups.find(|entry| has(entry.permissions)).is_some_and(|entry| has(entry.permissions & mask)))
}

/// One line of an access list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ListEntry {
    pub tag: u16,
    pub permissions: u32,
    pub id: u32,
}

/// The entries of `struct posix_acl_xattr_header`; `None` for what is no such list.
pub fn entries(list: &[u8]) -> Option<Vec<ListEntry>> {
    let (version, rest) = list.split_at_checked(4)?;
    if version != 2_u32.to_le_bytes() || rest.len() % 8 != 0 {
        return None;
    }
    let entry = |part: &[u8]| ListEntry {
        tag: u16::from_le_bytes([part[0], part[1]]),
        permissions: u32::from(u16::from_le_bytes([part[2], part[3]])),
        id: u32::from_le_bytes([part[4], part[5], part[6], part[7]]),
    };
    Some(rest.chunks_exact(8).map(entry).collect())
}

/// The permission bits that a list stands for, and the list as it is under other permission bits:
/// `chmod` changes the owner's, the mask's and the others' entry.
pub fn mode_of_list(entries: &[ListEntry]) -> u32 {
    let of = |tag: u16| entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions & 7);
    let group = of(0x10).or_else(|| of(GROUP_OBJ)).unwrap_or(0);
    of(1).unwrap_or(0) << 6 | group << 3 | of(0x20).unwrap_or(0)
}

/// See [`mode_of_list`].
pub fn list_under_mode(list: &[u8], mode: u32) -> Option<Vec<u8>> {
    let entries = entries(list)?;
    let has_mask = entries.iter().any(|entry| entry.tag == 0x10);
    let mut out = 2_u32.to_le_bytes().to_vec();
    for entry in entries {
        let permissions = match entry.tag {
            1 => mode >> 6 & 7,
            0x10 => mode >> 3 & 7,
            GROUP_OBJ if !has_mask => mode >> 3 & 7,
            0x20 => mode & 7,
            _ => entry.permissions,
        };
        out.extend_from_slice(&entry.tag.to_le_bytes());
        out.extend_from_slice(&(permissions as u16).to_le_bytes());
        out.extend_from_slice(&entry.id.to_le_bytes());
    }
    Some(out)
}

/// What a new file gets from its directory's default list and the mode it is made with, acl(5): the mode
/// that it has, and its own list unless that says no more than the mode. The umask has no say then.
///
/// `None` for what is no such list.
pub fn inherited(default: &[u8], mode: u32) -> Option<(u32, Option<Vec<u8>>)> {
    let of_list = mode_of_list(&entries(default)?);
    let mode = (mode & !0o777) | (mode & 0o777 & of_list);
    let names_others = entries(default)?.len() > 3;
    let list = if names_others { list_under_mode(default, mode) } else { None };
    Some((mode, list))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn user(uid: u32, groups: &[u32]) -> Credentials {
        Credentials::new(uid, 1000, groups.to_vec(), 0, false)
    }

    fn file(mode: u32) -> Facts<'static> {
        Facts { uid: 5, gid: 6, mode: 0o100_000 | mode, access_list: None }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        assert!(allows(&user(5, &[6]), file(0o400), READ));
        assert!(!allows(&user(5, &[6]), file(0o077), READ));
        assert!(allows(&user(7, &[6]), file(0o040), READ));
        assert!(!allows(&user(7, &[6]), file(0o007), READ));
        assert!(allows(&user(7, &[]), file(0o007), READ | WRITE | EXECUTE));
    }

    #[test]
    fn root_may_all_but_execute_what_nobody_may() {
        let root = Credentials::new(0, 0, vec![], capability::DAC_OVERRIDE, false);
        assert!(allows(&root, file(0), READ | WRITE));
        assert!(!allows(&root, file(0o600), EXECUTE));
        assert!(allows(&root, file(0o001), EXECUTE));
        assert!(allows(&root, Facts { mode: 0o040_000, ..file(0) }, EXECUTE | WRITE));
    }

    #[test]
    fn set_ids_go_with_others_hands() {
        let (inside, outside) = (user(5, &[6]), user(5, &[]));
        let root = Credentials::new(0, 0, vec![], u64::MAX, false);
        assert_eq!(mode_given(&inside, file(0o6755)), 0o755);
        assert_eq!((mode_given(&inside, file(0o6745)), mode_given(&outside, file(0o6745))), (0o2745, 0o745));
        assert_eq!(mode_given(&outside, Facts { mode: 0o046_755, ..file(0) }), 0o6755);
        assert_eq!(
            (mode_cut(&root, file(0o4755)), mode_cut(&root, Facts { mode: 0o014_755, ..file(0) })),
            (0o755, 0o4755)
        );
        assert_eq!(
            (mode_set(&inside, file(0), 0o2755), mode_set(&outside, file(0), 0o2755)),
            (0o2755, 0o755)
        );
    }

    #[test]
    fn links_are_made_to_what_one_could_change_anyway() {
        let (owner, other) = (user(5, &[]), user(7, &[]));
        assert!(may_link(&owner, file(0o4000)) && may_link(&other, file(0o666)));
        for mode in [0o664, 0o4666, 0o2676] {
            assert!(!may_link(&other, file(mode)), "{mode:o}");
        }
        assert!(!may_link(&other, Facts { mode: 0o010_666, ..file(0) }));
    }

    fn list(lines: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in lines {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&permissions.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_list_names_users_and_its_mask_is_the_modes_group() {
        let none = u32::MAX;
        let list =
            list(&[(1, 7, none), (2, 6, 42), (4, 0, none), (8, 4, 77), (0x10, 7, none), (0x20, 0, none)]);
        let file = |mode| Facts { access_list: Some(&list), ..file(mode) };
        assert!(allows(&user(42, &[]), file(0o770), READ | WRITE));
        assert!(!allows(&user(42, &[]), file(0o740), WRITE));
        assert!(allows(&user(9, &[77]), file(0o770), READ));
        assert!(!allows(&user(9, &[77]), file(0o770), WRITE));
        assert!(!allows(&user(9, &[6]), file(0o770), READ));
        // Two groups do not add up, and with an empty mask the list says nothing.
        assert!(allows(&user(9, &[6, 77]), file(0o770), READ));
        assert!(!allows(&user(9, &[6, 77]), file(0o770), READ | WRITE));
        assert!(!allows(&user(42, &[]), file(0o717), WRITE | READ | EXECUTE));
        assert!(allows(&user(42, &[]), file(0o707), WRITE | READ | EXECUTE));
        assert_eq!(mode_of_list(&entries(&list).unwrap()), 0o770);
        let after = list_under_mode(&list, 0o741).unwrap();
        assert_eq!(mode_of_list(&entries(&after).unwrap()), 0o741);
    }

    #[test]
    fn a_directorys_default_list_decides_instead_of_the_umask() {
        let none = u32::MAX;
        let default = list(&[(1, 7, none), (4, 5, none), (8, 5, 12), (0x10, 7, none), (0x20, 5, none)]);
        let (mode, own) = inherited(&default, 0o100_666).unwrap();
        assert_eq!(mode, 0o100_664);
        let expected = list(&[(1, 6, none), (4, 5, none), (8, 5, 12), (0x10, 6, none), (0x20, 4, none)]);
        assert_eq!(own.unwrap(), expected);
        let short = list(&[(1, 7, none), (4, 5, none), (0x20, 0, none)]);
        assert_eq!(inherited(&short, 0o2777), Some((0o2750, None)));
    }
}
