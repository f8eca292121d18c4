//! What a container changed: its tree against the layers it was started on.
//!
//! Two trees tell it in two ways. An overlay's upperdir holds the changes and
//! nothing else, so walking it is enough and no contents are ever compared. A
//! whole copy (the fallback without overlayfs) must be compared with the merged
//! layers, entry by entry: type, mode, owner, time, size, target.
//!
//! Entries come in order, each directory before what is in it, names by their
//! bytes in the layer's spelling; whoever takes them needs no memory of them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

use crate::error::WriteError;
use crate::facts::{At, Facts, NoFacts, Owners};
use crate::index::Record;
use crate::merged::{Merged, Seen, Stack};
use crate::{beneath, path, tree};

/// What the layers below have under a changed name.
#[derive(Clone, Copy)]
pub struct Lower<'a> {
    /// On disk.
    pub stat: &'a Stat,
    /// In the index.
    pub record: Option<&'a Record>,
}

/// Where changes go.
pub trait Changes {
    /// An entry that is new (`lower` is `None`) or another than below.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn changed(&mut self, path: &[u8], lower: Option<Lower<'_>>) -> Result<(), WriteError>;

    /// An entry that is there below and no more.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn deleted(&mut self, path: &[u8]) -> Result<(), WriteError>;

    /// All of a directory's lower entries are gone; said right after the directory itself. The default tells each.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn emptied(&mut self, _path: &[u8], hidden: &[Vec<u8>]) -> Result<(), WriteError> {
        hidden.iter().try_for_each(|path| self.deleted(path))
    }
}

/// Walks an overlay's upperdir over `below`.
///
/// # Errors
/// What the file system or the taker says; an overlay redirect, which these mounts never make.
pub fn of_upper(upper: &OwnedFd, below: &Stack, changes: &mut dyn Changes) -> Result<(), WriteError> {
    let walk = Walk { root: upper, below, owners: Owners::Disk, facts: &NoFacts, pending: Vec::new() };
    let mut root = below.root();
    if tree::is_opaque(upper) {
        root = Merged::default();
    }
    walk.upper(b"", &root, changes)
}

/// Compares a whole tree, of which `facts` may know more, with `below`.
///
/// # Errors
/// What the file system or the taker says.
pub fn of_copy(
    copy: &OwnedFd,
    below: &Stack,
    owners: Owners,
    facts: &dyn Facts,
    changes: &mut dyn Changes,
) -> Result<(), WriteError> {
    let mut walk = Walk { root: copy, below, owners, facts, pending: Vec::new() };
    walk.copy(b"", &below.root(), changes)
}

/// Mounts of ours never make it (`userxattr` turns redirects off); another engine's upperdir may have it.
const REDIRECT_XATTR: &str = "user.overlay.redirect";

struct Walk<'a> {
    root: &'a OwnedFd,
    below: &'a Stack,
    owners: Owners,
    facts: &'a dyn Facts,
    /// Directories on the way here that are as below; they are told before the first change in them.
    pending: Vec<(Vec<u8>, Seen)>,
}

fn entry(path: &[u8], operation: &'static str) -> impl Fn(Errno) -> WriteError {
    let path = path::display(path);
    move |errno| WriteError::Entry { path: path.clone(), operation, errno }
}

