//! A whole stack of layers copied into one tree, for hosts where overlayfs
//! cannot be mounted: what the merged view would show, made of real files.
//!
//! Layers are applied from the bottom up. A whiteout removes what lower layers
//! have put under its name, an opaque directory what they have put into it.
//! Facts in the indexes (owners, devices) are not applied here but merged into
//! the index that is returned: whoever may chown can do it then.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, Stat};
use rustix::io::Errno;

use crate::copy;
use crate::error::errno_text;
use crate::index::{Index, Type};
use crate::path;
use crate::tree;

/// Why a stack could not be copied. What was copied so far is left to the caller, who knows the directory.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A layer could not be opened, or its index read.
    #[error("cannot read `{}`: {}", path.display(), crate::error::describe(.source))]
    Layer {
        /// The `fs/` directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry could not be copied.
    #[error("cannot copy `{path}`: {}", errno_text(*.errno))]
    Entry {
        /// Its path in the tree.
        path: String,
        /// Why.
        errno: Errno,
    },
}

/// Copies the merged view of `lowers` (`fs/` directories, topmost first, as in
/// the bundle) into the existing, empty directory `dest`. The result is the
/// merged index.
pub fn copy_layers(lowers: &[PathBuf], dest: &Path) -> Result<Index, CopyError> {
    let root = open_layer(dest)?;
    let mut merged = Index::default();
    let mut modes = BTreeMap::new();
    for lower in lowers.iter().rev() {
        let index = match lower.parent() {
            Some(layer) => Index::read(layer),
            None => Ok(Index::default()),
        };
        let index = index.map_err(|source| CopyError::Layer { path: lower.clone(), source })?;
        let mut pass = Pass { index: &index, merged: &mut merged, modes: &mut modes, links: HashMap::new() };
        let source = open_layer(lower)?;
        pass.apply_index_whiteouts(&root)?;
        pass.copy_directory(&source, &root, b"")?;
    }
    set_directory_facts(&root, &modes)?;
    Ok(merged)
}

fn open_layer(path: &Path) -> Result<OwnedFd, CopyError> {
    let opened = fs::open(path, tree::DIRECTORY, Mode::empty());
    opened.map_err(|errno| CopyError::Layer { path: path.to_owned(), source: errno.into() })
}

/// Final facts of the merged directories; set last, for the reasons that extraction has.
type Facts = BTreeMap<Vec<u8>, Stat>;

fn set_directory_facts(root: &OwnedFd, facts: &Facts) -> Result<(), CopyError> {
    for (path, stat) in facts.iter().rev() {
        let set = || {
            let fd = open_path(root, path)?;
            fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
            fs::futimens(&fd, &copy::times(stat))
        };
        set().map_err(|errno| entry(path, errno))?;
    }
    Ok(())
}

/// Opens a directory of the copy by components; none of them is a link.
fn open_path(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut here = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        here = fs::openat(&here, name, tree::DIRECTORY, Mode::empty())?;
    }
    Ok(here)
}

fn entry(path: &[u8], errno: Errno) -> CopyError {
    CopyError::Entry { path: path::display(path), errno }
}

