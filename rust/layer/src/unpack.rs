//! A tar into a tree that is in use: `cp` into a container, and out of one.
//!
//! Extraction of a layer makes a new tree that nobody sees before it is whole.
//! Here the tree is somebody's: directories that are there stay as they are and
//! take what comes, a file is replaced and never written through, and nothing
//! ever becomes a directory that was none, or none that was one.
//!
//! What comes is hostile in both directions. Names never climb. Links in the
//! tree are followed inside a container's root, where they can lead nowhere
//! else, and not at all on the machine, where a container could have the user
//! write anywhere.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tar::{Kind, Member, Source, TarReader};
use crate::writer::timestamps;
use crate::{path, tree, xattrs};

/// How links in the way are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Followed: the root is a container's, and they stay in it.
    Inside,
    /// An error.
    Refused,
}

/// Who owns what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewOwner {
    /// Whoever makes it.
    Maker,
    /// This one; what may not be given away stays the maker's.
    These(u32, u32),
    /// Who the archive says; what may not be given away stays the maker's.
    Archived,
}

/// Where a tar goes, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// The root that everything stays beneath.
    pub root: std::sync::Arc<OwnedFd>,
    /// The directory in it that takes the members; it exists.
    pub directory: Vec<u8>,
    /// What the archive's root member (`.`) is called there; `None`: it is the directory itself.
    pub name: Option<Vec<u8>>,
    /// Links in the tree.
    pub links: Links,
    /// Owners.
    pub owner: NewOwner,
}

/// Why a tar was not unpacked to its end. What was made stays: it is in a tree of others.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is malformed.
    #[error("bad tar: {0}")]
    Tar(#[from] crate::tar::TarError),
    /// A member that cannot be unpacked.
    #[error("`{0}`: {1}")]
    Member(String, &'static str),
    /// A system call on a file failed.
    #[error("`{0}`: {1}: {text}", text = crate::error::errno_text(*.2))]
    Entry(String, &'static str, Errno),
}

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Members.
    pub entries: u64,
    /// What was left out, one line each.
    pub skipped: Vec<String>,
}

/// Unpacks a plain tar.
///
/// # Errors
/// The first member that is in the way.
pub fn unpack(source: impl Source, target: &Target) -> Result<Unpacked, UnpackError> {
    let mut work = Work { target, here: None, late: Vec::new(), done: Unpacked::default() };
    let mut tar = TarReader::new(source);
    while let Some(member) = tar.next_member()? {
        work.add(&member, &mut tar)?;
        work.done.entries += 1;
    }
    work.finish();
    Ok(work.done)
}

struct Work<'a> {
    target: &'a Target,
    /// The directory opened last.
    here: Option<(Vec<u8>, OwnedFd)>,
    /// New directories, whose modes and times are set at the end.
    late: Vec<(OwnedFd, Member)>,
    done: Unpacked,
}

/// More are set at once.
const LATE_LIMIT: usize = 256;

