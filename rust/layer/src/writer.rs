//! The writing half of an extraction: members become files.
//!
//! Every file is created with O_EXCL | O_NOFOLLOW in an open directory, so
//! nothing is ever written through a link or into a file that was there. A name
//! that is taken is freed first: the last entry of a name wins, as in tar(1);
//! only a directory over a directory keeps what is in it. Nothing is chowned
//! and no device but a whiteout is made: the same tree comes out as root, as a
//! user, and inside a namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::copy;
use crate::directories::{Directories, Directory, NoMaker, WalkError};
use crate::error::{ExtractError, COPY_UP, LOOK_UP};
use crate::index::{Record, Type};
use crate::ledger::{Final, Ledger};
use crate::path;
use crate::tar::{Kind, Member, Segment, Source, TarReader, Time};
use crate::tree;
use crate::whiteout::{self, Name};
use crate::xattrs;

/// Why an entry could not be made; the entry's name is added by [`Writer::add`].
pub enum Fault {
    Errno(&'static str, Errno),
    Reason(&'static str),
    Extract(ExtractError),
}

impl Fault {
    /// The error of the entry at `path`.
    fn at(self, path: &[u8]) -> ExtractError {
        let path = path::display(path);
        match self {
            Fault::Errno(LOOK_UP, Errno::CANCELED) => ExtractError::Cancelled,
            Fault::Errno(operation, errno) => ExtractError::Entry { path, operation, errno },
            Fault::Reason(reason) => ExtractError::Member { path, reason },
            Fault::Extract(error) => error,
        }
    }
}

impl From<WalkError> for Fault {
    fn from(error: WalkError) -> Fault {
        match error {
            WalkError::Errno(operation, errno) => Fault::Errno(operation, errno),
            WalkError::Reason(reason) => Fault::Reason(reason),
        }
    }
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Fault {
        Fault::Reason(reason)
    }
}

/// Names the operation that an errno came from.
fn on<T>(operation: &'static str, result: Result<T, Errno>) -> Result<T, Fault> {
    result.map_err(|errno| Fault::Errno(operation, errno))
}

/// A name in an open directory.
struct Place<'a> {
    directory: Rc<Directory>,
    name: &'a [u8],
    /// The whole path beneath the root, links resolved.
    path: Vec<u8>,
}

/// Makes the tree of one layer.
pub struct Writer {
    directories: Directories,
    ledger: Ledger,
}

impl Writer {
    /// A writer for the empty directory `root`.
    pub fn new(root: OwnedFd, ledger: Ledger) -> Writer {
        Writer { directories: Directories::new(root), ledger }
    }

    /// Makes what one member describes, reading its body from `tar`.
    pub fn add<R: Source>(&mut self, member: &Member, tar: &mut TarReader<R>) -> Result<(), ExtractError> {
        self.dispatch(member, tar).map_err(|fault| fault.at(&member.path))
    }

    /// Sets the facts of all directories, deepest first, and gives the ledger back.
    pub fn finish(mut self) -> Result<Ledger, ExtractError> {
        if !self.ledger.directories.contains_key(&b""[..]) {
            let result = self.ledger.imply(b"");
            on(LOOK_UP, result).map_err(|fault| fault.at(b""))?;
        }
        let directories = std::mem::take(&mut self.ledger.directories);
        self.directories.forget();
        for (path, facts) in directories.iter().rev() {
            self.finish_directory(path, facts).map_err(|fault| fault.at(path))?;
        }
        Ok(self.ledger)
    }

    fn finish_directory(&mut self, path: &[u8], facts: &Final) -> Result<(), Fault> {
        let is_held = self.set_directory_facts(path, facts)?;
        if !is_held {
            self.ledger.index.entries.entry(path.to_vec()).or_default().kind = Type::Dir;
        }
        if let Some(record) = self.ledger.index.entries.get_mut(path) {
            record.mode = facts.mode;
            let mtime = facts.mtime.unwrap_or_default();
            record.mtime = (mtime.seconds, mtime.nanoseconds);
        }
        Ok(())
    }

