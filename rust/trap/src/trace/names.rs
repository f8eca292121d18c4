//! Calls that make, move, read and remove names: carried out here.

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, Statx, CWD};
use rustix::io::Errno;

use super::open::Loose;
use super::{Action, Outcome, Tracer, DONE};
use crate::call::Call;
use crate::credentials::capability;
use crate::owners::{Device, Record};
use crate::permission::{may_link, owns, EXECUTE, WRITE};
use crate::union::{lstat, parent, Follow, Kind, Spot};
use crate::view::HERE;
use crate::world::Heritage;

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
    let what = Making { is_directory: true, needs: 0 };
    make(tracer, call, (directory, path), &what, |tracer, heritage, to| {
        let inherited = lstat(parent(to)).map_or(0, |above| u32::from(above.stx_mode) & 0o2000);
        let bits = heritage.mode(mode, || tracer.world.view.umask(call))?.as_raw_mode();
        // mkdir(2) takes the sticky bit, and setgid from the directory above alone.
        let bits = Mode::from_raw_mode(bits & 0o1777 | inherited);
        rustix::fs::mkdirat(CWD, to, bits)?;
        if inherited != 0 {
            rustix::fs::chmodat(CWD, to, bits, AtFlags::empty())?;
        }
        Ok(heritage.record(mode, FileType::Directory))
    })
}

/// What is made.
struct Making {
    /// Only a directory's name may be followed by slashes.
    is_directory: bool,
    /// Only who has this capability may.
    needs: u64,
}

/// Makes a name by `work`, which is told the host's path, and remembers whose it is.
fn make(
    tracer: &mut Tracer,
    call: &Call,
    (directory, path): (i32, usize),
    what: &Making,
    work: impl FnOnce(&mut Tracer, &Heritage, &[u8]) -> Result<Record, Errno>,
) -> Outcome {
    let spot = free(tracer, call, (directory, path), what.is_directory)?;
    let heritage = tracer.birth(call, &spot)?;
    if what.needs != 0 && !tracer.world.caller(call)?.can(what.needs) {
        return Err(Errno::PERM);
    }
    let (to, hides) = tracer.make_room(&spot)?;
    let loose = Loose::parent(&to);
    let made = work(tracer, &heritage, &to);
    drop(loose);
    tracer.union.made(&spot, &to, hides)?;
    let record = made?;
    if !record.says_nothing() {
        tracer.remember(&to, &spot.path, record)?;
    }
    DONE
}

/// The last component of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Name,
    Dot,
    DotDot,
    Root,
}

/// Where a path leads, its last component itself.
struct Named {
    spot: Spot,
    last: Last,
    has_slashes: bool,
}

fn split(path: &[u8]) -> (&[u8], Last, bool) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let last = match path[..end].rsplit(|byte| *byte == b'/').next() {
        Some(b".") => Last::Dot,
        Some(b"..") => Last::DotDot,
        Some(b"") if !path.is_empty() => return (path, Last::Root, true),
        _ => Last::Name,
    };
    (&path[..end], last, end < path.len())
}

/// Whether a path ends in a name and slashes.
pub(super) fn is_slashed_name(path: &[u8]) -> bool {
    let (_, last, has_slashes) = split(path);
    last == Last::Name && has_slashes
}

/// Walks to a path's last component, which need not be there.
pub(super) fn walk_to_name(
    tracer: &mut Tracer,
    call: &Call,
    directory: i32,
    path: &[u8],
) -> Result<Spot, Errno> {
    tracer.place(call, directory, split(path).0, Follow::No)
}

/// Walks first, so that the way is what is refused first.
fn named(tracer: &mut Tracer, call: &Call, (directory, index): (i32, usize)) -> Result<Named, Errno> {
    let path = call.text(index)?;
    let (_, last, has_slashes) = split(&path);
    Ok(Named { spot: walk_to_name(tracer, call, directory, &path)?, last, has_slashes })
}

