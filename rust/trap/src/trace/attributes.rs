//! Modes, owners, times, sizes and extended attributes, by path: carried out here, on a copy where need be.

use rustix::fs::{AtFlags, FileType, Mode, Statx, Timespec, Timestamps, XattrFlags, CWD};
use rustix::io::Errno;

use super::open::Loose;
use super::{Action, Outcome, Tracer, DONE};
use crate::call::Call;
use crate::credentials::KEEP;
use crate::owners::attributes::{self, has_room, keeper, Keeper, LARGEST_VALUE};
use crate::owners::Record;
use crate::permission::{allows, may_give, mode_cut, mode_given, mode_set, owns, READ, WRITE};
use crate::union::{type_of, Follow, Spot};
use crate::view::HERE;

/// The place that a call means; the open file itself for an empty path where that is allowed.
fn place(tracer: &mut Tracer, call: &Call, directory: i32, index: usize, flags: i32) -> Result<Spot, Errno> {
    let path = if call.long(index) == 0 { Vec::new() } else { call.text(index)? };
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        return open_file(tracer, call, directory);
    }
    let follow = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    let spot = tracer.place(call, directory, &path, follow)?;
    if !spot.exists() {
        return Err(Errno::NOENT);
    }
    Ok(spot)
}

/// An open file as a spot: where it has a name, that; else the kernel's link to it.
pub(super) fn open_file(tracer: &mut Tracer, call: &Call, descriptor: i32) -> Result<Spot, Errno> {
    if let Some(spot) = tracer.spot_of_descriptor(call, descriptor)? {
        return Ok(spot);
    }
    let host = match descriptor {
        HERE => format!("/proc/{}/cwd", call.pid),
        _ => format!("/proc/{}/fd/{descriptor}", call.pid),
    };
    Ok(Spot {
        path: host.clone().into_bytes(),
        host: host.into_bytes(),
        mount: 0,
        kind: crate::union::Kind::Link,
        is_upper: true,
        trees: 1,
        is_magic: true,
        wants_directory: false,
    })
}

fn flags_of(spot: &Spot) -> AtFlags {
    if spot.is_magic {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    }
}

/// Has the file where it can be changed, and says what it is.
fn bring_up(tracer: &mut Tracer, spot: &mut Spot) -> Result<Statx, Errno> {
    if !spot.is_magic {
        tracer.union.bring_up(spot, &mut tracer.copied)?;
        tracer.settle();
    }
    super::stat::found(tracer, spot)
}

pub(super) fn chmod(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, 0)?;
    change_mode(tracer, call, spot, call.word(1))
}

pub(super) fn fchmodat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, call.int(0), 1, 0)?;
    change_mode(tracer, call, spot, call.word(2))
}

pub(super) fn fchmodat2(tracer: &mut Tracer, call: &Call) -> Outcome {
    let flags = call.int(3);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    let spot = place(tracer, call, call.int(0), 1, flags)?;
    change_mode(tracer, call, spot, call.word(2))
}

pub(super) fn change_mode(tracer: &mut Tracer, call: &Call, mut spot: Spot, mode: u32) -> Outcome {
    tracer.reconsider(&spot);
    let stat = super::stat::found(tracer, &spot)?;
    if type_of(&stat) == FileType::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    let who = tracer.world.caller(call)?;
    let facts = tracer.facts(&spot, &stat);
    if !owns(who, facts.uid) {
        return Err(Errno::PERM);
    }
    let mode = mode_set(who, facts, mode & 0o7777);
    bring_up(tracer, &mut spot)?;
    rustix::fs::chmodat(CWD, &spot.host[..], Mode::from_raw_mode(mode), AtFlags::empty())?;
    DONE
}

pub(super) fn chown(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, 0)?;
    give(tracer, call, spot, call.word(1), call.word(2))
}

pub(super) fn lchown(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, libc::AT_SYMLINK_NOFOLLOW)?;
    give(tracer, call, spot, call.word(1), call.word(2))
}

pub(super) fn fchownat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let flags = call.int(4);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    let spot = place(tracer, call, call.int(0), 1, flags)?;
    give(tracer, call, spot, call.word(2), call.word(3))
}

