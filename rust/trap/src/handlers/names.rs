//! Calls that make, move and remove names.
//!
//! What root does the kernel does, unless we must know of it: a new file in somebody's setgid
//! directory, a file with a record that loses its last name. For others the directories'
//! owners are asked first, and what they make is made by us, so that it can be
//! remembered as theirs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Statx};
use rustix::io::Errno;

use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::credentials::{capability, Credentials};
use crate::owners::{Device, Record};
use crate::permission::{allows, owns, EXECUTE, READ, WRITE};
use crate::view::{Entry, HERE};
use crate::world::{is_directory, Heritage, World};

/// The directory of a name, and what a new file in it gets.
pub(super) struct Birth {
    pub entry: Entry,
    pub heritage: Heritage,
}

/// Asks whether the caller may make a name. `None`: let the kernel make it, or say why not.
pub(super) fn birth(world: &World, call: &Call, directory: i32, path: &[u8]) -> Result<Option<Birth>, Errno> {
    let plain = world.is_plain_root(call)?;
    if plain && world.owners.is_empty() {
        return Ok(None);
    }
    let Ok(entry) = world.view.entry(call, directory, path) else { return Ok(None) };
    let above = world.view.stat_fd(&entry.directory)?;
    let who = world.caller(call)?;
    let heritage = world.heritage(who, &above);
    if plain {
        return Ok((!heritage.says_nothing()).then_some(Birth { entry, heritage }));
    }
    if world.view.stat_entry(&entry).is_ok() {
        world.require_way(who, &entry.directory)?;
        return Ok(None); // EEXIST comes before EACCES
    }
    world.require(who, &entry.directory, &above, WRITE | EXECUTE)?;
    Ok(Some(Birth { entry, heritage }))
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
    let Some(birth) = birth(world, call, directory, &call.text(path)?)? else { return GO_ON };
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
    let path = call.text(path)?;
    if path.ends_with(b"/") {
        return GO_ON; // only a directory could be made
    }
    let Some(birth) = birth(world, call, directory, &path)? else { return GO_ON };
    rustix::fs::symlinkat(call.text(0)?, &birth.entry.directory, &birth.entry.name)?;
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
    let path = call.text(path)?;
    if path.ends_with(b"/") {
        return GO_ON;
    }
    let is_block = kind & 0o170_000 == 0o060_000;
    if is_block || kind & 0o170_000 == 0o020_000 {
        let device = Device {
            is_block,
            major: number >> 8 & 0xfff,
            minor: (number & 0xff) | (number >> 12 & 0xf_ff00),
        };
        return make_device(world, call, directory, &path, device, kind);
    }
    let Some(birth) = birth(world, call, directory, &path)? else { return GO_ON };
    let format = match kind & 0o170_000 {
        0o010_000 => FileType::Fifo,
        0o140_000 => FileType::Socket,
        0 | 0o100_000 => FileType::RegularFile,
        _ => return GO_ON,
    };
    let mode = birth.mode(world, call, kind)?;
    rustix::fs::mknodat(&birth.entry.directory, &birth.entry.name, format, mode, 0)?;
    birth.record(world, kind, format)?;
    DONE
}

/// A device is an empty file and a record.
fn make_device(
    world: &mut World,
    call: &Call,
    directory: i32,
    path: &[u8],
    device: Device,
    kind: u32,
) -> Outcome {
    let who = world.caller(call)?;
    let entry = world.view.entry(call, directory, path).map_err(|errno| match errno {
        Errno::INVAL => Errno::EXIST,
        other => other,
    })?;
    if !who.can(capability::MKNOD) {
        return Err(if world.view.stat_entry(&entry).is_ok() { Errno::EXIST } else { Errno::PERM });
    }
    let above = world.view.stat_fd(&entry.directory)?;
    world.require(who, &entry.directory, &above, WRITE | EXECUTE)?;
    let birth = Birth { heritage: world.heritage(who, &above), entry };
    let mode = birth.mode(world, call, kind)?;
    rustix::fs::mknodat(&birth.entry.directory, &birth.entry.name, FileType::RegularFile, mode, 0)?;
    let record = birth.heritage.record(kind, FileType::RegularFile);
    world.remember(birth.hold()?, Record { device: Some(device), ..record })?;
    DONE
}

pub fn link(world: &mut World, call: &Call) -> Outcome {
    make_link(world, call, (HERE, 0), (HERE, 1), 0)
}

pub fn linkat(world: &mut World, call: &Call) -> Outcome {
    make_link(world, call, (call.int(0), 1), (call.int(2), 3), call.int(4))
}

fn make_link(world: &mut World, call: &Call, old: (i32, usize), new: (i32, usize), flags: i32) -> Outcome {
    let path = call.text(old.1)?;
    let follow = flags & libc::AT_SYMLINK_FOLLOW != 0;
    let Ok(at) = world.view.at_or_descriptor(call, old.0, &path, follow, flags & libc::AT_EMPTY_PATH != 0)
    else {
        return GO_ON;
    };
    let Ok(file) = world.view.hold(&at) else { return GO_ON };
    let stat = world.view.stat_fd(&file)?;
    world.copy_up(&file, &stat)?;
    let new_path = call.text(new.1)?;
    world.expect_name(&stat, &new_path);
    if !world.is_plain_root(call)? {
        let who = world.caller(call)?;
        world.require_way(who, &file)?;
        may_link(world, who, &stat)?;
        birth(world, call, new.0, &new_path)?;
    }
    GO_ON
}