    /// Sets mode and time; `false` if not all of the mode was kept.
    fn set_directory_facts(&mut self, path: &[u8], facts: &Final) -> Result<bool, Fault> {
        let times = facts.mtime.map(timestamps);
        if facts.mode != facts.made || path.is_empty() {
            let directory = self.directories.open(path, &mut NoMaker)?;
            let is_held = set_mode(&directory.fd, facts.mode)?;
            if let Some(times) = times {
                on("set the time", fs::futimens(&directory.fd, &times))?;
            }
            return Ok(is_held);
        }
        if let Some(times) = times {
            // By its parent, which is open for its siblings too.
            let (parent, name) = path::split(path);
            let parent = self.directories.open(parent, &mut NoMaker)?;
            on("set the time", fs::utimensat(&parent.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW))?;
        }
        Ok(true)
    }

    fn dispatch<R: Source>(&mut self, member: &Member, tar: &mut TarReader<R>) -> Result<(), Fault> {
        let path = path::normalize(&member.path)?;
        if let Kind::Other(_) = member.kind {
            self.ledger.skip(&path, "a type of entry that is not supported is left out");
            return Ok(());
        }
        if path.is_empty() {
            return self.set_root(member);
        }
        let (parent, name) = path::split(&path);
        let is_beneath_metadata = whiteout::check_parents(parent)?;
        let name = whiteout::classify(name)?;
        if is_beneath_metadata || name == Name::Metadata {
            self.ledger.skip(&path, "bookkeeping of aufs is left out");
            return Ok(());
        }
        let directory = self.directories.open(parent, &mut self.ledger)?;
        match name {
            Name::Plain(name) => {
                let path = path::join(&directory.path, name);
                self.make(&Place { directory, name, path }, member, tar)
            }
            Name::Whiteout(hidden) => self.white_out(&directory, hidden),
            Name::Opaque => {
                self.ledger.make_opaque(&directory.fd, &directory.path);
                Ok(())
            }
            Name::Metadata => Ok(()),
        }
    }

    fn make<R: Source>(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        tar: &mut TarReader<R>,
    ) -> Result<(), Fault> {
        match member.kind {
            Kind::File => self.make_file(place, member, tar),
            Kind::Directory => self.make_directory(place, member),
            Kind::Symlink => self.make_symlink(place, member),
            Kind::HardLink => self.make_link(place, member),
            Kind::Fifo => self.make_fifo(place, member),
            Kind::CharDevice | Kind::BlockDevice => self.make_placeholder(place, member),
            Kind::Other(_) => Ok(()),
        }
    }

    fn set_root(&mut self, member: &Member) -> Result<(), Fault> {
        if member.kind != Kind::Directory {
            return Err(Fault::Reason("it would replace the root of the layer"));
        }
        let root = self.directories.root().clone();
        let xattrs = self.apply_xattrs(b"", member, Some(&root.fd));
        self.set_directory(b"", member, xattrs);
        Ok(())
    }

    fn make_directory(&mut self, place: &Place<'_>, member: &Member) -> Result<(), Fault> {
        let result = self.ledger.make_directory(&place.directory, place.name, &place.path, member.mode);
        match result {
            Ok(_) => {}
            Err(WalkError::Errno(_, Errno::EXIST)) => self.make_way_for_directory(place, member.mode)?,
            Err(error) => return Err(error.into()),
        }
        let xattrs = match member.xattrs.is_empty() {
            true => Default::default(),
            false => {
                let fd =
                    on("open", fs::openat(&place.directory.fd, place.name, tree::DIRECTORY, Mode::empty()))?;
                self.apply_xattrs(&place.path, member, Some(&fd))
            }
        };
        self.set_directory(&place.path, member, xattrs);
        Ok(())
    }

