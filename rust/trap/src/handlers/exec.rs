//! execve(2): setuid and setgid programs, and programs with capabilities, make their caller somebody else.
//!
//! The kernel runs the program without any of it (no_new_privs is on). The new ids are given
//! before it does, since nobody tells us afterwards: a setuid file that cannot be executed after
//! all leaves its caller with them.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, Statx};
use rustix::io::Errno;

use super::meant::Naming;
use crate::call::{Call, Outcome, GO_ON};
use crate::credentials::{FileCapabilities, Program};
use crate::owners::CAPABILITY;
use crate::permission::EXECUTE;
use crate::world::{is_directory, World};

pub fn execve(world: &mut World, call: &Call) -> Outcome {
    run(world, call, Naming::path(0))
}

pub fn execveat(world: &mut World, call: &Call) -> Outcome {
    run(world, call, Naming::at(call.int(0), 1, call.int(4)))
}

fn run(world: &mut World, call: &Call, naming: Naming) -> Outcome {
    // A process on its way into the container has memory that nobody may read; it becomes who it is to be by itself.
    let Ok(path) = naming.text(call) else { return GO_ON };
    let program = if world.is_plain_root(call)? {
        let Ok(at) = naming.place(world, call, path.as_deref()) else { return GO_ON };
        let Ok(stat) = world.view.stat(&at) else { return GO_ON };
        let program = marks(world, &stat, || world.view.hold(&at));
        if program == Program::default() {
            return GO_ON;
        }
        program
    } else {
        let who = world.caller(call)?;
        let found = naming.find(world, call, who)?;
        if !is_directory(&found.stat) {
            world.require(who, &found, EXECUTE)?;
        }
        let stat = found.stat;
        marks(world, &stat, || Ok(found.file))
    };
    let who = world.caller(call)?;
    let new = who.after_exec(program);
    if new != *who {
        world.become_one(call.pid, new)?;
    }
    GO_ON
}

/// What the file asks for, unless it is a script: those run as whoever calls them.
fn marks(world: &World, stat: &Statx, hold: impl FnOnce() -> Result<OwnedFd, Errno>) -> Program {
    let mode = u32::from(stat.stx_mode);
    let record = world.record(stat);
    let value = record.and_then(|record| record.xattrs.get(CAPABILITY));
    let capabilities = value.and_then(|value| FileCapabilities::parse(value));
    let is_set_gid = mode & 0o2010 == 0o2010;
    if mode & 0o4000 == 0 && !is_set_gid && capabilities.is_none() {
        return Program::default();
    }
    let is_script = || hold().and_then(|file| is_script(world, &file));
    if mode & 0o111 == 0 || is_directory(stat) || is_script() == Ok(true) {
        return Program::default();
    }
    let (uid, gid) = world.owner(stat);
    Program { set_uid: (mode & 0o4000 != 0).then_some(uid), set_gid: is_set_gid.then_some(gid), capabilities }
}

fn is_script(world: &World, file: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(world.view.proc(), world.view.handle(file), flags, Mode::empty())?;
    let mut start = [0; 2];
    Ok(rustix::io::read(&file, &mut start)? == 2 && start == *b"#!")
}
