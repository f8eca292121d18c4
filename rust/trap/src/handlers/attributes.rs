//! Extended attributes that no user may set: `security.capability`, `trusted.*`, access lists. All others are the kernel's.

use rustix::io::Errno;

use crate::call::{Call, Outcome, Verdict, DONE, GO_ON};
use crate::credentials::{capability, Credentials, FileCapabilities};
use crate::owners::{ACCESS_LIST, CAPABILITY, DEFAULT_LIST};
use crate::permission::{entries, list_under_mode, mode_of_list, owns};
use crate::view::{At, HERE};
use crate::world::{is_directory, World};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::os::fd::OwnedFd;

const TRUSTED: &[u8] = b"trusted.";
const LONGEST_NAME: usize = 255;
const LARGEST_VALUE: usize = 64 * 1024;

fn is_ours(name: &[u8]) -> bool {
    name == CAPABILITY || name == ACCESS_LIST || name == DEFAULT_LIST || name.starts_with(TRUSTED)
}

/// Which file a call is about: by path, by path without following, by descriptor.
#[derive(Clone, Copy)]
enum By {
    Path,
    Link,
    Descriptor,
}

fn place(world: &World, call: &Call, by: By) -> Result<At, Errno> {
    match by {
        By::Path => world.view.at(call, HERE, &call.text(0)?, true),
        By::Link => world.view.at(call, HERE, &call.text(0)?, false),
        By::Descriptor => world.view.at_descriptor(call, call.int(0).max(-1)),
    }
}

fn name(call: &Call) -> Result<Vec<u8>, Errno> {
    let name = call.text(1)?;
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(Errno::RANGE);
    }
    Ok(name)
}

pub fn setxattr(world: &mut World, call: &Call) -> Outcome {
    set(world, call, By::Path)
}

pub fn lsetxattr(world: &mut World, call: &Call) -> Outcome {
    set(world, call, By::Link)
}

pub fn fsetxattr(world: &mut World, call: &Call) -> Outcome {
    set(world, call, By::Descriptor)
}

fn set(world: &mut World, call: &Call, by: By) -> Outcome {
    let name = name(call)?;
    let at = match place(world, call, by) {
        Ok(at) => at,
        Err(_) => return GO_ON,
    };
    let Ok(file) = world.view.hold(&at) else { return GO_ON };
    let stat = world.view.stat_fd(&file)?;
    if !is_ours(&name) {
        // user.*: whoever may write.
        if !world.is_plain_root(call)? {
            world.require(world.caller(call)?, &file, &stat, crate::permission::WRITE)?;
        }
        world.copy_up(&file, &stat)?;
        return GO_ON;
    }
    let size = call.long(3) as usize;
    if size > LARGEST_VALUE {
        return Err(Errno::TOOBIG);
    }
    let value = if size == 0 { Vec::new() } else { call.bytes(2, size)? };
    let who = world.caller(call)?;
    world.require_way(who, &file)?;
    may_set(who, &name, world.owner(&stat).0)?;
    let mut record = world.record_of(&stat);
    let flags = call.int(4);
    if flags & libc::XATTR_CREATE != 0 && record.xattrs.contains_key(&name) {
        return Err(Errno::EXIST);
    }
    if flags & libc::XATTR_REPLACE != 0 && !record.xattrs.contains_key(&name) {
        return Err(Errno::NODATA);
    }
    if name == CAPABILITY {
        FileCapabilities::parse(&value).ok_or(Errno::INVAL)?;
    }
    world.touch(&file, &stat)?;
    if name == ACCESS_LIST || name == DEFAULT_LIST {
        if is_symlink(&stat) {
            return Err(Errno::OPNOTSUPP);
        }
        let list = if value.is_empty() { Vec::new() } else { entries(&value).ok_or(Errno::INVAL)? };
        if name == DEFAULT_LIST && !is_directory(&stat) {
            return Err(Errno::ACCESS);
        }
        if name == ACCESS_LIST && !list.is_empty() {
            let mode = (u32::from(stat.stx_mode) & 0o7000) | mode_of_list(&list);
            let mode = Mode::from_raw_mode(mode);
            rustix::fs::chmodat(world.view.proc(), world.view.handle(&file), mode, AtFlags::empty())?;
        }
        // Three entries say no more than the mode does.
        if list.len() <= 3 && name == ACCESS_LIST || list.is_empty() {
            record.xattrs.remove(&name);
            world.remember(&file, record)?;
            return DONE;
        }
    }
    record.xattrs.insert(name, value);
    world.remember(&file, record)?;
    DONE
}