    fn make_way_for_directory(&mut self, place: &Place<'_>, mode: u32) -> Result<(), Fault> {
        let stat = on("stat", tree::stat_at(&place.directory.fd, place.name))?;
        if stat.is_some_and(|stat| tree::file_type(&stat) == FileType::Directory) {
            return Ok(());
        }
        self.free(place)?;
        self.ledger.make_directory(&place.directory, place.name, &place.path, mode)?;
        Ok(())
    }

    fn set_directory(&mut self, path: &[u8], member: &Member, xattrs: Xattrs) {
        let facts = self.ledger.directories.entry(path.to_vec()).or_default();
        (facts.mode, facts.mtime) = (member.mode, Some(member.mtime));
        let opaque = self.ledger.index.entries.get(path).is_some_and(|record| record.opaque);
        let record = record_of(member, Type::Dir, xattrs);
        let record = match record {
            Some(record) => Some(Record { opaque, ..record }),
            None if opaque => Some(Record { opaque, kind: Type::Dir, ..Record::default() }),
            None => None,
        };
        self.ledger.record(path, record);
    }

    fn make_file<R: Source>(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        tar: &mut TarReader<R>,
    ) -> Result<(), Fault> {
        let file = self.create(place, creation_mode(member))?;
        match &member.sparse {
            None => write_body(&file, tar)?,
            Some(map) => write_sparse(&file, map, member.size, tar)?,
        }
        self.settle(place, member, &file, Type::File)
    }

    /// A device node: an empty file stands for it.
    fn make_placeholder(&mut self, place: &Place<'_>, member: &Member) -> Result<(), Fault> {
        let file = self.create(place, creation_mode(member))?;
        let kind = if member.kind == Kind::CharDevice { Type::Char } else { Type::Block };
        self.settle(place, member, &file, kind)
    }

    /// Sets what is known of a file whose content is complete.
    fn settle(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        file: &OwnedFd,
        kind: Type,
    ) -> Result<(), Fault> {
        let xattrs = self.apply_xattrs(&place.path, member, Some(file));
        let mut held = true;
        if creation_mode(member) != member.mode || member.mode & self.ledger.mask != 0 {
            held = set_mode(file, member.mode)?;
        }
        on("set the time", fs::futimens(file, &timestamps(member.mtime)))?;
        let mut record = record_of(member, kind, xattrs);
        if !held && record.is_none() {
            record = Some(full_record(member, kind, Xattrs::default()));
        }
        self.ledger.record(&place.path, record);
        Ok(())
    }

    fn create(&mut self, place: &Place<'_>, mode: u32) -> Result<OwnedFd, Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        self.place("create", place, |directory, name| fs::openat(directory, name, flags, mode))
    }

    fn make_symlink(&mut self, place: &Place<'_>, member: &Member) -> Result<(), Fault> {
        if member.link.is_empty() {
            return Err(Fault::Reason("a symbolic link to nothing"));
        }
        self.place("symlink", place, |directory, name| fs::symlinkat(&member.link, directory, name))?;
        self.set_time_at(place, member.mtime)?;
        let xattrs = self.apply_xattrs(&place.path, member, None);
        self.ledger.record(&place.path, record_of(member, Type::Symlink, xattrs));
        Ok(())
    }

    fn make_fifo(&mut self, place: &Place<'_>, member: &Member) -> Result<(), Fault> {
        let mode = Mode::from_raw_mode(member.mode);
        self.place("mkfifo", place, |directory, name| fs::mknodat(directory, name, FileType::Fifo, mode, 0))?;
        // Just made, so this is no link that chmodat would follow.
        on("chmod", fs::chmodat(&place.directory.fd, place.name, mode, AtFlags::empty()))?;
        self.set_time_at(place, member.mtime)?;
        let xattrs = self.apply_xattrs(&place.path, member, None);
        self.ledger.record(&place.path, record_of(member, Type::Fifo, xattrs));
        Ok(())
    }

