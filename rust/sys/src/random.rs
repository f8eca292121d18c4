//! Random bytes, getrandom(2).

use std::io;

/// Fills a short buffer.
///
/// # Errors
/// ENOSYS before Linux 3.17.
pub fn fill(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: the kernel writes at most the buffer's length into it.
    let count = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if usize::try_from(count) == Ok(buffer.len()) {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
