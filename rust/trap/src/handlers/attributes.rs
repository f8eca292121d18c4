//! Extended attributes that no user may set are kept in the record ([`crate::owners::attributes`]); all others are the
//! kernel's.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::meant::{meant, Meant, Naming};
use crate::call::{Call, Outcome, Verdict, DONE, GO_ON};
use crate::owners::attributes::{self, has_room, keeper, Keeper, LARGEST_VALUE};
use crate::permission::READ;
use crate::walk::Found;
use crate::world::World;

pub fn setxattr(world: &mut World, call: &Call) -> Outcome {
    set(world, call, Naming::path(0))
}

pub fn lsetxattr(world: &mut World, call: &Call) -> Outcome {
    set(world, call, Naming::link(0))
}

pub fn fsetxattr(world: &mut World, call: &Call) -> Outcome {
    set(world, call, Naming::descriptor(call))
}

fn set(world: &mut World, call: &Call, naming: Naming) -> Outcome {
    let name = attributes::name(call.text(1)?)?;
    let is_real = keeper(&name) != Keeper::Record;
    if is_real && world.is_plain_root(call)? && !world.owners.has_lower() {
        return GO_ON;
    }
    let Some(Meant { file, stat, is_plain }) = meant(world, call, naming)? else { return GO_ON };
    if is_real {
        return change_really(world, call, Meant { file, stat, is_plain });
    }
    let size = call.long(3) as usize;
    if size > LARGEST_VALUE {
        return Err(Errno::TOOBIG);
    }
    let value = if size == 0 { Vec::new() } else { call.bytes(2, size)? };
    let mut record = world.record_of(&stat);
    let facts = world.facts(&stat);
    let mode = attributes::set(world.caller(call)?, facts, &mut record, (name, value), call.int(4))?;
    world.touch(&file, &stat)?;
    change_mode(world, &file, mode)?;
    world.remember(&file, record)?;
    DONE
}

fn change_really(world: &mut World, call: &Call, Meant { file, stat, is_plain }: Meant) -> Outcome {
    if !is_plain {
        attributes::may_write(world.caller(call)?, world.facts(&stat))?;
    }
    world.copy_up(&file, &stat)?;
    GO_ON
}

pub fn getxattr(world: &mut World, call: &Call) -> Outcome {
    get(world, call, Naming::path(0))
}

pub fn lgetxattr(world: &mut World, call: &Call) -> Outcome {
    get(world, call, Naming::link(0))
}

pub fn fgetxattr(world: &mut World, call: &Call) -> Outcome {
    get(world, call, Naming::descriptor(call))
}

fn get(world: &mut World, call: &Call, naming: Naming) -> Outcome {
    let is_plain = world.is_plain_root(call)?;
    if is_plain && !world.owners.has_attributes() {
        return GO_ON;
    }
    let name = attributes::name(call.text(1)?)?;
    let keeper = keeper(&name);
    if is_plain && keeper != Keeper::Record {
        return GO_ON;
    }
    let Some(Meant { file, stat, .. }) = meant(world, call, naming)? else { return GO_ON };
    let who = world.caller(call)?;
    if keeper == Keeper::Disk && has_room(u32::from(stat.stx_mode)) {
        world.require(who, &Found { file, stat }, READ)?;
    }
    let record = world.record(&stat).filter(|record| record.xattrs.contains_key(&name));
    let Some(record) = record else { return GO_ON };
    let value = attributes::shown(who, record, &name, u32::from(stat.stx_mode)).ok_or(Errno::NODATA)?;
    hand_over(call, 2, &value, call.long(3))
}

/// A size of 0 asks how much room is needed.
fn hand_over(call: &Call, room: usize, bytes: &[u8], size: u64) -> Outcome {
    if size != 0 {
        if (size as usize) < bytes.len() {
            return Err(Errno::RANGE);
        }
        call.write(room, bytes)?;
    }
    Ok(Verdict::Value(bytes.len() as i64))
}

pub fn listxattr(world: &mut World, call: &Call) -> Outcome {
    list(world, call, Naming::path(0))
}

pub fn llistxattr(world: &mut World, call: &Call) -> Outcome {
    list(world, call, Naming::link(0))
}

pub fn flistxattr(world: &mut World, call: &Call) -> Outcome {
    list(world, call, Naming::descriptor(call))
}

fn list(world: &mut World, call: &Call, naming: Naming) -> Outcome {
    if world.is_plain_root(call)? && !world.owners.has_attributes() {
        return GO_ON;
    }
    let Some(Meant { file, stat, .. }) = meant(world, call, naming)? else { return GO_ON };
    let Some(record) = world.record(&stat).filter(|record| !record.xattrs.is_empty()) else { return GO_ON };
    let mut names = real_names(world, &file, &stat);
    names.extend(attributes::names(world.caller(call)?, record));
    hand_over(call, 1, &names, call.long(2))
}

/// The names that the file really has. Only what can be opened without consequences is asked.
fn real_names(world: &World, file: &OwnedFd, stat: &Statx) -> Vec<u8> {
    if !has_room(u32::from(stat.stx_mode)) {
        return Vec::new();
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let path = world.view.handle(file);
    let mut names = vec![0; LARGEST_VALUE];
    let length = rustix::fs::openat(world.view.proc(), path, flags, Mode::empty())
        .and_then(|file| rustix::fs::flistxattr(&file, &mut names));
    names.truncate(length.unwrap_or(0));
    names
}

pub fn removexattr(world: &mut World, call: &Call) -> Outcome {
    remove(world, call, Naming::path(0))
}

pub fn lremovexattr(world: &mut World, call: &Call) -> Outcome {
    remove(world, call, Naming::link(0))
}

pub fn fremovexattr(world: &mut World, call: &Call) -> Outcome {
    remove(world, call, Naming::descriptor(call))
}

fn remove(world: &mut World, call: &Call, naming: Naming) -> Outcome {
    let name = attributes::name(call.text(1)?)?;
    let is_real = keeper(&name) != Keeper::Record;
    if is_real && world.is_plain_root(call)? && !world.owners.has_lower() {
        return GO_ON;
    }
    let Some(Meant { file, stat, is_plain }) = meant(world, call, naming)? else { return GO_ON };
    if is_real {
        return change_really(world, call, Meant { file, stat, is_plain });
    }
    let mut record = world.record_of(&stat);
    let (had, mode) = attributes::remove(world.caller(call)?, world.facts(&stat), &mut record, &name)?;
    if had {
        world.touch(&file, &stat)?;
        world.remember(&file, record)?;
    }
    change_mode(world, &file, mode)?;
    DONE
}

/// The mode that goes with an access list.
fn change_mode(world: &World, file: &OwnedFd, mode: Option<u32>) -> Result<(), Errno> {
    let Some(mode) = mode else { return Ok(()) };
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::chmodat(world.view.proc(), world.view.handle(file), mode, AtFlags::empty())
}
