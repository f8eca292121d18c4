//! Root emulation's memory of a container's files, for whoever writes them into an archive.

use std::path::Path;

use duckweed_layer::index::{Record, Type};
use duckweed_layer::{At, Facts};
use duckweed_trap::owners::{Snapshot, ACCESS_LIST};
use duckweed_trap::permission::list_under_mode;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatxFlags};

/// The log in a container's directory, read.
pub struct Memory {
    owners: Snapshot,
    /// The tree is an upperdir, in which overlay marks what it has copied up. In a whole copy nothing tells a
    /// new file from the one that was copied to its place.
    is_upper: bool,
}

impl Memory {
    /// Reads it, and changes nothing: the container may be running. No log is an empty one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(container: &Path, is_upper: bool) -> std::io::Result<Memory> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let owners = Snapshot::read(rustix::fs::open(container, flags, Mode::empty())?)?;
        Ok(Memory { owners, is_upper })
    }
}

impl Facts for Memory {
    fn record(&self, entry: &At<'_>, stat: &Stat) -> Option<Record> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let seen = rustix::fs::statx(entry.directory, entry.name, flags, wanted).ok()?;
        let kept = self.owners.find(&seen)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Type::Dir,
            FileType::Symlink => Type::Symlink,
            FileType::Fifo => Type::Fifo,
            _ => match kept.device {
                None => Type::File,
                Some(device) if device.is_block => Type::Block,
                Some(_) => Type::Char,
            },
        };
        let mut xattrs = kept.xattrs.clone();
        if let Some(list) = xattrs.get_mut(ACCESS_LIST) {
            // chmod changes the list too.
            *list = list_under_mode(list, stat.st_mode).unwrap_or_default();
        }
        Some(Record {
            uid: kept.uid,
            gid: kept.gid,
            kind,
            dev: kept.device.map(|device| (device.major, device.minor)),
            xattrs,
            ..Record::default()
        })
    }

    fn is_complete(&self) -> bool {
        self.is_upper
    }
}
