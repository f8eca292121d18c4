//! The `trap` isolation backend: a container where nothing is allowed.
//!
//! No namespace, no mount, no capability: the container's processes are ordinary processes of the user's, and a
//! tracer ([`duckweed_trap::trace`]) answers every call of theirs that names a file, an id or a process.
//!
//! ```text
//! supervisor --fork--> tracer            seizes the commands; if it dies, they die
//!     |  control         ^
//!     +--fork--> command +               stdio, limits, Landlock, filter; then its own calls are answered
//!          "seized" ---->|               already: it finds its user, makes its directory, executes
//! ```
//!
//! What is promised: a program that behaves sees the container's files and no others. What holds a program
//! that does not is the kernel's: Landlock ([`boundary`]) and the filters. `docs/trap.md` has the terms.

mod boundary;
mod command;
mod layout;
mod tracer;

use std::os::fd::{AsFd, OwnedFd};

use duckweed_sys::clone::{self, Fork};
use rustix::process::Pid;

use crate::bundle::Bundle;
use crate::emulation::Emulation;
use crate::isolation::{ExecRequest, Io, Started};
use crate::start_error::{Code, Doing as _, StartError};
use crate::userns::{exec_bundle, start_socket};

/// What a command does when it has arrived: the bundle's own words, or work of ours with the container's files.
pub(crate) enum Job<'a> {
    /// The bundle's process.
    Command,
    /// This, whose answer is the exit code.
    Work(&'a dyn Fn() -> i32),
}

/// Starts the bundle's command; comes back when its execve has succeeded.
///
/// # Errors
/// Whatever kept it from starting; no process is left then.
pub fn start(bundle: &Bundle, io: Io) -> Result<Started, StartError> {
    let tracing = tracer::start(bundle)?;
    let mut started = launch(bundle, io, &tracing, &Job::Command, false)?;
    started.emulation = Some(tracing);
    Ok(started)
}

/// Starts a further command beside those that run.
///
/// # Errors
/// As [`start`].
pub fn exec(
    bundle: &Bundle,
    request: &ExecRequest,
    io: Io,
    tracing: Option<&Emulation>,
) -> Result<Started, StartError> {
    let ended = || StartError::new(Code::Internal, "enter the container", "the container has ended");
    let tracing = tracing.ok_or_else(ended)?;
    if let Some(text) = &request.copy {
        let work = || crate::copying::run_here(text);
        return launch(bundle, io, tracing, &Job::Work(&work), true);
    }
    let mut bundle = exec_bundle(bundle, request);
    bundle.block.init = false;
    launch(&bundle, io, tracing, &Job::Command, request.privileged)
}

/// Does `job` with the files of a container that does not run; answers with its exit code.
///
/// # Errors
/// As [`start`].
pub fn reach(bundle: &Bundle, job: &dyn Fn() -> i32) -> Result<i32, StartError> {
    let tracing = tracer::start(bundle)?;
    let started = launch(bundle, Io::Inherit, &tracing, &Job::Work(job), true)?;
    let code = crate::userns::reap(started.pid);
    drop(tracing);
    code
}

fn launch(
    bundle: &Bundle,
    io: Io,
    tracing: &Emulation,
    job: &Job<'_>,
    is_privileged: bool,
) -> Result<Started, StartError> {
    if bundle.spec.process.args.is_empty() {
        return Err(StartError::new(Code::Spec, "read the command", "no command: `process.args` is empty"));
    }
    let (io, console) = terminal(io)?;
    let (ours, theirs) = start_socket()?;
    match clone::fork(0).doing(Code::Internal, || "fork the command")? {
        Fork::Child => {
            drop(ours);
            command::become_one(bundle, io, tracing.pid(), job, is_privileged, theirs)
        }
        Fork::Parent { pid, pidfd } => {
            drop((theirs, io));
            let heard = seized(tracing, pid, is_privileged).and_then(|()| hear(&ours));
            match heard {
                Ok(()) => Ok(Started { pid, pidfd, console, emulation: None, link: None }),
                Err(error) => {
                    // Not reaped yet, so the pid is still this child's.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    let _ = crate::userns::reap(pid);
                    Err(error)
                }
            }
        }
    }
}

/// Has the tracer take a child of ours, and tells the child.
fn seized(tracing: &Emulation, pid: Pid, is_privileged: bool) -> Result<(), StartError> {
    let message = tracer::Message::Arrival { pid: pid.as_raw_nonzero().get(), is_privileged };
    tracer::tell(tracing, &message)
}

/// The child's word: the end of the socket when it runs, or why it does not.
fn hear(socket: &OwnedFd) -> Result<(), StartError> {
    rustix::net::send(socket, b"g", rustix::net::SendFlags::NOSIGNAL)
        .doing(Code::Internal, || "tell the child")?;
    let mut bytes = vec![0; 16 * 1024];
    loop {
        match rustix::net::recv(socket, &mut bytes, rustix::net::RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok((0, _)) => return Ok(()),
            Ok((length, _)) => match serde_json::from_slice(&bytes[..length]) {
                Ok(error) => return Err(error),
                Err(_) => continue,
            },
            Err(errno) => return Err(StartError::errno(Code::Internal, "hear from the child", errno)),
        }
    }
}

/// A terminal of the machine's: its other end becomes the command's stdio.
fn terminal(io: Io) -> Result<(Io, Option<OwnedFd>), StartError> {
    let Io::Terminal { rows, cols } = io else { return Ok((io, None)) };
    let make = || -> Result<(OwnedFd, OwnedFd), rustix::io::Errno> {
        use rustix::pty::OpenptFlags;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty())?;
        if rows != 0 && cols != 0 {
            let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&slave, size)?;
        }
        Ok((master, slave))
    };
    let (master, slave) = make().doing(Code::Internal, || "make a terminal")?;
    let copy = || slave.as_fd().try_clone_to_owned().doing(Code::Internal, || "copy the terminal");
    Ok((Io::Slave(copy()?), Some(master)))
}
