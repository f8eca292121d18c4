//! Descriptors that arrive as numbers: from a command line, or from Python.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// Closes every descriptor but `keep` and 0, 1, 2: for a child of fork that goes on without exec.
///
/// The objects of this process that own the others must never be dropped or used again: such a child
/// ends by [`crate::clone::exit`].
pub fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).chain([0, 1, 2]).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut from = 0;
    for number in kept {
        close_between(from, number - 1);
        from = number + 1;
    }
    close_between(from, RawFd::MAX);
}

fn close_between(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: three integers. Owners of what is closed here are not used again (the caller's promise above).
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result < 0 {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(65536);
        for number in first..=last.min(most.min(1 << 20) as RawFd) {
            // SAFETY: as above; EBADF for a number that is not open.
            unsafe { libc::close(number) };
        }
    }
}
