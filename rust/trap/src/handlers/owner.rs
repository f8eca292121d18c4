//! chown(2) and its kin: the kernel is told root, the index the truth.

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::meant::{meant, Meant, Naming};
use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::credentials::KEEP;
use crate::permission::{may_give, mode_given, owns};
use crate::world::{own_really, World};

pub fn chown(world: &mut World, call: &Call) -> Outcome {
    give(world, call, Naming::path(0), call.word(1), call.word(2))
}

pub fn lchown(world: &mut World, call: &Call) -> Outcome {
    give(world, call, Naming::link(0), call.word(1), call.word(2))
}

pub fn fchown(world: &mut World, call: &Call) -> Outcome {
    give(world, call, Naming::descriptor(call), call.word(1), call.word(2))
}

pub fn fchownat(world: &mut World, call: &Call) -> Outcome {
    let flags = call.int(4);
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    give(world, call, Naming::at(call.int(0), 1, flags), call.word(2), call.word(3))
}

fn give(world: &mut World, call: &Call, naming: Naming, uid: u32, gid: u32) -> Outcome {
    let Some(Meant { file, stat, is_plain }) = meant(world, call, naming)? else { return GO_ON };
    let mut mode = None;
    if !is_plain || world.known.are_all_root() {
        let (who, facts) = (world.caller(call)?, world.facts(&stat));
        let kept = mode_given(who, facts);
        let changes_mode = kept != facts.mode & 0o7777;
        if !may_give(who, (facts.uid, facts.gid), uid, gid) || (changes_mode && !owns(who, facts.uid)) {
            return Err(Errno::PERM);
        }
        mode = (!is_plain && changes_mode).then_some(kept);
    }
    let id = |id: u32| (id != KEEP).then_some(0);
    own_really(&file, id(uid), id(gid))?;
    if let Some(mode) = mode {
        // What goes for root went already, and is less.
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(world.view.proc(), world.view.handle(&file), mode, AtFlags::empty())?;
    }
    if uid != KEEP || gid != KEEP {
        world.remember(&file, world.record_of(&stat).given(uid, gid))?;
    }
    DONE
}
