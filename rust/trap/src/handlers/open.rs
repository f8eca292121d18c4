//! open(2) and its kin.
//!
//! Root's opens are the kernel's, but for new files in setgid directories, files of layers
//! about to be copied up, and emulated devices. For others the file's owner is asked, and
//! new files are made here and handed over. Everybody's /proc/PID/status is rewritten when
//! the process it is about is not root.

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::names::{birth, birth_at, Birth, Kind};
use crate::call::{Call, Outcome, Verdict, GO_ON};
use crate::owners::Device;
use crate::permission::{owns, EXECUTE, READ, WRITE};
use crate::view::HERE;
use crate::walk::{End, Walk, MOST_LINKS};
use crate::world::{is_directory, World};

const ACCESS: u32 = 3;
const WRITES: u32 = libc::O_WRONLY as u32 | libc::O_RDWR as u32;
const CREAT: u32 = libc::O_CREAT as u32;
const EXCL: u32 = libc::O_EXCL as u32;
const TRUNC: u32 = libc::O_TRUNC as u32;
const CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const PATH: u32 = libc::O_PATH as u32;
const DIRECTORY: u32 = libc::O_DIRECTORY as u32;
/// The bit of O_TMPFILE that is not O_DIRECTORY's.
const TMPFILE: u32 = libc::O_TMPFILE as u32 & !(libc::O_DIRECTORY as u32);

struct Wish {
    directory: i32,
    path: usize,
    flags: u32,
    mode: u32,
    /// RESOLVE_ flags have a say in where the path leads.
    is_bound: bool,
}

impl Wish {
    /// Whether nothing may be there.
    fn is_new(&self) -> bool {
        self.flags & (CREAT | EXCL) == CREAT | EXCL && self.flags & PATH == 0
    }
}

pub fn open(world: &mut World, call: &Call) -> Outcome {
    act(
        world,
        call,
        &Wish { directory: HERE, path: 0, flags: call.word(1), mode: call.word(2), is_bound: false },
    )
}

pub fn creat(world: &mut World, call: &Call) -> Outcome {
    let flags = CREAT | TRUNC | libc::O_WRONLY as u32;
    act(world, call, &Wish { directory: HERE, path: 0, flags, mode: call.word(1), is_bound: false })
}

pub fn openat(world: &mut World, call: &Call) -> Outcome {
    act(
        world,
        call,
        &Wish { directory: call.int(0), path: 1, flags: call.word(2), mode: call.word(3), is_bound: false },
    )
}

/// RESOLVE_* restrictions are left to the kernel: such a call is only checked, and runs there.
pub fn openat2(world: &mut World, call: &Call) -> Outcome {
    let how = call.bytes(2, 24)?;
    let long = |at: usize| u64::from_ne_bytes(how[at..at + 8].try_into().unwrap_or_default());
    let (flags, mode, is_bound) = (long(0) as u32, long(8) as u32, long(16) != 0);
    let mut wish = Wish { directory: call.int(0), path: 1, flags, mode, is_bound };
    if is_bound {
        wish.flags &= !(CREAT | TMPFILE);
    }
    act(world, call, &wish)
}

fn act(world: &mut World, call: &Call, wish: &Wish) -> Outcome {
    let plain = world.is_plain_root(call)?;
    let writes = wish.flags & (WRITES | TRUNC | CREAT) != 0;
    let is_quiet = world.known.are_all_root() && !world.owners.has_devices();
    if plain && (wish.flags & (PATH | TMPFILE) != 0 || (!writes && is_quiet)) {
        return GO_ON;
    }
    if plain && world.known.are_all_root() && world.owners.is_empty() {
        return GO_ON;
    }
    let path = call.text(wish.path)?;
    if !writes && path.ends_with(b"status") {
        if let Some(rewritten) = super::status::rewrite(world, call, wish.directory, &path) {
            let close_on_exec = wish.flags & CLOEXEC != 0;
            return Ok(Verdict::Descriptor { fd: rewritten?, close_on_exec });
        }
    }
    if wish.flags & TMPFILE != 0 {
        return nameless(world, call, wish, &path);
    }
    let follow = wish.flags & (libc::O_NOFOLLOW as u32) == 0 && !wish.is_new();
    if !plain {
        return for_others(world, call, wish, &path, follow);
    }
    let Ok(at) = world.view.at(call, wish.directory, &path, follow) else { return GO_ON };
    match world.view.stat(&at) {
        Ok(_) if wish.is_new() => GO_ON, // EEXIST
        Ok(stat) => {
            if let Some(device) = world.record(&stat).and_then(|record| record.device) {
                return open_device(device, wish);
            }
            if writes && world.owners.find_lower(world.view.file_system(&stat), &stat).is_some() {
                world.copy_up(&world.view.hold(&at)?, &stat)?;
            }
            GO_ON
        }
        Err(Errno::NOENT) if wish.flags & CREAT != 0 => {
            let path = if follow { end_of_links(world, call, wish, path)? } else { path };
            match birth(world, call, wish.directory, &path, Kind::Other)? {
                None => GO_ON,
                Some(birth) => create(world, call, wish, &birth),
            }
        }
        Err(_) => GO_ON,
    }
}

