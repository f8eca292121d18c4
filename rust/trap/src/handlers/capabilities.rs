//! capget(2), capset(2) and what prctl(2) says of capabilities and privileges.
//!
//! The capabilities that a process really has stay with it: they are worth nothing outside of
//! the container, and a setuid program may need them again.

use crate::call::{Call, Outcome, Verdict, DONE, GO_ON};
use crate::credentials::Credentials;
use crate::world::World;
use rustix::io::Errno;

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// The header's version and process; what is unknown is answered with the newest version, capget(2).
fn header(call: &Call) -> Result<(u32, i32), Errno> {
    let words = call.words(0, 2)?;
    if ![VERSION_1, VERSION_2, VERSION_3].contains(&words[0]) {
        call.write(0, &VERSION_3.to_ne_bytes())?;
        return Err(Errno::INVAL);
    }
    Ok((words[0], words[1] as i32))
}

pub fn capget(world: &mut World, call: &Call) -> Outcome {
    if world.is_plain_root(call)? {
        return GO_ON;
    }
    let (version, pid) = match header(call) {
        Err(Errno::INVAL) if call.long(1) == 0 => return DONE,
        other => other?,
    };
    let mut who = world.caller(call)?;
    if pid > 0 {
        if let Some(number) = world.number_of_proc_path(format!("/proc/{pid}/").as_bytes()) {
            who = world.known.get(number);
        }
    }
    let sets = [who.sets.effective, who.sets.permitted, who.sets.inheritable];
    let half = |shift: u32| sets.iter().flat_map(move |set| ((set >> shift) as u32).to_ne_bytes());
    let mut bytes: Vec<u8> = half(0).collect();
    if version != VERSION_1 {
        bytes.extend(half(32));
    }
    call.write(1, &bytes)?;
    DONE
}

pub fn capset(world: &mut World, call: &Call) -> Outcome {
    let (version, _) = header(call)?;
    let words = call.words(1, if version == VERSION_1 { 3 } else { 6 })?;
    let set =
        |index: usize| u64::from(words[index]) | u64::from(words.get(index + 3).copied().unwrap_or(0)) << 32;
    let new = world.caller(call)?.set_capabilities(set(1), set(0), set(2))?;
    world.become_one(call.pid, new)?;
    DONE
}

/// The options of prctl(2) that are trapped.
pub const OPTIONS: [i32; 9] = [
    libc::PR_GET_KEEPCAPS,
    libc::PR_SET_KEEPCAPS,
    libc::PR_CAPBSET_READ,
    libc::PR_CAPBSET_DROP,
    libc::PR_GET_SECUREBITS,
    libc::PR_SET_SECUREBITS,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_CAP_AMBIENT,
];

pub fn prctl(world: &mut World, call: &Call) -> Outcome {
    if !OPTIONS.contains(&call.int(0)) {
        return GO_ON;
    }
    let who = world.caller(call)?;
    let argument = call.long(1);
    let new = match call.int(0) {
        libc::PR_GET_KEEPCAPS => return Ok(Verdict::Value(i64::from(who.keeps_capabilities()))),
        libc::PR_GET_SECUREBITS => return Ok(Verdict::Value(i64::from(who.secure_bits))),
        libc::PR_GET_NO_NEW_PRIVS => return Ok(Verdict::Value(i64::from(who.no_new_privileges))),
        libc::PR_CAPBSET_READ if argument <= 63 => {
            return match argument > 40 {
                true => Err(Errno::INVAL),
                false => Ok(Verdict::Value((who.sets.bounding >> argument & 1) as i64)),
            };
        }
        libc::PR_SET_KEEPCAPS if argument <= 1 => who.keep_capabilities(argument == 1),
        libc::PR_CAPBSET_DROP if argument <= 40 => who.drop_bounding(argument)?,
        libc::PR_SET_SECUREBITS => secure_bits(who, argument as u32)?,
        libc::PR_SET_NO_NEW_PRIVS if argument == 1 => Credentials { no_new_privileges: true, ..who.clone() },
        libc::PR_CAP_AMBIENT => return ambient(world, call),
        _ => return Err(Errno::INVAL),
    };
    world.become_one(call.pid, new)?;
    DONE
}

fn secure_bits(who: &Credentials, bits: u32) -> Result<Credentials, Errno> {
    if !who.can(crate::credentials::capability::SETPCAP) {
        return Err(Errno::PERM);
    }
    Ok(Credentials { secure_bits: bits, ..who.clone() })
}

fn ambient(world: &mut World, call: &Call) -> Outcome {
    let who = world.caller(call)?;
    let (operation, number) = (call.int(1), call.long(2));
    if operation != libc::PR_CAP_AMBIENT_CLEAR_ALL && number > 40 {
        return Err(Errno::INVAL);
    }
    let mut new = who.clone();
    match operation {
        libc::PR_CAP_AMBIENT_IS_SET => {
            return Ok(Verdict::Value((who.sets.ambient >> number & 1) as i64));
        }
        libc::PR_CAP_AMBIENT_RAISE => new = who.raise_ambient(number)?,
        libc::PR_CAP_AMBIENT_LOWER => new.sets.ambient &= !(1 << number),
        libc::PR_CAP_AMBIENT_CLEAR_ALL => new.sets.ambient = 0,
        _ => return Err(Errno::INVAL),
    }
    world.become_one(call.pid, new)?;
    DONE
}
