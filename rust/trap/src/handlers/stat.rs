//! stat(2) and its kin: answered by us for files with a record, by the kernel for all others.

use rustix::fs::Statx;

use crate::call::{Call, Outcome, Verdict, DONE, GO_ON};
use crate::owners::Device;
use crate::view::{At, HERE};
use crate::world::World;

pub fn stat(world: &mut World, call: &Call) -> Outcome {
    by_path(world, call, HERE, 0, true, 1)
}

pub fn lstat(world: &mut World, call: &Call) -> Outcome {
    by_path(world, call, HERE, 0, false, 1)
}

pub fn fstat(world: &mut World, call: &Call) -> Outcome {
    if has_nothing_to_say(world) {
        return GO_ON;
    }
    let Ok(at) = world.view.at_descriptor(call, call.int(0).max(-1)) else { return GO_ON };
    answer(world, call, &at, 1)
}

pub fn newfstatat(world: &mut World, call: &Call) -> Outcome {
    let flags = call.int(3);
    if flags & libc::AT_EMPTY_PATH != 0 {
        if has_nothing_to_say(world) {
            return GO_ON;
        }
        // glibc's fstat. The path may be NULL since 6.11.
        let path = if call.long(1) == 0 { Vec::new() } else { call.text(1)? };
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        if !follow && world.is_unheard_of(&path) {
            return GO_ON;
        }
        let Ok(at) = world.view.at_or_descriptor(call, call.int(0), &path, follow, true) else {
            return GO_ON;
        };
        return answer(world, call, &at, 2);
    }
    by_path(world, call, call.int(0), 1, flags & libc::AT_SYMLINK_NOFOLLOW == 0, 2)
}

pub fn statx(world: &mut World, call: &Call) -> Outcome {
    if has_nothing_to_say(world) {
        return GO_ON;
    }
    let flags = call.int(2);
    let path = if call.long(1) == 0 { Vec::new() } else { call.text(1)? };
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    if !follow && world.is_unheard_of(&path) {
        return GO_ON;
    }
    let may_be_empty = flags & libc::AT_EMPTY_PATH != 0;
    let Ok(at) = world.view.at_or_descriptor(call, call.int(0), &path, follow, may_be_empty) else {
        return GO_ON;
    };
    let Ok(found) = world.view.stat(&at) else { return GO_ON };
    match seen(world, &at, &found) {
        None => GO_ON,
        Some(shown) => {
            call.write(4, &extended(&found, &shown))?;
            DONE
        }
    }
}

fn has_nothing_to_say(world: &World) -> bool {
    world.owners.is_empty() && world.known.are_all_root()
}

fn by_path(
    world: &mut World,
    call: &Call,
    directory: i32,
    path: usize,
    follow: bool,
    room: usize,
) -> Outcome {
    if has_nothing_to_say(world) {
        return GO_ON;
    }
    let path = call.text(path)?;
    if !follow && world.is_unheard_of(&path) {
        return GO_ON;
    }
    let Ok(at) = world.view.at(call, directory, &path, follow) else { return GO_ON };
    answer(world, call, &at, room)
}

fn answer(world: &World, call: &Call, at: &At, room: usize) -> Outcome {
    // What fails for us fails for the kernel too, and it knows best how.
    let Ok(found) = world.view.stat(at) else { return GO_ON };
    match seen(world, at, &found) {
        None => GO_ON,
        Some(shown) => {
            call.write(room, &plain(&found, &shown))?;
            Ok(Verdict::Value(0))
        }
    }
}

/// What is shown instead.
pub(crate) struct Shown {
    pub uid: u32,
    pub gid: u32,
    pub device: Option<Device>,
}

fn seen(world: &World, at: &At, found: &Statx) -> Option<Shown> {
    if let Some(record) = world.record(found) {
        return Some(Shown { uid: record.uid, gid: record.gid, device: record.device });
    }
    if !world.known.are_all_root() && world.view.is_proc(found) {
        let (uid, gid) = world.owner_of_proc_entry(at).filter(|ids| *ids != (0, 0))?;
        return Some(Shown { uid, gid, device: None });
    }
    None
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
