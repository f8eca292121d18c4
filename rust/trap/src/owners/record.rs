//! What is remembered of a file, and which file it is.

use std::collections::BTreeMap;

use rustix::fs::Statx;

use crate::credentials::KEEP;

/// The attribute that gives a program capabilities.
pub const CAPABILITY: &[u8] = b"security.capability";
/// The attribute that holds an access list.
pub const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory that holds the access list of what is made in it.
pub const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

/// A device node; in its place on disk is an empty file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Device {
    pub is_block: bool,
    pub major: u32,
    pub minor: u32,
}

/// The facts of a file that the store cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it stands for.
    pub device: Option<Device>,
    /// Attributes that no user may set: `security.capability`, `trusted.*`, access lists.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Record {
    /// Nothing but an owner.
    pub fn owned(uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..Self::default() }
    }

    /// What chown(2) makes of it: [`KEEP`] leaves an id as it is, capabilities of a program go.
    #[must_use]
    pub fn given(mut self, uid: u32, gid: u32) -> Self {
        if uid != KEEP {
            self.uid = uid;
        }
        if gid != KEEP {
            self.gid = gid;
        }
        self.xattrs.remove(CAPABILITY);
        self
    }

    /// Whether a file without a record says the same.
    pub fn says_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A file for ever: its inode, and the moment that inode was born, since numbers are used again.
///
/// A file system that knows no birth (NFS) has 0 there; a number used again is then only
/// noticed when the removal went through the emulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// 0 is the container's root file system, others are device numbers of mounts in it.
    pub file_system: u64,
    /// Inode number.
    pub inode: u64,
    /// Seconds and nanoseconds.
    pub birth: (i64, u32),
}

impl Key {
    /// The key of a file of a file system.
    pub fn of(file_system: u64, stat: &Statx) -> Self {
        let has_birth = stat.stx_mask & rustix::fs::StatxFlags::BTIME.bits() != 0;
        let birth = if has_birth { (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) } else { (0, 0) };
        Self { file_system, inode: stat.stx_ino, birth }
    }
}
