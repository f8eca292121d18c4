//! The memory of owners: which file is whose, found by inode.
//!
//! Two layers of it, as the root file system has. What the container set is in its own
//! log ([`log`]), by the inode in its upperdir. What an image says of files in its layers comes
//! with the layers ([`Owners::learn_lower`]) and is looked up by the inode in the layer.
//!
//! Overlay shows the files of one store under their real inode numbers, and an inode of a
//! layer is never used for anything else while the layer is there. A file that is copied
//! up goes on under the layer's number for as long as the kernel remembers it, and under the
//! upperdir's afterwards (seen on 6.18 with `userxattr`); so a record is found under both. The
//! birth time belongs to the file in the upperdir in either case, and tells them apart from
//! whoever had the number before.

pub mod attributes;
pub mod log;
pub mod names;
mod record;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Statx;

pub use record::{Device, Key, Record, ACCESS_LIST, CAPABILITY, DEFAULT_LIST};

use log::{Entry, Log};
use names::Names;

/// History is thrown away when it is this much longer than what is still true.
const COMPACT_BEYOND: u64 = 256 * 1024;

#[derive(Debug)]
struct Kept {
    key: Key,
    also: u64,
    record: Record,
    /// Removed, but perhaps still open somewhere.
    is_gone: bool,
}

/// What an image says of a file in one of its layers.
#[derive(Debug, Clone)]
pub struct Lower {
    /// The file's inode in the layer.
    pub inode: u64,
    /// Its birth there, seconds and nanoseconds.
    pub birth: (i64, u32),
    /// Its last component; empty for the root itself.
    pub name: Vec<u8>,
    /// How many names it has.
    pub links: u32,
    /// The facts.
    pub record: Record,
}

/// All records of one container.
#[derive(Debug)]
pub struct Owners {
    log: Log,
    files: Vec<Kept>,
    by_key: HashMap<Key, usize>,
    lower: HashMap<u64, Lower>,
    /// Layers and changes lie on one file system: an inode of a layer is nobody else's.
    is_one_file_system: bool,
    live_bytes: u64,
    /// What files with a record are called.
    pub names: Names,
    /// Inodes that have got a record since somebody last took them away.
    news: Option<Vec<u64>>,
    /// Sticky: whether any record has ever been of a device, and whether any had attributes.
    special: (bool, bool),
}

