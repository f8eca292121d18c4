//! What the emulation of one container knows, and the questions that every handler asks of it.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Statx, StatxAttributes, Uid};
use rustix::io::Errno;

use crate::bearer;
use crate::call::{errno, Call};
use crate::credentials::{Credentials, Known, KEEP};
use crate::owners::names::last_component;
use crate::owners::{Key, Owners, Record, ACCESS_LIST, CAPABILITY, DEFAULT_LIST};
use crate::permission::{allows, inherited, may_set_gid, mode_cut, Facts};
use crate::view::{read_text, View};
use crate::walk::Found;

/// One container's emulation.
#[derive(Debug)]
pub struct World {
    /// Its files.
    pub view: View,
    /// Whose they are.
    pub owners: Owners,
    /// Who its processes are.
    pub known: Known,
    /// Nobody else writes the log meanwhile.
    pub lock: Option<OwnedFd>,
}

impl World {
    /// The credentials of a caller.
    ///
    /// # Errors
    /// ESRCH: it is gone.
    pub fn caller(&self, call: &Call) -> Result<&Credentials, Errno> {
        self.credentials(call.pid)
    }

    /// The credentials of a process.
    ///
    /// # Errors
    /// ESRCH: it is gone.
    pub fn credentials(&self, pid: i32) -> Result<&Credentials, Errno> {
        if self.known.are_all_root() {
            return Ok(self.known.get(0));
        }
        Ok(self.known.get(bearer::number_of(pid)?))
    }

    /// The number of a caller's credentials.
    ///
    /// # Errors
    /// ESRCH: it is gone.
    pub fn number(&self, call: &Call) -> Result<u32, Errno> {
        match self.known.are_all_root() {
            true => Ok(0),
            false => bearer::number_of(call.pid),
        }
    }

    /// Whether the caller is the root that the container began with, to whom the kernel itself gives the right answers,
    /// and sees the same files as we.
    ///
    /// # Errors
    /// ESRCH: it is gone.
    pub fn is_plain_root(&self, call: &Call) -> Result<bool, Errno> {
        Ok(self.number(call)? == 0 && !self.view.is_elsewhere(call))
    }

    /// Makes a process somebody.
    ///
    /// # Errors
    /// ESRCH: it is gone.
    pub fn become_one(&mut self, pid: i32, credentials: Credentials) -> Result<(), Errno> {
        let number = self.known.number(credentials);
        bearer::give(pid, number)
    }

