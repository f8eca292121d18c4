//! The command's way from the fork to its execve.
//!
//! Up to the filter it is a process of ours on the host; from the filter on, every path it names is the
//! container's, and it is root there until it takes on its user.

use std::os::fd::{AsFd as _, OwnedFd};

use duckweed_sys::clone;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Pid, Uid};

use super::{boundary, Job};
use crate::bundle::Bundle;
use crate::isolation::Io;
use crate::seccomp::{self, Builtin};
use crate::spec::{RootEmulation, SeccompProfile};
use crate::start_error::{Code, Doing as _, StartError};
use crate::userns::{self, trap as shared};

/// Everything after the fork; the socket closes by itself when the command runs.
pub(super) fn become_one(
    bundle: &Bundle,
    io: Io,
    tracer: Pid,
    job: &Job<'_>,
    is_privileged: bool,
    socket: OwnedFd,
) -> ! {
    let error = match arrive(bundle, &io, tracer, is_privileged, job, &socket) {
        Ok(()) => match job {
            Job::Work(work) => {
                drop(socket);
                clone::exit(work())
            }
            Job::Command => {
                if bundle.block.init {
                    match shared::stay_behind(socket) {
                        Ok(socket) => {
                            // What init keeps back for itself is not the command's business.
                            duckweed_sys::exec::reset_signals();
                            fail(&socket, &execute(bundle))
                        }
                        Err((socket, error)) => fail(&socket, &error),
                    }
                }
                execute(bundle)
            }
        },
        Err(error) => error,
    };
    fail(&socket, &error)
}

fn fail(socket: &OwnedFd, error: &StartError) -> ! {
    shared::report(socket, error);
    clone::exit(error.exit_code)
}

/// Up to the filter, and through it.
fn arrive(
    bundle: &Bundle,
    io: &Io,
    tracer: Pid,
    is_privileged: bool,
    job: &Job<'_>,
    socket: &OwnedFd,
) -> Result<(), StartError> {
    shared::die_with_parent()?;
    let process = &bundle.spec.process;
    if let Some(adjustment) = process.oom_score_adj {
        // Lowering it needs privilege on the host: not worth a container.
        let _ = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
    }
    // Orphans are the container's first process's, as in a pid namespace.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    duckweed_sys::ptrace::allow_tracer(tracer.as_raw_nonzero().get());
    match io {
        Io::Slave(slave) => {
            let _ = rustix::process::setsid();
            rustix::process::ioctl_tiocsctty(slave).doing(Code::Internal, || "take the terminal")?;
            shared::stdio(slave.as_fd(), slave.as_fd(), slave.as_fd())
        }
        Io::Fds { stdin, stdout, stderr } => shared::stdio(stdin.as_fd(), stdout.as_fd(), stderr.as_fd()),
        _ => Ok(()),
    }
    .doing(Code::Internal, || "hand over stdio")?;
    duckweed_sys::exec::close_on_exec_from(3).doing(Code::Internal, || "close what is inherited")?;
    wait(socket)?;
    if matches!(job, Job::Command) {
        shared::limit(&process.rlimits)?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.user.umask.unwrap_or(0o022)));
    rustix::thread::set_no_new_privs(true).doing(Code::Internal, || "set no_new_privs")?;
    boundary::set(bundle)?;
    duckweed_sys::exec::reset_signals();
    filters(bundle, is_privileged)?;
    rustix::process::chdir("/").doing(Code::Rootfs, || "enter the container's root")
}

/// Until the tracer has us.
fn wait(socket: &OwnedFd) -> Result<(), StartError> {
    let mut byte = [0];
    loop {
        match rustix::net::recv(socket, &mut byte, rustix::net::RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok((1, _)) => return Ok(()),
            _ => clone::exit(125),
        }
    }
}

/// The container's own, and the tracer's last: nothing of ours is looked up on the host after it.
fn filters(bundle: &Bundle, is_privileged: bool) -> Result<(), StartError> {
    let builtin = bundle.block.seccomp.map(|profile| match profile {
        SeccompProfile::Default => Builtin::Default,
        SeccompProfile::Unconfined => Builtin::Unconfined,
    });
    let rules = bundle.spec.linux.seccomp.as_ref();
    let names =
        bundle.spec.process.capabilities.as_ref().map(|lists| lists.effective.clone()).unwrap_or_default();
    let capabilities = userns::capability_mask(&names);
    let own = match is_privileged {
        true => None,
        false => seccomp::program(rules, builtin, capabilities, None, None)
            .map_err(|error| StartError::new(Code::Seccomp, "make the filter", error.to_string()))?,
    };
    let flags = rules.map_or(0, |rules| rules.flag_bits());
    let install = |program: &[duckweed_sys::seccomp::Instruction], flags| {
        duckweed_sys::seccomp::install(program, flags)
            .doing(Code::Seccomp, || "install the system call filter")
    };
    if let Some(program) = own {
        install(&program, flags)?;
    }
    install(&duckweed_trap::trace::filter::program(bundle.block.has_gate()), 0)
}

/// Inside: finds its user, makes its directory, and becomes the program.
fn execute(bundle: &Bundle) -> StartError {
    match prepare(bundle) {
        Ok((program, env)) => {
            let search = bundle.block.path_search.unwrap_or(true);
            shared::exec(&bundle.spec.process.args[0], &env, search, &program)
        }
        Err(error) => error,
    }
}

fn prepare(bundle: &Bundle) -> Result<(duckweed_sys::exec::Program, Vec<String>), StartError> {
    let process = &bundle.spec.process;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).doing(Code::Rootfs, || "open /")?;
    let (identity, env) = shared::identify(bundle, root.as_fd())?;
    drop(root);
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    let program = shared::program(&process.args, &env)?;
    let entered = rustix::process::chdir(cwd);
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let context = || "take on the user";
    if bundle.block.root_emulation != RootEmulation::Full {
        // Root, with no groups to take on: what a user namespace with one id has.
        return match (identity.uid, identity.gid) {
            (0, 0) => entered
                .doing(Code::BadCwd, || format!("enter the working directory {cwd}"))
                .map(|()| (program, env)),
            (uid, gid) => {
                let message = format!("user {uid}:{gid} has no id here: other users are not emulated");
                Err(StartError::new(Code::BadUser, "become the user", message))
            }
        };
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).doing(Code::BadUser, context)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(Code::BadUser, context)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(Code::BadUser, context)?;
    entered.doing(Code::BadCwd, || format!("enter the working directory {cwd}"))?;
    Ok((program, env))
}
