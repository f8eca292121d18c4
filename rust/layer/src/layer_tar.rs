//! The taker of changes, views and lists that makes a tar of them.
//!
//! It opens each entry again by its path: the walk may be far ahead of a slow
//! receiver, and what an entry is decides itself when it is read. A file that
//! shrinks under the reading is filled up with zeros, one that grows is cut:
//! the archive stays whole, and who wants a consistent one stops the container.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

use crate::changes::{Changes, Lower};
use crate::closed::Closed;
use crate::error::WriteError;
use crate::facts::{self, At, Facts, Owners};
use crate::tar::{Kind, Member, TarBuilder, Time};
use crate::{beneath, copy, path, tree};

const BUFFER: usize = 256 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A tar in the making.
pub struct LayerTar<W: Write> {
    tar: TarBuilder<W>,
    /// No time later than this, in seconds.
    epoch: Option<i64>,
    cancel: Option<Arc<AtomicBool>>,
    /// First names of files that have several, by inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// The directory opened last: number of its tree, path.
    here: Option<(usize, Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
    /// The first tree's.
    closed: Closed,
}

/// What a finished archive was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Members.
    pub entries: u64,
    /// Bytes.
    pub size: u64,
}

/// An entry in one of several trees.
pub struct Place<'a> {
    /// Number of the tree, for the directory kept open.
    pub tree: usize,
    /// Its root.
    pub root: &'a OwnedFd,
    /// Path beneath it.
    pub path: &'a [u8],
}

impl<W: Write> LayerTar<W> {
    /// An archive into `out`, which is given small pieces.
    pub fn new(out: W, epoch: Option<i64>, cancel: Option<Arc<AtomicBool>>) -> LayerTar<W> {
        let (links, buffer) = (HashMap::new(), vec![0; BUFFER]);
        let closed = Closed::default();
        LayerTar { tar: TarBuilder::new(out), epoch, cancel, links, here: None, buffer, closed }
    }

    /// The same, of trees the first of which has closed directories.
    pub fn with_closed(mut self, closed: Closed) -> Self {
        self.closed = closed;
        self
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// `Output`.
    pub fn finish(self) -> Result<Written, WriteError> {
        let (entries, size) = (self.tar.members(), self.tar.written() + 1024);
        self.tar.finish().map_err(WriteError::Output)?;
        Ok(Written { entries, size })
    }

    /// Adds what stands at a place, as `describe` tells it from its stat; under the path that the member then has.
    ///
    /// # Errors
    /// `Entry` for what cannot be read; what is gone by now is left out.
    pub fn add(
        &mut self,
        place: &Place<'_>,
        describe: impl FnOnce(&At<'_>, &Stat) -> Member,
    ) -> Result<(), WriteError> {
        if self.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(WriteError::Cancelled);
        }
        let fail = |operation| {
            let path = path::display(place.path);
            move |errno| WriteError::Entry { path, operation, errno }
        };
        let (parent, name) = path::split(place.path);
        let name = if name.is_empty() { b".".as_slice() } else { name };
        let directory = match self.directory(place, parent) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(fail("open the directory of"))?,
        };
        let Some(mut stat) = tree::stat_at(&directory, name).map_err(fail("stat"))? else {
            self.keep(place, parent, directory);
            return Ok(());
        };
        if let Some(mode) = self.closed.mode(place.path).filter(|_| place.tree == 0) {
            stat.st_mode = stat.st_mode & !0o7777 | mode;
        }
        let member = describe(&At { directory: &directory, name }, &stat);
        let result = self.add_entry(&directory, name, &stat, member, place);
        self.keep(place, parent, directory);
        result
    }

    fn directory(&mut self, place: &Place<'_>, parent: &[u8]) -> Result<OwnedFd, Errno> {
        match self.here.take() {
            Some((tree, path, fd)) if tree == place.tree && path == parent => Ok(fd),
            _ => beneath::open_directory(place.root, parent),
        }
    }

    fn keep(&mut self, place: &Place<'_>, parent: &[u8], directory: OwnedFd) {
        self.here = Some((place.tree, parent.to_vec(), directory));
    }

    fn add_entry(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        mut member: Member,
        place: &Place<'_>,
    ) -> Result<(), WriteError> {
        let fail = |operation| {
            let path = path::display(place.path);
            move |errno| WriteError::Entry { path, operation, errno }
        };
        self.clamp(&mut member);
        if let Kind::Other(_) = member.kind {
            // A socket dies with who listens on it; no layer can hold one.
            return Ok(());
        }
        if self.is_further_name(&mut member, stat) {
            return self.start(&member);
        }
        if member.kind == Kind::Symlink {
            member.link = fs::readlinkat(directory, name, Vec::new()).map_err(fail("readlink"))?.into_bytes();
        }
        let file = match facts::open(directory, name, stat) {
            // It became another thing in this moment.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(()),
            other => other.map_err(fail("open"))?,
        };
        if let Some(file) = &file {
            facts::add_xattrs(&mut member, file);
        }
        match file {
            Some(file) if member.kind == Kind::File => {
                member.size = fs::fstat(&file).map_err(fail("stat"))?.st_size.unsigned_abs();
                self.start(&member)?;
                self.body(&file, stat, place.path)
            }
            _ => self.start(&member),
        }
    }

