//! Directories of the tree being made: from a path to an open descriptor,
//! without ever leaving the root.
//!
//! A layer may contain `a -> ../../etc` and then `a/passwd`. As in containerd
//! and umoci, a link on the way to a member is followed *inside the root*: an
//! absolute target starts at the root, and `..` stops there. So the walk goes
//! component by component, each opened by its parent's descriptor with
//! O_NOFOLLOW, links being read and walked by this code. openat2's
//! RESOLVE_IN_ROOT would do the same in one call, but would not say which
//! directory was reached, and the index, the final modes and the lookup in
//! lower layers need its true path.
//!
//! Members come sorted by directory, so open descriptors are kept by path.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use crate::path::{self, PATH_LIMIT};
use crate::tree;

/// Descriptors kept open; far below the soft limit of 1024 that processes start with.
const CACHE_LIMIT: usize = 96;

/// Links followed on the way to one member; the kernel's limit too.
const LINK_LIMIT: u32 = 40;

/// Directories opened on the way to one member: a link of a thousand `x/..` in a
/// deep directory, forty times over, would otherwise keep us busy for minutes.
const STEP_LIMIT: usize = 20_000;

/// What a walk may still do.
struct Budget {
    links: u32,
    steps: usize,
}

impl Budget {
    fn spend(&mut self, steps: usize) -> Result<(), WalkError> {
        self.steps = self.steps.checked_sub(steps).ok_or(TOO_MANY_LINKS)?;
        Ok(())
    }

    fn follow_link(&mut self) -> Result<(), WalkError> {
        self.links = self.links.checked_sub(1).ok_or(TOO_MANY_LINKS)?;
        Ok(())
    }
}

const TOO_MANY_LINKS: WalkError = WalkError::Reason("its path leads through too many symbolic links");

/// An open directory of the tree.
#[derive(Debug)]
pub struct Directory {
    /// Open for reading.
    pub fd: OwnedFd,
    /// Its path beneath the root, without any link in it.
    pub path: Vec<u8>,
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub enum WalkError {
    /// The kernel said no.
    Errno(&'static str, Errno),
    /// A part of it is no directory, or there are too many links.
    Reason(&'static str),
}

/// Makes the directories that a walk finds missing.
pub trait Maker {
    /// A directory `path` is needed and there is none: `name` in `parent` is
    /// absent, or is a whiteout. Makes it, accessible to the owner.
    fn make(&mut self, parent: &Directory, name: &[u8], path: &[u8]) -> Result<(), WalkError>;
}

/// Makes nothing: a walk with it finds what is there.
pub struct NoMaker;

impl Maker for NoMaker {
    fn make(&mut self, _: &Directory, _: &[u8], _: &[u8]) -> Result<(), WalkError> {
        Err(WalkError::Errno("open", Errno::NOENT))
    }
}

/// The root and the descriptors kept open beneath it.
pub struct Directories {
    root: Rc<Directory>,
    /// By the path as members write it, which may lead through links.
    cache: HashMap<Vec<u8>, Rc<Directory>>,
    last: (Vec<u8>, Rc<Directory>),
}

impl Directories {
    /// The tree beneath an open directory.
    pub fn new(root: OwnedFd) -> Directories {
        let root = Rc::new(Directory { fd: root, path: Vec::new() });
        Directories { last: (Vec::new(), root.clone()), root, cache: HashMap::new() }
    }

    /// The root itself.
    pub fn root(&self) -> &Rc<Directory> {
        &self.root
    }

    /// Forgets all descriptors: something in the tree was replaced.
    pub fn forget(&mut self) {
        self.cache.clear();
        self.last = (Vec::new(), self.root.clone());
    }

    /// The directory that a normal path leads to.
    pub fn open(&mut self, path: &[u8], maker: &mut impl Maker) -> Result<Rc<Directory>, WalkError> {
        if self.last.0 == path {
            return Ok(self.last.1.clone());
        }
        let directory = self.open_cached(path, maker)?;
        self.last = (path.to_vec(), directory.clone());
        Ok(directory)
    }

    fn open_cached(&mut self, path: &[u8], maker: &mut impl Maker) -> Result<Rc<Directory>, WalkError> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(directory) = self.cache.get(path) {
            return Ok(directory.clone());
        }
        let mut budget = Budget { links: LINK_LIMIT, steps: STEP_LIMIT };
        let start = self.nearest(path);
        let mut known = start.0;
        let mut here = start.1;
        for name in path[known..].split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            here = self.step(&here, name, maker, &mut budget)?;
            known += name.len() + usize::from(known > 0);
            self.keep(&path[..known], &here);
        }
        Ok(here)
    }

    /// The longest part of a path that is open already.
    fn nearest(&self, path: &[u8]) -> (usize, Rc<Directory>) {
        let mut end = path.len();
        while let Some(slash) = path[..end].iter().rposition(|&byte| byte == b'/') {
            end = slash;
            if let Some(directory) = self.cache.get(&path[..end]) {
                return (end, directory.clone());
            }
        }
        (0, self.root.clone())
    }

    fn keep(&mut self, path: &[u8], directory: &Rc<Directory>) {
        if self.cache.len() >= CACHE_LIMIT {
            self.cache.clear();
        }
        self.cache.insert(path.to_vec(), directory.clone());
    }

    /// From a directory to the one that `name` in it leads to.
    fn step(
        &mut self,
        here: &Rc<Directory>,
        name: &[u8],
        maker: &mut impl Maker,
        budget: &mut Budget,
    ) -> Result<Rc<Directory>, WalkError> {
        budget.spend(1)?;
        let path = path::join(&here.path, name);
        if path.len() > PATH_LIMIT {
            return Err(WalkError::Errno("open", Errno::NAMETOOLONG));
        }
        match open_directory(here, name) {
            Ok(fd) => return Ok(Rc::new(Directory { fd, path })),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                if let Some(directory) = self.follow(here, name, maker, budget)? {
                    return Ok(directory);
                }
            }
            Err(errno) => return Err(WalkError::Errno("open", errno)),
        }
        maker.make(here, name, &path)?;
        let fd = open_directory(here, name).map_err(|errno| WalkError::Errno("open", errno))?;
        Ok(Rc::new(Directory { fd, path }))
    }

