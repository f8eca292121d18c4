//! Seccomp user notification, seccomp_unotify(2): hearing of another process's system calls and answering for the kernel.
//!
//! The descriptor comes from [`crate::seccomp::install_with_listener`]. Nothing here looks into the
//! other process; [`crate::memory`] does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `SECCOMP_IOCTL_NOTIF_RECV`, _IOWR('!', 0, struct seccomp_notif of 80 bytes).
const RECV: u64 = 0xc050_2100;
/// `SECCOMP_IOCTL_NOTIF_SEND`, _IOWR('!', 1, struct seccomp_notif_resp of 24 bytes).
const SEND: u64 = 0xc018_2101;
/// `SECCOMP_IOCTL_NOTIF_ID_VALID`, _IOW('!', 2, __u64).
const ID_VALID: u64 = 0x4008_2102;
/// `SECCOMP_IOCTL_NOTIF_ADDFD`, _IOW('!', 3, struct seccomp_notif_addfd of 24 bytes).
const ADDFD: u64 = 0x4018_2103;
/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS`, _IOW('!', 4, __u64).
const SET_FLAGS: u64 = 0x4008_2104;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`.
const SYNC_WAKE_UP: u64 = 1;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// Names the call to the kernel, never used twice on one listener.
    pub id: u64,
    /// The calling thread, in the listener's pid namespace; 0 when it has no number there.
    pub pid: i32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The call's number on that machine.
    pub number: i32,
    /// Its arguments as they were in the registers.
    pub arguments: [u64; 6],
}

fn control<T>(listener: BorrowedFd<'_>, request: u64, argument: *mut T) -> io::Result<i32> {
    // SAFETY: every caller passes a pointer to a live value of the size that the request number encodes.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request as _, argument) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Waits for the next call.
///
/// # Errors
/// ENOENT when the caller was killed before it could be heard; EINTR.
pub fn receive(listener: impl AsFd) -> io::Result<Notification> {
    // SAFETY: plain integers; the kernel wants it zeroed.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    control(listener.as_fd(), RECV, &raw mut call)?;
    Ok(Notification {
        id: call.id,
        pid: call.pid as i32,
        arch: call.data.arch,
        number: call.data.nr,
        arguments: call.data.args,
    })
}

fn respond(listener: BorrowedFd<'_>, id: u64, value: i64, errno: i32, flags: u32) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp { id, val: value, error: -errno, flags };
    control(listener, SEND, &raw mut answer).map(drop)
}

/// The call returns `value`.
///
/// # Errors
/// ENOENT: the caller is gone.
pub fn answer(listener: impl AsFd, id: u64, value: i64) -> io::Result<()> {
    respond(listener.as_fd(), id, value, 0, 0)
}

/// The call fails with `errno`.
///
/// # Errors
/// As [`answer`].
pub fn refuse(listener: impl AsFd, id: u64, errno: i32) -> io::Result<()> {
    respond(listener.as_fd(), id, 0, errno, 0)
}

/// The kernel runs the call as if nobody had asked. What its pointers point at may have changed meanwhile.
///
/// # Errors
/// As [`answer`].
pub fn go_on(listener: impl AsFd, id: u64) -> io::Result<()> {
    respond(listener.as_fd(), id, 0, 0, CONTINUE)
}

/// The call returns a new descriptor of its process, a copy of `fd` (5.14).
///
/// # Errors
/// As [`answer`]; EMFILE when that process has no room.
pub fn answer_with_fd(listener: impl AsFd, id: u64, fd: impl AsFd, close_on_exec: bool) -> io::Result<()> {
    let mut gift = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: fd.as_fd().as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    control(listener.as_fd(), ADDFD, &raw mut gift).map(drop)
}

/// Whether the call still waits: what was read from /proc/PID or its memory before this was true was the caller's.
pub fn is_waiting(listener: impl AsFd, mut id: u64) -> bool {
    control(listener.as_fd(), ID_VALID, &raw mut id).is_ok()
}

/// Asks the kernel to run us on the caller's processor while it waits (6.6): a call costs a third less.
///
/// # Errors
/// EINVAL on an older kernel, which does without.
pub fn wake_in_place(listener: impl AsFd) -> io::Result<()> {
    // The flags are the argument itself, not what it points at.
    // SAFETY: an integer in the place of the pointer; this request reads no memory.
    let result = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
