//! open(2) and its kin: the process opens, but the path is ours.

use rustix::fs::{AtFlags, FileType, Mode, Statx, CWD};
use rustix::io::Errno;

use super::{Action, Argument, Outcome, Run, Tracer};
use crate::call::Call;
use crate::owners::{Device, DEFAULT_LIST};
use crate::permission::{mode_cut, owns, EXECUTE, READ, WRITE};
use crate::union::{lstat, parent, type_of, Follow, Kind, Spot};
use crate::view::HERE;
use crate::world::Heritage;

const WRITES: u32 = (libc::O_WRONLY | libc::O_RDWR) as u32;
const CREAT: u32 = libc::O_CREAT as u32;
const EXCL: u32 = libc::O_EXCL as u32;
const TRUNC: u32 = libc::O_TRUNC as u32;
const PATH: u32 = libc::O_PATH as u32;
const DIRECTORY: u32 = libc::O_DIRECTORY as u32;
const NOFOLLOW: u32 = libc::O_NOFOLLOW as u32;
/// The bit of O_TMPFILE that is not O_DIRECTORY's.
const TMPFILE: u32 = libc::O_TMPFILE as u32 & !DIRECTORY;

const NO_XDEV: u64 = 1;
const NO_MAGICLINKS: u64 = 2;
const NO_SYMLINKS: u64 = 4;
const BENEATH: u64 = 8;
const IN_ROOT: u64 = 16;
const CACHED: u64 = 32;

/// What a call asks for, and how it is spelt.
struct Wish {
    directory: i32,
    path: Vec<u8>,
    flags: u32,
    mode: u32,
    spelling: Spelling,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// open, creat: the path comes first.
    First,
    /// openat.
    Second,
    /// openat2, with a struct open_how of this size.
    How { resolve: u64 },
}

pub(super) fn open(tracer: &mut Tracer, call: &Call) -> Outcome {
    let path = call.text(0)?;
    let (flags, mode) = (call.word(1), call.word(2));
    act(tracer, call, &Wish { directory: HERE, path, flags, mode, spelling: Spelling::First })
}

pub(super) fn creat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let path = call.text(0)?;
    let flags = CREAT | TRUNC | libc::O_WRONLY as u32;
    act(tracer, call, &Wish { directory: HERE, path, flags, mode: call.word(1), spelling: Spelling::First })
}

pub(super) fn openat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let path = call.text(1)?;
    let (flags, mode) = (call.word(2), call.word(3));
    act(tracer, call, &Wish { directory: call.int(0), path, flags, mode, spelling: Spelling::Second })
}

pub(super) fn openat2(tracer: &mut Tracer, call: &Call) -> Outcome {
    let size = call.long(3);
    if size < 24 {
        return Err(Errno::INVAL);
    }
    if size > 4096 {
        return Err(Errno::TOOBIG);
    }
    let how = call.bytes(2, size as usize)?;
    if how[24..].iter().any(|byte| *byte != 0) {
        return Err(Errno::TOOBIG);
    }
    let long = |at: usize| u64::from_ne_bytes(how[at..at + 8].try_into().unwrap_or_default());
    let (flags, mode, resolve) = (long(0), long(8), long(16));
    let known = NO_XDEV | NO_MAGICLINKS | NO_SYMLINKS | BENEATH | IN_ROOT | CACHED;
    let is_new = flags & u64::from(CREAT | TMPFILE) != 0;
    if resolve & !known != 0 || flags >> 32 != 0 || mode & !0o7777 != 0 || (mode != 0 && !is_new) {
        return Err(Errno::INVAL);
    }
    if resolve & CACHED != 0 {
        return Err(Errno::AGAIN);
    }
    let spelling = Spelling::How { resolve };
    let path = call.text(1)?;
    act(
        tracer,
        call,
        &Wish { directory: call.int(0), path, flags: flags as u32, mode: mode as u32, spelling },
    )
}

