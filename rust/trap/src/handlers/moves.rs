//! rename(2) and its kin.
//!
//! The kernel does it in the end, unless a file with a record loses its last name by it. For users the kernel's own order of
//! questions is kept, since of several reasons to refuse it names the first.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RenameFlags, Statx};
use rustix::io::Errno;

use super::names::{entry, may_take_away, stat_last};
use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::permission::{allows, EXECUTE, WRITE};
use crate::view::{Entry, HERE};
use crate::walk::{Found, Walk};
use crate::world::{is_directory, World};

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
    let moves = match plain {
        true => root_moves(world, call, (old.0, &old_path), (new.0, &new_path)),
        false => others_move(world, call, (old.0, &old_path), (new.0, &new_path), flags)?,
    };
    let Some(Moving { from, stat, to, replaced }) = moves else { return GO_ON };
    keep_known(world, &from, &stat)?;
    world.expect_name(&stat, &new_path);
    let exchanges = flags & libc::RENAME_EXCHANGE != 0;
    if exchanges {
        if let Some(there) = &replaced {
            keep_known(world, &to, there)?;
            world.expect_name(there, &old_path);
        }
    }
    let lost =
        replaced.filter(|there| !exchanges && world.owners.has_own(world.view.file_system(there), there));
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

/// A name on its way to another.
struct Moving {
    from: Entry,
    stat: Statx,
    to: Entry,
    /// What has the other name.
    replaced: Option<Statx>,
}

fn are_same(one: &Statx, other: &Statx) -> bool {
    (one.stx_ino, one.stx_mnt_id) == (other.stx_ino, other.stx_mnt_id)
}

fn root_moves(world: &World, call: &Call, old: (i32, &[u8]), new: (i32, &[u8])) -> Option<Moving> {
    let from = world.view.entry(call, old.0, old.1).ok()?;
    let to = world.view.entry(call, new.0, new.1).ok()?;
    let stat = world.view.stat_name(&from.directory, &from.name).ok()?;
    let replaced = world.view.stat_name(&to.directory, &to.name).ok();
    // Two names of one file stay.
    (!replaced.as_ref().is_some_and(|there| are_same(there, &stat))).then_some(Moving {
        from,
        stat,
        to,
        replaced,
    })
}

/// The order of do_renameat2 and vfs_rename. `None`: the kernel says why not, or does nothing.
fn others_move(
    world: &World,
    call: &Call,
    old: (i32, &[u8]),
    new: (i32, &[u8]),
    flags: u32,
) -> Result<Option<Moving>, Errno> {
    const KNOWN: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
    let who = world.caller(call)?;
    if flags & !KNOWN != 0 || flags & KNOWN == KNOWN {
        return Ok(None); // EINVAL
    }
    let (exchanges, keeps) = (flags & libc::RENAME_EXCHANGE != 0, flags & libc::RENAME_NOREPLACE != 0);
    let from = Walk::new(world, call, who).to_last(old.0, old.1)?;
    let to = Walk::new(world, call, who).to_last(new.0, new.1)?;
    let (Some(stat), Some(_)) = (stat_last(world, &from), to.name()) else { return Ok(None) };
    let replaced = stat_last(world, &to);
    let is_file = |stat: &Statx| !is_directory(stat);
    let slashes_after_file = (is_file(&stat) && (from.has_slashes || (to.has_slashes && !exchanges)))
        || (exchanges && to.has_slashes && replaced.as_ref().is_some_and(is_file));
    let is_other_mount = from.above.stat.stx_mnt_id != to.above.stat.stx_mnt_id;
    let is_same = replaced.as_ref().is_some_and(|there| are_same(there, &stat));
    if is_other_mount || is_same || slashes_after_file {
        return Ok(None);
    }
    if if replaced.is_some() { keeps } else { exchanges } {
        return Ok(None); // EEXIST, ENOENT
    }
    if holds(world, &stat, &to.above)
        || replaced.as_ref().is_some_and(|there| holds(world, there, &from.above))
    {
        return Ok(None); // EINVAL, ENOTEMPTY
    }
    may_take_away(world, who, &from.above, &stat)?;
    match &replaced {
        Some(there) => may_take_away(world, who, &to.above, there)?,
        None => world.require(who, &to.above, WRITE | EXECUTE)?,
    }
    let are_of_two_kinds = |there: &Statx| is_directory(there) != is_directory(&stat);
    if !exchanges && replaced.as_ref().is_some_and(are_of_two_kinds) {
        return Ok(None); // EISDIR, ENOTDIR
    }
    // A directory's `..` changes.
    let others = replaced.as_ref().filter(|_| exchanges);
    let mut moved = std::iter::once(&stat).chain(others).filter(|each| is_directory(each));
    if !are_same(&from.above.stat, &to.above.stat) && moved.any(|each| !allows(who, world.facts(each), WRITE))
    {
        return Err(Errno::ACCESS);
    }
    let (Some(from), Some(to)) = (entry(from), entry(to)) else { return Ok(None) };
    Ok(Some(Moving { from, stat, to, replaced }))
}

/// Whether a directory is, or is above, another.
fn holds(world: &World, directory: &Statx, other: &Found) -> bool {
    if !is_directory(directory) {
        return false;
    }
    let mut here = (other.stat, None::<OwnedFd>);
    loop {
        if are_same(&here.0, directory) {
            return true;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = here.1.as_ref().map_or_else(|| other.file.as_fd(), OwnedFd::as_fd);
        let Ok(up) = rustix::fs::openat(fd, c"..", flags, Mode::empty()) else { return false };
        let Ok(stat) = world.view.stat_fd(&up) else { return false };
        if are_same(&stat, &here.0) {
            return false;
        }
        here = (stat, Some(up));
    }
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
