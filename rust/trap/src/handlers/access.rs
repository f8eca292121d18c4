//! access(2), chdir(2), chroot(2): may this process go there, or do that?

use rustix::io::Errno;

use super::meant::{meant, Naming};
use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::credentials::capability;
use crate::permission::{EXECUTE, WRITE};
use crate::world::{is_directory, World};

pub fn access(world: &mut World, call: &Call) -> Outcome {
    ask(world, call, Naming::path(0), call.word(1), 0)
}

pub fn faccessat(world: &mut World, call: &Call) -> Outcome {
    ask(world, call, Naming::at(call.int(0), 1, 0), call.word(2), 0)
}

pub fn faccessat2(world: &mut World, call: &Call) -> Outcome {
    ask(world, call, Naming::at(call.int(0), 1, call.int(3)), call.word(2), call.int(3))
}

fn ask(world: &mut World, call: &Call, naming: Naming, wanted: u32, flags: i32) -> Outcome {
    let known = libc::AT_EACCESS | libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    if world.is_plain_root(call)? || wanted & !7 != 0 || flags & !known != 0 {
        return GO_ON;
    }
    let who = world.caller(call)?;
    let real;
    let who = if flags & libc::AT_EACCESS != 0 {
        who
    } else {
        real = who.as_real();
        &real
    };
    let found = naming.find(world, call, who)?;
    world.require(who, &found, wanted)?;
    // A read-only file system is the kernel's to notice.
    if wanted & WRITE != 0 {
        return GO_ON;
    }
    DONE
}

pub fn chdir(world: &mut World, call: &Call) -> Outcome {
    enter(world, call, Naming::path(0))
}

pub fn fchdir(world: &mut World, call: &Call) -> Outcome {
    enter(world, call, Naming::descriptor(call))
}

fn enter(world: &World, call: &Call, naming: Naming) -> Outcome {
    if world.is_plain_root(call)? {
        return GO_ON;
    }
    let Some(meant) = meant(world, call, naming)? else { return GO_ON };
    if is_directory(&meant.stat) {
        world.require(world.caller(call)?, &meant.found(), EXECUTE)?;
    }
    GO_ON
}

pub fn chroot(world: &mut World, call: &Call) -> Outcome {
    enter(world, call, Naming::path(0))?;
    if !world.caller(call)?.can(capability::SYS_CHROOT) {
        return Err(Errno::PERM);
    }
    world.view.is_chrooted = true;
    GO_ON
}
