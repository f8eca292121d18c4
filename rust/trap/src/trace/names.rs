//! Calls that make, move, read and remove names: carried out here.

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, Statx, CWD};
use rustix::io::Errno;

use super::open::Loose;
use super::{Action, Outcome, Tracer, DONE};
use crate::call::Call;
use crate::credentials::capability;
use crate::owners::{Device, Record};
use crate::permission::{owns, EXECUTE, WRITE};
use crate::union::{lstat, parent, Follow, Kind, Spot};
use crate::view::HERE;

pub(super) fn readlink(tracer: &mut Tracer, call: &Call) -> Outcome {
    read(tracer, call, HERE, 0)
}

pub(super) fn readlinkat(tracer: &mut Tracer, call: &Call) -> Outcome {
    read(tracer, call, call.int(0), 1)
}

fn read(tracer: &mut Tracer, call: &Call, directory: i32, index: usize) -> Outcome {
    let room = call.int(index + 2);
    if room <= 0 {
        return Err(Errno::INVAL);
    }
    let path = call.text(index)?;
    let spot = if path.is_empty() {
        tracer.spot_of_descriptor(call, directory)?.ok_or(Errno::NOENT)?
    } else {
        tracer.place(call, directory, &path, Follow::No)?
    };
    match spot.kind {
        Kind::Missing => return Err(Errno::NOENT),
        Kind::Link => {}
        _ => return Err(Errno::INVAL),
    }
    let target = match tracer.target(call, &spot)? {
        Some(target) => target,
        None => rustix::fs::readlinkat(CWD, &spot.host[..], Vec::with_capacity(256))?.into_bytes(),
    };
    let length = target.len().min(room as usize);
    call.write(index + 1, &target[..length])?;
    Ok(Action::Answer(length as i64))
}

pub(super) fn mkdir(tracer: &mut Tracer, call: &Call) -> Outcome {
    make_directory(tracer, call, HERE, 0)
}

pub(super) fn mkdirat(tracer: &mut Tracer, call: &Call) -> Outcome {
    make_directory(tracer, call, call.int(0), 1)
}

fn make_directory(tracer: &mut Tracer, call: &Call, directory: i32, path: usize) -> Outcome {
    let mode = call.word(path + 1);
    make(tracer, call, directory, path, true, |tracer, call, to| {
        let umask = tracer.world.view.umask(call)?;
        let inherited = lstat(parent(to)).map_or(0, |above| u32::from(above.stx_mode) & 0o2000);
        // mkdir(2) takes the sticky bit, and setgid from the directory above alone.
        let mode = Mode::from_raw_mode(mode & 0o1777 & !umask | inherited);
        rustix::fs::mkdirat(CWD, to, mode)?;
        if inherited != 0 {
            rustix::fs::chmodat(CWD, to, mode, AtFlags::empty())?;
        }
        Ok(None)
    })
}

/// Makes a name by `work`, which is told the host's path, and remembers whose it is.
fn make(
    tracer: &mut Tracer,
    call: &Call,
    directory: i32,
    path: usize,
    is_directory: bool,
    work: impl FnOnce(&mut Tracer, &Call, &[u8]) -> Result<Option<Record>, Errno>,
) -> Outcome {
    let spot = tracer.place_at(call, directory, path, Follow::No)?;
    if spot.exists() {
        return Err(Errno::EXIST);
    }
    if spot.wants_directory && !is_directory {
        return Err(Errno::NOENT);
    }
    let owner = tracer.birth(call, &spot)?;
    let (to, hides) = tracer.make_room(&spot)?;
    let loose = Loose::parent(&to);
    let made = work(tracer, call, &to);
    drop(loose);
    tracer.union.made(&spot, &to, hides)?;
    let record = made?.map_or_else(
        || Record::owned(owner.0, owner.1),
        |record| Record { uid: owner.0, gid: owner.1, ..record },
    );
    if !record.says_nothing() {
        tracer.remember(&to, &spot.path, record)?;
    }
    DONE
}

pub(super) fn symlink(tracer: &mut Tracer, call: &Call) -> Outcome {
    make_symlink(tracer, call, HERE, 1)
}

pub(super) fn symlinkat(tracer: &mut Tracer, call: &Call) -> Outcome {
    make_symlink(tracer, call, call.int(1), 2)
}

fn make_symlink(tracer: &mut Tracer, call: &Call, directory: i32, path: usize) -> Outcome {
    let target = call.text(0)?;
    if target.is_empty() {
        return Err(Errno::NOENT);
    }
    make(tracer, call, directory, path, false, |_, _, to| {
        rustix::fs::symlinkat(&target[..], CWD, to)?;
        Ok(None)
    })
}

pub(super) fn mknod(tracer: &mut Tracer, call: &Call) -> Outcome {
    make_node(tracer, call, HERE, 0)
}

