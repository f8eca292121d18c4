//! The `userns` isolation backend: from a bundle to a process held apart by namespaces.
//!
//! One fork into all namespaces at once; the child makes its own world and becomes the
//! command. Parent and child share one socket, the start socket:
//!
//! ```text
//! parent                                     child
//! clone(NEW*)                                mounts private; root file system and binds as detached
//! single id: nothing                         trees; pivot into the root, the host's tree is gone
//! range: newuidmap, newgidmap at once        (single id: writes its own maps first)
//!   "maps are written" ------------------->  waits here only when it must
//!                                            the other mounts, /dev, limits, user, capabilities
//!   <----------------- the pty's master, if  seccomp, execve
//!   <--- a StartError in JSON, or the end of file that close-on-exec makes of a good exec
//! ```
//!
//! Everything after the pivot happens with `/` being the container's: a hostile link in
//! an image can only lead to the image. What must come from the host (sources of bind
//! mounts, a fresh /proc, which the kernel grants only to who still sees one) is held as
//! a detached mount by then.

mod ahead;
mod child;
mod command;
pub(crate) mod copy;
mod credentials;
mod dev;
mod enter;
mod host;
pub(crate) mod idmap;
mod init;
mod kernel;
mod kit;
mod mounts;
mod namespace;
mod options;
mod overlay;
pub(crate) mod plan;
mod reach;
mod resolve;
mod root;
mod terminal;
mod tree;
pub mod user;

pub use ahead::{Ahead, Ending};
pub use enter::exec;
pub use kit::Kit;
pub use namespace::{join, make, remove_trees};
pub use reach::reach;
/// What the trap backend's commands do in the same way.
pub(crate) mod trap {
    pub(crate) use super::child::{identify_in as identify, report};
    pub(crate) use super::command::{exec, program};
    pub(crate) use super::credentials::{die_with_parent, limit};
    pub(crate) use super::init::stay_behind;
    pub(crate) use super::terminal::stdio;
}
pub(crate) use enter::with_request as exec_bundle;
pub(crate) use {
    ahead::take_stdio, credentials::capability_mask, namespace::inside, namespace::make_for, plan::Plan,
    tree::remove,
};

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use duckweed_sys::clone::{self, Fork};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::process::Pid;

use crate::bundle::Bundle;
use crate::emulation::{Emulation, Heard};
use crate::isolation::{Io, Started};
use crate::start_error::{Code, Doing as _, StartError};

/// Starts the bundle's command; comes back when its execve has succeeded.
///
/// The process must be single-threaded (see [`clone::fork`]); the command dies with it.
///
/// # Errors
/// Whatever kept it from starting; no process is left then.
pub fn start(bundle: &Bundle, io: Io) -> Result<Started, StartError> {
    let plan = plan::Plan::new(bundle, io)?;
    if let Some(maps) = plan.maps.as_ref().filter(|_| !bundle.joined) {
        maps.check_caller(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())?;
    }
    let (ours, theirs) = start_socket()?;
    match clone::fork(plan.namespaces.flags).map_err(|error| plan.namespaces.refusal(&error))? {
        Fork::Child => {
            drop(ours);
            child::become_command(plan, None, theirs)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            drop(plan.io);
            let maps = match &plan.maps {
                Some(maps) if !maps.is_single() && !bundle.joined => {
                    maps.write_by_helpers(pid).and_then(|()| go(&ours))
                }
                _ => Ok(()),
            };
            finish(pid, pidfd, &ours, maps, bundle)
        }
    }
}

/// Runs a plain OCI bundle with our stdio and answers with the exit code of its command.
///
/// # Errors
/// As [`start`].
pub fn run_bundle(dir: &Path, _id: &str) -> Result<i32, StartError> {
    let bundle = Bundle::load(dir)?;
    let started = start(&bundle, Io::Inherit)?;
    reap(started.pid)
}

/// Waits for a child and says its exit code, 128+n for signal n.
pub(crate) fn reap(pid: Pid) -> Result<i32, StartError> {
    use rustix::process::{waitpid, WaitOptions};
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(code) = status.exit_status() {
                    return Ok(code);
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(128 + signal);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(StartError::errno(Code::Internal, "wait for the container", errno)),
        }
    }
}

pub(crate) fn start_socket() -> Result<(OwnedFd, OwnedFd), StartError> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .doing(Code::Internal, || "make the start socket")
}

fn go(socket: &OwnedFd) -> Result<(), StartError> {
    rustix::net::send(socket, b"g", SendFlags::NOSIGNAL).doing(Code::Internal, || "tell the child").map(drop)
}

/// Hears the child out; on any failure the child is killed and reaped.
fn finish(
    pid: Pid,
    pidfd: OwnedFd,
    socket: &OwnedFd,
    so_far: Result<(), StartError>,
    bundle: &Bundle,
) -> Result<Started, StartError> {
    // The child's own word comes first: one that gave up makes every message to it fail.
    let mut emulate = |heard: Heard| Emulation::start(bundle, heard).map(Some);
    let heard = if so_far.is_ok() || is_over(&pidfd) {
        outcome(socket, &mut emulate)
    } else {
        Ok(Outcome::default())
    };
    finish_with(pid, Ok(pidfd), heard.and_then(|outcome| so_far.map(|()| outcome)))
}

fn finish_with(
    pid: Pid,
    pidfd: Result<OwnedFd, StartError>,
    outcome: Result<Outcome, StartError>,
) -> Result<Started, StartError> {
    let started =
        |pidfd, Outcome { console, emulation, link }| Started { pid, pidfd, console, emulation, link };
    match pidfd.and_then(|pidfd| outcome.map(|outcome| started(pidfd, outcome))) {
        Ok(started) => Ok(started),
        Err(error) => {
            // Not reaped yet, so the pid is still this child's.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = reap(pid);
            Err(error)
        }
    }
}

fn is_over(pidfd: &OwnedFd) -> bool {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready == 1)
}

/// What came with a good start.
#[derive(Debug, Default)]
struct Outcome {
    console: Option<OwnedFd>,
    emulation: Option<Emulation>,
    link: Option<OwnedFd>,
}

/// Reads the start socket to its end: perhaps a link, a console, a listener, then an error or nothing.
fn outcome(
    socket: &OwnedFd,
    emulate: &mut dyn FnMut(Heard) -> Result<Option<Emulation>, StartError>,
) -> Result<Outcome, StartError> {
    let mut outcome = Outcome::default();
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let message = match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.doing(Code::Internal, || "hear from the child")?,
        };
        if message.bytes == 0 {
            return Ok(outcome);
        }
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = part {
                fds.extend(more);
            }
        }
        let text = &bytes[..message.bytes];
        if let Some(heard) = Heard::parse(text, &mut fds) {
            outcome.emulation = emulate(heard)?;
        } else if let Ok(error) = serde_json::from_slice(text) {
            return Err(error);
        } else if text == b"l" {
            outcome.link = fds.into_iter().next();
        } else {
            outcome.console = fds.into_iter().next();
        }
    }
}

/// The emulator's stdio is nobody's, and what it makes has the mode it is told.
pub(crate) fn silence_for_emulator() -> Result<(), StartError> {
    credentials::die_with_parent()?;
    rustix::process::umask(rustix::fs::Mode::empty());
    crate::supervise::silence().doing(Code::Internal, || "open /dev/null")
}

/// After a change of namespaces: still nobody inside may look at us, and we go when the supervisor goes.
pub(crate) fn stay_hidden() -> Result<(), StartError> {
    credentials::hide_from_container()?;
    credentials::die_with_parent()
}
