//! set*id(2), their getters, and setgroups(2): credentials that only we know of.

use crate::call::{Call, Outcome, Verdict, DONE, GO_ON};
use crate::credentials::{Credentials, Ids};
use crate::world::World;
use rustix::io::Errno;

/// NGROUPS_MAX.
const MOST_GROUPS: i32 = 65536;

fn change(
    world: &mut World,
    call: &Call,
    rule: impl FnOnce(&Credentials) -> Result<Credentials, Errno>,
) -> Outcome {
    let new = rule(world.caller(call)?)?;
    world.become_one(call.pid, new)?;
    DONE
}

pub fn setuid(world: &mut World, call: &Call) -> Outcome {
    change(world, call, |who| who.set_uid(call.word(0)))
}

pub fn setreuid(world: &mut World, call: &Call) -> Outcome {
    change(world, call, |who| who.set_two_uids(call.word(0), call.word(1)))
}

pub fn setresuid(world: &mut World, call: &Call) -> Outcome {
    change(world, call, |who| who.set_three_uids(call.word(0), call.word(1), call.word(2)))
}

pub fn setgid(world: &mut World, call: &Call) -> Outcome {
    change(world, call, |who| who.set_gid(call.word(0)))
}

pub fn setregid(world: &mut World, call: &Call) -> Outcome {
    change(world, call, |who| who.set_two_gids(call.word(0), call.word(1)))
}

pub fn setresgid(world: &mut World, call: &Call) -> Outcome {
    change(world, call, |who| who.set_three_gids(call.word(0), call.word(1), call.word(2)))
}

/// The two that answer with the old id, whatever happens.
pub fn setfsuid(world: &mut World, call: &Call) -> Outcome {
    let old = world.caller(call)?.uid.fs;
    change(world, call, |who| Ok(who.set_fs_uid(call.word(0))))?;
    Ok(Verdict::Value(i64::from(old)))
}

pub fn setfsgid(world: &mut World, call: &Call) -> Outcome {
    let old = world.caller(call)?.gid.fs;
    change(world, call, |who| Ok(who.set_fs_gid(call.word(0))))?;
    Ok(Verdict::Value(i64::from(old)))
}

pub fn setgroups(world: &mut World, call: &Call) -> Outcome {
    let count = call.int(0);
    if !(0..=MOST_GROUPS).contains(&count) {
        return Err(Errno::INVAL);
    }
    let groups = call.words(1, count as usize)?;
    change(world, call, |who| who.set_groups(groups))
}

fn tell(world: &World, call: &Call, id: impl Fn(&Credentials) -> u32) -> Outcome {
    Ok(Verdict::Value(i64::from(id(world.caller(call)?))))
}

pub fn getuid(world: &mut World, call: &Call) -> Outcome {
    tell(world, call, |who| who.uid.real)
}

pub fn geteuid(world: &mut World, call: &Call) -> Outcome {
    tell(world, call, |who| who.uid.effective)
}

pub fn getgid(world: &mut World, call: &Call) -> Outcome {
    tell(world, call, |who| who.gid.real)
}

pub fn getegid(world: &mut World, call: &Call) -> Outcome {
    tell(world, call, |who| who.gid.effective)
}

pub fn getresuid(world: &mut World, call: &Call) -> Outcome {
    tell_three(call, world.caller(call)?.uid)
}

pub fn getresgid(world: &mut World, call: &Call) -> Outcome {
    tell_three(call, world.caller(call)?.gid)
}

fn tell_three(call: &Call, ids: Ids) -> Outcome {
    for (index, id) in [ids.real, ids.effective, ids.saved].iter().enumerate() {
        call.write(index, &id.to_ne_bytes())?;
    }
    DONE
}

pub fn getgroups(world: &mut World, call: &Call) -> Outcome {
    let groups = &world.caller(call)?.groups;
    let (count, room) = (groups.len() as i32, call.int(0));
    if room < 0 || (room > 0 && room < count) {
        return Err(Errno::INVAL);
    }
    if room > 0 && count > 0 {
        let bytes: Vec<u8> = groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
        call.write(1, &bytes)?;
    }
    Ok(Verdict::Value(i64::from(count)))
}

const LOCKS: u32 = rustix::process::Resource::Locks as u32;

/// The limit that carries credentials ([`crate::bearer`]) is unlimited to everybody.
pub fn getrlimit(_: &mut World, call: &Call) -> Outcome {
    if call.word(0) != LOCKS {
        return GO_ON;
    }
    call.write(1, &[0xff; 16])?;
    DONE
}

pub fn setrlimit(_: &mut World, call: &Call) -> Outcome {
    if call.word(0) != LOCKS {
        return GO_ON;
    }
    DONE
}

pub fn prlimit64(_: &mut World, call: &Call) -> Outcome {
    if call.word(1) != LOCKS {
        return GO_ON;
    }
    if call.long(3) != 0 {
        call.write(3, &[0xff; 16])?;
    }
    DONE
}

/// kill(2), tkill(2), tgkill(2): to one's own; `CAP_KILL` to all.
pub fn kill(world: &mut World, call: &Call) -> Outcome {
    signal(world, call, call.int(0), call.int(1))
}

pub fn tgkill(world: &mut World, call: &Call) -> Outcome {
    signal(world, call, call.int(1), call.int(2))
}

fn signal(world: &World, call: &Call, target: i32, signal: i32) -> Outcome {
    if target <= 0 || world.is_plain_root(call)? {
        return GO_ON;
    }
    let who = world.caller(call)?;
    let path = format!("/proc/{target}/");
    let Some(number) = world.number_of_proc_path(path.as_bytes()) else { return GO_ON };
    let other = world.known.get(number).uid;
    let same = [who.uid.real, who.uid.effective].iter().any(|id| [other.real, other.saved].contains(id));
    if same || who.can(crate::credentials::capability::KILL) || signal == libc::SIGCONT {
        return GO_ON;
    }
    Err(Errno::PERM)
}
