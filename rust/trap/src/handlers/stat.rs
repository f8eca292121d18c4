//! stat(2) and its kin: answered by us for files with a record, by the kernel for all others.

use std::os::fd::OwnedFd;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::meant::Naming;
use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::owners::Device;
use crate::walk::Found;
use crate::world::World;

pub fn stat(world: &mut World, call: &Call) -> Outcome {
    answer(world, call, Naming::path(0), 1)
}

pub fn lstat(world: &mut World, call: &Call) -> Outcome {
    answer(world, call, Naming::link(0), 1)
}

pub fn fstat(world: &mut World, call: &Call) -> Outcome {
    answer(world, call, Naming::descriptor(call), 1)
}

/// With AT_EMPTY_PATH glibc's fstat.
pub fn newfstatat(world: &mut World, call: &Call) -> Outcome {
    answer(world, call, Naming::at(call.int(0), 1, call.int(3)), 2)
}

fn answer(world: &World, call: &Call, naming: Naming, room: usize) -> Outcome {
    match seen(world, call, naming)? {
        None => GO_ON,
        Some((found, shown)) => {
            call.write(room, &plain(&found, &shown))?;
            DONE
        }
    }
}

pub fn statx(world: &mut World, call: &Call) -> Outcome {
    match seen(world, call, Naming::at(call.int(0), 1, call.int(2)))? {
        None => GO_ON,
        Some((found, shown)) => {
            call.write(4, &extended(&found, &shown))?;
            DONE
        }
    }
}

/// What is to be shown of a file; `None`: the kernel's answer is right, an error's too.
fn seen(world: &World, call: &Call, naming: Naming) -> Result<Option<(Statx, Shown)>, Errno> {
    if world.known.are_all_root() && world.owners.is_empty() {
        return Ok(None);
    }
    let path = naming.text(call)?;
    let has_way = path.is_some() && !world.is_plain_root(call)?;
    if !has_way {
        if path.as_deref().is_some_and(|path| !naming.follows() && world.is_unheard_of(path)) {
            return Ok(None);
        }
        let Ok(at) = naming.place(world, call, path.as_deref()) else { return Ok(None) };
        let Ok(found) = world.view.stat(&at) else { return Ok(None) };
        return Ok(shown(world, &found, || world.view.hold(&at)).map(|shown| (found, shown)));
    }
    let Found { file, stat } = naming.find(world, call, world.caller(call)?)?;
    Ok(shown(world, &stat, || Ok(file)).map(|shown| (stat, shown)))
}

fn shown(world: &World, found: &Statx, hold: impl FnOnce() -> Result<OwnedFd, Errno>) -> Option<Shown> {
    if let Some(record) = world.record(found) {
        return Some(Shown { uid: record.uid, gid: record.gid, device: record.device });
    }
    if !world.known.are_all_root() && world.view.is_proc(found) {
        let (uid, gid) = world.owner_of_proc_file(hold().ok()?).filter(|ids| *ids != (0, 0))?;
        return Some(Shown { uid, gid, device: None });
    }
    None
}

/// What is shown instead.
pub(crate) struct Shown {
    pub uid: u32,
    pub gid: u32,
    pub device: Option<Device>,
}

impl Shown {
    fn mode(&self, found: &Statx) -> u32 {
        let mode = u32::from(found.stx_mode);
        match self.device {
            Some(device) => (if device.is_block { 0o060_000 } else { 0o020_000 }) | (mode & 0o7777),
            None => mode,
        }
    }

    fn numbers(&self, found: &Statx) -> (u32, u32) {
        self.device
            .map_or((found.stx_rdev_major, found.stx_rdev_minor), |device| (device.major, device.minor))
    }
}

/// makedev(3), as the kernel encodes it for user space.
fn encode(major: u32, minor: u32) -> u64 {
    u64::from(minor & 0xff) | u64::from(major) << 8 | u64::from(minor & !0xff) << 12
}

/// A struct under construction: numbers at offsets.
struct Room(Vec<u8>);

impl Room {
    fn long(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn word(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
}

/// `struct stat` of arch/x86/include/uapi/asm/stat.h.
#[cfg(target_arch = "x86_64")]
pub(crate) fn plain(found: &Statx, shown: &Shown) -> Vec<u8> {
    let mut room = Room(vec![0; 144]);
    room.long(0, encode(found.stx_dev_major, found.stx_dev_minor));
    room.long(8, found.stx_ino);
    room.long(16, u64::from(found.stx_nlink));
    room.word(24, shown.mode(found));
    room.word(28, shown.uid);
    room.word(32, shown.gid);
    let (major, minor) = shown.numbers(found);
    room.long(40, encode(major, minor));
    room.long(48, if shown.device.is_some() { 0 } else { found.stx_size });
    room.long(56, u64::from(found.stx_blksize));
    room.long(64, found.stx_blocks);
    times(&mut room, found, 72);
    room.0
}

/// `struct stat` of include/uapi/asm-generic/stat.h.
#[cfg(target_arch = "aarch64")]
fn plain(found: &Statx, shown: &Shown) -> Vec<u8> {
    let mut room = Room(vec![0; 128]);
    room.long(0, encode(found.stx_dev_major, found.stx_dev_minor));
    room.long(8, found.stx_ino);
    room.word(16, shown.mode(found));
    room.word(20, found.stx_nlink);
    room.word(24, shown.uid);
    room.word(28, shown.gid);
    let (major, minor) = shown.numbers(found);
    room.long(32, encode(major, minor));
    room.long(48, if shown.device.is_some() { 0 } else { found.stx_size });
    room.word(56, found.stx_blksize);
    room.long(64, found.stx_blocks);
    times(&mut room, found, 72);
    room.0
}

fn times(room: &mut Room, found: &Statx, at: usize) {
    for (index, time) in [found.stx_atime, found.stx_mtime, found.stx_ctime].iter().enumerate() {
        room.long(at + 16 * index, time.tv_sec as u64);
        room.long(at + 16 * index + 8, u64::from(time.tv_nsec));
    }
}

/// `struct statx` of linux/stat.h.
pub(crate) fn extended(found: &Statx, shown: &Shown) -> Vec<u8> {
    let mut room = Room(vec![0; 256]);
    room.word(0, found.stx_mask);
    room.word(4, found.stx_blksize);
    room.long(8, found.stx_attributes.bits());
    room.word(16, found.stx_nlink);
    room.word(20, shown.uid);
    room.word(24, shown.gid);
    room.0[28..30].copy_from_slice(&(shown.mode(found) as u16).to_ne_bytes());
    room.long(32, found.stx_ino);
    room.long(40, if shown.device.is_some() { 0 } else { found.stx_size });
    room.long(48, found.stx_blocks);
    room.long(56, found.stx_attributes_mask.bits());
    let times = [found.stx_atime, found.stx_btime, found.stx_ctime, found.stx_mtime];
    for (index, time) in times.iter().enumerate() {
        room.long(64 + 16 * index, time.tv_sec as u64);
        room.word(64 + 16 * index + 8, time.tv_nsec);
    }
    let (major, minor) = shown.numbers(found);
    room.word(128, major);
    room.word(132, minor);
    room.word(136, found.stx_dev_major);
    room.word(140, found.stx_dev_minor);
    room.long(144, found.stx_mnt_id);
    room.0
}
