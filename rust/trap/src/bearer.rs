//! How a process carries its credentials: in a resource limit that limits nothing.
//!
//! RLIMIT_LOCKS has had no effect since Linux 2.4.25 (getrlimit(2)), yet fork and execve
//! hand it on with everything else. Its soft value holds the number of a process's
//! credentials, so there is no table of processes to keep, no fork to be told of, and no
//! end to be missed: whoever is asked about is asked by prlimit(2). Inside, the limit is
//! answered as unlimited (`limits` among the handlers).
//!
//! A limit is the process's and not the thread's: threads with different ids, which only
//! programs that go round their C library have, are not told apart.

use rustix::io::Errno;
use rustix::process::Resource;

/// The number of the first credentials; anything below is a limit that somebody set.
const FIRST: u64 = 0x6475_636b_0000_0000;

/// The number that a process carries; 0, root's, when it never changed.
///
/// # Errors
/// ESRCH: it is gone.
pub fn number_of(pid: i32) -> Result<u32, Errno> {
    let (soft, _) = duckweed_sys::limit::of_process(pid, Resource::Locks).map_err(errno)?;
    Ok(read(soft))
}

/// The number in a value of the limit, as /proc/PID/limits shows it too.
pub fn read(soft: u64) -> u32 {
    soft.checked_sub(FIRST).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// Gives a process its number.
///
/// # Errors
/// ESRCH: it is gone. EINVAL where the hard limit is not unlimited: there is no room for a number.
pub fn give(pid: i32, number: u32) -> Result<(), Errno> {
    let value = FIRST + u64::from(number);
    duckweed_sys::limit::set_of_process(pid, Resource::Locks, (value, u64::MAX)).map_err(errno)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