    /// Adds a member with a body that is at hand.
    ///
    /// # Errors
    /// `Output`.
    pub fn add_ready(&mut self, mut member: Member, body: &[u8]) -> Result<(), WriteError> {
        self.clamp(&mut member);
        if member.kind != Kind::File {
            return self.start(&member);
        }
        member.size = body.len() as u64;
        self.start(&member)?;
        self.tar.write(body).map_err(WriteError::Output)
    }

    fn start(&mut self, member: &Member) -> Result<(), WriteError> {
        self.tar.start(member).map_err(WriteError::Output)
    }

    fn clamp(&self, member: &mut Member) {
        if self.epoch.is_some_and(|epoch| member.mtime >= Time { seconds: epoch, nanoseconds: 0 }) {
            member.mtime = Time { seconds: self.epoch.unwrap_or(0), nanoseconds: 0 };
        }
    }

    /// Makes a hard link of a member whose file was told under another name.
    fn is_further_name(&mut self, member: &mut Member, stat: &Stat) -> bool {
        if stat.st_nlink < 2 || tree::file_type(stat) == FileType::Directory {
            return false;
        }
        match self.links.get(&(stat.st_dev, stat.st_ino)) {
            Some(first) => {
                member.kind = Kind::HardLink;
                member.link.clone_from(first);
                member.size = 0;
                // The first name told them.
                member.xattrs.clear();
                true
            }
            None => {
                self.links.insert((stat.st_dev, stat.st_ino), member.path.clone());
                false
            }
        }
    }

    fn body(&mut self, file: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), WriteError> {
        let fail = |errno| WriteError::Entry { path: path::display(path), operation: "read", errno };
        let size = self.tar.left();
        let has_holes = (stat.st_blocks.unsigned_abs()) * 512 < size;
        let mut at = 0;
        while at < size {
            let (start, end) = match has_holes {
                true => copy::next_data(file, at, size).map_err(fail)?,
                false => (at, size),
            };
            self.zeros(start - at)?;
            at = start;
            while at < end {
                let want = BUFFER.min(usize::try_from(end - at).unwrap_or(BUFFER));
                let n = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut self.buffer[..want], at));
                let n = n.map_err(fail)?;
                if n == 0 {
                    return self.zeros(self.tar.left());
                }
                self.tar.write(&self.buffer[..n]).map_err(WriteError::Output)?;
                at += n as u64;
            }
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), WriteError> {
        while count > 0 {
            let n = count.min(ZEROS.len() as u64);
            self.tar.write(&ZEROS[..n as usize]).map_err(WriteError::Output)?;
            count -= n;
        }
        Ok(())
    }

    /// A whiteout, in the layer's spelling: an empty file owned by root. `name` is its last component.
    ///
    /// # Errors
    /// `Output`.
    pub fn white_out(&mut self, directory: &[u8], name: &[u8]) -> Result<(), WriteError> {
        let mtime = Time { seconds: self.epoch.unwrap_or(0).min(0), nanoseconds: 0 };
        let member = Member {
            path: path::join(directory, name),
            link: Vec::new(),
            kind: Kind::File,
            size: 0,
            stored: 0,
            offset: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        };
        self.start(&member)
    }
}

/// A layer of what a container changed.
pub struct ChangesTar<'a, W: Write> {
    /// Where they go.
    pub tar: LayerTar<W>,
    /// The container's tree.
    pub root: &'a OwnedFd,
    /// What is remembered of it.
    pub facts: &'a dyn Facts,
    /// Who owns the rest.
    pub owners: Owners,
}

impl<W: Write> Changes for ChangesTar<'_, W> {
    fn changed(&mut self, path: &[u8], lower: Option<Lower<'_>>) -> Result<(), WriteError> {
        check_name(path)?;
        let (facts, owners) = (self.facts, self.owners);
        let place = Place { tree: 0, root: self.root, path };
        self.tar.add(&place, |entry, stat| facts::of_change(path, entry, stat, lower, facts, owners))
    }

    fn deleted(&mut self, path: &[u8]) -> Result<(), WriteError> {
        let (parent, name) = path::split(path);
        self.tar.white_out(parent, &[b".wh.", name].concat())
    }

    fn emptied(&mut self, path: &[u8], _hidden: &[Vec<u8>]) -> Result<(), WriteError> {
        self.tar.white_out(path, b".wh..wh..opq")
    }
}

/// A file may not be called what a whiteout is called: the layer would delete instead of add.
fn check_name(path: &[u8]) -> Result<(), WriteError> {
    if path::split(path).1.starts_with(b".wh.") {
        let reason = "no layer can hold a file whose name begins with `.wh.`";
        return Err(WriteError::Member { path: path::display(path), reason });
    }
    Ok(())
}