impl Walk<'_> {
    fn lower(&self, path: &[u8], directory: &Merged) -> Result<Option<Seen>, WriteError> {
        self.below.look_up(directory, path).map_err(entry(path, "look up in the lower layers"))
    }

    fn tell(&self, path: &[u8], seen: Option<&Seen>, changes: &mut dyn Changes) -> Result<(), WriteError> {
        let lower = seen.map(|seen| Lower { stat: &seen.stat, record: self.below.record(seen.tree, path) });
        changes.changed(path, lower)
    }

    /// The names of a directory; whiteouts stand where their name in a layer would.
    fn names(&self, at: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, WriteError> {
        let names = || {
            let fd = beneath::open_directory(self.root, at)?;
            let mut names = beneath::sorted_names(&fd)?;
            let mut has_whiteouts = false;
            for (name, kind) in &mut names {
                if *kind != FileType::CharacterDevice {
                    continue;
                }
                let is_whiteout = tree::stat_at(&fd, name)?.is_some_and(|stat| tree::is_whiteout(&stat));
                if is_whiteout {
                    has_whiteouts = true;
                    *kind = FileType::Unknown;
                }
            }
            if has_whiteouts {
                let key = |(name, kind): &(Vec<u8>, FileType)| match kind {
                    FileType::Unknown => [b".wh.", &name[..]].concat(),
                    _ => name.clone(),
                };
                names.sort_by_cached_key(key);
            }
            Ok(names)
        };
        names().map_err(entry(at, "read the directory"))
    }

    fn upper(&self, at: &[u8], below: &Merged, changes: &mut dyn Changes) -> Result<(), WriteError> {
        for (name, kind) in self.names(at)? {
            let path = path::join(at, &name);
            check_length(&path)?;
            let seen = self.lower(&path, below)?;
            match (kind, seen) {
                // `Unknown` marks a whiteout. One over nothing is what is left of a file made and removed.
                (FileType::Unknown, Some(_)) => changes.deleted(&path)?,
                (FileType::Unknown, None) => {}
                (FileType::Directory, seen) => {
                    self.tell(&path, seen.as_ref(), changes)?;
                    let below = self.enter(&path, below, changes)?;
                    self.upper(&path, &below, changes)?;
                }
                (_, seen) => self.tell(&path, seen.as_ref(), changes)?,
            }
        }
        Ok(())
    }

    /// What lies below a directory of the upperdir, once it is known whether it merges.
    fn enter(&self, path: &[u8], below: &Merged, changes: &mut dyn Changes) -> Result<Merged, WriteError> {
        let fail = entry(path, "read the directory");
        let fd = beneath::open_directory(self.root, path).map_err(&fail)?;
        if matches!(fs::fgetxattr(&fd, REDIRECT_XATTR, &mut [0u8; 1]), Ok(_) | Err(Errno::RANGE)) {
            let reason = "a directory that overlay has moved: it cannot be told as a layer";
            return Err(WriteError::Member { path: path::display(path), reason });
        }
        let merged = self.below.descend(below, path).map_err(&fail)?;
        if !merged.exists() || !tree::is_opaque(&fd) {
            return Ok(merged);
        }
        // overlay marks every new directory so; it means something only over a directory.
        let names = self.below.list(&merged, path).map_err(&fail)?;
        let mut hidden = Vec::new();
        for name in names.keys() {
            let there = tree::stat_at(&fd, name).map_err(&fail)?;
            if there.is_none_or(|stat| tree::is_whiteout(&stat)) {
                hidden.push(path::join(path, name));
            }
        }
        if !names.is_empty() {
            changes.emptied(path, &hidden)?;
        }
        Ok(Merged::default())
    }

    fn copy(&mut self, at: &[u8], below: &Merged, changes: &mut dyn Changes) -> Result<(), WriteError> {
        let fail = entry(at, "read the directory");
        let mut names: BTreeMap<Vec<u8>, (Vec<u8>, Option<FileType>)> = BTreeMap::new();
        for (name, kind) in self.names(at)? {
            names.insert(name.clone(), (name, Some(kind)));
        }
        for (name, _) in self.below.list(below, at).map_err(&fail)? {
            if !names.contains_key(&name) {
                names.insert([b".wh.", &name[..]].concat(), (name, None));
            }
        }
        for (name, kind) in names.into_values() {
            let path = path::join(at, &name);
            check_length(&path)?;
            match kind {
                None => {
                    self.flush(changes)?;
                    changes.deleted(&path)?;
                }
                Some(kind) => self.copied(&path, kind, below, changes)?,
            }
        }
        Ok(())
    }

    fn copied(
        &mut self,
        path: &[u8],
        kind: FileType,
        below: &Merged,
        changes: &mut dyn Changes,
    ) -> Result<(), WriteError> {
        let seen = self.lower(path, below)?;
        let is_same = match &seen {
            Some(seen) => self.is_same(path, seen).map_err(entry(path, "compare"))?,
            None => false,
        };
        if kind != FileType::Directory {
            if !is_same {
                self.flush(changes)?;
                self.tell(path, seen.as_ref(), changes)?;
            }
            return Ok(());
        }
        let merged = self.below.descend(below, path).map_err(entry(path, "read the directory"))?;
        let depth = self.pending.len();
        match seen {
            Some(seen) if is_same => self.pending.push((path.to_vec(), seen)),
            seen => {
                self.flush(changes)?;
                self.tell(path, seen.as_ref(), changes)?;
            }
        }
        self.copy(path, &merged, changes)?;
        self.pending.truncate(depth);
        Ok(())
    }

    fn flush(&mut self, changes: &mut dyn Changes) -> Result<(), WriteError> {
        for (path, seen) in std::mem::take(&mut self.pending) {
            self.tell(&path, Some(&seen), changes)?;
        }
        Ok(())
    }

    /// Whether an entry of the copy is still what was copied.
    fn is_same(&self, path: &[u8], seen: &Seen) -> Result<bool, Errno> {
        let (parent, name) = path::split(path);
        let directory = beneath::open_directory(self.root, parent)?;
        let Some(now) = tree::stat_at(&directory, name)? else { return Ok(false) };
        let (old, kind) = (&seen.stat, tree::file_type(&now));
        if !self.has_same_facts(path, &now, seen) {
            return Ok(false);
        }
        if let Some(record) = self.facts.record(&At { directory: &directory, name }, &now) {
            let lower = self.below.record(seen.tree, path).map_or((0, 0), |record| (record.uid, record.gid));
            if (record.uid, record.gid) != lower {
                return Ok(false);
            }
        }
        let same_time = now.st_mtime == old.st_mtime && now.st_mtime_nsec == old.st_mtime_nsec;
        Ok(match kind {
            FileType::RegularFile => same_time && now.st_size == old.st_size,
            FileType::Symlink => {
                let target = fs::readlinkat(&directory, name, Vec::new())?;
                target == fs::readlinkat(self.below.tree_root(seen.tree), path, Vec::new())?
            }
            _ => same_time,
        })
    }
}

impl Walk<'_> {
    /// Whether mode and owner are as copied: as they were on disk, or as the layer's index says, whose tree may
    /// belong to somebody else and be opened for all. Where one id stands for all, that is root's as well as ours.
    fn has_same_facts(&self, path: &[u8], now: &Stat, seen: &Seen) -> bool {
        let (old, record) = (&seen.stat, self.below.record(seen.tree, path));
        let kind = tree::file_type(now);
        let modes = [old.st_mode, record.map_or(old.st_mode, |record| record.mode)].map(|mode| mode & 0o7777);
        let owner = (now.st_uid, now.st_gid);
        let stated = record.map_or((0, 0), |record| (record.uid, record.gid));
        let is_owner = self.owners == Owners::Root || [(old.st_uid, old.st_gid), stated].contains(&owner);
        let is_mode = kind == FileType::Symlink || modes.contains(&(now.st_mode & 0o7777));
        kind == tree::file_type(old) && is_owner && is_mode
    }
}

fn check_length(path: &[u8]) -> Result<(), WriteError> {
    if path.len() > path::PATH_LIMIT {
        let reason = "its name is too long for a layer";
        return Err(WriteError::Member { path: path::display(path), reason });
    }
    Ok(())
}
