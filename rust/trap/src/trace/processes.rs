//! Calls about other processes: the container's own, and no others.
//!
//! There is no pid namespace here, so numbers are the machine's. A number of somebody else's process means to
//! us that there is no such process.

use rustix::io::Errno;

use super::{Action, Outcome, Tracer, DONE};
use crate::call::Call;
use crate::credentials::capability;

/// Whether the caller may signal a process.
fn may_signal(tracer: &Tracer, call: &Call, pid: i32, signal: i32) -> Result<(), Errno> {
    if !tracer.is_ours(pid) {
        return Err(Errno::SRCH);
    }
    if tracer.world.is_plain_root(call)? {
        return Ok(());
    }
    let who = tracer.world.caller(call)?;
    let other = tracer.world.credentials(pid)?.uid;
    let same = [who.uid.real, who.uid.effective].iter().any(|id| [other.real, other.saved].contains(id));
    if same || who.can(capability::KILL) || signal == libc::SIGCONT {
        return Ok(());
    }
    Err(Errno::PERM)
}

pub(super) fn kill(tracer: &mut Tracer, call: &Call) -> Outcome {
    let (pid, signal) = (call.int(0), call.int(1));
    match pid {
        // What scripts call the container's first process, wherever they run.
        1 => {
            may_signal(tracer, call, tracer.init, signal)?;
            Ok(Action::Run(super::Run::default().word(0, tracer.init as u64)))
        }
        2.. => {
            may_signal(tracer, call, pid, signal)?;
            Ok(Action::Pass)
        }
        // One's own group: of a container that has the caller's terminal it may hold others' processes.
        _ => broadcast(tracer, call, pid, signal),
    }
}

/// To a group, or to all: each of ours that is meant, one by one.
fn broadcast(tracer: &mut Tracer, call: &Call, pid: i32, signal: i32) -> Outcome {
    let own = tracer.process_of(call);
    let group_of = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid)?;
        rustix::process::getpgid(Some(pid)).ok().map(|group| group.as_raw_nonzero().get())
    };
    let wanted = match pid {
        0 => group_of(own),
        -1 => None,
        _ => Some(-pid),
    };
    let mut pids: Vec<i32> = tracer.processes.keys().copied().collect();
    pids.retain(|&other| match wanted {
        Some(group) => group_of(other) == Some(group),
        None => other != own && other != tracer.init,
    });
    let mut result = Err(Errno::SRCH);
    // Ourselves last, so that the others have theirs.
    pids.sort_unstable_by_key(|&other| other == own);
    for other in pids {
        let sent = may_signal(tracer, call, other, signal).and_then(|()| send(other, signal));
        if result.is_err() {
            result = sent;
        }
    }
    result?;
    DONE
}

fn send(pid: i32, signal: i32) -> Result<(), Errno> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    if signal == 0 {
        return rustix::process::test_kill_process(pid);
    }
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    duckweed_sys::signal::send(std::os::fd::AsFd::as_fd(&pidfd), signal).map_err(crate::call::errno)
}

pub(super) fn tkill(tracer: &mut Tracer, call: &Call) -> Outcome {
    may_signal(tracer, call, call.int(0), call.int(1))?;
    Ok(Action::Pass)
}

pub(super) fn tgkill(tracer: &mut Tracer, call: &Call) -> Outcome {
    if call.int(0) <= 0 || call.int(1) <= 0 {
        return Err(Errno::INVAL);
    }
    may_signal(tracer, call, call.int(1), call.int(2))?;
    Ok(Action::Pass)
}

/// Calls whose first argument is a process.
pub(super) fn by_number(tracer: &mut Tracer, call: &Call) -> Outcome {
    let pid = call.int(0);
    if pid == 1 {
        return Ok(Action::Run(super::Run::default().word(0, tracer.init as u64)));
    }
    if pid > 0 && !tracer.is_ours(pid) {
        return Err(Errno::SRCH);
    }
    Ok(Action::Pass)
}

/// Where a thread may run: asked of the kernel when we have no hand in it.
pub(super) fn affinity(tracer: &mut Tracer, call: &Call) -> Outcome {
    let pid = match call.int(0) {
        0 => call.pid,
        pid if tracer.is_ours(pid) => pid,
        _ => return Err(Errno::SRCH),
    };
    tracer.company.release(pid);
    Ok(Action::Pass)
}

/// setpriority(2), ioprio_set(2): of a process, not of a group or a user, who are the machine's.
pub(super) fn priority(tracer: &mut Tracer, call: &Call) -> Outcome {
    let pid = call.int(1);
    if pid > 0 && !tracer.is_ours(pid) {
        return Err(Errno::SRCH);
    }
    if call.int(0) > 1 {
        return Err(Errno::PERM);
    }
    Ok(Action::Pass)
}

pub(super) fn prlimit64(tracer: &mut Tracer, call: &Call) -> Outcome {
    let pid = call.int(0);
    if pid != 0 && !tracer.is_ours(pid) {
        return Err(Errno::SRCH);
    }
    if call.word(1) != rustix::process::Resource::Locks as u32 {
        return Ok(Action::Pass);
    }
    if call.long(3) != 0 {
        call.write(3, &[0xff; 16])?;
    }
    DONE
}