fn is_symlink(stat: &rustix::fs::Statx) -> bool {
    u32::from(stat.stx_mode) & 0o170_000 == 0o120_000
}

fn may_set(who: &Credentials, name: &[u8], owner: u32) -> Result<(), Errno> {
    let may = match name {
        CAPABILITY => who.can(capability::SETFCAP),
        _ if name.starts_with(TRUSTED) => who.can(capability::SYS_ADMIN),
        _ => owns(who, owner),
    };
    if may {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

pub fn getxattr(world: &mut World, call: &Call) -> Outcome {
    get(world, call, By::Path)
}

pub fn lgetxattr(world: &mut World, call: &Call) -> Outcome {
    get(world, call, By::Link)
}

pub fn fgetxattr(world: &mut World, call: &Call) -> Outcome {
    get(world, call, By::Descriptor)
}

fn get(world: &mut World, call: &Call, by: By) -> Outcome {
    if !world.owners.has_attributes() {
        return GO_ON;
    }
    let name = name(call)?;
    if !is_ours(&name) {
        return GO_ON;
    }
    let Ok(at) = place(world, call, by) else { return GO_ON };
    let Ok(stat) = world.view.stat(&at) else { return GO_ON };
    let Some(value) = world.record(&stat).and_then(|record| record.xattrs.get(&name)) else { return GO_ON };
    if name.starts_with(TRUSTED) && !world.caller(call)?.can(capability::SYS_ADMIN) {
        return Err(Errno::NODATA);
    }
    let shown = match &name[..] {
        ACCESS_LIST => list_under_mode(value, u32::from(stat.stx_mode)).unwrap_or_else(|| value.clone()),
        _ => value.clone(),
    };
    hand_over(call, 2, &shown, call.long(3))
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
    list(world, call, By::Path)
}

pub fn llistxattr(world: &mut World, call: &Call) -> Outcome {
    list(world, call, By::Link)
}

pub fn flistxattr(world: &mut World, call: &Call) -> Outcome {
    list(world, call, By::Descriptor)
}

fn list(world: &mut World, call: &Call, by: By) -> Outcome {
    if !world.owners.has_attributes() {
        return GO_ON;
    }
    let Ok(at) = place(world, call, by) else { return GO_ON };
    let Ok(file) = world.view.hold(&at) else { return GO_ON };
    let stat = world.view.stat_fd(&file)?;
    let Some(record) = world.record(&stat).filter(|record| !record.xattrs.is_empty()) else { return GO_ON };
    let sees_trusted = world.caller(call)?.can(capability::SYS_ADMIN);
    let mut names = real_names(world, &file, &stat);
    for name in record.xattrs.keys().filter(|name| sees_trusted || !name.starts_with(TRUSTED)) {
        names.extend_from_slice(name);
        names.push(0);
    }
    hand_over(call, 1, &names, call.long(2))
}

/// The names that the file really has. Only what can be opened without consequences is asked.
fn real_names(world: &World, file: &OwnedFd, stat: &rustix::fs::Statx) -> Vec<u8> {
    if !matches!(u32::from(stat.stx_mode) & 0o170_000, 0o100_000 | 0o040_000) {
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
    remove(world, call, By::Path)
}

pub fn lremovexattr(world: &mut World, call: &Call) -> Outcome {
    remove(world, call, By::Link)
}

pub fn fremovexattr(world: &mut World, call: &Call) -> Outcome {
    remove(world, call, By::Descriptor)
}

fn remove(world: &mut World, call: &Call, by: By) -> Outcome {
    let name = name(call)?;
    if !is_ours(&name) {
        return GO_ON;
    }
    let Ok(at) = place(world, call, by) else { return GO_ON };
    let Ok(file) = world.view.hold(&at) else { return GO_ON };
    let stat = world.view.stat_fd(&file)?;
    let who = world.caller(call)?;
    world.require_way(who, &file)?;
    may_set(who, &name, world.owner(&stat).0)?;
    let mut record = world.record_of(&stat);
    if record.xattrs.remove(&name).is_none() {
        return match &name[..] {
            ACCESS_LIST | DEFAULT_LIST => GO_ON,
            _ => Err(Errno::NODATA),
        };
    }
    world.touch(&file, &stat)?;
    world.remember(&file, record)?;
    DONE
}
