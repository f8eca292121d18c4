//! chmod(2), truncate(2), utimensat(2): modes, sizes and times are real; only who may change them is not.

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::meant::{meant, Meant, Naming};
use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::permission::{allows, mode_set, owns, WRITE};
use crate::walk::Found;
use crate::world::World;

pub fn chmod(world: &mut World, call: &Call) -> Outcome {
    change_mode(world, call, Naming::path(0), call.word(1))
}

pub fn fchmod(world: &mut World, call: &Call) -> Outcome {
    change_mode(world, call, Naming::descriptor(call), call.word(1))
}

pub fn fchmodat(world: &mut World, call: &Call) -> Outcome {
    change_mode(world, call, Naming::at(call.int(0), 1, 0), call.word(2))
}

pub fn fchmodat2(world: &mut World, call: &Call) -> Outcome {
    change_mode(world, call, Naming::at(call.int(0), 1, call.int(3)), call.word(2))
}

/// The file that is about to change; `None` where the kernel is to do it, or to say why not. One of a layer that root
/// changes is brought up, see [`World::copy_up`].
fn changing(world: &mut World, call: &Call, naming: Naming) -> Result<Option<Meant>, Errno> {
    let is_plain = world.is_plain_root(call)?;
    if is_plain && !world.owners.has_lower() {
        return Ok(None);
    }
    if is_plain {
        // Most files are not a layer's that is known, and need not be held.
        let path = naming.text(call)?;
        let Ok(at) = naming.place(world, call, path.as_deref()) else { return Ok(None) };
        let Ok(stat) = world.view.stat(&at) else { return Ok(None) };
        if world.owners.find_lower(world.view.file_system(&stat), &stat).is_none() {
            return Ok(None);
        }
    }
    meant(world, call, naming)
}

fn change_mode(world: &mut World, call: &Call, naming: Naming, mode: u32) -> Outcome {
    let Some(Meant { file, stat, is_plain }) = changing(world, call, naming)? else { return GO_ON };
    let mut lesser = None;
    if !is_plain && !is_symlink(&stat) {
        let (who, facts) = (world.caller(call)?, world.facts(&stat));
        if !owns(who, facts.uid) {
            return Err(Errno::PERM);
        }
        let may = mode_set(who, facts, mode & 0o7777);
        lesser = (may != mode & 0o7777).then_some(may);
    }
    world.copy_up(&file, &stat)?;
    let Some(mode) = lesser else { return GO_ON };
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::chmodat(world.view.proc(), world.view.handle(&file), mode, AtFlags::empty())?;
    DONE
}

fn is_symlink(stat: &rustix::fs::Statx) -> bool {
    FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Symlink
}

pub fn truncate(world: &mut World, call: &Call) -> Outcome {
    let Some(meant) = changing(world, call, Naming::path(0))? else { return GO_ON };
    let is_plain = meant.is_plain;
    let found = meant.found();
    if FileType::from_raw_mode(u32::from(found.stat.stx_mode)) != FileType::RegularFile {
        return GO_ON; // EISDIR, EINVAL
    }
    if !is_plain {
        world.require(world.caller(call)?, &found, WRITE)?;
    }
    world.copy_up(&found.file, &found.stat)?;
    world.cut(call, &found.file, &found.stat)?;
    GO_ON
}

/// utimensat(2): one's own to any time, what one may write to now.
pub fn utimensat(world: &mut World, call: &Call) -> Outcome {
    let mut is_now = true;
    if call.long(2) != 0 {
        let times = call.bytes(2, 32)?;
        let mut of =
            times.chunks_exact(16).map(|time| i64::from_ne_bytes(time[8..16].try_into().unwrap_or_default()));
        if of.clone().all(|time| time == libc::UTIME_OMIT) {
            return GO_ON;
        }
        is_now = of.all(|time| time == libc::UTIME_NOW);
    }
    let naming = match call.long(1) {
        0 => Naming::descriptor(call),
        _ => Naming::at(call.int(0), 1, call.int(3)),
    };
    touch(world, call, naming, is_now)
}

pub fn utimes(world: &mut World, call: &Call) -> Outcome {
    touch(world, call, Naming::path(0), call.long(1) == 0)
}

pub fn futimesat(world: &mut World, call: &Call) -> Outcome {
    let naming = match call.long(1) {
        0 => Naming::descriptor(call),
        _ => Naming::at(call.int(0), 1, 0),
    };
    touch(world, call, naming, call.long(2) == 0)
}

fn touch(world: &mut World, call: &Call, naming: Naming, is_now: bool) -> Outcome {
    let Some(meant) = changing(world, call, naming)? else { return GO_ON };
    let is_plain = meant.is_plain;
    let Found { file, stat } = meant.found();
    if !is_plain {
        let (who, facts) = (world.caller(call)?, world.facts(&stat));
        let may = owns(who, facts.uid) || (is_now && allows(who, facts, WRITE));
        if !may {
            return Err(if is_now { Errno::ACCESS } else { Errno::PERM });
        }
    }
    world.copy_up(&file, &stat)?;
    GO_ON
}