pub(super) fn mknodat(tracer: &mut Tracer, call: &Call) -> Outcome {
    make_node(tracer, call, call.int(0), 1)
}

fn make_node(tracer: &mut Tracer, call: &Call, directory: i32, path: usize) -> Outcome {
    let (kind, number) = (call.word(path + 1), call.word(path + 2));
    let format = match kind & 0o170_000 {
        0o010_000 => FileType::Fifo,
        0o140_000 => FileType::Socket,
        0 | 0o100_000 | 0o020_000 | 0o060_000 => FileType::RegularFile,
        _ => return Err(Errno::INVAL),
    };
    let is_block = kind & 0o170_000 == 0o060_000;
    let device = (is_block || kind & 0o170_000 == 0o020_000).then_some(Device {
        is_block,
        major: number >> 8 & 0xfff,
        minor: (number & 0xff) | (number >> 12 & 0xf_ff00),
    });
    if device.is_some() && !tracer.world.caller(call)?.can(capability::MKNOD) {
        return Err(Errno::PERM);
    }
    make(tracer, call, directory, path, false, |tracer, call, to| {
        let mode = Mode::from_raw_mode(kind & 0o7777 & !tracer.world.view.umask(call)?);
        rustix::fs::mknodat(CWD, to, format, mode, 0)?;
        Ok(device.map(|device| Record { device: Some(device), ..Record::default() }))
    })
}

pub(super) fn unlink(tracer: &mut Tracer, call: &Call) -> Outcome {
    remove(tracer, call, HERE, 0, false)
}

pub(super) fn rmdir(tracer: &mut Tracer, call: &Call) -> Outcome {
    remove(tracer, call, HERE, 0, true)
}

pub(super) fn unlinkat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let flags = call.int(2);
    if flags & !libc::AT_REMOVEDIR != 0 {
        return Err(Errno::INVAL);
    }
    remove(tracer, call, call.int(0), 1, flags != 0)
}

fn remove(tracer: &mut Tracer, call: &Call, directory: i32, index: usize, is_directory: bool) -> Outcome {
    let path = call.text(index)?;
    let trimmed = path.strip_suffix(b"/").unwrap_or(&path);
    match trimmed.rsplit(|byte| *byte == b'/').next() {
        Some(b".") if is_directory => return Err(Errno::INVAL),
        Some(b"..") if is_directory => return Err(Errno::NOTEMPTY),
        _ => {}
    }
    let spot = tracer.place(call, directory, trimmed_unless_root(&path, trimmed), Follow::No)?;
    if !spot.exists() {
        return Err(Errno::NOENT);
    }
    if path.len() != trimmed.len() && !spot.is_directory() {
        return Err(Errno::NOTDIR);
    }
    let stat = super::stat::found(tracer, &spot)?;
    may_take_away(tracer, call, &spot, &stat)?;
    let loose = Loose::parent(&spot.host);
    let removed = tracer.union.remove(&spot, is_directory, &mut tracer.copied);
    drop(loose);
    removed?;
    forget(tracer, &spot, &stat)
}

fn trimmed_unless_root<'a>(path: &'a [u8], trimmed: &'a [u8]) -> &'a [u8] {
    if trimmed.is_empty() {
        path
    } else {
        trimmed
    }
}

/// Forgets a file whose last name was taken away.
fn forget(tracer: &mut Tracer, spot: &Spot, stat: &Statx) -> Outcome {
    if !spot.is_upper && spot.mount == 0 {
        return DONE;
    }
    if stat.stx_nlink <= 1 || spot.is_directory() {
        let file_system = tracer.file_system(&spot.path, stat);
        tracer.world.owners.forget(file_system, stat).map_err(crate::call::errno)?;
        tracer.origins.remove(&super::stat::identity(stat));
    }
    DONE
}

/// Write permission on the directory, and in a sticky one the file or the directory itself.
fn may_take_away(tracer: &mut Tracer, call: &Call, spot: &Spot, stat: &Statx) -> Result<(), Errno> {
    if tracer.world.is_plain_root(call)? {
        return Ok(());
    }
    let above = parent(&spot.path).to_vec();
    let index = tracer.union.mount_of(&above);
    let directory = tracer.union.at_mount(index, &above)?;
    let found = super::stat::found(tracer, &directory)?;
    tracer.require(call, &directory, &found, WRITE | EXECUTE)?;
    let who = tracer.world.caller(call)?;
    let is_sticky = u32::from(found.stx_mode) & 0o1000 != 0;
    let (owner, of_directory) = (tracer.facts(spot, stat).uid, tracer.facts(&directory, &found).uid);
    if is_sticky && who.uid.fs != of_directory && !owns(who, owner) {
        return Err(Errno::PERM);
    }
    Ok(())
}

