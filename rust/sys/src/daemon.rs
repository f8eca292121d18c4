//! Leaving the process that started us: fork(2), so that it does not wait, and setsid(2), so that its
//! terminal's end is not ours.

use std::io;

/// Continues in a child in a session of its own; the parent exits with 0 at once.
///
/// To be called while the process has one thread: the child of a threaded process may only do
/// async-signal-safe work, and this one goes on with everything.
///
/// # Errors
/// EAGAIN or ENOMEM of fork(2), in the parent.
pub fn daemonize() -> io::Result<()> {
    // SAFETY: one thread (the caller's promise above), so the child's memory is whole and no lock is held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            rustix::process::setsid()?;
            Ok(())
        }
        // SAFETY: _exit(2) runs no destructors: everything now belongs to the child.
        _ => unsafe { libc::_exit(0) },
    }
}