pub(super) fn give(tracer: &mut Tracer, call: &Call, mut spot: Spot, uid: u32, gid: u32) -> Outcome {
    // What is made in a setgid directory gets its group.
    tracer.reconsider(&spot);
    let stat = super::stat::found(tracer, &spot)?;
    let (who, facts) = (tracer.world.caller(call)?, tracer.facts(&spot, &stat));
    let (owner, group, mode) = (facts.uid, facts.gid, facts.mode & 0o7777);
    let kept = mode_given(who, facts);
    if !may_give(who, (owner, group), uid, gid) || (kept != mode && !owns(who, owner)) {
        return Err(Errno::PERM);
    }
    if uid == KEEP && gid == KEEP && kept == mode {
        return DONE;
    }
    let now = bring_up(tracer, &mut spot)?;
    // The change time is now, whatever changes.
    if kept != mode || type_of(&now) == FileType::RegularFile {
        rustix::fs::chmodat(CWD, &spot.host[..], Mode::from_raw_mode(kept), AtFlags::empty())?;
    }
    let file_system = tracer.file_system(&spot.path, &now);
    let known = tracer.world.owners.find(file_system, &now);
    let record = known.cloned().unwrap_or_else(|| Record::owned(owner, group)).given(uid, gid);
    if record.says_nothing() && known.is_none() {
        return DONE;
    }
    let key = crate::owners::Key::of(file_system, &now);
    tracer.world.owners.set(key, key.inode, record).map_err(crate::call::errno)?;
    DONE
}

pub(super) fn truncate(tracer: &mut Tracer, call: &Call) -> Outcome {
    let mut spot = place(tracer, call, HERE, 0, 0)?;
    let stat = super::stat::found(tracer, &spot)?;
    match type_of(&stat) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    tracer.require(call, &spot, &stat, WRITE)?;
    let now = bring_up(tracer, &mut spot)?;
    let kept = mode_cut(tracer.world.caller(call)?, tracer.facts(&spot, &now));
    let host = spot.host.clone();
    let loose = Loose::open(tracer, &host, &now, WRITE);
    super::Run::with_path(0, &host).then(move |_, _, _| {
        drop(loose);
        keep_mode(&host, kept);
    })
}

/// The kernel, to which nobody here is root, takes more of a file's mode than is due.
pub(super) fn keep_mode(host: &[u8], kept: u32) {
    let is = crate::union::lstat(host).map_or(kept, |stat| u32::from(stat.stx_mode) & 0o7777);
    if is != kept {
        let _ = rustix::fs::chmodat(CWD, host, Mode::from_raw_mode(kept), AtFlags::empty());
    }
}

pub(super) fn utime(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, 0)?;
    let times = match call.long(1) {
        0 => NOW,
        _ => {
            let bytes = call.bytes(1, 16)?;
            Timestamps {
                last_access: seconds(long(&bytes, 0), 0),
                last_modification: seconds(long(&bytes, 8), 0),
            }
        }
    };
    touch(tracer, call, spot, &times, call.long(1) == 0)
}

pub(super) fn utimes(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, 0)?;
    old_times(tracer, call, spot, 1)
}

pub(super) fn futimesat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = match call.long(1) {
        0 => open_file(tracer, call, call.int(0))?,
        _ => place(tracer, call, call.int(0), 1, 0)?,
    };
    old_times(tracer, call, spot, 2)
}

fn old_times(tracer: &mut Tracer, call: &Call, spot: Spot, index: usize) -> Outcome {
    if call.long(index) == 0 {
        return touch(tracer, call, spot, &NOW, true);
    }
    let bytes = call.bytes(index, 32)?;
    if !(0..1_000_000).contains(&long(&bytes, 8)) || !(0..1_000_000).contains(&long(&bytes, 24)) {
        return Err(Errno::INVAL);
    }
    let times = Timestamps {
        last_access: seconds(long(&bytes, 0), long(&bytes, 8) * 1000),
        last_modification: seconds(long(&bytes, 16), long(&bytes, 24) * 1000),
    };
    touch(tracer, call, spot, &times, false)
}

