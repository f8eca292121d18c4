//! The layers below the one being extracted, seen merged as overlayfs will show them.
//!
//! Two things in a layer lean on what lies below it. A hard link may name a
//! file of a lower layer: on a merged mount link(2) copies that file up first,
//! so it must be found and copied here. And a directory that is only implied by
//! the files in it exists below with a mode and an owner of its own, which the
//! merged view would lose if the new tree made up others.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::gate::Gate;
use crate::index::{Index, Record, Type};
use crate::path;
use crate::tree;

const LINK_LIMIT: u32 = 40;

/// The lower layers, topmost first.
#[derive(Default)]
pub struct Parents {
    paths: Vec<PathBuf>,
    ready: Option<Arc<Gate>>,
    cancel: Option<Arc<AtomicBool>>,
    /// Opened at the first question; most layers never ask one.
    layers: Vec<Layer>,
}

struct Layer {
    root: OwnedFd,
    index: Index,
}

/// An entry of the merged view.
pub struct Found {
    /// The directory it is in.
    pub directory: OwnedFd,
    /// Its name there.
    pub name: Vec<u8>,
    /// What it is.
    pub stat: Stat,
    /// What its layer's index says of it.
    pub record: Option<Record>,
}

enum Lookup {
    Found(Box<Found>),
    Absent,
    /// A link stands in the way: where the path leads instead.
    Elsewhere(Vec<u8>),
}

/// A directory of the merged view, in one of the layers that make it up.
struct Part {
    layer: usize,
    fd: OwnedFd,
}

impl Parents {
    /// `paths` are the `fs/` directories, topmost first; they are there when `ready` has opened.
    pub fn new(paths: &[PathBuf], ready: Option<Arc<Gate>>, cancel: Option<Arc<AtomicBool>>) -> Parents {
        Parents { paths: paths.to_vec(), ready, cancel, layers: Vec::new() }
    }

    /// What a normal path names in the merged view. Links on the way are
    /// followed inside it; one at the end is not.
    pub fn find(&mut self, wanted: &[u8]) -> Result<Option<Found>, Errno> {
        self.open()?;
        let mut wanted = wanted.to_vec();
        for _ in 0..=LINK_LIMIT {
            match self.look_up(&wanted)? {
                Lookup::Found(found) => return Ok(Some(*found)),
                Lookup::Absent => return Ok(None),
                Lookup::Elsewhere(path) => wanted = path,
            }
        }
        Err(Errno::LOOP)
    }

    /// `ECANCELED` says that the wait for the layers was given up.
    fn open(&mut self) -> Result<(), Errno> {
        if self.layers.len() == self.paths.len() {
            return Ok(());
        }
        if self.ready.as_ref().is_some_and(|gate| !gate.wait(self.cancel.as_deref())) {
            return Err(Errno::CANCELED);
        }
        for path in &self.paths[self.layers.len()..] {
            let root = fs::open(path, tree::DIRECTORY, Mode::empty())?;
            let index = path.parent().map(Index::read).transpose();
            let index = index.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            self.layers.push(Layer { root, index: index.unwrap_or_default() });
        }
        Ok(())
    }

    fn look_up(&self, wanted: &[u8]) -> Result<Lookup, Errno> {
        let mut parts = self.roots()?;
        if wanted.is_empty() {
            return Ok(match parts.into_iter().next() {
                Some(part) => Lookup::Found(Box::new(self.found(&part, b".", b"")?)),
                None => Lookup::Absent,
            });
        }
        let mut names: VecDeque<&[u8]> = wanted.split(|&byte| byte == b'/').collect();
        let mut here = Vec::new();
        while let Some(name) = names.pop_front() {
            let at = path::join(&here, name);
            let Some(top) = self.topmost(&parts, name, &at)? else { return Ok(Lookup::Absent) };
            if names.is_empty() {
                return Ok(Lookup::Found(Box::new(self.found(&parts[top.0], name, &at)?)));
            }
            match tree::file_type(&top.1) {
                FileType::Directory => parts = self.descend(parts.split_off(top.0), name, &at)?,
                FileType::Symlink => {
                    let target = fs::readlinkat(&parts[top.0].fd, name, Vec::new())?.into_bytes();
                    return Ok(elsewhere(&here, &target, names));
                }
                _ => return Ok(Lookup::Absent),
            }
            here = at;
        }
        Ok(Lookup::Absent)
    }

