//! Changes: what the container writes goes to the upper tree, spelt as overlay spells it.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Statx, Timespec, Timestamps, XattrFlags, CWD,
};
use rustix::io::Errno;

use super::stack::{Kind, OPAQUE};
use super::{is_whiteout, join, lstat, parent, type_of, Changed, Source, Spot, Union};

/// A file that was copied up: what it was, and where it is now.
#[derive(Debug)]
pub struct Copied {
    /// In its layer.
    pub was: Statx,
    /// In the upper tree.
    pub now: Vec<u8>,
}

impl Union {
    /// Makes sure that what a spot shows can be changed where it is; afterwards `spot.host` is that place.
    ///
    /// # Errors
    /// EROFS, ENOSPC and what else copying can meet.
    pub fn bring_up(&mut self, spot: &mut Spot, copied: &mut Vec<Copied>) -> Result<(), Errno> {
        if self.is_read_only(&spot.path) {
            return Err(Errno::ROFS);
        }
        if spot.is_upper || !matches!(self.mounts[spot.mount].source, Source::Union(_)) || !spot.exists() {
            return Ok(());
        }
        let (upper, inside) = self.upper_of(spot.mount, &spot.path)?;
        self.bring_up_directories(spot.mount, parent(&spot.path), copied)?;
        let to = [&upper[..], &inside].concat();
        let (was, above) = (lstat(&spot.host)?, lstat(parent(&to)).ok());
        if spot.kind == Kind::Directory {
            self.changed.push(Changed::BroughtUp(spot.path.clone()));
            rustix::fs::mkdirat(CWD, &to[..], Mode::from_raw_mode(0o700))?;
            finish_copy(&spot.host, &to, &was)?;
        } else {
            let half = self.scratch();
            copy(&spot.host, &half, &was)?;
            rustix::fs::renameat(CWD, &half[..], CWD, &to[..])?;
        }
        keep_times(parent(&to), above);
        self.forget(spot.mount, &spot.path);
        copied.push(Copied { was, now: to.clone() });
        *spot = self.at_mount(spot.mount, &spot.path)?;
        Ok(())
    }

    /// Has the upper tree hold a directory and all above it.
    ///
    /// # Errors
    /// As [`Union::bring_up`].
    pub fn bring_up_directories(
        &mut self,
        mount: usize,
        path: &[u8],
        copied: &mut Vec<Copied>,
    ) -> Result<(), Errno> {
        if path.len() <= self.mounts[mount].at.len() || path == b"/" {
            return Ok(());
        }
        let mut spot = self.at_mount(mount, path)?;
        if !spot.is_directory() {
            return Err(Errno::NOENT);
        }
        self.bring_up(&mut spot, copied)
    }

