//! Calls that make and remove names.
//!
//! What root does the kernel does, unless we must know of it: a new file in somebody's setgid
//! directory, a file with a record that loses its last name. For others the directories'
//! owners are asked first, and what they make is made by us, so that it can be
//! remembered as theirs.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::meant::{meant, Meant, Naming};
use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::credentials::{capability, Credentials};
use crate::owners::{Device, Record};
use crate::permission::{may_link, owns, EXECUTE, WRITE};
use crate::view::{Entry, HERE};
use crate::walk::{Found, Spot, Walk};
use crate::world::{Heritage, World};

/// The directory of a name, and what a new file in it gets.
pub(super) struct Birth {
    pub entry: Entry,
    pub heritage: Heritage,
}

/// What is made: only a directory's name may be followed by slashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Other,
}

/// Asks whether the caller may make a name. `None`: let the kernel make it, or say why not.
pub(super) fn birth(
    world: &World,
    call: &Call,
    directory: i32,
    path: &[u8],
    kind: Kind,
) -> Result<Option<Birth>, Errno> {
    if !world.is_plain_root(call)? {
        let who = world.caller(call)?;
        let spot = Walk::new(world, call, who).to_last(directory, path)?;
        return match is_free(world, &spot, kind) {
            true => birth_at(world, who, spot).map(Some),
            false => Ok(None),
        };
    }
    if world.owners.is_empty() || (kind == Kind::Other && path.ends_with(b"/")) {
        return Ok(None);
    }
    let Ok(entry) = world.view.entry(call, directory, path) else { return Ok(None) };
    let above = world.view.stat_fd(&entry.directory)?;
    let heritage = world.heritage(world.caller(call)?, &above);
    Ok((!heritage.says_nothing()).then_some(Birth { entry, heritage }))
}

/// Whether something could be made at a spot, whoever asks: the kernel looks at this first.
fn is_free(world: &World, spot: &Spot, kind: Kind) -> bool {
    let is_missing = |name| world.view.stat_name(&spot.above.file, name).err() == Some(Errno::NOENT);
    spot.name().is_some_and(|name| is_missing(name)) && (kind == Kind::Directory || !spot.has_slashes)
}

/// A spot that is free, in a directory that may be written to.
pub(super) fn birth_at(world: &World, who: &Credentials, spot: Spot) -> Result<Birth, Errno> {
    world.require(who, &spot.above, WRITE | EXECUTE)?;
    let heritage = world.heritage(who, &spot.above.stat);
    let entry = entry(spot).ok_or(Errno::EXIST)?;
    Ok(Birth { entry, heritage })
}

pub(super) fn entry(spot: Spot) -> Option<Entry> {
    let name = spot.name()?.clone();
    Some(Entry { directory: spot.above.file, name })
}

impl Birth {
    /// The permission bits that it gets, made with `mode`.
    pub fn mode(&self, world: &World, call: &Call, mode: u32) -> Result<Mode, Errno> {
        self.heritage.mode(mode, || world.view.umask(call))
    }

    /// Remembers the file that was made with `mode`.
    pub fn record(&self, world: &mut World, mode: u32, kind: FileType) -> Result<(), Errno> {
        world.remember(self.hold()?, self.heritage.record(mode, kind))
    }

    fn hold(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.entry.directory, &self.entry.name, flags, Mode::empty())
    }
}

pub fn mkdir(world: &mut World, call: &Call) -> Outcome {
    make_directory(world, call, HERE, 0)
}

pub fn mkdirat(world: &mut World, call: &Call) -> Outcome {
    make_directory(world, call, call.int(0), 1)
}

fn make_directory(world: &mut World, call: &Call, directory: i32, path: usize) -> Outcome {
    let found = birth(world, call, directory, &call.text(path)?, Kind::Directory)?;
    let Some(birth) = found else { return GO_ON };
    let wanted = call.word(path + 1);
    rustix::fs::mkdirat(&birth.entry.directory, &birth.entry.name, birth.mode(world, call, wanted)?)?;
    birth.record(world, wanted, FileType::Directory)?;
    DONE
}

pub fn symlink(world: &mut World, call: &Call) -> Outcome {
    make_symlink(world, call, HERE, 1)
}

pub fn symlinkat(world: &mut World, call: &Call) -> Outcome {
    make_symlink(world, call, call.int(1), 2)
}

fn make_symlink(world: &mut World, call: &Call, directory: i32, path: usize) -> Outcome {
    let target = call.text(0)?;
    if target.is_empty() {
        return GO_ON; // ENOENT
    }
    let found = birth(world, call, directory, &call.text(path)?, Kind::Other)?;
    let Some(birth) = found else { return GO_ON };
    rustix::fs::symlinkat(target, &birth.entry.directory, &birth.entry.name)?;
    birth.record(world, 0o777, FileType::Symlink)?;
    DONE
}

pub fn mknod(world: &mut World, call: &Call) -> Outcome {
    make_node(world, call, HERE, 0)
}

pub fn mknodat(world: &mut World, call: &Call) -> Outcome {
    make_node(world, call, call.int(0), 1)
}