fn act(tracer: &mut Tracer, call: &Call, wish: &Wish) -> Outcome {
    if wish.flags & TMPFILE != 0 {
        return nameless(tracer, call, wish);
    }
    let is_new = wish.flags & (CREAT | EXCL) == CREAT | EXCL;
    let follow = if wish.flags & NOFOLLOW != 0 || is_new { Follow::No } else { Follow::Yes };
    if wish.flags & CREAT != 0 && wish.flags & PATH == 0 && super::names::is_slashed_name(&wish.path) {
        // The way comes first.
        super::names::walk_to_name(tracer, call, wish.directory, &wish.path)?;
        return Err(Errno::ISDIR);
    }
    let spot = walk(tracer, call, wish, follow)?;
    if !spot.exists() {
        if wish.flags & CREAT == 0 || wish.flags & PATH != 0 {
            return Err(Errno::NOENT);
        }
        if spot.wants_directory {
            return Err(Errno::ISDIR);
        }
        return create(tracer, call, wish, &spot);
    }
    if is_new && wish.flags & PATH == 0 {
        return Err(Errno::EXIST);
    }
    existing(tracer, call, wish, spot)
}

fn walk(tracer: &mut Tracer, call: &Call, wish: &Wish, follow: Follow) -> Result<Spot, Errno> {
    let Spelling::How { resolve } = wish.spelling else {
        return tracer.place(call, wish.directory, &wish.path, follow);
    };
    let base = || tracer.directory(call, wish.directory);
    let spot = if resolve & IN_ROOT != 0 {
        let base = base()?;
        tracer.place_beneath(call, &base, &wish.path, follow)?
    } else if resolve & BENEATH != 0 {
        let base = base()?;
        if wish.path.first() == Some(&b'/') {
            return Err(Errno::XDEV);
        }
        let spot = tracer.place(call, wish.directory, &wish.path, follow)?;
        let prefix = if base == b"/" { base.clone() } else { [&base[..], b"/"].concat() };
        if spot.path != base && !spot.path.starts_with(&prefix) {
            return Err(Errno::XDEV);
        }
        spot
    } else {
        tracer.place(call, wish.directory, &wish.path, follow)?
    };
    if resolve & (NO_MAGICLINKS | NO_SYMLINKS) != 0 && spot.is_magic {
        return Err(Errno::LOOP);
    }
    if resolve & NO_SYMLINKS != 0 && !tracer.is_without_links(call, wish.directory, &wish.path, &spot)? {
        return Err(Errno::LOOP);
    }
    if resolve & NO_XDEV != 0 {
        let from = if wish.path.first() == Some(&b'/') { b"/".to_vec() } else { base2(tracer, call, wish)? };
        if tracer.union.mount_of(&from) != spot.mount {
            return Err(Errno::XDEV);
        }
    }
    Ok(spot)
}

fn base2(tracer: &Tracer, call: &Call, wish: &Wish) -> Result<Vec<u8>, Errno> {
    tracer.directory(call, wish.directory)
}