/// One layer being applied.
struct Pass<'a> {
    index: &'a Index,
    merged: &'a mut Index,
    modes: &'a mut Facts,
    /// Files with several names in this layer, by inode: where the first one was copied to.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Pass<'_> {
    /// The whiteouts that could not be made as devices.
    fn apply_index_whiteouts(&mut self, root: &OwnedFd) -> Result<(), CopyError> {
        let whiteouts = self.index.entries.iter().filter(|(_, record)| record.kind == Type::Whiteout);
        for (gone, _) in whiteouts {
            let (parent, name) = path::split(gone);
            match open_path(root, parent) {
                Ok(directory) => self.remove(directory.as_fd(), name, gone)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(entry(gone, errno)),
            }
        }
        Ok(())
    }

    fn copy_directory(&mut self, from: &OwnedFd, to: &OwnedFd, at: &[u8]) -> Result<(), CopyError> {
        let fail = |errno| entry(at, errno);
        let record = self.index.entries.get(at);
        if tree::is_opaque(from) || record.is_some_and(|record| record.opaque) {
            self.empty(to, at)?;
        }
        self.modes.insert(at.to_vec(), fs::fstat(from).map_err(fail)?);
        copy::copy_xattrs(from, to);
        self.merge_record(at);
        for child in Dir::read_from(from).map_err(fail)? {
            let child = child.map_err(fail)?;
            let name = child.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.copy_child(from, to, name, &path::join(at, name))?;
            }
        }
        Ok(())
    }

    fn copy_child(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], at: &[u8]) -> Result<(), CopyError> {
        let fail = |errno| entry(at, errno);
        let Some(stat) = tree::stat_at(from, name).map_err(fail)? else { return Ok(()) };
        if tree::is_whiteout(&stat) {
            return self.remove(to.as_fd(), name, at);
        }
        if tree::file_type(&stat) != FileType::Directory {
            self.remove(to.as_fd(), name, at)?;
            self.copy_file(from, to, name, at, &stat).map_err(fail)?;
            self.merge_record(at);
            return Ok(());
        }
        let there = tree::stat_at(to, name).map_err(fail)?;
        if there.is_none_or(|there| tree::file_type(&there) != FileType::Directory) {
            self.remove(to.as_fd(), name, at)?;
            fs::mkdirat(to, name, Mode::RWXU).map_err(fail)?;
        }
        let source = fs::openat(from, name, tree::DIRECTORY, Mode::empty()).map_err(fail)?;
        let target = fs::openat(to, name, tree::DIRECTORY, Mode::empty()).map_err(fail)?;
        self.copy_directory(&source, &target, at)
    }

    /// Copies one file; further names of it become hard links again.
    fn copy_file(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &[u8],
        at: &[u8],
        stat: &Stat,
    ) -> Result<(), Errno> {
        if stat.st_nlink < 2 {
            return copy::copy_entry(from.as_fd(), name, stat, to.as_fd(), name);
        }
        let inode = (stat.st_dev, stat.st_ino);
        let root_path = self.links.get(&inode).cloned();
        if let Some((directory, first)) = root_path.and_then(|first| self.first_name(to, at, &first)) {
            if fs::linkat(&directory, &first, to, name, AtFlags::empty()).is_ok() {
                return Ok(());
            }
        }
        self.links.insert(inode, at.to_vec());
        copy::copy_entry(from.as_fd(), name, stat, to.as_fd(), name)
    }

    /// The directory of a file's first name, found from a directory of the copy by going up.
    fn first_name(&self, here: &OwnedFd, at: &[u8], first: &[u8]) -> Option<(OwnedFd, Vec<u8>)> {
        let depth = at.iter().filter(|&&byte| byte == b'/').count();
        let mut up = rustix::io::fcntl_dupfd_cloexec(here, 0).ok()?;
        for _ in 0..depth {
            up = fs::openat(&up, "..", tree::DIRECTORY, Mode::empty()).ok()?;
        }
        let (parent, name) = path::split(first);
        Some((open_path(&up, parent).ok()?, name.to_vec()))
    }

    fn merge_record(&mut self, at: &[u8]) {
        match self.index.entries.get(at) {
            Some(record) => drop(self.merged.entries.insert(at.to_vec(), record.clone())),
            None => drop(self.merged.entries.remove(at)),
        }
    }

    fn remove(&mut self, directory: BorrowedFd<'_>, name: &[u8], at: &[u8]) -> Result<(), CopyError> {
        if tree::stat_at(directory, name).map_err(|errno| entry(at, errno))?.is_none() {
            return Ok(());
        }
        let result = tree::remove_tree(directory, name);
        result.map_err(|error| entry(at, Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        self.merged.forget(at);
        let start = [at, b"/"].concat();
        self.modes.retain(|key, _| key != at && !key.starts_with(&start));
        Ok(())
    }

    /// Removes all that lower layers have put into a directory.
    fn empty(&mut self, directory: &OwnedFd, at: &[u8]) -> Result<(), CopyError> {
        let names: Result<Vec<_>, Errno> = Dir::read_from(directory)
            .and_then(|entries| entries.map(|it| Ok(it?.file_name().to_bytes().to_vec())).collect());
        for name in names.map_err(|errno| entry(at, errno))? {
            if name != b"." && name != b".." {
                self.remove(directory.as_fd(), &name, &path::join(at, &name))?;
            }
        }
        Ok(())
    }
}