fn make_node(world: &mut World, call: &Call, directory: i32, path: usize) -> Outcome {
    let (kind, number) = (call.word(path + 1), call.word(path + 2));
    let is_block = kind & 0o170_000 == 0o060_000;
    let device = (is_block || kind & 0o170_000 == 0o020_000).then_some(Device {
        is_block,
        major: number >> 8 & 0xfff,
        minor: (number & 0xff) | (number >> 12 & 0xf_ff00),
    });
    let format = match kind & 0o170_000 {
        0o010_000 => FileType::Fifo,
        0o140_000 => FileType::Socket,
        0 | 0o100_000 => FileType::RegularFile,
        // A device is an empty file and a record.
        _ if device.is_some() => FileType::RegularFile,
        _ => return GO_ON, // EPERM, EINVAL
    };
    let path = call.text(path)?;
    let found = match device {
        Some(_) => birth_of_device(world, call, directory, &path)?,
        None => birth(world, call, directory, &path, Kind::Other)?,
    };
    let Some(birth) = found else { return GO_ON };
    let mode = birth.mode(world, call, kind)?;
    rustix::fs::mknodat(&birth.entry.directory, &birth.entry.name, format, mode, 0)?;
    let record = birth.heritage.record(kind, format);
    world.remember(birth.hold()?, Record { device, ..record })?;
    DONE
}

/// The kernel would refuse it to root, too, so it is always made here.
fn birth_of_device(world: &World, call: &Call, directory: i32, path: &[u8]) -> Result<Option<Birth>, Errno> {
    let who = world.caller(call)?;
    let spot = Walk::new(world, call, who).to_last(directory, path)?;
    if !is_free(world, &spot, Kind::Other) {
        return Ok(None);
    }
    let birth = birth_at(world, who, spot)?;
    if !who.can(capability::MKNOD) {
        return Err(Errno::PERM);
    }
    Ok(Some(birth))
}

pub fn link(world: &mut World, call: &Call) -> Outcome {
    make_link(world, call, (HERE, 0), (HERE, 1), 0)
}

pub fn linkat(world: &mut World, call: &Call) -> Outcome {
    make_link(world, call, (call.int(0), 1), (call.int(2), 3), call.int(4))
}

fn make_link(world: &mut World, call: &Call, old: (i32, usize), new: (i32, usize), flags: i32) -> Outcome {
    if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return GO_ON; // EINVAL
    }
    let follow = if flags & libc::AT_SYMLINK_FOLLOW != 0 { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let naming = Naming::at(old.0, old.1, follow | (flags & libc::AT_EMPTY_PATH));
    let Some(Meant { file, stat, is_plain }) = meant(world, call, naming)? else { return GO_ON };
    let new_path = call.text(new.1)?;
    if !is_plain {
        let who = world.caller(call)?;
        let spot = Walk::new(world, call, who).to_last(new.0, &new_path)?;
        if !is_free(world, &spot, Kind::Other) || spot.above.stat.stx_mnt_id != stat.stx_mnt_id {
            return GO_ON; // EEXIST, ENOENT, EXDEV
        }
        if world.view.protects_hard_links && !may_link(who, world.facts(&stat)) {
            return Err(Errno::PERM);
        }
        world.require(who, &spot.above, WRITE | EXECUTE)?;
    }
    world.copy_up(&file, &stat)?;
    world.expect_name(&stat, &new_path);
    GO_ON
}

pub fn unlink(world: &mut World, call: &Call) -> Outcome {
    remove(world, call, HERE, 0, AtFlags::empty())
}

pub fn rmdir(world: &mut World, call: &Call) -> Outcome {
    remove(world, call, HERE, 0, AtFlags::REMOVEDIR)
}

pub fn unlinkat(world: &mut World, call: &Call) -> Outcome {
    remove(world, call, call.int(0), 1, AtFlags::from_bits_retain(call.word(2)))
}

fn remove(world: &mut World, call: &Call, directory: i32, path: usize, flags: AtFlags) -> Outcome {
    let plain = world.is_plain_root(call)?;
    if plain && world.owners.is_empty() {
        return GO_ON;
    }
    let path = call.text(path)?;
    let has_slashes = path.last() == Some(&b'/');
    if flags.bits() & !AtFlags::REMOVEDIR.bits() != 0
        || (plain && (has_slashes || world.is_unheard_of(&path)))
    {
        return GO_ON;
    }
    let (entry, stat) = match plain {
        true => {
            let Ok(entry) = world.view.entry(call, directory, &path) else { return GO_ON };
            let Ok(stat) = world.view.stat_name(&entry.directory, &entry.name) else { return GO_ON };
            (entry, stat)
        }
        false => {
            let who = world.caller(call)?;
            let spot = Walk::new(world, call, who).to_last(directory, &path)?;
            let Some(stat) = stat_last(world, &spot) else { return GO_ON };
            if has_slashes && !flags.contains(AtFlags::REMOVEDIR) {
                return GO_ON; // EISDIR, ENOTDIR
            }
            may_take_away(world, who, &spot.above, &stat)?;
            let Some(entry) = entry(spot) else { return GO_ON };
            (entry, stat)
        }
    };
    if !world.owners.has_own(world.view.file_system(&stat), &stat) {
        return GO_ON;
    }
    rustix::fs::unlinkat(&entry.directory, &entry.name, flags)?;
    world.forget(&stat)?;
    DONE
}

/// What there is at a spot.
pub(super) fn stat_last(world: &World, spot: &Spot) -> Option<Statx> {
    world.view.stat_name(&spot.above.file, spot.name()?).ok()
}

/// Write permission on the directory, and in a sticky one the file or the directory itself.
pub(super) fn may_take_away(
    world: &World,
    who: &Credentials,
    above: &Found,
    stat: &Statx,
) -> Result<(), Errno> {
    world.require(who, above, WRITE | EXECUTE)?;
    let is_sticky = u32::from(above.stat.stx_mode) & 0o1000 != 0;
    if is_sticky && who.uid.fs != world.owner(&above.stat).0 && !owns(who, world.owner(stat).0) {
        return Err(Errno::PERM);
    }
    Ok(())
}
