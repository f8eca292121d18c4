//! Pid 1 of a container with `init`: forwards signals, reaps what nobody waits for, and
//! ends as the command ends.
//!
//! It stays this program, so /proc/1/exe is a file of the host. It keeps all capabilities
//! of its namespace, and that is what closes /proc/1 to the container: to look into it a
//! process needs at least the same ones or CAP_SYS_PTRACE, ptrace(2) "Ptrace access mode
//! checking". It must be dumpable, since the supervisor enters through it.

use std::os::fd::{AsFd as _, OwnedFd};

use duckweed_sys::clone::{self, Fork};
use duckweed_sys::signal::{self, Signals};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};

use crate::start_error::{Code, Doing as _, StartError};

/// What a process does to itself (SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS) or cannot
/// catch (SIGKILL, SIGSTOP).
const OWN: [i32; 9] = [4, 5, 6, 7, 8, 9, 11, 19, 31];

/// Splits: comes back in the command's process, with the start socket; pid 1 never does.
pub(crate) fn stay_behind(socket: OwnedFd) -> Result<OwnedFd, (OwnedFd, StartError)> {
    let real_time = signal::realtime_min()..=signal::realtime_max();
    let forwarded: Vec<i32> = (1..=31).filter(|number| !OWN.contains(number)).chain(real_time).collect();
    // Blocked from before the fork: no signal is lost, and the child may take the terminal.
    let signals = match Signals::block(&forwarded).doing(Code::Internal, || "listen for signals") {
        Ok(signals) => signals,
        Err(error) => return Err((socket, error)),
    };
    match clone::fork(0).doing(Code::Internal, || "fork the command") {
        Err(error) => Err((socket, error)),
        Ok(Fork::Child) => {
            let _ = rustix::process::setpgid(None, None);
            let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
            Ok(socket)
        }
        Ok(Fork::Parent { pid, pidfd }) => {
            drop(socket);
            let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
            watch(pid, &pidfd, &signals)
        }
    }
}

fn watch(command: Pid, pidfd: &OwnedFd, signals: &Signals) -> ! {
    loop {
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        while let Some(number) = signals.next() {
            if number == Signal::CHILD.as_raw() {
                reap_all(command);
            } else {
                let _ = signal::send(pidfd.as_fd(), number);
            }
        }
    }
}

/// One SIGCHLD may stand for many children.
fn reap_all(command: Pid) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == command && !status.stopped() {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            clone::exit(status.exit_status().or(signal).unwrap_or(255));
        }
    }
}
