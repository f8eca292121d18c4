//! execve(2): setuid and setgid programs, and programs with capabilities, make their caller somebody else.
//!
//! The kernel runs the program without any of it (no_new_privs is on). The new ids are given
//! before it does, since nobody tells us afterwards: a setuid file that cannot be executed after
//! all leaves its caller with them.

use rustix::fs::{Mode, OFlags, Statx};
use rustix::io::Errno;

use crate::call::{Call, Outcome, GO_ON};
use crate::credentials::{FileCapabilities, Program};
use crate::owners::CAPABILITY;
use crate::permission::EXECUTE;
use crate::view::{At, HERE};
use crate::world::{is_directory, World};

pub fn execve(world: &mut World, call: &Call) -> Outcome {
    // A process on its way into the container has memory that nobody may read; it becomes who it is to be by itself.
    let Ok(path) = call.text(0) else { return GO_ON };
    let Ok(at) = world.view.at(call, HERE, &path, true) else { return GO_ON };
    run(world, call, &at)
}

pub fn execveat(world: &mut World, call: &Call) -> Outcome {
    let Ok(path) = call.text(1) else { return GO_ON };
    let flags = call.int(4);
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    let may_be_empty = flags & libc::AT_EMPTY_PATH != 0;
    let Ok(at) = world.view.at_or_descriptor(call, call.int(0), &path, follow, may_be_empty) else {
        return GO_ON;
    };
    run(world, call, &at)
}

fn run(world: &mut World, call: &Call, at: &At) -> Outcome {
    let Ok(stat) = world.view.stat(at) else { return GO_ON };
    let program = marks(world, at, &stat);
    let plain = world.is_plain_root(call)?;
    if plain && program == Program::default() {
        return GO_ON;
    }
    if !plain && !is_directory(&stat) {
        let held = world.view.hold(at)?;
        world.require(world.caller(call)?, &held, &stat, EXECUTE)?;
    }
    let who = world.caller(call)?;
    let new = who.after_exec(program);
    if new != *who {
        world.become_one(call.pid, new)?;
    }
    GO_ON
}

/// What the file asks for, unless it is a script: those run as whoever calls them.
fn marks(world: &World, at: &At, stat: &Statx) -> Program {
    let mode = u32::from(stat.stx_mode);
    let record = world.record(stat);
    let value = record.and_then(|record| record.xattrs.get(CAPABILITY));
    let capabilities = value.and_then(|value| FileCapabilities::parse(value));
    let is_set_gid = mode & 0o2010 == 0o2010;
    if mode & 0o4000 == 0 && !is_set_gid && capabilities.is_none() {
        return Program::default();
    }
    if mode & 0o111 == 0 || is_directory(stat) || is_script(world, at) == Ok(true) {
        return Program::default();
    }
    let (uid, gid) = world.owner(stat);
    Program { set_uid: (mode & 0o4000 != 0).then_some(uid), set_gid: is_set_gid.then_some(gid), capabilities }
}

fn is_script(world: &World, at: &At) -> Result<bool, Errno> {
    let held = world.view.hold(at)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(world.view.proc(), world.view.handle(&held), flags, Mode::empty())?;
    let mut start = [0; 2];
    Ok(rustix::io::read(&file, &mut start)? == 2 && start == *b"#!")
}