    /// Gives a directory of the container, which was made from outside, to somebody.
    ///
    /// # Errors
    /// It is not there; as [`World::remember`].
    pub fn give_directory(&mut self, path: &[u8], uid: u32, gid: u32) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        self.remember(&directory, Record::owned(uid, gid))
    }

    /// What is remembered of a file.
    pub fn record(&self, stat: &Statx) -> Option<&Record> {
        if self.owners.is_empty() {
            return None;
        }
        self.owners.find(self.view.file_system(stat), stat)
    }

    /// The file's owner, as everybody inside shall see it.
    pub fn owner(&self, stat: &Statx) -> (u32, u32) {
        self.record(stat).map_or((stat.stx_uid, stat.stx_gid), |record| (record.uid, record.gid))
    }

    /// What decides about access to a file.
    pub fn facts(&self, stat: &Statx) -> Facts<'_> {
        let record = self.record(stat);
        let (uid, gid) = record.map_or((stat.stx_uid, stat.stx_gid), |record| (record.uid, record.gid));
        let access_list = record.and_then(|record| record.xattrs.get(ACCESS_LIST)).map(Vec::as_slice);
        Facts { uid, gid, mode: u32::from(stat.stx_mode), access_list }
    }

    /// What a descriptor of the caller's is open on, or its working directory.
    ///
    /// # Errors
    /// EBADF; what statx(2) says.
    pub fn found_of_descriptor(&self, call: &Call, descriptor: i32) -> Result<Found, Errno> {
        let at = self.view.at_descriptor(call, descriptor)?;
        let file = self.view.hold(&at).map_err(|errno| match errno {
            Errno::NOENT => Errno::BADF,
            other => other,
        })?;
        self.found(file)
    }

    /// A held file with what statx(2) says of it.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn found(&self, file: OwnedFd) -> Result<Found, Errno> {
        let stat = self.view.stat_fd(&file)?;
        Ok(Found { file, stat })
    }

    /// Whether someone may do what is wanted with a file.
    ///
    /// # Errors
    /// EACCES.
    pub fn require(&self, who: &Credentials, found: &Found, wanted: u32) -> Result<(), Errno> {
        let facts = self.facts(&found.stat);
        if allows(who, facts, wanted) {
            return Ok(());
        }
        // An entry of /proc is its process's, and to the kernel all are root's.
        let owner = match self.view.is_proc(&found.stat) {
            true => self.owner_of_proc_file(&found.file),
            false => None,
        };
        match owner {
            Some((uid, gid)) if allows(who, Facts { uid, gid, ..facts }, wanted) => Ok(()),
            _ => Err(Errno::ACCESS),
        }
    }

    /// Remembers a file's facts. The file must not be one of a layer any more (see [`World::copy_up`]).
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EIO.
    pub fn remember(&mut self, fd: impl AsFd, record: Record) -> Result<(), Errno> {
        let stat = self.view.stat_fd(fd.as_fd())?;
        let file_system = self.view.file_system(&stat);
        let seen = Key::of(file_system, &stat);
        let is_first = self.record(&stat).is_none();
        if record.says_nothing() && is_first {
            return Ok(());
        }
        let mut key = seen;
        let path = self.view.path_of(fd);
        self.learn_name(path.as_deref(), &stat, is_first);
        if file_system == 0 && self.view.has_upper() {
            let Some(path) = path else {
                self.owners.set_nameless(seen, record);
                return Ok(());
            };
            if let Some(upper) = self.view.upper(&path) {
                key = Key::of(0, &upper);
            }
        }
        self.owners.set(key, seen.inode, record).map_err(errno)
    }

    /// See [`Names`](crate::owners::names::Names).
    fn learn_name(&mut self, path: Option<&CStr>, stat: &Statx, is_first: bool) {
        let has_others = is_first && stat.stx_nlink > 1 && !is_directory(stat);
        let name = path.and_then(|path| last_component(path.to_bytes()));
        let is_root = path.is_some_and(|path| path.to_bytes() == b"/");
        if let Some(name) = name {
            self.owners.names.add(name);
        }
        if has_others || (stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) && !is_root) {
            self.owners.names.give_up();
        }
    }

    /// A file with a record may get the name that a path ends in.
    pub fn expect_name(&mut self, stat: &Statx, path: &[u8]) {
        if self.record(stat).is_some() {
            // A directory's new name may end in slashes.
            let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
            if let Some(name) = last_component(&path[..end]) {
                self.owners.names.add(name);
            }
        }
    }

    /// Whether nothing that is known could be about the file that a path names, itself and not what it links to.
    pub fn is_unheard_of(&self, path: &[u8]) -> bool {
        let is_elsewhere = self.known.are_all_root() || !self.view.is_name_in_proc(path);
        is_elsewhere && !self.owners.names.may_be(path)
    }

    /// The record that a file has, to be changed and remembered.
    pub fn record_of(&self, stat: &Statx) -> Record {
        self.record(stat).cloned().unwrap_or_else(|| Record::owned(stat.stx_uid, stat.stx_gid))
    }

    /// Brings a file of a layer into the upperdir, with what the layer says of it, before something else
    /// does: under its new number nobody would know it. Directories keep their number.
    ///
    /// # Errors
    /// EROFS, ENOSPC and what else copying a file can meet.
    pub fn copy_up(&mut self, fd: &OwnedFd, stat: &Statx) -> Result<(), Errno> {
        let file_system = self.view.file_system(stat);
        if !self.view.has_upper() || self.owners.has_own(file_system, stat) || is_directory(stat) {
            return Ok(());
        }
        let Some(record) = self.owners.find_lower(file_system, stat).cloned() else { return Ok(()) };
        self.touch(fd, stat)?;
        self.remember(fd, record)
    }

    /// A change that changes nothing, which makes overlay copy a file up.
    ///
    /// # Errors
    /// As [`World::copy_up`].
    pub fn touch(&self, fd: &OwnedFd, stat: &Statx) -> Result<(), Errno> {
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Symlink {
            return own_really(fd, Some(0), Some(0));
        }
        let mode = Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o7777);
        rustix::fs::chmodat(self.view.proc(), self.view.handle(fd), mode, AtFlags::empty())
    }

    /// What becomes of a file that somebody cuts short, beside its contents: set ids and capabilities go. It must not be
    /// one of a layer any more.
    ///
    /// # Errors
    /// As [`World::remember`], and those of chmod(2).
    pub fn cut(&mut self, call: &Call, fd: &OwnedFd, stat: &Statx) -> Result<(), Errno> {
        if !self.is_plain_root(call)? {
            let facts = self.facts(stat);
            let mode = mode_cut(self.caller(call)?, facts);
            if mode != facts.mode & 0o7777 {
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::chmodat(self.view.proc(), self.view.handle(fd), mode, AtFlags::empty())?;
            }
        }
        match self.record(stat).filter(|record| record.xattrs.contains_key(CAPABILITY)).cloned() {
            Some(record) => self.remember(fd, record.given(KEEP, KEEP)),
            None => Ok(()),
        }
    }

    /// What a new file of `who`'s in a directory gets: its maker as owner, but the group and the list of the directory.
    pub fn heritage(&self, who: &Credentials, directory: &Statx) -> Heritage {
        let default = self.record(directory).and_then(|record| record.xattrs.get(DEFAULT_LIST)).cloned();
        Heritage::of(who, self.facts(directory), default)
    }

    /// Forgets a file whose last name is about to be, or was, taken away.
    ///
    /// # Errors
    /// ENOSPC, EIO.
    pub fn forget(&mut self, stat: &Statx) -> Result<(), Errno> {
        if stat.stx_nlink > 1 && !is_directory(stat) {
            return Ok(());
        }
        self.owners.forget(self.view.file_system(stat), stat).map_err(errno)
    }

    /// The effective ids of the process whose entry in the container's /proc a file is in.
    pub fn owner_of_proc_file(&self, file: impl AsFd) -> Option<(u32, u32)> {
        let path = self.view.path_of(file)?;
        let number = self.number_of_proc_path(path.to_bytes())?;
        let who = self.known.get(number);
        Some((who.uid.effective, who.gid.effective))
    }

    /// The credentials' number of the process that a path of the container's /proc is about.
    pub fn number_of_proc_path(&self, path: &[u8]) -> Option<u32> {
        let rest = path.strip_prefix(b"/proc/")?;
        let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        if digits == 0 {
            return None;
        }
        let limits = [b"/proc/", &rest[..digits], b"/limits"].concat();
        let file = rustix::fs::open(limits, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let text = read_text(&file).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
        Some(line.split_whitespace().next()?.parse().map_or(0, bearer::read))
    }
}

