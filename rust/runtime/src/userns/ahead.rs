//! The first process of a container that is not known yet.
//!
//! Making namespaces (the network's above all) and the file systems that every container
//! has is a third of a start. A supervisor on standby (`supervise::standby`) does it while
//! nobody waits: it forks the process that will be the container's, which makes what is
//! always the same and sleeps on the start socket. One packet says which bundle it is and
//! brings the command's stdio; from there on all is as in [`super::start`], except that
//! some of it is done already.
//!
//! Only for the usual container: every namespace its own, the user namespace joined
//! before. A bundle that wants other namespaces is refused; its maker knows better.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use duckweed_sys::clone::{self, Flags, Fork};
use rustix::mount::{mount_change, MountPropagationFlags};
use rustix::process::{Pid, Signal};

use super::child::{become_command, report};
use super::credentials::{die_with_parent, hide_from_container};
use super::mounts::{self, Prepared};
use super::plan::Plan;
use super::{finish, reap, start_socket, Io, Started};
use crate::bundle::Bundle;
use crate::message::packet;
use crate::spec::Mount;
use crate::start_error::{Code, Doing as _, StartError};

/// The namespaces of the usual container, but for the user namespace.
const USUAL: Flags =
    clone::NEWNS | clone::NEWPID | clone::NEWIPC | clone::NEWUTS | clone::NEWNET | clone::NEWCGROUP;

/// A process that waits to become a container; dropping it ends it.
#[derive(Debug)]
pub struct Ahead {
    pid: Pid,
    /// `None` when [`Ahead::finish`] has taken it.
    pidfd: Option<OwnedFd>,
    socket: OwnedFd,
}

/// What it made while it waited.
pub(super) struct Warm {
    mounts: Vec<(Mount, Prepared)>,
}

impl Warm {
    /// The mount, if it is one of the usual ones and not taken yet.
    pub fn take(&mut self, mount: &Mount) -> Option<Prepared> {
        let same = |(made, _): &(Mount, Prepared)| made.kind == mount.kind && made.options == mount.options;
        let found = self.mounts.iter().position(same)?;
        Some(self.mounts.swap_remove(found).1)
    }
}

impl Ahead {
    /// Forks it. This process must be single-threaded and in the user namespace to be used.
    ///
    /// # Errors
    /// `namespace` when one is refused.
    pub fn fork() -> Result<Ahead, StartError> {
        let (ours, theirs) = start_socket()?;
        match clone::fork(USUAL).doing(Code::Namespace, || "make namespaces ahead")? {
            Fork::Child => {
                drop(ours);
                wait_and_become(theirs)
            }
            Fork::Parent { pid, pidfd } => Ok(Ahead { pid, pidfd: Some(pidfd), socket: ours }),
        }
    }

    /// Tells it which bundle it is, and its descriptors 0, 1 and 2.
    ///
    /// # Errors
    /// It has died.
    pub fn begin(&self, bundle: &Path, stdio: [BorrowedFd<'_>; 3]) -> Result<(), StartError> {
        packet::send(self.socket.as_fd(), b'b', bundle.as_os_str().as_bytes(), &stdio)
            .doing(Code::Internal, || "wake the container's process")
    }

    /// Comes back when its execve has succeeded.
    ///
    /// # Errors
    /// As [`super::start`].
    pub fn finish(mut self, bundle: &Bundle) -> Result<Started, StartError> {
        match self.pidfd.take() {
            Some(pidfd) => finish(self.pid, pidfd, &self.socket, Ok(()), bundle),
            None => Err(StartError::new(Code::Internal, "start", "started twice")),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
            let _ = reap(self.pid);
        }
    }
}

fn wait_and_become(socket: OwnedFd) -> ! {
    // What fails here fails again, and is told, when there is somebody to tell.
    let warm = warm_up().ok();
    let error = match woken(&socket) {
        Ok(None) => clone::exit(0),
        Ok(Some(bundle)) => match plan(&bundle) {
            Ok(plan) => become_command(plan, warm, socket),
            Err(error) => error,
        },
        Err(error) => error,
    };
    report(&socket, &error);
    clone::exit(error.exit_code)
}

fn plan(bundle: &Bundle) -> Result<Plan<'_>, StartError> {
    let plan = Plan::new(bundle, Io::Inherit)?;
    if plan.namespaces.flags != USUAL {
        let message = "a container with other namespaces than the usual ones cannot be started ahead";
        return Err(StartError::new(Code::Spec, "read linux.namespaces", message));
    }
    Ok(plan)
}

fn warm_up() -> Result<Warm, StartError> {
    die_with_parent()?;
    hide_from_container()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(Code::Mount, || "make the mounts private")?;
    duckweed_sys::interface::loopback_up().doing(Code::Namespace, || "bring up the loopback interface")?;
    let place = mounts::Place { bundle_dir: Path::new("/"), own_pid: true, own_network: true, maps: None };
    let made =
        usual_mounts().into_iter().map(|mount| mounts::prepare(&mount, place).map(|made| (mount, made)));
    Ok(Warm { mounts: made.collect::<Result<_, _>>()? })
}

/// The mounts that depend on nothing, as the engine writes them.
fn usual_mounts() -> [Mount; 3] {
    let mount = |kind: &str, options: &[&str]| Mount {
        destination: Path::new("/").join(kind),
        kind: kind.into(),
        source: kind.into(),
        options: options.iter().map(ToString::to_string).collect(),
        text: String::new(),
    };
    [
        mount("proc", &["nosuid", "noexec", "nodev"]),
        mount("duckweed-dev", &[]),
        mount("sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ]
}

/// Sleeps until there is a bundle; `None` when nobody needs this process any more.
fn woken(socket: &OwnedFd) -> Result<Option<Bundle>, StartError> {
    let mut buffer = [0; 4096];
    let received =
        packet::receive(socket.as_fd(), &mut buffer).doing(Code::Internal, || "wait for a bundle")?;
    let Some((bytes, fds)) = received else { return Ok(None) };
    let wrong = || StartError::new(Code::Internal, "wait for a bundle", "the packet brings none");
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| wrong())?;
    rustix::stdio::dup2_stdin(&stdin).doing(Code::Internal, || "take stdin")?;
    rustix::stdio::dup2_stdout(&stdout).doing(Code::Internal, || "take stdout")?;
    rustix::stdio::dup2_stderr(&stderr).doing(Code::Internal, || "take stderr")?;
    let path = bytes.strip_prefix(b"b").ok_or_else(wrong)?;
    let mut bundle = Bundle::load(Path::new(OsStr::from_bytes(path)))?;
    bundle.joined = true;
    Ok(Some(bundle))
}