fn existing(tracer: &mut Tracer, call: &Call, wish: &Wish, mut spot: Spot) -> Outcome {
    let flags = wish.flags;
    if flags & PATH != 0 {
        if flags & DIRECTORY != 0 && !spot.is_directory() && !spot.is_magic {
            return Err(Errno::NOTDIR);
        }
        return run(wish, &spot.host).map(Action::Run);
    }
    if spot.is_magic {
        return run(wish, &spot.host).map(Action::Run);
    }
    let writes = flags & (WRITES | TRUNC) != 0;
    match spot.kind {
        Kind::Link => return Err(Errno::LOOP),
        Kind::Directory if writes || flags & CREAT != 0 => return Err(Errno::ISDIR),
        Kind::Other if flags & DIRECTORY != 0 => return Err(Errno::NOTDIR),
        _ => {}
    }
    let stat = super::stat::found(tracer, &spot)?;
    let mut wanted = match flags & 3 {
        0 => READ,
        1 => WRITE,
        _ => READ | WRITE,
    };
    if flags & TRUNC != 0 {
        wanted |= WRITE;
    }
    tracer.require(call, &spot, &stat, wanted)?;
    if flags & libc::O_NOATIME as u32 != 0
        && !owns(tracer.world.caller(call)?, tracer.facts(&spot, &stat).uid)
    {
        return Err(Errno::PERM);
    }
    let record = tracer.world.owners.find(tracer.file_system(&spot.path, &stat), &stat);
    if let Some(device) = record.and_then(|record| record.device) {
        return open_device(wish, device);
    }
    if let Some(text) = super::proc_files::text(tracer, call, &spot)? {
        return given(tracer, wish, &text);
    }
    let kind = type_of(&stat);
    if writes && kind == FileType::RegularFile {
        tracer.union.bring_up(&mut spot, &mut tracer.copied)?;
    } else if writes && tracer.union.is_read_only(&spot.path) && kind == FileType::RegularFile {
        return Err(Errno::ROFS);
    }
    if spot.path == b"/dev/ptmx" {
        return ptmx(wish, &spot);
    }
    let mut request = run(wish, &spot.host)?;
    let loose = Loose::open(tracer, &spot.host, &stat, wanted);
    let cut = flags & TRUNC != 0 && kind == FileType::RegularFile;
    let kept = cut.then_some(mode_cut(tracer.world.caller(call)?, tracer.facts(&spot, &stat)));
    if loose.is_some() || kept.is_some() {
        request.after = Some(Box::new(move |_, _, _| {
            drop(loose);
            if let Some(kept) = kept {
                super::attributes::keep_mode(&spot.host, kept);
            }
        }));
    }
    Ok(Action::Run(request))
}

/// A new terminal: its other end is the container's from now on.
fn ptmx(wish: &Wish, spot: &Spot) -> Outcome {
    run(wish, &spot.host)?.then(|tracer, call, result| {
        if let Ok(number) = i32::try_from(*result) {
            tracer.learn_terminal(call, number);
        }
    })
}

fn create(tracer: &mut Tracer, call: &Call, wish: &Wish, spot: &Spot) -> Outcome {
    let heritage = tracer.birth(call, spot)?;
    let mode = match heritage.has_a_say() {
        true => Some(heritage.mode(wish.mode, || tracer.world.view.umask(call))?.as_raw_mode()),
        false => None,
    };
    let wanted = wish.mode;
    let (to, hides) = tracer.make_room(spot)?;
    let spot = spot.clone();
    let loose = Loose::parent(&to);
    run(wish, &to)?.then(move |tracer, _, result| {
        drop(loose);
        let made = tracer.union.made(&spot, &to, hides);
        if *result < 0 || made.is_err() {
            return;
        }
        if let Some(mode) = mode {
            super::attributes::keep_mode(&to, mode);
        }
        let record = heritage.record(wanted, FileType::RegularFile);
        if !record.says_nothing() {
            let _ = tracer.remember(&to, &spot.path, record);
        }
    })
}

fn nameless(tracer: &mut Tracer, call: &Call, wish: &Wish) -> Outcome {
    if wish.flags & WRITES == 0 {
        return Err(Errno::INVAL);
    }
    let mut spot = walk(tracer, call, wish, Follow::Yes)?;
    if !spot.exists() {
        return Err(Errno::NOENT);
    }
    if !spot.is_directory() {
        return Err(Errno::NOTDIR);
    }
    let stat = lstat(&spot.host)?;
    tracer.require(call, &spot, &stat, WRITE | EXECUTE)?;
    tracer.union.bring_up(&mut spot, &mut tracer.copied)?;
    run(wish, &spot.host).map(Action::Run)
}

/// Devices that every container has are there under whatever name; others are not.
fn open_device(wish: &Wish, device: Device) -> Outcome {
    let name = match (device.is_block, device.major, device.minor) {
        (false, 1, 3) => &b"/dev/null"[..],
        (false, 1, 5) => b"/dev/zero",
        (false, 1, 7) => b"/dev/full",
        (false, 1, 8) => b"/dev/random",
        (false, 1, 9) => b"/dev/urandom",
        _ => return Err(Errno::NXIO),
    };
    run(wish, name).map(Action::Run)
}