pub(super) fn rename(tracer: &mut Tracer, call: &Call) -> Outcome {
    move_name(tracer, call, (HERE, 0), (HERE, 1), 0)
}

pub(super) fn renameat(tracer: &mut Tracer, call: &Call) -> Outcome {
    move_name(tracer, call, (call.int(0), 1), (call.int(2), 3), 0)
}

pub(super) fn renameat2(tracer: &mut Tracer, call: &Call) -> Outcome {
    move_name(tracer, call, (call.int(0), 1), (call.int(2), 3), call.word(4))
}

fn move_name(tracer: &mut Tracer, call: &Call, old: (i32, usize), new: (i32, usize), flags: u32) -> Outcome {
    let mut from = last_name(tracer, call, old)?;
    let to = last_name(tracer, call, new)?;
    if !from.exists() {
        return Err(Errno::NOENT);
    }
    let stat = super::stat::found(tracer, &from)?;
    may_take_away(tracer, call, &from, &stat)?;
    let replaced = match to.exists() {
        true => {
            let there = super::stat::found(tracer, &to)?;
            may_take_away(tracer, call, &to, &there)?;
            Some(there)
        }
        false => {
            tracer.birth(call, &to)?;
            None
        }
    };
    if replaced.is_some_and(|there| super::stat::identity(&there) == super::stat::identity(&stat))
        && flags == 0
    {
        return DONE;
    }
    let flags = RenameFlags::from_bits_retain(flags);
    let mut to = to;
    // Whose a copy is must be known before it moves on: it is remembered by where it was made.
    let may_replace = !to.is_directory() || flags.contains(RenameFlags::EXCHANGE);
    if from.mount == to.mount && !from.is_directory() && may_replace {
        tracer.union.bring_up(&mut from, &mut tracer.copied)?;
        if flags.contains(RenameFlags::EXCHANGE) && to.exists() && !to.is_directory() {
            tracer.union.bring_up(&mut to, &mut tracer.copied)?;
        }
        tracer.settle();
    }
    let loose = (Loose::parent(&from.host), Loose::parent(&to.host));
    let renamed = tracer.union.rename(&mut from, &to, flags, &mut tracer.copied);
    drop(loose);
    tracer.settle();
    renamed?;
    match replaced {
        Some(there) if !flags.contains(RenameFlags::EXCHANGE) => forget(tracer, &to, &there),
        _ => DONE,
    }
}

fn last_name(tracer: &mut Tracer, call: &Call, (directory, index): (i32, usize)) -> Result<Spot, Errno> {
    let path = call.text(index)?;
    let trimmed = path.trim_ascii_end_slashes();
    match trimmed.rsplit(|byte| *byte == b'/').next() {
        Some(b"." | b"..") => return Err(Errno::BUSY),
        Some(b"") if !path.is_empty() => return Err(Errno::BUSY),
        _ => {}
    }
    let mut spot = tracer.place(call, directory, trimmed, Follow::No)?;
    spot.wants_directory = trimmed.len() != path.len();
    Ok(spot)
}

trait Trim {
    fn trim_ascii_end_slashes(&self) -> &[u8];
}

impl Trim for Vec<u8> {
    fn trim_ascii_end_slashes(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        &self[..end]
    }
}

pub(super) fn link(tracer: &mut Tracer, call: &Call) -> Outcome {
    make_link(tracer, call, (HERE, 0), (HERE, 1), 0)
}

pub(super) fn linkat(tracer: &mut Tracer, call: &Call) -> Outcome {
    make_link(tracer, call, (call.int(0), 1), (call.int(2), 3), call.int(4))
}

fn make_link(tracer: &mut Tracer, call: &Call, old: (i32, usize), new: (i32, usize), flags: i32) -> Outcome {
    if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    let path = call.text(old.1)?;
    let follow = if flags & libc::AT_SYMLINK_FOLLOW != 0 { Follow::Yes } else { Follow::No };
    let mut from = if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        let host = format!("/proc/{}/fd/{}", call.pid, old.0).into_bytes();
        Spot {
            path: host.clone(),
            host,
            mount: 0,
            kind: Kind::Link,
            is_upper: true,
            trees: 1,
            is_magic: true,
            wants_directory: false,
        }
    } else {
        tracer.place(call, old.0, &path, follow)?
    };
    let to = tracer.place_at(call, new.0, new.1, Follow::No)?;
    if to.exists() {
        return Err(Errno::EXIST);
    }
    if to.wants_directory {
        return Err(Errno::NOENT);
    }
    tracer.birth(call, &to)?;
    let loose = Loose::parent(&to.host);
    let linked = tracer.union.link(&mut from, &to, &mut tracer.copied);
    drop(loose);
    tracer.settle();
    linked?;
    DONE
}