    fn roots(&self) -> Result<Vec<Part>, Errno> {
        let open = |(layer, it): (usize, &Layer)| {
            Ok(Part { layer, fd: rustix::io::fcntl_dupfd_cloexec(&it.root, 0)? })
        };
        self.layers.iter().enumerate().map(open).collect()
    }

    fn found(&self, part: &Part, name: &[u8], at: &[u8]) -> Result<Found, Errno> {
        Ok(Found {
            directory: rustix::io::fcntl_dupfd_cloexec(&part.fd, 0)?,
            name: name.to_vec(),
            stat: tree::stat_at(&part.fd, name)?.ok_or(Errno::NOENT)?,
            record: self.layers[part.layer].index.entries.get(at).cloned(),
        })
    }

    fn is_whiteout(&self, part: &Part, stat: Option<&Stat>, at: &[u8]) -> bool {
        match stat {
            Some(stat) => tree::is_whiteout(stat),
            None => self.layers[part.layer]
                .index
                .entries
                .get(at)
                .is_some_and(|record| record.kind == Type::Whiteout),
        }
    }

    /// The first part that has `name`, unless a whiteout comes before it.
    fn topmost(&self, parts: &[Part], name: &[u8], at: &[u8]) -> Result<Option<(usize, Stat)>, Errno> {
        for (place, part) in parts.iter().enumerate() {
            let stat = tree::stat_at(&part.fd, name)?;
            if self.is_whiteout(part, stat.as_ref(), at) {
                return Ok(None);
            }
            if let Some(stat) = stat {
                return Ok(Some((place, stat)));
            }
        }
        Ok(None)
    }

    /// The parts of the directory `name`: down to the first that is opaque or no directory.
    fn descend(&self, parts: Vec<Part>, name: &[u8], at: &[u8]) -> Result<Vec<Part>, Errno> {
        let mut children = Vec::new();
        for part in parts {
            let stat = tree::stat_at(&part.fd, name)?;
            if self.is_whiteout(&part, stat.as_ref(), at) {
                break;
            }
            let Some(stat) = stat else { continue };
            if tree::file_type(&stat) != FileType::Directory {
                break;
            }
            let fd = fs::openat(part.fd.as_fd(), name, tree::DIRECTORY | OFlags::NONBLOCK, Mode::empty())?;
            let record = self.layers[part.layer].index.entries.get(at);
            let is_opaque = tree::is_opaque(&fd) || record.is_some_and(|record| record.opaque);
            children.push(Part { layer: part.layer, fd });
            if is_opaque {
                break;
            }
        }
        Ok(children)
    }
}

/// Where `target`, read from a link in `here`, and the names after it lead; `..` stops at the root.
fn elsewhere(here: &[u8], target: &[u8], rest: VecDeque<&[u8]>) -> Lookup {
    let mut path: Vec<&[u8]> = Vec::new();
    if !target.starts_with(b"/") {
        path.extend(here.split(|&byte| byte == b'/'));
    }
    for name in target.split(|&byte| byte == b'/').chain(rest) {
        match name {
            b".." => drop(path.pop()),
            name => path.push(name),
        }
    }
    path.retain(|name| !name.is_empty() && *name != b".");
    let path = path.join(&b'/');
    if path.len() > path::PATH_LIMIT {
        return Lookup::Absent;
    }
    Lookup::Elsewhere(path)
}
