//! Facts: what an entry is to a container, where the disk alone does not say.
//!
//! In a user namespace with a range of ids the disk is right about owners. With
//! one id every file is the user's: what a layer said of its owner stands in the
//! index, and a copy of that file in an upperdir is still that file. Devices
//! and privileged xattrs are in the index in both cases.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, FileType, Stat};
use serde::Deserialize;

use crate::changes::Lower;
use crate::index::{Record, Type};
use crate::tar::{Kind, Member, Time};
use crate::{tree, xattrs};

/// Who owns what has no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owners {
    /// As stat(2) says: we are in the container's user namespace.
    Disk,
    /// Root: one id stands for all.
    Root,
}

/// An entry in its open directory.
pub struct At<'a> {
    /// The directory.
    pub directory: &'a OwnedFd,
    /// The name in it; `.` for itself.
    pub name: &'a [u8],
}

impl At<'_> {
    /// Whether overlayfs made this file by copying a lower one up. It says so of files and directories,
    /// not of links.
    fn is_copied_up(&self, stat: &Stat) -> bool {
        match open(self.directory, self.name, stat) {
            Ok(Some(file)) => {
                let found = fs::fgetxattr(&file, "user.overlay.origin", &mut [0u8; 1]);
                matches!(found, Ok(_) | Err(rustix::io::Errno::RANGE))
            }
            _ => true,
        }
    }
}

/// Somebody who remembers more of a tree than its file system does (root emulation: an index by inode).
pub trait Facts {
    /// The record of an entry, if there is one. What it says of owner, type, device and xattrs holds; mode,
    /// time, size and contents are the disk's.
    fn record(&self, entry: &At<'_>, stat: &Stat) -> Option<Record>;

    /// Whether what has no record is known to be root's, unless it is a copy of a lower file. Otherwise a
    /// file under a lower one's name is taken for it: with one id, nobody could have said whose a new one is.
    fn is_complete(&self) -> bool {
        false
    }
}

/// Nobody does.
pub struct NoFacts;

impl Facts for NoFacts {
    fn record(&self, _entry: &At<'_>, _stat: &Stat) -> Option<Record> {
        None
    }
}

/// What a type is on disk: a device has an empty file in its place.
fn on_disk(kind: Type) -> FileType {
    match kind {
        Type::Dir => FileType::Directory,
        Type::Symlink => FileType::Symlink,
        Type::Fifo => FileType::Fifo,
        Type::File | Type::Char | Type::Block | Type::Whiteout => FileType::RegularFile,
    }
}

/// An entry of a layer's own tree: its record is about exactly this file, and what has none is root's. The disk
/// need not know: the tree may belong to whoever keeps a store that many read.
pub fn of_layer(path: &[u8], stat: &Stat, record: Option<&Record>) -> Member {
    let owners = Owners::Root;
    let mut member = of_disk(path, stat, owners);
    if let Some(record) = record.filter(|record| on_disk(record.kind) == tree::file_type(stat)) {
        apply(&mut member, record, owners);
        if member.kind != Kind::Symlink {
            member.mode = record.mode & 0o7777;
        }
        set_xattrs(&mut member, record, true);
    }
    member
}

/// An entry of a container's tree over `lower`: the same file, changed, where path and type are the same.
pub fn of_change(
    path: &[u8],
    entry: &At<'_>,
    stat: &Stat,
    lower: Option<Lower<'_>>,
    facts: &dyn Facts,
    owners: Owners,
) -> Member {
    let mut member = of_disk(path, stat, owners);
    if let Some(record) = facts.record(entry, stat) {
        apply(&mut member, &record, Owners::Root);
        set_xattrs(&mut member, &record, true);
        return member;
    }
    let Some(Lower { stat: old, record: Some(record) }) = lower else { return member };
    if on_disk(record.kind) != tree::file_type(stat) || facts.is_complete() && !entry.is_copied_up(stat) {
        return member;
    }
    // Writing takes a file's capabilities away, and makes a file of what stood for a device.
    let is_untouched = stat.st_size == old.st_size
        && stat.st_mtime == old.st_mtime
        && stat.st_mtime_nsec == old.st_mtime_nsec;
    if is_untouched || !matches!(record.kind, Type::Char | Type::Block) {
        apply(&mut member, record, owners);
    }
    set_xattrs(&mut member, record, is_untouched);
    member
}

/// What the disk says.
pub fn of_disk(path: &[u8], stat: &Stat, owners: Owners) -> Member {
    let (uid, gid) = match owners {
        Owners::Disk => (stat.st_uid, stat.st_gid),
        Owners::Root => (0, 0),
    };
    let kind = match tree::file_type(stat) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::RegularFile => Kind::File,
        _ => Kind::Other(0),
    };
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    Member {
        path: path.to_vec(),
        link: Vec::new(),
        kind,
        size: if kind == Kind::File { stat.st_size.unsigned_abs() } else { 0 },
        stored: 0,
        offset: 0,
        mode: if kind == Kind::Symlink { 0o777 } else { stat.st_mode & 0o7777 },
        uid,
        gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        device: if is_device { (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)) } else { (0, 0) },
        xattrs: Vec::new(),
        sparse: None,
    }
}

fn apply(member: &mut Member, record: &Record, owners: Owners) {
    if owners == Owners::Root {
        (member.uid, member.gid) = (record.uid, record.gid);
    }
    let device = match record.kind {
        Type::Char => Kind::CharDevice,
        Type::Block => Kind::BlockDevice,
        _ => return,
    };
    if member.kind == Kind::File && member.size == 0 {
        member.kind = device;
        member.device = record.dev.unwrap_or((0, 0));
    }
}

/// What a file's own xattrs say wins later, in [`add_xattrs`].
fn set_xattrs(member: &mut Member, record: &Record, is_untouched: bool) {
    for (name, value) in &record.xattrs {
        if is_untouched || name != b"security.capability" {
            member.xattrs.push((name.clone(), value.clone()));
        }
    }
}

/// Adds the xattrs that an open file has on disk; overlay's own and labels of this machine are left out.
/// What cannot be read is not there for us.
pub fn add_xattrs(member: &mut Member, file: impl AsFd) {
    let mut names = vec![0u8; 4096];
    let length = match fs::flistxattr(file.as_fd(), &mut names[..]) {
        Err(rustix::io::Errno::RANGE) => {
            names.resize(64 * 1024, 0);
            fs::flistxattr(file.as_fd(), &mut names[..]).unwrap_or(0)
        }
        other => other.unwrap_or(0),
    };
    if length == 0 {
        return;
    }
    let mut all: BTreeMap<Vec<u8>, Vec<u8>> = member.xattrs.drain(..).collect();
    let mut value = vec![0u8; 64 * 1024];
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if !matches!(xattrs::fate(name), xattrs::Fate::Disk | xattrs::Fate::Index) {
            continue;
        }
        if let Ok(length) = fs::fgetxattr(file.as_fd(), name, &mut value[..]) {
            all.insert(name.to_vec(), value[..length].to_vec());
        }
    }
    member.xattrs = all.into_iter().collect();
}

/// A file or directory opened to be read; `None` for one that has no contents.
pub fn open(directory: &OwnedFd, name: &[u8], stat: &Stat) -> Result<Option<OwnedFd>, rustix::io::Errno> {
    match tree::file_type(stat) {
        FileType::RegularFile | FileType::Directory => {
            crate::copy::open_readable(directory.as_fd(), name, stat).map(Some)
        }
        _ => Ok(None),
    }
}
