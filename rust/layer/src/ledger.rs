//! The ledger of an extraction: what is known of the new tree beside the tree
//! itself. Final facts of directories (they are set last, as every file made in
//! one changes its time and a read-only one would refuse it), the index, and
//! what was left out.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::directories::{Directory, Maker, WalkError};
use crate::error::LOOK_UP;
use crate::index::{Index, Record, Type};
use crate::parents::Parents;
use crate::path;
use crate::tar::Time;
use crate::tree;

/// Mode of a directory that no layer describes.
const IMPLIED: u32 = 0o755;

/// How many reports of left-out entries are kept.
const SKIPPED_LIMIT: usize = 500;

/// What a directory shall look like in the end.
#[derive(Debug, Clone, Copy)]
pub struct Final {
    /// Permission bits.
    pub mode: u32,
    /// `None` leaves the time of extraction.
    pub mtime: Option<Time>,
    /// Permission bits that it has so far.
    pub made: u32,
}

impl Default for Final {
    /// A directory as it is made when nothing is known of it.
    fn default() -> Final {
        Final { mode: IMPLIED, mtime: None, made: 0o700 }
    }
}

/// See the module.
pub struct Ledger {
    /// By path beneath the root.
    pub directories: BTreeMap<Vec<u8>, Final>,
    /// What the tree cannot hold.
    pub index: Index,
    /// What was left out, one line each.
    pub skipped: Vec<String>,
    skipped_more: u64,
    /// The layers below.
    pub parents: Parents,
    /// Bits that the umask (or a default ACL) takes from new files.
    pub mask: u32,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(parents: Parents, mask: u32) -> Ledger {
        Ledger {
            directories: BTreeMap::new(),
            index: Index::default(),
            skipped: Vec::new(),
            skipped_more: 0,
            parents,
            mask,
        }
    }

    /// Notes an entry, or a part of it, that is left out.
    pub fn skip(&mut self, path: &[u8], reason: &str) {
        if self.skipped.len() < SKIPPED_LIMIT {
            self.skipped.push(format!("{}: {reason}", path::display(path)));
        } else {
            self.skipped_more += 1;
        }
    }

    /// All notes, the ones beyond the limit as a number.
    pub fn take_skipped(&mut self) -> Vec<String> {
        if self.skipped_more > 0 {
            self.skipped.push(format!("... and {} more", self.skipped_more));
        }
        std::mem::take(&mut self.skipped)
    }

    /// Sets or clears the record of a path.
    pub fn record(&mut self, path: &[u8], record: Option<Record>) {
        match record {
            Some(record) => drop(self.index.entries.insert(path.to_vec(), record)),
            None => drop(self.index.entries.remove(path)),
        }
    }

    /// Forgets a path that was removed and all beneath it.
    pub fn forget(&mut self, gone: &[u8]) {
        self.index.forget(gone);
        self.directories.remove(gone);
        let start = [gone, b"/"].concat();
        let beneath = self.directories.range(start.clone()..).map(|(key, _)| key);
        let beneath: Vec<Vec<u8>> = beneath.take_while(|key| key.starts_with(&start)).cloned().collect();
        for key in beneath {
            self.directories.remove(&key);
        }
    }

    /// Whether the index has a whiteout under this path.
    pub fn has_whiteout(&self, path: &[u8]) -> bool {
        self.index.entries.get(path).is_some_and(|record| record.kind == Type::Whiteout)
    }

    /// Makes an open directory opaque, in the index if the file system cannot.
    pub fn make_opaque(&mut self, directory: impl AsFd, path: &[u8]) {
        if tree::make_opaque(directory).is_err() {
            let record = self.index.entries.entry(path.to_vec()).or_default();
            record.kind = Type::Dir;
            record.opaque = true;
        }
    }

    /// Makes a whiteout, in the index if the file system cannot.
    pub fn make_whiteout(&mut self, parent: &Directory, name: &[u8]) -> Result<(), Errno> {
        match tree::make_whiteout(&parent.fd, name) {
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                let record = Record { kind: Type::Whiteout, ..Record::default() };
                self.record(&path::join(&parent.path, name), Some(record));
                Ok(())
            }
            result => result,
        }
    }

    /// Makes a directory, with `mode` where that keeps nobody out who has still to work in
    /// it, else open to its owner for now. The one beneath a whiteout of this layer does not
    /// merge with lower ones; `true` says it is such a one.
    pub fn make_directory(
        &mut self,
        parent: &Directory,
        name: &[u8],
        path: &[u8],
        mode: u32,
    ) -> Result<bool, WalkError> {
        let is_plain = mode & 0o7700 == 0o700 && mode & self.mask == 0;
        let made = if is_plain { mode } else { 0o700 };
        let mut was_whiteout = self.has_whiteout(path);
        if was_whiteout {
            self.record(path, None);
        }
        let mut result = fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(made));
        if result == Err(Errno::EXIST) && remove_whiteout(parent, name)? {
            was_whiteout = true;
            result = fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(made));
        }
        result.map_err(|errno| WalkError::Errno("mkdir", errno))?;
        if self.mask & 0o700 != 0 {
            let result = fs::chmodat(&parent.fd, name, Mode::RWXU, AtFlags::empty());
            result.map_err(|errno| WalkError::Errno("chmod", errno))?;
        }
        if was_whiteout {
            let result = fs::openat(&parent.fd, name, tree::DIRECTORY, Mode::empty());
            let fd = result.map_err(|errno| WalkError::Errno("open", errno))?;
            self.make_opaque(fd, path);
        }
        self.directories.insert(path.to_vec(), Final { made, ..Final::default() });
        Ok(was_whiteout)
    }

    /// The facts of a directory that the layer implies: the lower one's, if there is one.
    pub fn imply(&mut self, path: &[u8]) -> Result<(), Errno> {
        let lower = self.parents.find(path)?;
        let lower = lower.filter(|found| tree::file_type(&found.stat) == FileType::Directory);
        let mut facts = self.directories.get(path).copied().unwrap_or_default();
        (facts.mode, facts.mtime) = (IMPLIED, None);
        if let Some(found) = lower {
            facts.mode = found.stat.st_mode & 0o7777;
            let nanoseconds = found.stat.st_mtime_nsec as u32;
            facts.mtime = Some(Time { seconds: found.stat.st_mtime, nanoseconds });
            if let Some(lower) = found.record {
                facts.mode = lower.mode;
                let opaque = self.index.entries.get(path).is_some_and(|record| record.opaque);
                self.record(path, Some(Record { opaque, ..lower }));
            }
        }
        self.directories.insert(path.to_vec(), facts);
        Ok(())
    }
}

impl Maker for Ledger {
    fn make(&mut self, parent: &Directory, name: &[u8], path: &[u8]) -> Result<(), WalkError> {
        if self.make_directory(parent, name, path, IMPLIED)? {
            return Ok(());
        }
        self.imply(path).map_err(|errno| WalkError::Errno(LOOK_UP, errno))
    }
}

/// Removes what is under a name if it is a whiteout, and says whether it was one.
fn remove_whiteout(parent: &Directory, name: &[u8]) -> Result<bool, WalkError> {
    match tree::stat_at(&parent.fd, name) {
        Ok(Some(stat)) if tree::is_whiteout(&stat) => {
            let result = fs::unlinkat(&parent.fd, name, AtFlags::empty());
            result.map(|()| true).map_err(|errno| WalkError::Errno("unlink", errno))
        }
        _ => Ok(false),
    }
}