/// A name that nothing has.
fn free(tracer: &mut Tracer, call: &Call, place: (i32, usize), is_directory: bool) -> Result<Spot, Errno> {
    let Named { spot, last, has_slashes } = named(tracer, call, place)?;
    if last != Last::Name || spot.exists() {
        return Err(Errno::EXIST);
    }
    if has_slashes && !is_directory {
        return Err(Errno::NOENT);
    }
    Ok(spot)
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
    let what = Making { is_directory: false, needs: 0 };
    make(tracer, call, (directory, path), &what, |_, heritage, to| {
        rustix::fs::symlinkat(&target[..], CWD, to)?;
        Ok(heritage.record(0o777, FileType::Symlink))
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
        0o040_000 => return Err(Errno::PERM),
        _ => return Err(Errno::INVAL),
    };
    let is_block = kind & 0o170_000 == 0o060_000;
    let device = (is_block || kind & 0o170_000 == 0o020_000).then_some(Device {
        is_block,
        major: number >> 8 & 0xfff,
        minor: (number & 0xff) | (number >> 12 & 0xf_ff00),
    });
    let what = Making { is_directory: false, needs: if device.is_some() { capability::MKNOD } else { 0 } };
    make(tracer, call, (directory, path), &what, |tracer, heritage, to| {
        let mode = heritage.mode(kind, || tracer.world.view.umask(call))?;
        rustix::fs::mknodat(CWD, to, format, mode, 0)?;
        Ok(Record { device, ..heritage.record(kind, format) })
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
    let Named { spot, last, has_slashes } = named(tracer, call, (directory, index))?;
    match last {
        Last::Name => {}
        _ if !is_directory => return Err(Errno::ISDIR),
        Last::Dot => return Err(Errno::INVAL),
        Last::DotDot => return Err(Errno::NOTEMPTY),
        Last::Root => return Err(Errno::BUSY),
    }
    if !spot.exists() {
        return Err(Errno::NOENT);
    }
    if has_slashes && !is_directory {
        return Err(if spot.is_directory() { Errno::ISDIR } else { Errno::NOTDIR });
    }
    let stat = super::stat::found(tracer, &spot)?;
    may_take_away(tracer, call, &spot, &stat)?;
    let loose = Loose::parent(&spot.host);
    let removed = tracer.union.remove(&spot, is_directory, &mut tracer.copied);
    drop(loose);
    removed?;
    forget(tracer, &spot, &stat)
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

/// The order of do_renameat2 and vfs_rename.
fn move_name(tracer: &mut Tracer, call: &Call, old: (i32, usize), new: (i32, usize), flags: u32) -> Outcome {
    const KNOWN: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
    if flags & !KNOWN != 0 || flags & KNOWN == KNOWN {
        return Err(Errno::INVAL);
    }
    let (exchanges, keeps) = (flags & libc::RENAME_EXCHANGE != 0, flags & libc::RENAME_NOREPLACE != 0);
    let Named { spot: mut from, last: last_old, has_slashes: slashes_old } = named(tracer, call, old)?;
    let Named { spot: to, last: last_new, has_slashes: slashes_new } = named(tracer, call, new)?;
    if from.mount != to.mount {
        return Err(Errno::XDEV);
    }
    if last_old != Last::Name || last_new != Last::Name {
        return Err(if last_old == Last::Name && keeps { Errno::EXIST } else { Errno::BUSY });
    }
    match (from.exists(), to.exists()) {
        (false, _) => return Err(Errno::NOENT),
        (true, true) if keeps => return Err(Errno::EXIST),
        (true, false) if exchanges => return Err(Errno::NOENT),
        _ => {}
    }
    let is_file_with_slashes = !from.is_directory() && (slashes_old || (slashes_new && !exchanges));
    if is_file_with_slashes || (exchanges && slashes_new && !to.is_directory()) {
        return Err(Errno::NOTDIR);
    }
    if holds(&from, &to) {
        return Err(Errno::INVAL);
    }
    if to.exists() && holds(&to, &from) {
        return Err(if exchanges { Errno::INVAL } else { Errno::NOTEMPTY });
    }
    let stat = super::stat::found(tracer, &from)?;
    let replaced = if to.exists() { Some(super::stat::found(tracer, &to)?) } else { None };
    if replaced.is_some_and(|there| super::stat::identity(&there) == super::stat::identity(&stat)) {
        return DONE;
    }
    may_take_away(tracer, call, &from, &stat)?;
    match &replaced {
        Some(there) => may_take_away(tracer, call, &to, there)?,
        None => drop(tracer.birth(call, &to)?),
    }
    match (from.is_directory(), to.is_directory()) {
        (true, false) if to.exists() && !exchanges => return Err(Errno::NOTDIR),
        (false, true) if !exchanges => return Err(Errno::ISDIR),
        _ => {}
    }
    // A directory's `..` changes.
    if parent(&from.path) != parent(&to.path) {
        let other = replaced.as_ref().filter(|_| exchanges).map(|there| (&to, there));
        for (spot, stat) in std::iter::once((&from, &stat)).chain(other) {
            if spot.is_directory() {
                tracer.require(call, spot, stat, WRITE)?;
            }
        }
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

/// Whether a directory is above, or is, another spot.
fn holds(directory: &Spot, other: &Spot) -> bool {
    let beneath = crate::union::join(&directory.path, b"");
    directory.is_directory() && directory.path != other.path && other.path.starts_with(&beneath)
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
    if !from.exists() {
        return Err(Errno::NOENT);
    }
    let to = free(tracer, call, new, false)?;
    if !from.is_magic {
        if from.mount != to.mount {
            return Err(Errno::XDEV);
        }
        let stat = super::stat::found(tracer, &from)?;
        let is_refused = !may_link(tracer.world.caller(call)?, tracer.facts(&from, &stat));
        if is_refused && tracer.world.view.protects_hard_links {
            return Err(Errno::PERM);
        }
    }
    tracer.birth(call, &to)?;
    let loose = Loose::parent(&to.host);
    let linked = tracer.union.link(&mut from, &to, &mut tracer.copied);
    drop(loose);
    tracer.settle();
    linked?;
    DONE
}
