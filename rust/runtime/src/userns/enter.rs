//! A further command in a running container.
//!
//! Three processes: the supervisor; a short-lived one that joins init's namespaces
//! (joining a pid namespace takes effect for children only, setns(2)); and the command,
//! which that one clones with `CLONE_PARENT`, so that the supervisor can wait for it.
//!
//! What a process of the container could do to us on the way (CVE-2019-5736: reach the
//! runtime's file through /proc/PID/exe and write to it, being the same uid) is closed
//! from before we enter: a process that is not dumpable lets nobody look into its /proc
//! entry who has no CAP_SYS_PTRACE over the user namespace it was executed in, and that is
//! the host's. What `#!/proc/self/exe` could still get hold of is a sealed copy that nobody
//! can write to (`crate::sealed`), or, where there can be none, a file that the supervisor
//! executes for as long as the container lives: the kernel refuses to open it for writing
//! (ETXTBSY).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use duckweed_sys::clone::{self, Fork};
use rustix::fs::{Mode, OFlags};
use rustix::net::SendFlags;
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{move_into_thread_name_spaces, ThreadNameSpaceType};

use super::child::{execute, identify, report};
use super::credentials::{die_with_parent, hide_from_container, CapabilityMasks};
use super::plan::{Filter, Plan};
use super::{go, outcome, reap, start_socket, terminal};
use crate::bundle::Bundle;
use crate::emulation::{Arrival, Emulation, Heard};
use crate::isolation::{ExecRequest, Io, Started};
use crate::start_error::{Code, Doing as _, StartError};

/// Starts a command in a running container, `init` (a pidfd) being its first process.
///
/// # Errors
/// As [`super::start`].
pub fn exec(
    bundle: &Bundle,
    init: BorrowedFd<'_>,
    request: &ExecRequest,
    io: Io,
    emulation: Option<&Emulation>,
) -> Result<Started, StartError> {
    let bundle = with_request(bundle, request);
    let mut plan = Plan::new(&bundle, io)?;
    if request.privileged {
        plan.capabilities = CapabilityMasks::all();
        plan.filter = Filter::asking_only(plan.emulation, plan.gate)?;
    }
    let (ours, theirs) = start_socket()?;
    match clone::fork(0).doing(Code::Internal, || "fork")? {
        Fork::Child => {
            drop(ours);
            let error = match enter(&plan, init, &theirs) {
                Ok(()) => clone::exit(0),
                Err(error) => error,
            };
            report(&theirs, &error);
            clone::exit(125)
        }
        Fork::Parent { pid, .. } => {
            drop(theirs);
            drop(plan.io);
            reap(pid)?;
            adopt(&ours, emulation)
        }
    }
}

/// The command's pid comes first, or the error that kept it from being made.
fn adopt(socket: &OwnedFd, emulation: Option<&Emulation>) -> Result<Started, StartError> {
    let mut bytes = [0; 4096];
    let (length, _) = rustix::net::recv(socket, &mut bytes, rustix::net::RecvFlags::empty())
        .doing(Code::Internal, || "hear from the child")?;
    let message = &bytes[..length.min(bytes.len())];
    if let Ok(error) = serde_json::from_slice(message) {
        return Err(error);
    }
    let pid = std::str::from_utf8(message)
        .ok()
        .and_then(|text| text.strip_prefix("pid ")?.parse().ok())
        .and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return Err(StartError::new(Code::Namespace, "enter the container", "the container has ended"));
    };
    // Our own child and not reaped yet: the pid cannot mean another process.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .doing(Code::Internal, || "open the command's pidfd");
    let mut take_in = |heard: Heard| match emulation {
        Some(emulation) => emulation.take_in(&heard).map(|()| None),
        None => Err(StartError::new(Code::Seccomp, "emulate root", "nobody answers in this container")),
    };
    super::finish_with(pid, pidfd, go(socket).and_then(|()| outcome(socket, &mut take_in)))
}

/// The bundle as it would be if the request were its command.
pub(crate) fn with_request(bundle: &Bundle, request: &ExecRequest) -> Bundle {
    let mut bundle = bundle.clone();
    let process = &mut bundle.spec.process;
    process.args.clone_from(&request.args);
    for variable in &request.env {
        let name = variable.split('=').next().unwrap_or_default();
        process.env.retain(|old| old.split('=').next() != Some(name));
        process.env.push(variable.clone());
    }
    if !request.cwd.is_empty() {
        process.cwd.clone_from(&request.cwd);
    }
    if request.privileged {
        process.no_new_privileges = false;
    }
    if !request.user.is_empty() {
        bundle.block.user = Some(request.user.clone());
    }
    bundle.block.groups.extend(request.groups.iter().cloned());
    bundle.block.make_cwd = false;
    bundle.block.path_search = Some(true);
    bundle
}

/// In the short-lived process: joins, then clones the command.
fn enter(plan: &Plan<'_>, init: BorrowedFd<'_>, socket: &OwnedFd) -> Result<(), StartError> {
    hide_from_container()?;
    let mut flags = plan.namespaces.flags;
    if plan.bundle.block.network.as_ref().is_some_and(|network| network.shares.is_some()) {
        // Its network is another container's, and so is its commands'.
        flags |= clone::NEWNET;
    }
    let kinds = ThreadNameSpaceType::from_bits_retain(flags as u32);
    move_into_thread_name_spaces(init, kinds)
        .doing(Code::Namespace, || "enter the container's namespaces")?;
    match clone::fork(clone::PARENT).doing(Code::Internal, || "fork in the container")? {
        Fork::Child => {
            let error = match arrive(plan, socket) {
                Ok((identity, env)) => execute(plan, &identity, &env, Ok(Arrival::later()), socket),
                Err(error) => error,
            };
            report(socket, &error);
            clone::exit(error.exit_code)
        }
        Fork::Parent { pid, .. } => {
            let message = format!("pid {}", pid.as_raw_nonzero());
            rustix::net::send(socket, message.as_bytes(), SendFlags::NOSIGNAL)
                .doing(Code::Internal, || "tell the parent")
                .map(drop)
        }
    }
}

fn arrive(plan: &Plan<'_>, socket: &OwnedFd) -> Result<(super::user::Identity, Vec<String>), StartError> {
    die_with_parent()?;
    let mut byte = [0];
    // The parent answers when it has our pid: only then may anything else be said here.
    let (heard, _) = rustix::net::recv(socket, &mut byte, rustix::net::RecvFlags::empty())
        .doing(Code::Internal, || "hear from the parent")?;
    if heard == 0 {
        clone::exit(125);
    }
    super::child::become_root(plan.maps.as_ref())?;
    rustix::process::umask(Mode::empty());
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .doing(Code::Internal, || "open /")?;
    let who = identify(plan, root.as_fd())?;
    if let Io::Terminal { rows, cols } = plan.io {
        terminal::take(rows, cols, socket, false)?;
    }
    Ok(who)
}