type Step<T> = Result<T, (&'static str, Errno)>;

fn on<T>(operation: &'static str, result: Result<T, Errno>) -> Step<T> {
    result.map_err(|errno| (operation, errno))
}

impl Work<'_> {
    fn add<R: Source>(&mut self, member: &Member, tar: &mut TarReader<R>) -> Result<(), UnpackError> {
        let shown = || path::display(&member.path);
        let bad = |reason| UnpackError::Member(path::display(&member.path), reason);
        let Some(place) = self.placed(&member.path).map_err(bad)? else { return Ok(()) };
        let link = match member.kind {
            Kind::HardLink => self.placed(&member.link).map_err(bad)?,
            _ => None,
        };
        let (parent, name) = path::split(&place);
        let directory = self
            .directory(parent)
            .map_err(|errno| UnpackError::Entry(shown(), "open the directory of", errno))?;
        let result = self.make(&directory, name, member, link.as_deref(), tar);
        self.here = Some((parent.to_vec(), directory));
        match result {
            Ok(()) => Ok(()),
            Err(Problem::Step((operation, errno))) => Err(UnpackError::Entry(shown(), operation, errno)),
            Err(Problem::Reason(reason)) => Err(bad(reason)),
            Err(Problem::Tar(error)) => Err(error.into()),
        }
    }

    /// Where a member belongs, beneath the root; `None` for the directory that is there.
    fn placed(&self, name: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        let name = path::normalize(name)?;
        let base = match &self.target.name {
            Some(own) => path::join(&self.target.directory, own),
            None if name.is_empty() => return Ok(None),
            None => self.target.directory.clone(),
        };
        Ok(Some(if name.is_empty() { base } else { path::join(&base, &name) }))
    }

    /// Opens a directory of the tree, making what is missing below the target's own.
    fn directory(&mut self, at: &[u8]) -> Result<OwnedFd, Errno> {
        match self.here.take() {
            Some((known, fd)) if known == at => return Ok(fd),
            _ => {}
        }
        match self.open(at) {
            Err(Errno::NOENT) if at.len() > self.target.directory.len() => {}
            other => return other,
        }
        let (parent, name) = path::split(at);
        let above = self.directory(parent)?;
        match fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                if let Some((uid, gid)) = self.ids(None) {
                    let _ = fs::chownat(&above, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
                }
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        self.open(at)
    }

    fn open(&self, at: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = match self.target.links {
            Links::Inside => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            Links::Refused => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        };
        let root = self.target.root.as_fd();
        let path = if at.is_empty() { b".".as_slice() } else { at };
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) if self.target.links == Links::Refused => {
                crate::beneath::open_directory(root, at)
            }
            Err(Errno::AGAIN) => fs::openat2(root, path, flags, Mode::empty(), resolve),
            other => other,
        }
    }

    fn make<R: Source>(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        member: &Member,
        link: Option<&[u8]>,
        tar: &mut TarReader<R>,
    ) -> Result<(), Problem> {
        match member.kind {
            Kind::Directory => return self.make_directory(directory, name, member),
            Kind::CharDevice | Kind::BlockDevice | Kind::Other(_) => {
                let line =
                    format!("{}: a device or other special file is left out", path::display(&member.path));
                self.done.skipped.push(line);
                return Ok(());
            }
            _ => {}
        }
        let stat = on("stat", tree::stat_at(directory, name))?;
        if stat.is_some_and(|stat| tree::file_type(&stat) == FileType::Directory) {
            return Err(Problem::Reason("cannot replace a directory by something else"));
        }
        match member.kind {
            Kind::File => self.make_file(directory, name, member, tar)?,
            Kind::HardLink => return self.make_link(directory, name, link),
            Kind::Symlink => {
                remove(directory, name)?;
                on("symlink", fs::symlinkat(OsStr::from_bytes(&member.link), directory, name))?;
            }
            _ => {
                remove(directory, name)?;
                let mode = Mode::from_raw_mode(member.mode);
                on("mkfifo", fs::mknodat(directory, name, FileType::Fifo, mode, 0))?;
            }
        }
        if member.kind != Kind::File {
            self.own_at(directory, name, member);
            let times = timestamps(member.mtime);
            on("set the time", fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW))?;
        }
        Ok(())
    }

    fn make_directory(&mut self, directory: &OwnedFd, name: &[u8], member: &Member) -> Result<(), Problem> {
        match fs::mkdirat(directory, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let flags = match self.target.links {
                    Links::Inside => return self.expect_directory(directory, name),
                    Links::Refused => tree::DIRECTORY,
                };
                return match fs::openat(directory, name, flags, Mode::empty()) {
                    Err(Errno::NOTDIR | Errno::LOOP) => Err(Problem::Reason(NOT_OVER_A_FILE)),
                    _ => Ok(()),
                };
            }
            Err(errno) => return Err(Problem::Step(("mkdir", errno))),
        }
        let fd = on("open", fs::openat(directory, name, tree::DIRECTORY, Mode::empty()))?;
        self.dress(&fd, member, false)?;
        if self.late.len() >= LATE_LIMIT {
            let (oldest, facts) = self.late.remove(0);
            settle(&oldest, &facts);
        }
        self.late.push((fd, Member { xattrs: Vec::new(), ..member.clone() }));
        Ok(())
    }

    /// In a container a link to a directory does for one.
    fn expect_directory(&self, directory: &OwnedFd, name: &[u8]) -> Result<(), Problem> {
        let stat = on("stat", tree::stat_at(directory, name))?;
        match stat.map(|stat| tree::file_type(&stat)) {
            Some(FileType::Directory | FileType::Symlink) => Ok(()),
            _ => Err(Problem::Reason(NOT_OVER_A_FILE)),
        }
    }

    fn make_file<R: Source>(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        member: &Member,
        tar: &mut TarReader<R>,
    ) -> Result<(), Problem> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match remove(directory, name) {
            Ok(()) => {
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                on("create", fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR))?
            }
            // Something is mounted there, as on /etc/hosts: it is written to as it is.
            Err((_, Errno::BUSY)) => {
                on("open", fs::openat(directory, name, flags | OFlags::TRUNC, Mode::empty()))?
            }
            Err(step) => return Err(step.into()),
        };
        match &member.sparse {
            None => write_body(&file, tar, 0, member.size)?,
            Some(map) => {
                for segment in map {
                    write_body(&file, tar, segment.offset, segment.length)?;
                }
                on("set the size of", fs::ftruncate(&file, member.size))?;
            }
        }
        self.dress(&file, member, true)?;
        on("set the time", fs::futimens(&file, &timestamps(member.mtime)))?;
        Ok(())
    }

    fn make_link(&mut self, directory: &OwnedFd, name: &[u8], link: Option<&[u8]>) -> Result<(), Problem> {
        let Some(link) = link else { return Err(Problem::Reason("a hard link to a directory")) };
        let (parent, first) = path::split(link);
        let from = on("open the directory of the link's target", self.open(parent))?;
        remove(directory, name)?;
        on("link", fs::linkat(&from, first, directory, name, AtFlags::empty()))?;
        Ok(())
    }

    /// Owner, then mode (chown clears setuid), then xattrs.
    fn dress(&mut self, file: &OwnedFd, member: &Member, with_mode: bool) -> Step<()> {
        if let Some((uid, gid)) = self.ids(Some(member)) {
            let _ = fs::fchown(file, Some(uid), Some(gid));
        }
        if with_mode {
            on("chmod", fs::fchmod(file, Mode::from_raw_mode(member.mode)))?;
        }
        for (name, value) in &member.xattrs {
            if matches!(xattrs::fate(name), xattrs::Fate::Disk | xattrs::Fate::Index) {
                let _ = fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
            }
        }
        Ok(())
    }

    fn own_at(&self, directory: &OwnedFd, name: &[u8], member: &Member) {
        if let Some((uid, gid)) = self.ids(Some(member)) {
            let _ = fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        }
    }

    fn ids(&self, member: Option<&Member>) -> Option<(Uid, Gid)> {
        match (self.target.owner, member) {
            (NewOwner::These(uid, gid), _) => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
            (NewOwner::Archived, Some(member)) => {
                Some((Uid::from_raw(member.uid), Gid::from_raw(member.gid)))
            }
            _ => None,
        }
    }

    fn finish(&mut self) {
        for (fd, member) in std::mem::take(&mut self.late).iter().rev() {
            settle(fd, member);
        }
    }
}

