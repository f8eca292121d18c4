//! Descriptors that arrive as numbers: from a command line, or from Python.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Borrows an open descriptor by number.
///
/// The borrow is as good as the caller's promise to keep the number open for its
/// length; a number that is not open at the start is refused, and one closed
/// midway gives EBADF from the kernel, never memory trouble.
///
/// # Errors
/// EBADF when the number is not an open descriptor.
pub fn borrow<'a>(number: RawFd) -> io::Result<BorrowedFd<'a>> {
    check(number)?;
    // SAFETY: open a line ago, and not -1 (fcntl refuses it); whoever passed the number keeps it open.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Takes ownership of a descriptor inherited by number and makes it close-on-exec.
///
/// To be called once per number: the program that started us gave it to us and to nobody else in this process.
///
/// # Errors
/// EBADF when the number is not an open descriptor.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    check(number)?;
    // SAFETY: open a line ago; inherited, so no other object of this process owns it (the caller's promise above).
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

fn check(number: RawFd) -> io::Result<()> {
    // SAFETY: F_GETFD takes an integer and touches no memory.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
