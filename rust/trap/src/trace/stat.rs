//! stat(2) and its kin, access(2), statfs(2): answered here, with the owners that are remembered.

use std::collections::HashMap;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::paths::{file_system, inner_id};
use super::{Action, Outcome, Tracer, DONE};
use crate::call::Call;
use crate::handlers::stat::{extended, plain, Shown};
use crate::permission::{allows, EXECUTE, READ, WRITE};
use crate::union::{type_of, Follow, Spot, WANTED};
use crate::view::HERE;

/// What identifies a file of the host's while it is there.
pub(super) type Identity = (u64, u32, u32);

/// See [`Identity`].
pub(super) fn identity(stat: &Statx) -> Identity {
    (stat.stx_ino, stat.stx_dev_major, stat.stx_dev_minor)
}

/// The identity under which a file is shown: that of the layer's file that it is a copy of.
pub(super) fn origin(origins: &HashMap<Identity, Identity>, stat: &Statx) -> Identity {
    let own = identity(stat);
    origins.get(&own).copied().unwrap_or(own)
}

pub(super) fn stat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = tracer.place_at(call, HERE, 0, Follow::Yes)?;
    tell(tracer, call, &spot, 1)
}

pub(super) fn lstat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = tracer.place_at(call, HERE, 0, Follow::No)?;
    tell(tracer, call, &spot, 1)
}

pub(super) fn fstat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let (found, is_root) = of_descriptor(tracer, call, call.int(0).max(-1))?;
    answer(tracer, call, &found, is_root, 1)
}

pub(super) fn newfstatat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let flags = call.int(3);
    let path = path_of(call, flags)?;
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        let (found, is_root) = of_descriptor(tracer, call, call.int(0))?;
        return answer(tracer, call, &found, is_root, 2);
    }
    let spot = tracer.place(call, call.int(0), &path, follow(flags))?;
    tell(tracer, call, &spot, 2)
}

/// The path of a call with flags; none at all is an empty one where that means something.
fn path_of(call: &Call, flags: i32) -> Result<Vec<u8>, Errno> {
    const SYNC: i32 = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
    let known = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH | SYNC;
    if flags & !known != 0 || flags & SYNC == SYNC {
        return Err(Errno::INVAL);
    }
    if call.long(1) == 0 && flags & libc::AT_EMPTY_PATH != 0 {
        return Ok(Vec::new());
    }
    call.text(1)
}

fn follow(flags: i32) -> Follow {
    if flags & libc::AT_SYMLINK_NOFOLLOW != 0 {
        Follow::No
    } else {
        Follow::Yes
    }
}

pub(super) fn statx(tracer: &mut Tracer, call: &Call) -> Outcome {
    let flags = call.int(2);
    let path = path_of(call, flags)?;
    let mut of_process = None;
    let (found, is_root) = if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        of_descriptor(tracer, call, call.int(0))?
    } else {
        let spot = tracer.place(call, call.int(0), &path, follow(flags))?;
        of_process = tracer.proc_owner(&spot);
        (found(tracer, &spot)?, spot.mount == 0)
    };
    let (mut shown, found) = shown(tracer, &found, is_root);
    if let Some((uid, gid)) = of_process {
        shown = Shown { uid, gid, device: None };
    }
    call.write(4, &extended(&found, &shown))?;
    DONE
}

fn tell(tracer: &mut Tracer, call: &Call, spot: &Spot, room: usize) -> Outcome {
    let found = found(tracer, spot)?;
    if let Some((uid, gid)) = tracer.proc_owner(spot) {
        call.write(room, &plain(&found, &Shown { uid, gid, device: None }))?;
        return DONE;
    }
    answer(tracer, call, &found, spot.mount == 0, room)
}

/// What statx(2) says of a spot; a directory of several trees has the number of the topmost that does not change.
pub(super) fn found(tracer: &mut Tracer, spot: &Spot) -> Result<Statx, Errno> {
    if !spot.exists() {
        return Err(Errno::NOENT);
    }
    if spot.is_magic {
        return rustix::fs::statx(rustix::fs::CWD, &spot.host[..], rustix::fs::AtFlags::empty(), WANTED);
    }
    let mut found = crate::union::lstat(&spot.host)?;
    steady(tracer, spot, &mut found);
    Ok(found)
}

fn steady(tracer: &mut Tracer, spot: &Spot, found: &mut Statx) {
    if spot.is_directory() && spot.is_upper && spot.trees > 1 {
        if let Some(below) = tracer.union.below(spot).and_then(|host| crate::union::lstat(&host).ok()) {
            tracer.origins.insert(identity(found), identity(&below));
        }
    }
}

