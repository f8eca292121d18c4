//! Ids and capabilities: root emulation's answers, where the kernel's are never right.

use rustix::io::Errno;

use super::paths::Handler;
use super::{Action, Outcome, Tracer, DONE};
use crate::call::{Call, Verdict};
use crate::handlers;

/// The handler of a call that root emulation answers by itself.
pub(super) fn of(number: i64) -> Option<Handler> {
    macro_rules! pick {
        ($($name:ident => $handler:path;)*) => {
            match number {
                $(libc::$name => Some((|tracer, call| carry(tracer, call, $handler)) as Handler),)*
                _ => None,
            }
        };
    }
    use handlers::capabilities;
    use handlers::ids;
    pick! {
        SYS_setuid => ids::setuid;
        SYS_setreuid => ids::setreuid;
        SYS_setresuid => ids::setresuid;
        SYS_setgid => ids::setgid;
        SYS_setregid => ids::setregid;
        SYS_setresgid => ids::setresgid;
        SYS_setfsuid => ids::setfsuid;
        SYS_setfsgid => ids::setfsgid;
        SYS_setgroups => ids::setgroups;
        SYS_getuid => ids::getuid;
        SYS_geteuid => ids::geteuid;
        SYS_getgid => ids::getgid;
        SYS_getegid => ids::getegid;
        SYS_getresuid => ids::getresuid;
        SYS_getresgid => ids::getresgid;
        SYS_getgroups => ids::getgroups;
        SYS_capset => capabilities::capset;
    }
}

fn carry(
    tracer: &mut Tracer,
    call: &Call,
    handler: fn(&mut crate::world::World, &Call) -> crate::call::Outcome,
) -> Outcome {
    match handler(&mut tracer.world, call)? {
        Verdict::GoOn => Ok(Action::Pass),
        Verdict::Value(value) => Ok(Action::Answer(value)),
        Verdict::Descriptor { .. } => Err(Errno::NOSYS),
    }
}

/// The limit that carries credentials.
pub(super) fn from_emulation(tracer: &mut Tracer, call: &Call) -> Outcome {
    let _ = tracer;
    // Both are stopped for this limit alone; a reader has room for two words.
    if call.word(0) == rustix::process::Resource::Locks as u32 {
        let _ = call.write(1, &[0xff; 16]);
    }
    DONE
}

pub(super) fn prctl(tracer: &mut Tracer, call: &Call) -> Outcome {
    if matches!(call.int(0), libc::PR_SET_DUMPABLE | libc::PR_GET_DUMPABLE) {
        return dumpable(tracer, call);
    }
    carry(tracer, call, handlers::capabilities::prctl)
}

/// Whether a process may be dumped. It may always: else we, who have no capability, could not read its memory.
fn dumpable(tracer: &mut Tracer, call: &Call) -> Outcome {
    let number = tracer.process_of(call);
    let process = tracer.processes.get_mut(&number).ok_or(Errno::SRCH)?;
    match (call.int(0), call.long(1)) {
        (libc::PR_GET_DUMPABLE, _) => Ok(Action::Answer(process.is_dumpable.into())),
        (_, value @ (0 | 1)) => {
            process.is_dumpable = value == 1;
            DONE
        }
        _ => Err(Errno::INVAL),
    }
}

/// A program's own filter.
pub(super) fn seccomp(_: &mut Tracer, _: &Call) -> Outcome {
    Ok(super::Action::Pass)
}

/// capget(2): of the emulated sets, root's too.
pub(super) fn capget(tracer: &mut Tracer, call: &Call) -> Outcome {
    const VERSION_1: u32 = 0x1998_0330;
    const VERSIONS: [u32; 3] = [VERSION_1, 0x2007_1026, 0x2008_0522];
    let words = call.words(0, 2)?;
    if !VERSIONS.contains(&words[0]) {
        call.write(0, &VERSIONS[2].to_ne_bytes())?;
        return if call.long(1) == 0 { DONE } else { Err(Errno::INVAL) };
    }
    if call.long(1) == 0 {
        return DONE;
    }
    let pid = match words[1] as i32 {
        0 => call.pid,
        pid if tracer.is_ours(pid) => pid,
        _ => return Err(Errno::SRCH),
    };
    let who = tracer.world.credentials(pid)?;
    let sets = [who.sets.effective, who.sets.permitted, who.sets.inheritable];
    let half = |shift: u32| sets.iter().flat_map(move |set| ((set >> shift) as u32).to_ne_bytes());
    let mut bytes: Vec<u8> = half(0).collect();
    if words[0] != VERSION_1 {
        bytes.extend(half(32));
    }
    call.write(1, &bytes)?;
    DONE
}