/// A file that holds this text, as long as it is open.
fn given(tracer: &mut Tracer, wish: &Wish, text: &[u8]) -> Outcome {
    if wish.flags & WRITES != 0 {
        return Err(Errno::ACCESS);
    }
    let path = tracer.union.scratch();
    std::fs::write(std::path::Path::new(std::ffi::OsStr::new(&*String::from_utf8_lossy(&path))), text)
        .map_err(crate::call::errno)?;
    run(wish, &path)?.then(move |_, _, _| {
        let _ = rustix::fs::unlinkat(CWD, &path[..], AtFlags::empty());
    })
}

/// The call with a path of the host's.
fn run(wish: &Wish, host: &[u8]) -> Result<Run, Errno> {
    let mut text = host.to_vec();
    text.push(0);
    let path = Argument::Bytes(text);
    let here = Argument::Word(HERE as u64);
    Ok(match wish.spelling {
        Spelling::First => Run { arguments: vec![(0, path)], ..Run::default() },
        Spelling::Second => Run { arguments: vec![(0, here), (1, path)], ..Run::default() },
        Spelling::How { .. } => {
            let mut how = Vec::with_capacity(24);
            for word in [u64::from(wish.flags), u64::from(wish.mode), 0] {
                how.extend_from_slice(&word.to_ne_bytes());
            }
            Run {
                arguments: vec![(0, here), (1, path), (2, Argument::Bytes(how)), (3, Argument::Word(24))],
                ..Run::default()
            }
        }
    })
}

/// Modes that are wider for a moment: root inside may what its mode forbids to the owner, who we are.
#[derive(Debug)]
pub(super) struct Loose(Vec<(Vec<u8>, u32)>);

impl Loose {
    /// For opening a file of ours; `None` when its mode allows it.
    pub fn open(tracer: &Tracer, host: &[u8], stat: &Statx, wanted: u32) -> Option<Self> {
        let mode = u32::from(stat.stx_mode) & 0o7777;
        if stat.stx_uid != tracer.settings.host_ids.0 || mode >> 6 & wanted == wanted {
            return None;
        }
        Self::wider(host, mode, wanted << 6)
    }

    /// For changing what is in the directory of a path.
    pub fn parent(host: &[u8]) -> Option<Self> {
        let directory = parent(host);
        let stat = lstat(directory).ok()?;
        let mode = u32::from(stat.stx_mode) & 0o7777;
        if mode & 0o300 == 0o300 {
            return None;
        }
        Self::wider(directory, mode, 0o300)
    }

    fn wider(path: &[u8], mode: u32, more: u32) -> Option<Self> {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode | more), AtFlags::empty()).ok()?;
        Some(Self(vec![(path.to_vec(), mode)]))
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        for (path, mode) in &self.0 {
            let _ = rustix::fs::chmodat(CWD, &path[..], Mode::from_raw_mode(*mode), AtFlags::empty());
        }
    }
}

impl Tracer {
    /// Whether the caller may make a name, and what it gets of its directory.
    pub(super) fn birth(&mut self, call: &Call, spot: &Spot) -> Result<Heritage, Errno> {
        let above = parent(&spot.path).to_vec();
        let index = self.union.mount_of(&above);
        let directory = self.union.at_mount(index, &above)?;
        let stat = super::stat::found(self, &directory)?;
        self.require(call, &directory, &stat, WRITE | EXECUTE)?;
        let record = self.world.owners.find(self.file_system(&directory.path, &stat), &stat);
        let default = record.and_then(|record| record.xattrs.get(DEFAULT_LIST)).cloned();
        Ok(Heritage::of(self.world.caller(call)?, self.facts(&directory, &stat), default))
    }

    /// See [`crate::union::Union::make_room`].
    pub(super) fn make_room(&mut self, spot: &Spot) -> Result<(Vec<u8>, bool), Errno> {
        let made = self.union.make_room(spot, &mut self.copied);
        // An owner that a directory brought up had must be known before somebody looks.
        self.settle();
        made
    }
}