fn of_descriptor(tracer: &mut Tracer, call: &Call, descriptor: i32) -> Result<(Statx, bool), Errno> {
    let is = tracer.stat_descriptor(call, descriptor)?;
    let kind = type_of(&is);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Ok((is, kind == FileType::Symlink || is_root_device(tracer, &is)));
    }
    let host = match descriptor {
        HERE => return Ok((is, true)),
        _ => tracer.descriptor(call, descriptor)?,
    };
    let Some(path) = tracer.reverse(&host) else { return Ok((is, true)) };
    let is_root = tracer.union.mount_of(&path) == 0;
    if !is_root || kind == FileType::RegularFile && tracer.origins.is_empty() {
        return Ok((is, is_root));
    }
    match tracer.spot_of_descriptor(call, descriptor)? {
        Some(spot) => Ok((found(tracer, &spot)?, true)),
        None => Ok((is, true)),
    }
}

/// Whether a special file may be one of the root file system's.
fn is_root_device(tracer: &Tracer, is: &Statx) -> bool {
    crate::union::lstat(&tracer.union.work)
        .is_ok_and(|work| (work.stx_dev_major, work.stx_dev_minor) == (is.stx_dev_major, is.stx_dev_minor))
}

/// What is shown instead of what was found.
fn shown(tracer: &Tracer, found: &Statx, is_root: bool) -> (Shown, Statx) {
    let owners = &tracer.world.owners;
    let record = if owners.is_empty() { None } else { owners.find(file_system(is_root, found), found) };
    let ours = tracer.settings.host_ids;
    let shown = match record {
        Some(record) => Shown { uid: record.uid, gid: record.gid, device: record.device },
        None => {
            Shown { uid: inner_id(found.stx_uid, ours.0), gid: inner_id(found.stx_gid, ours.1), device: None }
        }
    };
    let mut found = *found;
    (found.stx_ino, found.stx_dev_major, found.stx_dev_minor) = origin(&tracer.origins, &found);
    (shown, found)
}

fn answer(tracer: &Tracer, call: &Call, found: &Statx, is_root: bool, room: usize) -> Outcome {
    let (shown, found) = shown(tracer, found, is_root);
    call.write(room, &plain(&found, &shown))?;
    DONE
}

pub(super) fn access(tracer: &mut Tracer, call: &Call) -> Outcome {
    check(tracer, call, HERE, 0, call.word(1), 0)
}

pub(super) fn faccessat(tracer: &mut Tracer, call: &Call) -> Outcome {
    check(tracer, call, call.int(0), 1, call.word(2), 0)
}

pub(super) fn faccessat2(tracer: &mut Tracer, call: &Call) -> Outcome {
    let known = libc::AT_EACCESS | libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    if call.int(3) & !known != 0 {
        return Err(Errno::INVAL);
    }
    check(tracer, call, call.int(0), 1, call.word(2), call.int(3))
}

fn check(tracer: &mut Tracer, call: &Call, directory: i32, index: usize, wanted: u32, flags: i32) -> Outcome {
    if wanted & !7 != 0 {
        return Err(Errno::INVAL);
    }
    let path = call.text(index)?;
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        let (found, is_root) = of_descriptor(tracer, call, directory)?;
        let facts = super::paths::facts(
            &tracer.world,
            file_system(is_root, &found),
            &found,
            tracer.settings.host_ids,
        );
        let who = tracer.world.caller(call)?;
        return if allows(who, facts, wanted) { DONE } else { Err(Errno::ACCESS) };
    }
    let who = tracer.world.caller(call)?;
    let asking = if flags & libc::AT_EACCESS != 0 { who.clone() } else { who.as_real() };
    let spot = tracer.place_as(&asking, call, directory, &path, follow(flags))?;
    let found = found(tracer, &spot)?;
    if wanted & WRITE != 0 && tracer.union.is_read_only(&spot.path) {
        return Err(Errno::ROFS);
    }
    let facts = tracer.facts(&spot, &found);
    let is_foreign = facts.uid == 65534 && found.stx_uid != tracer.settings.host_ids.0;
    if is_foreign && asking.uid.fs == 0 {
        // The kernel decides about files that are not ours.
        let mode = rustix::fs::Access::from_bits_retain(wanted & (READ | WRITE | EXECUTE));
        rustix::fs::access(&spot.host[..], mode)?;
        return DONE;
    }
    if allows(&asking, facts, wanted) {
        return DONE;
    }
    Err(Errno::ACCESS)
}

pub(super) fn statfs(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = tracer.place_at(call, HERE, 0, Follow::Yes)?;
    if !spot.exists() {
        return Err(Errno::NOENT);
    }
    let host = if spot.mount == 0 { tracer.union.work.clone() } else { spot.host.clone() };
    let run = super::Run::with_path(0, &host);
    Ok(Action::Run(run))
}

pub(super) fn fstatfs(_: &mut Tracer, _: &Call) -> Outcome {
    Ok(Action::Pass)
}
