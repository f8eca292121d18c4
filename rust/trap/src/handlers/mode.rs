//! chmod(2), truncate(2), utimensat(2): modes, sizes and times are real; only who may change them is not.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, Statx};
use rustix::io::Errno;

use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::credentials::{capability, Credentials};
use crate::permission::{allows, owns, WRITE};
use crate::view::{At, HERE};
use crate::world::{is_directory, World};

pub fn chmod(world: &mut World, call: &Call) -> Outcome {
    let Some(at) = place(world, call, HERE, Some(0), 0)? else { return GO_ON };
    change_mode(world, call, &at, call.word(1))
}

pub fn fchmod(world: &mut World, call: &Call) -> Outcome {
    let Some(at) = place(world, call, call.int(0).max(-1), None, 0)? else { return GO_ON };
    change_mode(world, call, &at, call.word(1))
}

pub fn fchmodat(world: &mut World, call: &Call) -> Outcome {
    let Some(at) = place(world, call, call.int(0), Some(1), 0)? else { return GO_ON };
    change_mode(world, call, &at, call.word(2))
}

pub fn fchmodat2(world: &mut World, call: &Call) -> Outcome {
    let Some(at) = place(world, call, call.int(0), Some(1), call.int(3))? else { return GO_ON };
    change_mode(world, call, &at, call.word(2))
}

/// The file that is meant; `None` when there is nothing for us in it.
fn place(
    world: &World,
    call: &Call,
    directory: i32,
    path: Option<usize>,
    flags: i32,
) -> Result<Option<At>, Errno> {
    if world.known.are_all_root() && !world.owners.has_lower() {
        return Ok(None);
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    let at = match path {
        None => world.view.at_descriptor(call, directory),
        Some(index) => {
            let text = call.text(index)?;
            let may_be_empty = flags & libc::AT_EMPTY_PATH != 0;
            world.view.at_or_descriptor(call, directory, &text, follow, may_be_empty)
        }
    };
    Ok(at.ok())
}

/// A file about to change.
struct Changing<'a> {
    file: OwnedFd,
    stat: Statx,
    /// Who must be asked whether they may, and can reach it; `None` for the container's own root.
    who: Option<&'a Credentials>,
}

/// What a place is; `None` where the kernel is to do it, or to say why not.
fn changing<'a>(world: &'a World, call: &Call, at: &At) -> Result<Option<Changing<'a>>, Errno> {
    let plain = world.is_plain_root(call)?;
    let Ok(stat) = world.view.stat(at) else { return Ok(None) };
    let from_layer = world.owners.find_lower(world.view.file_system(&stat), &stat).is_some();
    if plain && !from_layer {
        return Ok(None);
    }
    let file = world.view.hold(at)?;
    if plain {
        return Ok(Some(Changing { file, stat, who: None }));
    }
    let who = world.caller(call)?;
    world.require_way(who, &file)?;
    Ok(Some(Changing { file, stat, who: Some(who) }))
}

fn change_mode(world: &mut World, call: &Call, at: &At, mode: u32) -> Outcome {
    let Some(Changing { file, stat, who }) = changing(world, call, at)? else { return GO_ON };
    if let Some(who) = who {
        let (uid, gid) = world.owner(&stat);
        if !owns(who, uid) {
            return Err(Errno::PERM);
        }
        // Others' groups are nobody's to give, chmod(2).
        if mode & 0o2000 != 0 && !is_directory(&stat) && !who.is_in(gid) && !who.can(capability::FSETID) {
            let mode = Mode::from_raw_mode(mode & 0o5777);
            world.copy_up(&file, &stat)?;
            rustix::fs::chmodat(world.view.proc(), world.view.handle(&file), mode, AtFlags::empty())?;
            return DONE;
        }
    }
    world.copy_up(&file, &stat)?;
    GO_ON
}

pub fn truncate(world: &mut World, call: &Call) -> Outcome {
    let Some(at) = place(world, call, HERE, Some(0), 0)? else { return GO_ON };
    let Ok(file) = world.view.hold(&at) else { return GO_ON };
    let stat = world.view.stat_fd(&file)?;
    if !world.is_plain_root(call)? {
        world.require(world.caller(call)?, &file, &stat, WRITE)?;
    }
    world.copy_up(&file, &stat)?;
    GO_ON
}

/// utimensat(2): one's own to any time, what one may write to now.
pub fn utimensat(world: &mut World, call: &Call) -> Outcome {
    let is_now = match call.long(2) {
        0 => true,
        _ => call
            .bytes(2, 32)?
            .chunks_exact(16)
            .all(|time| i64::from_ne_bytes(time[8..16].try_into().unwrap_or_default()) == libc::UTIME_NOW),
    };
    let path = (call.long(1) != 0).then_some(1);
    let Some(at) = place(world, call, call.int(0), path, call.int(3))? else { return GO_ON };
    touch(world, call, &at, is_now)
}

pub fn utimes(world: &mut World, call: &Call) -> Outcome {
    let Some(at) = place(world, call, HERE, Some(0), 0)? else { return GO_ON };
    touch(world, call, &at, call.long(1) == 0)
}

pub fn futimesat(world: &mut World, call: &Call) -> Outcome {
    let Some(at) = place(world, call, call.int(0), Some(1), 0)? else { return GO_ON };
    touch(world, call, &at, call.long(2) == 0)
}

fn touch(world: &mut World, call: &Call, at: &At, is_now: bool) -> Outcome {
    let Some(Changing { file, stat, who }) = changing(world, call, at)? else { return GO_ON };
    if let Some(who) = who {
        let facts = world.facts(&stat);
        let may = owns(who, facts.uid) || (is_now && allows(who, facts, WRITE));
        if !may {
            return Err(if is_now { Errno::ACCESS } else { Errno::PERM });
        }
    }
    world.copy_up(&file, &stat)?;
    GO_ON
}
