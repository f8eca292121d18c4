//! Extended attributes of a layer's files: which go to disk, which to the
//! index, and which nowhere.
//!
//! - `user.*` is open to a file's owner and goes to disk.
//! - `user.overlay.*` and `trusted.overlay.*` are overlayfs's own words: an
//!   image that could write them could redirect a directory to another one, or
//!   hide things. They are dropped and reported.
//! - `security.selinux` is the label of the machine that built the image: dropped.
//! - `security.capability`, ACLs and the rest need privilege: kept in the index.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{fsetxattr, XattrFlags};

/// What becomes of an xattr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Set on the file.
    Disk,
    /// Recorded.
    Index,
    /// Left out; everybody does.
    Dropped,
    /// Left out and reported, with the reason.
    Refused(&'static str),
}

/// Decides by the name.
pub fn fate(name: &[u8]) -> Fate {
    let begins = |prefix: &[u8]| name.starts_with(prefix);
    if begins(b"user.overlay.") || begins(b"trusted.overlay.") {
        Fate::Refused("an xattr of overlayfs is left out")
    } else if name == b"security.selinux" {
        Fate::Dropped
    } else if begins(b"user.") {
        Fate::Disk
    } else if begins(b"security.") || begins(b"trusted.") || begins(b"system.") {
        Fate::Index
    } else {
        Fate::Refused("an xattr of an unknown namespace is left out")
    }
}

/// Sets what can be set on `file` (nothing, if there is none) and returns what is for the index.
pub fn apply(
    xattrs: &[(Vec<u8>, Vec<u8>)],
    file: Option<BorrowedFd<'_>>,
    mut refuse: impl FnMut(&'static str),
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut left = BTreeMap::new();
    for (name, value) in xattrs {
        let is_set = match fate(name) {
            Fate::Dropped => continue,
            Fate::Refused(reason) => {
                refuse(reason);
                continue;
            }
            Fate::Disk => file.is_some_and(|file| set(file, name, value)),
            Fate::Index => false,
        };
        if !is_set {
            left.insert(name.clone(), value.clone());
        }
    }
    left
}

/// A file system without xattrs, or with too little room for them, is no error: the index has room.
fn set(file: impl AsFd, name: &[u8], value: &[u8]) -> bool {
    fsetxattr(file, name, value, XattrFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_the_fate() {
        let table: &[(&[u8], Fate)] = &[
            (b"user.comment", Fate::Disk),
            (b"user.overlayish", Fate::Disk),
            (b"security.capability", Fate::Index),
            (b"system.posix_acl_access", Fate::Index),
            (b"trusted.x", Fate::Index),
            (b"security.selinux", Fate::Dropped),
        ];
        for (name, expected) in table {
            assert_eq!(fate(name), *expected, "{}", name.escape_ascii());
        }
        for name in [
            &b"user.overlay.opaque"[..],
            b"trusted.overlay.redirect",
            b"user.overlay.whiteout",
            b"nonsense",
            b"",
        ] {
            assert!(matches!(fate(name), Fate::Refused(_)), "{}", name.escape_ascii());
        }
    }
}