pub(super) fn utimensat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let flags = call.int(3);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    let mut times = NOW;
    if call.long(2) != 0 {
        let bytes = call.bytes(2, 32)?;
        times.last_access = seconds(long(&bytes, 0), long(&bytes, 8));
        times.last_modification = seconds(long(&bytes, 16), long(&bytes, 24));
    }
    let (a, m) = (times.last_access.tv_nsec, times.last_modification.tv_nsec);
    if a == libc::UTIME_OMIT && m == libc::UTIME_OMIT {
        return DONE;
    }
    let is_now = a == libc::UTIME_NOW && m == libc::UTIME_NOW;
    let spot = match call.long(1) {
        0 if call.int(0) == HERE => return Err(Errno::FAULT),
        0 => open_file(tracer, call, call.int(0))?,
        _ => place(tracer, call, call.int(0), 1, flags)?,
    };
    touch(tracer, call, spot, &times, is_now)
}

const NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
    last_modification: Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
};

fn seconds(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec }
}

fn long(bytes: &[u8], at: usize) -> i64 {
    i64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn touch(tracer: &mut Tracer, call: &Call, mut spot: Spot, times: &Timestamps, is_now: bool) -> Outcome {
    let stat = super::stat::found(tracer, &spot)?;
    let who = tracer.world.caller(call)?;
    let facts = tracer.facts(&spot, &stat);
    if !(owns(who, facts.uid) || is_now && allows(who, facts, WRITE)) {
        return Err(if is_now { Errno::ACCESS } else { Errno::PERM });
    }
    bring_up(tracer, &mut spot)?;
    rustix::fs::utimensat(CWD, &spot.host[..], times, flags_of(&spot))?;
    DONE
}

pub(super) fn setxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, 0)?;
    set(tracer, call, spot)
}

pub(super) fn lsetxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, libc::AT_SYMLINK_NOFOLLOW)?;
    set(tracer, call, spot)
}

pub(super) fn set(tracer: &mut Tracer, call: &Call, mut spot: Spot) -> Outcome {
    tracer.reconsider(&spot);
    let name = attributes::name(call.text(1)?)?;
    if call.long(3) > LARGEST_VALUE as u64 {
        return Err(Errno::TOOBIG);
    }
    let value = call.bytes(2, call.long(3) as usize)?;
    let flags = call.int(4);
    let stat = super::stat::found(tracer, &spot)?;
    match keeper(&name) {
        Keeper::Nobody => return Err(Errno::OPNOTSUPP),
        Keeper::Disk => {
            attributes::may_write(tracer.world.caller(call)?, tracer.facts(&spot, &stat))?;
            let now = bring_up(tracer, &mut spot)?;
            let loose = Loose::open(tracer, &spot.host, &now, WRITE);
            let flags = XattrFlags::from_bits_retain(flags as u32);
            let done = match spot.is_magic {
                true => rustix::fs::setxattr(&spot.host[..], &name[..], &value, flags),
                false => rustix::fs::lsetxattr(&spot.host[..], &name[..], &value, flags),
            };
            drop(loose);
            done?;
            return DONE;
        }
        Keeper::Record => {}
    }
    let facts = tracer.facts(&spot, &stat);
    let known = tracer.world.owners.find(tracer.file_system(&spot.path, &stat), &stat);
    let is_known = known.is_some();
    let mut record = known.cloned().unwrap_or_else(|| Record::owned(facts.uid, facts.gid));
    let mode = attributes::set(tracer.world.caller(call)?, facts, &mut record, (name, value), flags)?;
    let now = bring_up(tracer, &mut spot)?;
    if let Some(mode) = mode {
        rustix::fs::chmodat(CWD, &spot.host[..], Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    if record.says_nothing() && !is_known {
        return DONE;
    }
    let key = crate::owners::Key::of(tracer.file_system(&spot.path, &now), &now);
    tracer.world.owners.set(key, key.inode, record).map_err(crate::call::errno)?;
    DONE
}

pub(super) fn getxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, 0)?;
    get(tracer, call, &spot)
}

pub(super) fn lgetxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, libc::AT_SYMLINK_NOFOLLOW)?;
    get(tracer, call, &spot)
}