/// `fs.protected_hardlinks` of proc(5): only to what one owns, or could change without it.
fn may_link(world: &World, who: &Credentials, stat: &Statx) -> Result<(), Errno> {
    let facts = world.facts(stat);
    if !world.view.protects_hard_links || owns(who, facts.uid) {
        return Ok(());
    }
    let is_plain = facts.mode & 0o170_000 == 0o100_000 && facts.mode & 0o4000 == 0;
    let is_harmless = is_plain && facts.mode & 0o2010 != 0o2010;
    if is_harmless && allows(who, facts, READ | WRITE) {
        return Ok(());
    }
    Err(Errno::PERM)
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
    if plain && (path.last() == Some(&b'/') || world.is_unheard_of(&path)) {
        return GO_ON;
    }
    let Ok(entry) = world.view.entry(call, directory, &path) else { return GO_ON };
    let Ok(stat) = world.view.stat_entry(&entry) else { return GO_ON };
    if !plain {
        may_take_away(world, world.caller(call)?, &entry, &stat)?;
    }
    if !world.owners.has_own(world.view.file_system(&stat), &stat) || path.last() == Some(&b'/') {
        return GO_ON;
    }
    rustix::fs::unlinkat(&entry.directory, &entry.name, flags)?;
    world.forget(&stat)?;
    DONE
}

/// Write permission on the directory, and in a sticky one the file or the directory itself.
fn may_take_away(world: &World, who: &Credentials, entry: &Entry, stat: &Statx) -> Result<(), Errno> {
    let above = world.view.stat_fd(&entry.directory)?;
    world.require(who, &entry.directory, &above, WRITE | EXECUTE)?;
    let is_sticky = u32::from(above.stx_mode) & 0o1000 != 0;
    if is_sticky && who.uid.fs != world.owner(&above).0 && !owns(who, world.owner(stat).0) {
        return Err(Errno::PERM);
    }
    Ok(())
}

pub fn rename(world: &mut World, call: &Call) -> Outcome {
    move_name(world, call, (HERE, 0), (HERE, 1), 0)
}

pub fn renameat(world: &mut World, call: &Call) -> Outcome {
    move_name(world, call, (call.int(0), 1), (call.int(2), 3), 0)
}

pub fn renameat2(world: &mut World, call: &Call) -> Outcome {
    move_name(world, call, (call.int(0), 1), (call.int(2), 3), call.word(4))
}

fn move_name(world: &mut World, call: &Call, old: (i32, usize), new: (i32, usize), flags: u32) -> Outcome {
    let plain = world.is_plain_root(call)?;
    if plain && world.owners.is_empty() {
        return GO_ON;
    }
    let (old_path, new_path) = (call.text(old.1)?, call.text(new.1)?);
    if plain && world.is_unheard_of(&old_path) && world.is_unheard_of(&new_path) {
        return GO_ON;
    }
    let Ok(from) = world.view.entry(call, old.0, &old_path) else { return GO_ON };
    let Ok(to) = world.view.entry(call, new.0, &new_path) else { return GO_ON };
    let Ok(stat) = world.view.stat_entry(&from) else { return GO_ON };
    let replaced = world.view.stat_entry(&to).ok();
    let is_same = |there: &Statx| (there.stx_ino, there.stx_mnt_id) == (stat.stx_ino, stat.stx_mnt_id);
    if replaced.as_ref().is_some_and(is_same) {
        return GO_ON; // two names of one file stay, and nobody is asked
    }
    if !plain {
        let who = world.caller(call)?;
        may_take_away(world, who, &from, &stat)?;
        let (old, new) = (world.view.stat_fd(&from.directory)?, world.view.stat_fd(&to.directory)?);
        // Its `..` changes.
        let moves = (old.stx_ino, old.stx_mnt_id) != (new.stx_ino, new.stx_mnt_id);
        let other = replaced.as_ref().filter(|_| flags & libc::RENAME_EXCHANGE != 0);
        let mut moved = std::iter::once(&stat).chain(other).filter(|each| moves && is_directory(each));
        if moved.any(|each| !allows(who, world.facts(each), WRITE)) {
            return Err(Errno::ACCESS);
        }
        match &replaced {
            Some(there) => may_take_away(world, who, &to, there)?,
            None => {
                let above = world.view.stat_fd(&to.directory)?;
                world.require(who, &to.directory, &above, WRITE | EXECUTE)?;
            }
        }
    }
    keep_known(world, &from, &stat)?;
    world.expect_name(&stat, &new_path);
    let exchanges = flags & libc::RENAME_EXCHANGE != 0;
    if exchanges {
        if let Some(there) = &replaced {
            keep_known(world, &to, there)?;
            world.expect_name(there, &old_path);
        }
    }
    let lost = replaced.filter(|there| {
        !exchanges
            && there.stx_ino != stat.stx_ino
            && world.owners.has_own(world.view.file_system(there), there)
    });
    let Some(lost) = lost.filter(|_| old_path.last() != Some(&b'/') && new_path.last() != Some(&b'/')) else {
        return GO_ON;
    };
    rustix::fs::renameat_with(
        from.directory.as_fd(),
        &from.name,
        to.directory.as_fd(),
        &to.name,
        RenameFlags::from_bits_retain(flags),
    )?;
    world.forget(&lost)?;
    DONE
}

/// A file of a layer is about to move: see [`World::copy_up`].
fn keep_known(world: &mut World, entry: &Entry, stat: &Statx) -> Result<(), Errno> {
    if is_directory(stat) || world.owners.find_lower(world.view.file_system(stat), stat).is_none() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&entry.directory, &entry.name, flags, Mode::empty())?;
    world.copy_up(&file, stat)
}
