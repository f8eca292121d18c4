//! clone(2) as fork(2) into new namespaces: one call, one process, a pidfd with it.
//!
//! The old call and not clone3(2): Docker's default profile answers clone3 with ENOSYS,
//! and all we ask for fits the old flags.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// Namespaces to make, a sum of `CLONE_NEW*`.
pub type Flags = i32;

/// `CLONE_NEW*` of clone(2).
pub const NEWUSER: Flags = libc::CLONE_NEWUSER;
#[allow(missing_docs)]
pub const NEWNS: Flags = libc::CLONE_NEWNS;
#[allow(missing_docs)]
pub const NEWPID: Flags = libc::CLONE_NEWPID;
#[allow(missing_docs)]
pub const NEWIPC: Flags = libc::CLONE_NEWIPC;
#[allow(missing_docs)]
pub const NEWUTS: Flags = libc::CLONE_NEWUTS;
#[allow(missing_docs)]
pub const NEWNET: Flags = libc::CLONE_NEWNET;
#[allow(missing_docs)]
pub const NEWCGROUP: Flags = libc::CLONE_NEWCGROUP;

/// Not a namespace: the child's parent is the caller's parent.
pub const PARENT: Flags = libc::CLONE_PARENT;

/// On which side of the fork we are.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child, in our pid namespace.
        pid: Pid,
        /// The child for ever.
        pidfd: OwnedFd,
    },
}

/// Forks into the namespaces of `flags`. The child has a copy of everything, as after fork(2).
///
/// The process must have one thread only: locks that another thread holds would stay
/// locked in the child. `duckweed-runtime` never starts a thread.
///
/// # Errors
/// EPERM, ENOSPC, EINVAL, EUSERS when namespaces are refused (namespaces(7)), EAGAIN, ENOMEM; ENOSYS before
/// Linux 5.2, which has no pidfds (there is a child then, which nobody can name).
pub fn fork(flags: Flags) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let flags = i64::from(flags | libc::CLONE_PIDFD | libc::SIGCHLD);
    #[cfg(target_arch = "s390x")]
    compile_error!("clone(2) takes its first two arguments the other way round here");
    // SAFETY: without CLONE_VM and with a null stack the call behaves as fork(2): the child goes on
    // on a copy of this stack. The kernel writes the pidfd through the pointer, which is to this frame.
    // No other thread exists (callers, see above), so no lock of libc is left taken in the child.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, flags, 0_usize, &raw mut pidfd, std::ptr::null_mut::<i32>(), 0_usize)
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    match Pid::from_raw(pid as i32) {
        None => Ok(Fork::Child),
        // Before Linux 5.2 the flag meant nothing: the child finds its start socket closed and ends.
        Some(_) if pidfd < 0 => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        // SAFETY: with CLONE_PIDFD the kernel has made this descriptor, close-on-exec, for the parent alone.
        Some(pid) => Ok(Fork::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Ends this process at once, without destructors or libc's exit handlers: for the child of [`fork`].
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not come back.
    unsafe { libc::_exit(code) }
}