pub(super) fn get(tracer: &mut Tracer, call: &Call, spot: &Spot) -> Outcome {
    let name = attributes::name(call.text(1)?)?;
    let stat = super::stat::found(tracer, spot)?;
    match keeper(&name) {
        Keeper::Nobody => Err(Errno::NODATA),
        Keeper::Record => {
            let who = tracer.world.caller(call)?;
            let record = tracer.world.owners.find(tracer.file_system(&spot.path, &stat), &stat);
            let shown = |record| attributes::shown(who, record, &name, u32::from(stat.stx_mode));
            hand_over(call, 2, &record.and_then(shown).ok_or(Errno::NODATA)?)
        }
        Keeper::Disk => {
            if has_room(u32::from(stat.stx_mode)) {
                tracer.require(call, spot, &stat, READ)?;
            }
            let mut value = vec![0; LARGEST_VALUE];
            let length = match spot.is_magic {
                true => rustix::fs::getxattr(&spot.host[..], &name[..], &mut value)?,
                false => rustix::fs::lgetxattr(&spot.host[..], &name[..], &mut value)?,
            };
            hand_over(call, 2, &value[..length])
        }
    }
}

fn hand_over(call: &Call, index: usize, value: &[u8]) -> Outcome {
    let room = call.long(index + 1) as usize;
    if room > 0 {
        if value.len() > room {
            return Err(Errno::RANGE);
        }
        call.write(index, value)?;
    }
    Ok(Action::Answer(value.len() as i64))
}

pub(super) fn listxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, 0)?;
    list(tracer, call, &spot)
}

pub(super) fn llistxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, libc::AT_SYMLINK_NOFOLLOW)?;
    list(tracer, call, &spot)
}

pub(super) fn list(tracer: &mut Tracer, call: &Call, spot: &Spot) -> Outcome {
    let stat = super::stat::found(tracer, spot)?;
    let mut names = vec![0; LARGEST_VALUE];
    let length = match spot.is_magic {
        true => rustix::fs::listxattr(&spot.host[..], &mut names)?,
        false => rustix::fs::llistxattr(&spot.host[..], &mut names)?,
    };
    let mut shown = Vec::new();
    let on_disk = names[..length].split(|byte| *byte == 0).filter(|name| keeper(name) == Keeper::Disk);
    for name in on_disk {
        shown.extend_from_slice(name);
        shown.push(0);
    }
    let record = tracer.world.owners.find(tracer.file_system(&spot.path, &stat), &stat);
    if let Some(record) = record {
        shown.extend(attributes::names(tracer.world.caller(call)?, record));
    }
    hand_over(call, 1, &shown)
}

pub(super) fn removexattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, 0)?;
    remove(tracer, call, spot)
}

pub(super) fn lremovexattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = place(tracer, call, HERE, 0, libc::AT_SYMLINK_NOFOLLOW)?;
    remove(tracer, call, spot)
}

pub(super) fn remove(tracer: &mut Tracer, call: &Call, mut spot: Spot) -> Outcome {
    tracer.reconsider(&spot);
    let name = attributes::name(call.text(1)?)?;
    let stat = super::stat::found(tracer, &spot)?;
    match keeper(&name) {
        Keeper::Nobody => return Err(Errno::OPNOTSUPP),
        Keeper::Disk => {
            attributes::may_write(tracer.world.caller(call)?, tracer.facts(&spot, &stat))?;
            bring_up(tracer, &mut spot)?;
            match spot.is_magic {
                true => rustix::fs::removexattr(&spot.host[..], &name[..])?,
                false => rustix::fs::lremovexattr(&spot.host[..], &name[..])?,
            }
            return DONE;
        }
        Keeper::Record => {}
    }
    let facts = tracer.facts(&spot, &stat);
    let known = tracer.world.owners.find(tracer.file_system(&spot.path, &stat), &stat);
    let mut record = known.cloned().unwrap_or_else(|| Record::owned(facts.uid, facts.gid));
    let (had, mode) = attributes::remove(tracer.world.caller(call)?, facts, &mut record, &name)?;
    if !had && mode.is_none() {
        return DONE;
    }
    let now = bring_up(tracer, &mut spot)?;
    if let Some(mode) = mode {
        rustix::fs::chmodat(CWD, &spot.host[..], Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    if had {
        let key = crate::owners::Key::of(tracer.file_system(&spot.path, &now), &now);
        tracer.world.owners.set(key, key.inode, record).map_err(crate::call::errno)?;
    }
    DONE
}