impl Owners {
    /// Reads the log in a container's directory.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(directory: OwnedFd) -> io::Result<Self> {
        let (log, entries) = Log::open(directory)?;
        let (files, by_key, lower) = (Vec::new(), HashMap::new(), HashMap::new());
        let is_one_file_system = true;
        let special = (false, false);
        let mut names = Names::default();
        if !entries.is_empty() {
            names.give_up();
        }
        let mut owners =
            Self { log, files, by_key, lower, is_one_file_system, live_bytes: 0, names, news: None, special };
        entries.into_iter().for_each(|entry| owners.apply(entry));
        Ok(owners)
    }

    /// Takes in what an image says of the files in its layers. `is_one_file_system`: they lie where the changes lie.
    pub fn learn_lower(&mut self, files: Vec<Lower>, is_one_file_system: bool) {
        self.is_one_file_system = is_one_file_system;
        let mut untold: HashMap<u64, u32> = HashMap::new();
        for file in files {
            self.notice(&file.record);
            self.names.add(&file.name);
            let links = untold.entry(file.inode).or_insert(file.links);
            *links = links.saturating_sub(1);
            self.lower.insert(file.inode, file);
        }
        // It has a name that its layer's index does not tell.
        if untold.values().any(|links| *links > 0) {
            self.names.give_up();
        }
    }

    /// The inodes of all files with a record that were not told before, removed ones included.
    pub fn news(&mut self) -> Vec<u64> {
        match &mut self.news {
            Some(news) => std::mem::take(news),
            None => {
                self.news = Some(Vec::new());
                self.by_key.keys().map(|key| key.inode).chain(self.lower.keys().copied()).collect()
            }
        }
    }

    fn notice(&mut self, record: &Record) {
        self.special.0 |= record.device.is_some();
        self.special.1 |= !record.xattrs.is_empty();
    }

    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.lower.is_empty()
    }

    /// Whether there may be a device among the records.
    pub fn has_devices(&self) -> bool {
        self.special.0
    }

    /// Whether there may be a record with attributes.
    pub fn has_attributes(&self) -> bool {
        self.special.1
    }

    /// Whether the layers say anything.
    pub fn has_lower(&self) -> bool {
        !self.lower.is_empty()
    }

    /// The record of a file.
    pub fn find(&self, file_system: u64, stat: &Statx) -> Option<&Record> {
        if let Some(place) = self.by_key.get(&Key::of(file_system, stat)) {
            let kept = &self.files[*place];
            // A new file can have a removed one's number and, within a tick of the clock, its birth.
            if !kept.is_gone || stat.stx_nlink == 0 {
                return Some(&kept.record);
            }
        }
        self.find_lower(file_system, stat)
    }

    /// The record that a file has only from its layer.
    pub fn find_lower(&self, file_system: u64, stat: &Statx) -> Option<&Record> {
        if file_system != 0 {
            return None;
        }
        let lower = self.lower.get(&stat.stx_ino)?;
        let is_it = self.is_one_file_system || Key::of(0, stat).birth == lower.birth;
        is_it.then_some(&lower.record)
    }

    /// Whether the container itself has said something of this file.
    pub fn has_own(&self, file_system: u64, stat: &Statx) -> bool {
        self.by_key.get(&Key::of(file_system, stat)).is_some_and(|place| !self.files[*place].is_gone)
    }

    /// Remembers the facts of a file. It is seen as `seen`, and lies in the upperdir as `key`.
    ///
    /// # Errors
    /// As [`Log::append`]; nothing is remembered then.
    pub fn set(&mut self, key: Key, seen: u64, record: Record) -> io::Result<()> {
        let entry = Entry::Set { key, also: seen, record };
        self.log.append(&entry)?;
        self.apply(entry);
        self.compact_if_due();
        Ok(())
    }

    /// As [`Owners::set`], for a file without a name: it is gone when the last descriptor is.
    pub fn set_nameless(&mut self, key: Key, record: Record) {
        self.apply(Entry::Set { key, also: key.inode, record });
    }

    /// A file's last name is gone. Who has it open still sees its facts.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn forget(&mut self, file_system: u64, stat: &Statx) -> io::Result<()> {
        let Some(place) = self.by_key.get(&Key::of(file_system, stat)) else { return Ok(()) };
        let kept = &mut self.files[*place];
        kept.is_gone = true;
        let entry = Entry::Forget { key: kept.key };
        self.live_bytes = self.live_bytes.saturating_sub(size_of_entry(&kept.record));
        self.log.append(&entry)
    }

    /// Has the disk take everything.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub fn sync(&mut self) -> io::Result<()> {
        self.log.sync()
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Forget { key } => {
                if let Some(place) = self.by_key.get(&key) {
                    self.files[*place].is_gone = true;
                }
            }
            Entry::Set { key, also, record } => {
                self.notice(&record);
                self.live_bytes += size_of_entry(&record);
                let kept = Kept { key, also, record, is_gone: false };
                let place = match self.by_key.get(&key) {
                    Some(place) => {
                        self.live_bytes -= size_of_entry(&self.files[*place].record);
                        self.files[*place] = kept;
                        *place
                    }
                    None => {
                        self.files.push(kept);
                        self.files.len() - 1
                    }
                };
                self.by_key.insert(key, place);
                self.by_key.insert(Key { inode: also, ..key }, place);
                if let Some(news) = &mut self.news {
                    news.extend([key.inode, also]);
                }
            }
        }
    }

    fn compact_if_due(&mut self) {
        if self.log.length() < 2 * self.live_bytes + COMPACT_BEYOND {
            return;
        }
        let live = self.files.iter().filter(|kept| !kept.is_gone);
        let entries =
            live.map(|kept| Entry::Set { key: kept.key, also: kept.also, record: kept.record.clone() });
        // A full disk keeps the long log, which is as true.
        let _ = self.log.rewrite(entries);
    }
}

fn size_of_entry(record: &Record) -> u64 {
    74 + record.xattrs.iter().map(|(name, value)| 6 + name.len() as u64 + value.len() as u64).sum::<u64>()
}

/// The records of a container at rest, for whoever makes a layer of its changes.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_key: HashMap<(u64, (i64, u32)), Record>,
}

impl Snapshot {
    /// Reads the log of a container's directory; safe while the container runs.
    ///
    /// # Errors
    /// As [`log::read`].
    pub fn read(directory: impl AsFd) -> io::Result<Self> {
        let mut snapshot = Self::default();
        for entry in log::read(directory)? {
            match entry {
                Entry::Set { key, record, .. } if key.file_system == 0 => {
                    snapshot.by_key.insert((key.inode, key.birth), record);
                }
                Entry::Forget { key } if key.file_system == 0 => {
                    snapshot.by_key.remove(&(key.inode, key.birth));
                }
                _ => {}
            }
        }
        Ok(snapshot)
    }

    /// The record of a file of the upperdir, by what statx(2) says of it there.
    pub fn find(&self, stat: &Statx) -> Option<&Record> {
        let key = Key::of(0, stat);
        self.by_key.get(&(key.inode, key.birth))
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
