//! chown(2) and its kin: the kernel is told root, the index the truth.

use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::credentials::KEEP;
use crate::owners::CAPABILITY;
use crate::permission::may_give;
use crate::view::{At, HERE};
use crate::world::{own_really, World};
use rustix::io::Errno;

pub fn chown(world: &mut World, call: &Call) -> Outcome {
    let at = world.view.at(call, HERE, &call.text(0)?, true)?;
    give(world, call, &at, call.word(1), call.word(2))
}

pub fn lchown(world: &mut World, call: &Call) -> Outcome {
    let at = world.view.at(call, HERE, &call.text(0)?, false)?;
    give(world, call, &at, call.word(1), call.word(2))
}

pub fn fchown(world: &mut World, call: &Call) -> Outcome {
    let at = world.view.at_descriptor(call, call.int(0).max(-1))?;
    give(world, call, &at, call.word(1), call.word(2))
}

pub fn fchownat(world: &mut World, call: &Call) -> Outcome {
    let flags = call.int(4);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    let may_be_empty = flags & libc::AT_EMPTY_PATH != 0;
    let at = world.view.at_or_descriptor(call, call.int(0), &call.text(1)?, follow, may_be_empty)?;
    give(world, call, &at, call.word(2), call.word(3))
}

fn give(world: &mut World, call: &Call, at: &At, uid: u32, gid: u32) -> Outcome {
    // What is not there for us is not there for the kernel, which knows best how to say so.
    let Ok(file) = world.view.hold(at) else { return GO_ON };
    let stat = world.view.stat_fd(&file)?;
    let plain = world.is_plain_root(call)?;
    let mut record = world.record_of(&stat);
    if !plain || world.known.are_all_root() {
        let who = world.caller(call)?;
        if !plain {
            world.require_way(who, &file)?;
        }
        if !may_give(who, (record.uid, record.gid), uid, gid) {
            return Err(Errno::PERM);
        }
    }
    let id = |id: u32| (id != KEEP).then_some(0);
    own_really(&file, id(uid), id(gid))?;
    if uid == KEEP && gid == KEEP {
        return DONE;
    }
    record.uid = if uid == KEEP { record.uid } else { uid };
    record.gid = if gid == KEEP { record.gid } else { gid };
    record.xattrs.remove(CAPABILITY);
    world.remember(&file, record)?;
    DONE
}