    fn set_time_at(&self, place: &Place<'_>, mtime: Time) -> Result<(), Fault> {
        let times = timestamps(mtime);
        on("set the time", fs::utimensat(&place.directory.fd, place.name, &times, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// A whiteout speaks of lower layers: this layer's own file stays, and its own directory stops merging.
    fn white_out(&mut self, directory: &Rc<Directory>, hidden: &[u8]) -> Result<(), Fault> {
        let path = path::join(&directory.path, hidden);
        match on("stat", tree::stat_at(&directory.fd, hidden))? {
            None => on("make a whiteout of", self.ledger.make_whiteout(directory, hidden)),
            Some(stat) if tree::file_type(&stat) == FileType::Directory => {
                let fd = on("open", fs::openat(&directory.fd, hidden, tree::DIRECTORY, Mode::empty()))?;
                self.ledger.make_opaque(fd, &path);
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn make_link(&mut self, place: &Place<'_>, member: &Member) -> Result<(), Fault> {
        let wanted = path::normalize(&member.link).map_err(|_| "its target climbs out of the layer")?;
        let (parent, name) = path::split(&wanted);
        whiteout::check_parents(parent)?;
        if wanted.is_empty() || !matches!(whiteout::classify(name)?, Name::Plain(_)) {
            return Err(Fault::Reason("its target is not a file"));
        }
        let target = self.link_target(parent, name)?;
        let target = match target {
            Some(target) => target,
            None => self.copy_up(&wanted)?,
        };
        if target.path == place.path {
            return Ok(());
        }
        self.link(place, &target)?;
        let record = self.ledger.index.entries.get(&target.path).cloned();
        self.ledger.record(&place.path, record);
        Ok(())
    }

    /// The target of a hard link, if this layer has it.
    fn link_target<'a>(&mut self, parent: &[u8], name: &'a [u8]) -> Result<Option<Place<'a>>, Fault> {
        let directory = match self.directories.open(parent, &mut NoMaker) {
            Ok(directory) => directory,
            Err(WalkError::Errno(_, Errno::NOENT)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let path = path::join(&directory.path, name);
        let Some(stat) = on("stat", tree::stat_at(&directory.fd, name))? else {
            return match self.ledger.has_whiteout(&path) {
                true => Err(Fault::Reason("its target is deleted by this layer")),
                false => Ok(None),
            };
        };
        if tree::is_whiteout(&stat) {
            return Err(Fault::Reason("its target is deleted by this layer"));
        }
        if tree::file_type(&stat) == FileType::Directory {
            return Err(Fault::Reason("a hard link to a directory"));
        }
        Ok(Some(Place { directory, name, path }))
    }

    fn link(&mut self, place: &Place<'_>, target: &Place<'_>) -> Result<(), Fault> {
        let result = self.place("link", place, |directory, name| {
            fs::linkat(&target.directory.fd, target.name, directory, name, AtFlags::empty())
        });
        match result {
            // No hard links here, or not so many: a copy says the same, but for its inode.
            Err(Fault::Errno(
                _,
                Errno::PERM | Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS,
            )) => {
                let stat = on("stat", tree::stat_at(&target.directory.fd, target.name))?;
                let stat = stat.ok_or(Fault::Reason("its target is missing"))?;
                let (from, to) = (target.directory.fd.as_fd(), place.directory.fd.as_fd());
                on("copy", copy::copy_entry(from, target.name, &stat, to, place.name))
            }
            Err(Fault::Errno(_, Errno::NOENT)) => Err(Fault::Reason("its target is missing")),
            result => result,
        }
    }

    /// Copies the target of a hard link up from a lower layer, as link(2) on the merged mount would.
    fn copy_up<'a>(&mut self, wanted: &'a [u8]) -> Result<Place<'a>, Fault> {
        let found = on(LOOK_UP, self.ledger.parents.find(wanted))?;
        let Some(found) = found else { return Err(Fault::Reason("its target is missing")) };
        if tree::file_type(&found.stat) == FileType::Directory {
            return Err(Fault::Reason("a hard link to a directory"));
        }
        let (parent, name) = path::split(wanted);
        let directory = self.directories.open(parent, &mut self.ledger)?;
        let path = path::join(&directory.path, name);
        let (from, to) = (found.directory.as_fd(), directory.fd.as_fd());
        on(COPY_UP, copy::copy_entry(from, &found.name, &found.stat, to, name))?;
        self.ledger.record(&path, found.record);
        Ok(Place { directory, name, path })
    }

    /// Makes something under a name; if the name is taken, frees it and tries again.
    fn place<T>(
        &mut self,
        operation: &'static str,
        place: &Place<'_>,
        make: impl Fn(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Fault> {
        match make(&place.directory.fd, place.name) {
            Err(Errno::EXIST) => {
                self.free(place)?;
                on(operation, make(&place.directory.fd, place.name))
            }
            result => on(operation, result),
        }
    }

    /// Removes whatever is under a name, and what is remembered of it.
    fn free(&mut self, place: &Place<'_>) -> Result<(), Fault> {
        let result = tree::remove_tree(place.directory.fd.as_fd(), place.name);
        on("replace", result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        self.directories.forget();
        self.ledger.forget(&place.path);
        Ok(())
    }

    fn apply_xattrs(&mut self, path: &[u8], member: &Member, file: Option<&OwnedFd>) -> Xattrs {
        if member.xattrs.is_empty() {
            return Xattrs::new();
        }
        let ledger = &mut self.ledger;
        xattrs::apply(&member.xattrs, file.map(AsFd::as_fd), |reason| ledger.skip(path, reason))
    }
}

type Xattrs = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// The mode to create a file with: its own where open(2) can set it, else one that lets xattrs be set.
fn creation_mode(member: &Member) -> u32 {
    if member.xattrs.is_empty() && member.mode & 0o7000 == 0 {
        member.mode
    } else {
        0o600
    }
}

/// Sets a mode; `false` if the file system or the kernel kept a part of it
/// (setgid needs membership in the file's group).
fn set_mode(file: &OwnedFd, mode: u32) -> Result<bool, Fault> {
    on("chmod", fs::fchmod(file, Mode::from_raw_mode(mode)))?;
    if mode & 0o7000 == 0 {
        return Ok(true);
    }
    Ok(on("stat", fs::fstat(file))?.st_mode & 0o7777 == mode)
}

/// The record of a member, if the tree cannot hold all of it.
fn record_of(member: &Member, kind: Type, xattrs: Xattrs) -> Option<Record> {
    let is_device = matches!(kind, Type::Char | Type::Block);
    if member.uid == 0 && member.gid == 0 && xattrs.is_empty() && !is_device {
        return None;
    }
    Some(full_record(member, kind, xattrs))
}

fn full_record(member: &Member, kind: Type, xattrs: Xattrs) -> Record {
    Record {
        uid: member.uid,
        gid: member.gid,
        mode: if kind == Type::Symlink { 0o777 } else { member.mode },
        mtime: (member.mtime.seconds, member.mtime.nanoseconds),
        kind,
        dev: matches!(kind, Type::Char | Type::Block).then_some(member.device),
        xattrs,
        opaque: false,
    }
}

/// Both times: when a file was last read is not in a layer.
pub fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn write_body<R: Source>(file: &OwnedFd, tar: &mut TarReader<R>) -> Result<(), Fault> {
    loop {
        let bytes = tar.body().map_err(|error| Fault::Extract(error.into()))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let n = on("write", rustix::io::retry_on_intr(|| rustix::io::write(file, bytes)))?;
        tar.consume(n);
    }
}

fn write_sparse<R: Source>(
    file: &OwnedFd,
    map: &[Segment],
    size: u64,
    tar: &mut TarReader<R>,
) -> Result<(), Fault> {
    for segment in map {
        let mut at = segment.offset;
        let end = segment.offset + segment.length;
        while at < end {
            let bytes = tar.body().map_err(|error| Fault::Extract(error.into()))?;
            let want = bytes.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let n = on("write", rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &bytes[..want], at)))?;
            if n == 0 {
                return Err(Fault::Errno("write", Errno::IO));
            }
            tar.consume(n);
            at += n as u64;
        }
    }
    on("set the size of", fs::ftruncate(file, size))
}
