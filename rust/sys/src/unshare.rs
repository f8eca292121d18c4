//! unshare(2) as a safe door: rustix marks it unsafe because one flag is.

use std::io;

pub use rustix::thread::UnshareFlags;

/// Moves the calling thread into new namespaces.
///
/// # Errors
/// As unshare(2); EINVAL for `FILES`, with which another thread could close descriptors
/// that this one holds as owned.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the only flag that breaks descriptor ownership, FILES, was refused above.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}
