//! Trials: finding out by trying, in a child that may break itself.
//!
//! Many facts of a place can be learned only by doing the thing, and the doing changes
//! the process for good (a namespace, a filter, a tracer). [`attempt`] forks, lets the
//! child do it, and brings back the answer through a pipe. The child never returns into
//! the caller's code: it leaves by `_exit`, so no destructor and no exit handler runs twice.

use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The body returned: its answer's bytes.
    Answered(Vec<u8>),
    /// The child died of this signal before it had answered.
    Killed(i32),
}

/// Seconds a trial may take before SIGALRM ends it; nothing probed here blocks by design.
const PATIENCE_S: u32 = 10;

/// Runs `body` in a forked child and returns what it answered.
///
/// The caller should have a single thread (the probe has): with more, the body may find
/// locks held for ever. glibc keeps its own allocator usable after fork, which is what
/// the tests rely on.
///
/// # Errors
/// When the pipe, fork or wait fails; never because of what the body finds.
pub fn attempt(body: impl FnOnce() -> Vec<u8>) -> io::Result<Ending> {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two descriptors into the array of two that we pass.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made both descriptors just now; nobody else owns them.
    let (mut reader, mut writer) =
        unsafe { (std::fs::File::from_raw_fd(ends[0]), std::fs::File::from_raw_fd(ends[1])) };
    // SAFETY: the caller keeps to one thread (documented above); the child ends below without returning.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: plain integers; the alarm ends the child should the body hang.
        unsafe { libc::alarm(PATIENCE_S) };
        let status = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(answer) => i32::from(writer.write_all(&answer).is_err()),
            Err(_) => 101,
        };
        // SAFETY: leaves the child at once, as promised in the module's story.
        unsafe { libc::_exit(status) };
    }
    drop(writer);
    let mut answer = Vec::new();
    // EOF comes when the child and all that it forked are gone or have closed the pipe.
    let read = reader.read_to_end(&mut answer);
    let status = wait(pid)?;
    read?;
    if libc::WIFSIGNALED(status) {
        return Ok(Ending::Killed(libc::WTERMSIG(status)));
    }
    Ok(Ending::Answered(answer))
}

/// Forks a child that runs `body` and ends; for trials that need a second process to do
/// something to. The caller waits for it.
///
/// # Errors
/// When fork fails. The caller must have a single thread, as for [`attempt`].
pub fn fork_holder(body: impl FnOnce()) -> io::Result<rustix::process::Pid> {
    // SAFETY: single-threaded caller (documented above); the child ends below.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: plain integers; alarms are not inherited over fork.
        unsafe { libc::alarm(PATIENCE_S) };
        let _ = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: leaves the child at once.
        unsafe { libc::_exit(0) };
    }
    rustix::process::Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error)
}

/// Waits for a child of ours and returns its raw status.
fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid writes one int to `status`.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_back() {
        assert_eq!(attempt(|| b"yes".to_vec()).unwrap(), Ending::Answered(b"yes".to_vec()));
    }

    #[test]
    fn death_by_a_signal_is_an_ending_and_not_an_error() {
        let ending = attempt(|| {
            // SAFETY: a signal to the child itself, which is what is tested.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            b"not reached".to_vec()
        });
        assert_eq!(ending.unwrap(), Ending::Killed(libc::SIGKILL));
    }
}