/// The order of do_filp_open: the way, the name, what it is, whether it may be opened.
fn for_others(world: &mut World, call: &Call, wish: &Wish, path: &[u8], follow: bool) -> Outcome {
    let is_path = wish.flags & PATH != 0;
    let creates = wish.flags & CREAT != 0 && !is_path;
    let who = world.caller(call)?;
    let mut walk = Walk::new(world, call, who);
    let spot = walk.to_last(wish.directory, path)?;
    let end = match (follow, creates) {
        (true, true) => End::Create,
        (false, true) => End::CreateItself,
        (true, false) => End::Follow,
        (false, false) => End::Itself,
    };
    let (spot, found) = walk.end(spot, end)?;
    let Some(found) = found else {
        if wish.is_bound {
            return GO_ON;
        }
        if !creates {
            return Err(Errno::NOENT);
        }
        let birth = birth_at(world, who, spot)?;
        return create(world, call, wish, &birth);
    };
    let is_directory = is_directory(&found.stat);
    let writes = wish.flags & (WRITES | TRUNC) != 0;
    let is_refused = (creates && (wish.is_new() || is_directory))
        || (wish.flags & DIRECTORY != 0 && !is_directory)
        || found.is_link()
        || (is_directory && writes);
    if is_refused || is_path {
        return GO_ON; // EEXIST, EISDIR, ENOTDIR, ELOOP
    }
    let mut wanted = match wish.flags & ACCESS {
        0 => READ,
        1 => WRITE,
        _ => READ | WRITE,
    };
    if wish.flags & TRUNC != 0 {
        wanted |= WRITE;
    }
    world.require(who, &found, wanted)?;
    if wish.flags & (libc::O_NOATIME as u32) != 0 && !owns(who, world.owner(&found.stat).0) {
        return Err(Errno::PERM);
    }
    if let Some(device) = world.record(&found.stat).and_then(|record| record.device) {
        return open_device(device, wish);
    }
    if writes {
        world.copy_up(&found.file, &found.stat)?;
    }
    if wish.flags & TRUNC != 0 {
        world.cut(call, &found.file, &found.stat)?;
    }
    GO_ON
}

/// Where the file is made that a path means: at the end of the links that it ends in.
fn end_of_links(world: &World, call: &Call, wish: &Wish, mut path: Vec<u8>) -> Result<Vec<u8>, Errno> {
    for _ in 0..MOST_LINKS {
        let Ok(at) = world.view.at(call, wish.directory, &path, false) else { return Ok(path) };
        let Ok(stat) = world.view.stat(&at) else { return Ok(path) };
        if FileType::from_raw_mode(u32::from(stat.stx_mode)) != FileType::Symlink {
            return Ok(path);
        }
        let link = world.view.hold(&at)?;
        let target = rustix::fs::readlinkat(&link, c"", Vec::new())?.into_bytes();
        let parent = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        path.truncate(if target.starts_with(b"/") { 0 } else { parent });
        path.extend_from_slice(&target);
    }
    Err(Errno::LOOP)
}

fn create(world: &mut World, call: &Call, wish: &Wish, birth: &Birth) -> Outcome {
    let mode = birth.mode(world, call, wish.mode)?;
    let flags = OFlags::from_bits_retain(wish.flags) | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&birth.entry.directory, &birth.entry.name, flags, mode) {
        Ok(fd) => {
            birth.record(world, wish.mode, FileType::RegularFile)?;
            Ok(Verdict::Descriptor { fd, close_on_exec: wish.flags & CLOEXEC != 0 })
        }
        // Somebody was faster.
        Err(Errno::EXIST) => GO_ON,
        Err(errno) => Err(errno),
    }
}

fn nameless(world: &mut World, call: &Call, wish: &Wish, path: &[u8]) -> Outcome {
    let who = world.caller(call)?;
    let directory = Walk::new(world, call, who).to_file(wish.directory, path, true)?;
    if !is_directory(&directory.stat) || wish.flags & WRITES == 0 {
        return GO_ON; // ENOTDIR, EINVAL
    }
    world.require(who, &directory, WRITE | EXECUTE)?;
    let heritage = world.heritage(who, &directory.stat);
    let mode = heritage.mode(wish.mode, || world.view.umask(call))?;
    let flags = OFlags::from_bits_retain(wish.flags) | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(world.view.proc(), world.view.handle(&directory.file), flags, mode)?;
    let stat = world.view.stat_fd(&fd)?;
    let key = crate::owners::Key::of(world.view.file_system(&stat), &stat);
    world.owners.set_nameless(key, heritage.record(wish.mode, FileType::RegularFile));
    Ok(Verdict::Descriptor { fd, close_on_exec: wish.flags & CLOEXEC != 0 })
}

/// Devices that every container has are there under whatever name; others are not.
fn open_device(device: Device, wish: &Wish) -> Outcome {
    let name = match (device.is_block, device.major, device.minor) {
        (false, 1, 3) => "/dev/null",
        (false, 1, 5) => "/dev/zero",
        (false, 1, 7) => "/dev/full",
        (false, 1, 8) => "/dev/random",
        (false, 1, 9) => "/dev/urandom",
        _ => return Err(Errno::NXIO),
    };
    let flags = OFlags::from_bits_retain(wish.flags & (ACCESS | libc::O_NONBLOCK as u32)) | OFlags::CLOEXEC;
    let fd = rustix::fs::open(name, flags, Mode::empty())?;
    Ok(Verdict::Descriptor { fd, close_on_exec: wish.flags & CLOEXEC != 0 })
}
