//! access(2), chdir(2), chroot(2): may this process go there, or do that?

use rustix::io::Errno;

use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::credentials::capability;
use crate::permission::EXECUTE;
use crate::view::{At, HERE};
use crate::world::{is_directory, World};

pub fn access(world: &mut World, call: &Call) -> Outcome {
    ask(world, call, (HERE, 0), call.word(1), 0)
}

pub fn faccessat(world: &mut World, call: &Call) -> Outcome {
    ask(world, call, (call.int(0), 1), call.word(2), 0)
}

pub fn faccessat2(world: &mut World, call: &Call) -> Outcome {
    ask(world, call, (call.int(0), 1), call.word(2), call.int(3))
}

fn ask(world: &mut World, call: &Call, file: (i32, usize), wanted: u32, flags: i32) -> Outcome {
    if world.is_plain_root(call)? || wanted & !7 != 0 {
        return GO_ON;
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    let may_be_empty = flags & libc::AT_EMPTY_PATH != 0;
    let path = call.text(file.1)?;
    let Ok(at) = world.view.at_or_descriptor(call, file.0, &path, follow, may_be_empty) else { return GO_ON };
    let Ok(held) = world.view.hold(&at) else { return GO_ON };
    let stat = world.view.stat_fd(&held)?;
    let who = world.caller(call)?;
    let real;
    let who = if flags & libc::AT_EACCESS != 0 {
        who
    } else {
        real = who.as_real();
        &real
    };
    world.require_way(who, &held)?;
    if wanted != 0 {
        world.require(who, &held, &stat, wanted)?;
    }
    // A read-only file system is the kernel's to notice.
    if wanted & crate::permission::WRITE != 0 {
        return GO_ON;
    }
    DONE
}

pub fn chdir(world: &mut World, call: &Call) -> Outcome {
    if world.is_plain_root(call)? {
        return GO_ON;
    }
    let Ok(at) = world.view.at(call, HERE, &call.text(0)?, true) else { return GO_ON };
    enter(world, call, &at)
}

pub fn fchdir(world: &mut World, call: &Call) -> Outcome {
    if world.is_plain_root(call)? {
        return GO_ON;
    }
    let at = world.view.at_descriptor(call, call.int(0).max(-1))?;
    enter(world, call, &at)
}

fn enter(world: &World, call: &Call, at: &At) -> Outcome {
    let Ok(held) = world.view.hold(at) else { return GO_ON };
    let stat = world.view.stat_fd(&held)?;
    if is_directory(&stat) {
        world.require(world.caller(call)?, &held, &stat, EXECUTE)?;
    }
    GO_ON
}

pub fn chroot(world: &mut World, call: &Call) -> Outcome {
    if !world.caller(call)?.can(capability::SYS_CHROOT) {
        return Err(Errno::PERM);
    }
    world.view.is_chrooted = true;
    GO_ON
}