/// What a new file gets from its maker and its directory.
#[derive(Debug)]
pub struct Heritage {
    uid: u32,
    gid: u32,
    /// The directory's default access list.
    default: Option<Vec<u8>>,
    /// The group comes from the directory, and its maker is not in it.
    is_foreign: bool,
}

impl Heritage {
    /// What `who` makes in a directory gets of it.
    pub fn of(who: &Credentials, directory: Facts<'_>, default: Option<Vec<u8>>) -> Self {
        let is_set_gid = directory.mode & 0o2000 != 0;
        let gid = if is_set_gid { directory.gid } else { who.gid.fs };
        Self { uid: who.uid.fs, gid, default, is_foreign: is_set_gid && !may_set_gid(who, gid) }
    }

    /// Whether a file that the kernel makes for root is the same.
    pub fn says_nothing(&self) -> bool {
        (self.uid, self.gid) == (0, 0) && self.default.is_none()
    }

    /// Whether a new file's mode is not simply what its maker and the umask say.
    pub fn has_a_say(&self) -> bool {
        self.is_foreign || self.default.is_some()
    }

    /// The permission bits of a file that its maker wants to have `mode`, with a umask.
    pub fn mode(&self, mode: u32, umask: impl FnOnce() -> Result<u32, Errno>) -> Result<Mode, Errno> {
        // A setgid program of others' group is not to be had by making one in their directory.
        let is_theirs = self.is_foreign && mode & 0o2010 == 0o2010;
        let mode = mode & if is_theirs { 0o5777 } else { 0o7777 };
        let of_list = self.default.as_deref().and_then(|list| inherited(list, mode));
        Ok(Mode::from_raw_mode(match of_list {
            Some((mode, _)) => mode,
            None => mode & !umask()?,
        }))
    }

    /// What is to be remembered of a file made with [`Heritage::mode`] of `mode`.
    pub fn record(&self, mode: u32, kind: FileType) -> Record {
        let mut record = Record::owned(self.uid, self.gid);
        let Some(default) = self.default.as_ref().filter(|_| kind != FileType::Symlink) else {
            return record;
        };
        if let Some((_, Some(list))) = inherited(default, mode) {
            record.xattrs.insert(ACCESS_LIST.to_vec(), list);
        }
        if kind == FileType::Directory {
            record.xattrs.insert(DEFAULT_LIST.to_vec(), default.clone());
        }
        record
    }
}

/// Whether it is a directory.
pub fn is_directory(stat: &Statx) -> bool {
    FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory
}

/// chown(2) to ids that the kernel knows: it copies up, clears setuid bits and counts as a change.
///
/// # Errors
/// As chown(2).
pub fn own_really(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    rustix::fs::chownat(fd, c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)
}