    fn upper_of(&self, mount: usize, path: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Errno> {
        let at = &self.mounts[mount];
        let inside = if path == b"/" { Vec::new() } else { path[at.at.len()..].to_vec() };
        match &at.source {
            Source::Union(stack) => {
                let upper = stack.upper.as_ref().ok_or(Errno::ROFS)?;
                Ok((upper.root.clone(), inside))
            }
            Source::Tree(root) => Ok((root.clone(), inside)),
            Source::Proc => Err(Errno::PERM),
        }
    }

    fn stack_shows(&mut self, mount: usize, path: &[u8]) -> bool {
        let at = self.mounts[mount].at.len();
        match &mut self.mounts[mount].source {
            Source::Union(stack) => stack.shows_below(&path[at..]),
            _ => false,
        }
    }

    /// Forgets what was looked up of a path.
    pub fn forget(&mut self, mount: usize, path: &[u8]) {
        let at = self.mounts[mount].at.len();
        if let Source::Union(stack) = &mut self.mounts[mount].source {
            stack.forget(if path == b"/" { b"" } else { &path[at..] });
        }
    }

    /// Makes room for a new name: its directory is in the upper tree, and no whiteout is in the way. Answers with
    /// the host path to make it at, and whether it will hide something below.
    ///
    /// # Errors
    /// EEXIST, EROFS, and as [`Union::bring_up`].
    pub fn make_room(&mut self, spot: &Spot, copied: &mut Vec<Copied>) -> Result<(Vec<u8>, bool), Errno> {
        if spot.exists() {
            return Err(Errno::EXIST);
        }
        if self.is_read_only(&spot.path) {
            return Err(Errno::ROFS);
        }
        let (upper, inside) = self.upper_of(spot.mount, &spot.path)?;
        let to = [&upper[..], &inside].concat();
        if !matches!(self.mounts[spot.mount].source, Source::Union(_)) {
            return Ok((to, false));
        }
        self.bring_up_directories(spot.mount, parent(&spot.path), copied)?;
        let hides = self.stack_shows(spot.mount, &spot.path);
        if lstat(&to).is_ok_and(|stat| is_whiteout(&stat)) {
            rustix::fs::unlinkat(CWD, &to[..], AtFlags::empty())?;
        }
        self.forget(spot.mount, &spot.path);
        Ok((to, hides))
    }

    /// After a name was to be made: what hides something below and is not there after all is a whiteout again, and a
    /// directory hides what is below.
    ///
    /// # Errors
    /// ENOSPC, EPERM.
    pub fn made(&mut self, spot: &Spot, to: &[u8], hides: bool) -> Result<(), Errno> {
        self.forget(spot.mount, &spot.path);
        if !hides {
            return Ok(());
        }
        match lstat(to) {
            Ok(stat) if type_of(&stat) == FileType::Directory => hide_below(to),
            Ok(_) => Ok(()),
            Err(_) => whiteout(to),
        }
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOTDIR, ENOTEMPTY, EBUSY, EROFS.
    pub fn remove(&mut self, spot: &Spot, is_directory: bool, copied: &mut Vec<Copied>) -> Result<(), Errno> {
        match (spot.kind, is_directory) {
            (Kind::Missing, _) => return Err(Errno::NOENT),
            (Kind::Directory, false) => return Err(Errno::ISDIR),
            (Kind::Link | Kind::Other, true) => return Err(Errno::NOTDIR),
            _ => {}
        }
        if self.mounts.iter().any(|mount| mount.at == spot.path) {
            return Err(Errno::BUSY);
        }
        if self.is_read_only(&spot.path) {
            return Err(Errno::ROFS);
        }
        if spot.kind != Kind::Other {
            self.changed.push(Changed::Moved(spot.path.clone(), spot.is_directory()));
        }
        if !matches!(self.mounts[spot.mount].source, Source::Union(_)) {
            let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            return rustix::fs::unlinkat(CWD, &spot.host[..], flags);
        }
        if is_directory && !self.list(spot)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        let (upper, inside) = self.upper_of(spot.mount, &spot.path)?;
        let to = [&upper[..], &inside].concat();
        let shows = self.stack_shows(spot.mount, &spot.path);
        if shows {
            self.bring_up_directories(spot.mount, parent(&spot.path), copied)?;
        }
        if spot.is_upper {
            if is_directory {
                clear_whiteouts(&to)?;
                rustix::fs::unlinkat(CWD, &to[..], AtFlags::REMOVEDIR)?;
            } else {
                rustix::fs::unlinkat(CWD, &to[..], AtFlags::empty())?;
            }
        }
        self.forget(spot.mount, &spot.path);
        if shows {
            whiteout(&to)?;
        }
        Ok(())
    }

    /// Gives a file another name, over what has it.
    ///
    /// # Errors
    /// As rename(2); EXDEV between mounts and for a directory that a layer has a part in, as overlay.
    pub fn rename(
        &mut self,
        old: &mut Spot,
        new: &Spot,
        flags: RenameFlags,
        copied: &mut Vec<Copied>,
    ) -> Result<(), Errno> {
        self.may_rename(old, new, flags)?;
        let moved = [&*old, new].into_iter().filter(|spot| matches!(spot.kind, Kind::Directory | Kind::Link));
        self.changed.extend(moved.map(|spot| Changed::Moved(spot.path.clone(), spot.is_directory())));
        if !matches!(self.mounts[old.mount].source, Source::Union(_)) {
            return rustix::fs::renameat_with(CWD, &old.host[..], CWD, &new.host[..], flags);
        }
        let exchanges = flags.contains(RenameFlags::EXCHANGE);
        let mut new = new.clone();
        if old.is_directory() && old.trees > 1 || (old.is_directory() && !old.is_upper) {
            return Err(Errno::XDEV);
        }
        if exchanges && new.is_directory() && (new.trees > 1 || !new.is_upper) {
            return Err(Errno::XDEV);
        }
        self.bring_up(old, copied)?;
        if exchanges {
            self.bring_up(&mut new, copied)?;
        } else if new.is_directory() && !self.list(&new)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.bring_up_directories(new.mount, parent(&new.path), copied)?;
        let (upper, inside) = self.upper_of(new.mount, &new.path)?;
        let to = [&upper[..], &inside].concat();
        let (shows_old, shows_new) =
            (self.stack_shows(old.mount, &old.path), self.stack_shows(new.mount, &new.path));
        if exchanges {
            rustix::fs::renameat_with(CWD, &old.host[..], CWD, &to[..], flags)?;
        } else {
            let in_the_way = lstat(&to).ok();
            if old.is_directory() {
                match in_the_way.as_ref().map(type_of) {
                    Some(FileType::Directory) => {
                        clear_whiteouts(&to)?;
                        rustix::fs::unlinkat(CWD, &to[..], AtFlags::REMOVEDIR)?;
                    }
                    Some(_) => rustix::fs::unlinkat(CWD, &to[..], AtFlags::empty())?,
                    None => {}
                }
            }
            rustix::fs::renameat(CWD, &old.host[..], CWD, &to[..])?;
            if shows_old {
                whiteout(&old.host)?;
            }
        }
        if shows_new && lstat(&to).is_ok_and(|stat| type_of(&stat) == FileType::Directory) {
            hide_below(&to)?;
        }
        self.forget(old.mount, &old.path);
        self.forget(new.mount, &new.path);
        Ok(())
    }

    fn may_rename(&self, old: &Spot, new: &Spot, flags: RenameFlags) -> Result<(), Errno> {
        if !old.exists() {
            return Err(Errno::NOENT);
        }
        if old.wants_directory && !old.is_directory() || new.wants_directory && !old.is_directory() {
            return Err(Errno::NOTDIR);
        }
        if old.mount != new.mount {
            return Err(Errno::XDEV);
        }
        if self.mounts.iter().any(|mount| mount.at == old.path || mount.at == new.path) {
            return Err(Errno::BUSY);
        }
        if self.is_read_only(&old.path) || self.is_read_only(&new.path) {
            return Err(Errno::ROFS);
        }
        let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
        if !known.contains(flags) || flags == known {
            return Err(Errno::INVAL);
        }
        if flags.contains(RenameFlags::EXCHANGE) {
            return if new.exists() { Ok(()) } else { Err(Errno::NOENT) };
        }
        if flags.contains(RenameFlags::NOREPLACE) && new.exists() {
            return Err(Errno::EXIST);
        }
        let inside = |of: &Spot, what: &Spot| {
            what.path.len() > of.path.len() && what.path.starts_with(&join(&of.path, b""))
        };
        if old.is_directory() && inside(old, new) {
            return Err(Errno::INVAL);
        }
        if new.is_directory() && inside(new, old) {
            return Err(Errno::NOTEMPTY);
        }
        match (old.is_directory(), new.kind) {
            (true, Kind::Link | Kind::Other) => Err(Errno::NOTDIR),
            (false, Kind::Directory) => Err(Errno::ISDIR),
            _ => Ok(()),
        }
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    /// As link(2).
    pub fn link(&mut self, old: &mut Spot, new: &Spot, copied: &mut Vec<Copied>) -> Result<(), Errno> {
        if !old.exists() {
            return Err(Errno::NOENT);
        }
        if old.is_directory() {
            return Err(Errno::PERM);
        }
        if new.exists() {
            return Err(Errno::EXIST);
        }
        if old.is_magic {
            let (to, hides) = self.make_room(new, copied)?;
            let made = rustix::fs::linkat(CWD, &old.host[..], CWD, &to[..], AtFlags::SYMLINK_FOLLOW);
            return self.made(new, &to, hides).and(made);
        }
        if old.mount != new.mount {
            return Err(Errno::XDEV);
        }
        self.bring_up(old, copied)?;
        let (to, hides) = self.make_room(new, copied)?;
        let made = rustix::fs::linkat(CWD, &old.host[..], CWD, &to[..], AtFlags::empty());
        self.made(new, &to, hides).and(made)
    }
}

fn whiteout(at: &[u8]) -> Result<(), Errno> {
    rustix::fs::mknodat(CWD, at, FileType::CharacterDevice, Mode::empty(), 0)
}

fn hide_below(directory: &[u8]) -> Result<(), Errno> {
    rustix::fs::setxattr(directory, OPAQUE, b"y", XattrFlags::empty())
}

/// Empties a directory of the upper tree that shows nothing.
fn clear_whiteouts(directory: &[u8]) -> Result<(), Errno> {
    for item in super::listing::read(directory)? {
        let path = join(directory, &item.name);
        if lstat(&path).is_ok_and(|stat| is_whiteout(&stat)) {
            rustix::fs::unlinkat(CWD, &path[..], AtFlags::empty())?;
        }
    }
    Ok(())
}

fn open_for_copy(from: &[u8], was: &Statx) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(from, flags, Mode::empty()) {
        // Its owner is us all the same.
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(u32::from(was.stx_mode) & 0o7777);
            rustix::fs::chmodat(CWD, from, mode | Mode::RUSR, AtFlags::empty())?;
            let opened = rustix::fs::open(from, flags, Mode::empty());
            rustix::fs::chmodat(CWD, from, mode, AtFlags::empty())?;
            opened
        }
        other => other,
    }
}

fn copy(from: &[u8], to: &[u8], was: &Statx) -> Result<(), Errno> {
    match type_of(was) {
        FileType::RegularFile => {
            let mut source = std::fs::File::from(open_for_copy(from, was)?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut target = std::fs::File::from(rustix::fs::open(to, flags, Mode::from_raw_mode(0o600))?);
            if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
                std::io::copy(&mut source, &mut target).map_err(crate::call::errno)?;
            }
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(CWD, from, Vec::with_capacity(128))?;
            rustix::fs::symlinkat(&target, CWD, to)?;
        }
        other => rustix::fs::mknodat(CWD, to, other, Mode::from_raw_mode(0o600), 0)?,
    }
    finish_copy(from, to, was)
}

/// Mode, attributes and times.
fn finish_copy(from: &[u8], to: &[u8], was: &Statx) -> Result<(), Errno> {
    if type_of(was) != FileType::Symlink {
        copy_attributes(from, to);
        rustix::fs::chmodat(
            CWD,
            to,
            Mode::from_raw_mode(u32::from(was.stx_mode) & 0o7777),
            AtFlags::empty(),
        )?;
    }
    set_times(to, was)
}

fn set_times(to: &[u8], was: &Statx) -> Result<(), Errno> {
    let time =
        |time: rustix::fs::StatxTimestamp| Timespec { tv_sec: time.tv_sec, tv_nsec: i64::from(time.tv_nsec) };
    let times = Timestamps { last_access: time(was.stx_atime), last_modification: time(was.stx_mtime) };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// That something was copied into a directory is nobody's business: its times stay.
fn keep_times(directory: &[u8], was: Option<rustix::fs::Statx>) {
    if let Some(was) = was {
        let _ = set_times(directory, &was);
    }
}

fn copy_attributes(from: &[u8], to: &[u8]) {
    let mut names = vec![0_u8; 4096];
    let Ok(length) = rustix::fs::llistxattr(from, &mut names) else { return };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        if name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 65536];
        if let Ok(length) = rustix::fs::lgetxattr(from, name, &mut value) {
            let _ = rustix::fs::setxattr(to, name, &value[..length], XattrFlags::empty());
        }
    }
}