    /// Follows a link; `None` if a whiteout stands there.
    fn follow(
        &mut self,
        here: &Rc<Directory>,
        name: &[u8],
        maker: &mut impl Maker,
        budget: &mut Budget,
    ) -> Result<Option<Rc<Directory>>, WalkError> {
        let target = match fs::readlinkat(&here.fd, name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::INVAL) => {
                return match tree::stat_at(&here.fd, name) {
                    Ok(Some(stat)) if tree::is_whiteout(&stat) => Ok(None),
                    Ok(_) => Err(WalkError::Reason("a part of its path is not a directory")),
                    Err(errno) => Err(WalkError::Errno("stat", errno)),
                }
            }
            Err(errno) => return Err(WalkError::Errno("readlink", errno)),
        };
        budget.follow_link()?;
        let mut at = if target.starts_with(b"/") { self.root.clone() } else { here.clone() };
        for component in target.split(|&byte| byte == b'/') {
            at = match component {
                b"" | b"." => continue,
                b".." => {
                    budget.spend(at.path.split(|&byte| byte == b'/').count())?;
                    self.open_true(path::split(&at.path).0)?
                }
                name => self.step(&at, name, maker, budget)?,
            };
        }
        Ok(Some(at))
    }

    /// Opens a directory by a path that is known to have no link in it.
    fn open_true(&mut self, path: &[u8]) -> Result<Rc<Directory>, WalkError> {
        let mut here = self.root.clone();
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            let fd = open_directory(&here, name).map_err(|errno| WalkError::Errno("open", errno))?;
            here = Rc::new(Directory { fd, path: path::join(&here.path, name) });
        }
        Ok(here)
    }
}

fn open_directory(parent: &Directory, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(&parent.fd, name, tree::DIRECTORY | OFlags::NONBLOCK, Mode::empty())
}