const NOT_OVER_A_FILE: &str = "cannot replace something else by a directory";

/// The mode and time of a new directory; whoever took it away meanwhile does not care.
fn settle(fd: &OwnedFd, member: &Member) {
    let _ = fs::fchmod(fd, Mode::from_raw_mode(member.mode));
    let _ = fs::futimens(fd, &timestamps(member.mtime));
}

enum Problem {
    Step((&'static str, Errno)),
    Reason(&'static str),
    Tar(crate::tar::TarError),
}

impl From<(&'static str, Errno)> for Problem {
    fn from(step: (&'static str, Errno)) -> Problem {
        Problem::Step(step)
    }
}

fn remove(directory: &OwnedFd, name: &[u8]) -> Step<()> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(("replace", errno)),
    }
}

fn write_body<R: Source>(
    file: &OwnedFd,
    tar: &mut TarReader<R>,
    mut at: u64,
    length: u64,
) -> Result<(), Problem> {
    let end = at + length;
    while at < end {
        let bytes = tar.body().map_err(Problem::Tar)?;
        let want = bytes.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let n = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &bytes[..want], at));
        let n = on("write", n)?;
        tar.consume(n);
        at += n as u64;
    }
    Ok(())
}

/// A stream whose beginning can be looked at: how an archive begins decides where it goes.
pub struct Peeked<R> {
    source: io::BufReader<R>,
    head: Vec<u8>,
    read: usize,
}

/// A header with all its extensions is not longer.
const HEAD_LIMIT: usize = 4 << 20;

impl<R: Read> Peeked<R> {
    /// Around a stream at its start.
    pub fn new(source: R) -> Peeked<R> {
        Peeked { source: io::BufReader::with_capacity(256 * 1024, source), head: Vec::new(), read: 0 }
    }

    /// The kind of the first member, from its header; `None` for an empty archive.
    ///
    /// # Errors
    /// What reading says; `InvalidData` for what is no tar.
    pub fn first_kind(&mut self) -> io::Result<Option<Kind>> {
        loop {
            let n = {
                let bytes = io::BufRead::fill_buf(&mut self.source)?;
                self.head.extend_from_slice(bytes);
                bytes.len()
            };
            io::BufRead::consume(&mut self.source, n);
            match TarReader::new(&self.head[..]).next_member() {
                Err(error) if n > 0 && self.head.len() < HEAD_LIMIT && is_short(&error) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
                Ok(member) => return Ok(member.map(|member| member.kind)),
            }
        }
    }
}

fn is_short(error: &crate::tar::TarError) -> bool {
    matches!(error.fault, crate::tar::Fault::Truncated)
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = io::BufRead::fill_buf(self)?.len().min(buffer.len());
        buffer[..n].copy_from_slice(&io::BufRead::fill_buf(self)?[..n]);
        io::BufRead::consume(self, n);
        Ok(n)
    }
}

impl<R: Read> io::BufRead for Peeked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.read < self.head.len() {
            true => Ok(&self.head[self.read..]),
            false => self.source.fill_buf(),
        }
    }

    fn consume(&mut self, n: usize) {
        match self.read < self.head.len() {
            true => self.read += n,
            false => self.source.consume(n),
        }
    }
}

impl<R: Read> Source for Peeked<R> {}
