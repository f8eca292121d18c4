//! The doors that the probe knocks on to learn whether ptrace, seccomp notification and
//! Landlock work here: ptrace(2), seccomp_unotify(2), landlock_create_ruleset(2).
//!
//! Every function here is a whole small experiment, meant for a child made by
//! [`crate::trial::attempt`], and leaves that child in no state to do anything else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::seccomp::{install, install_with_listener, Instruction};

/// Answers every getpgrp-like call number `number` with `answer`, allows the rest.
fn catch(number: i64, answer: u32) -> [Instruction; 4] {
    let instruction = |code, jf, k| Instruction { code, jt: 0, jf, k };
    // Load the number; equal? answer; else allow.
    [
        instruction(0x20, 0, 0),
        instruction(0x15, 1, number as u32),
        instruction(0x06, 0, answer),
        instruction(0x06, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn no_new_privs() -> io::Result<()> {
    // SAFETY: integers only.
    check(i64::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })).map(drop)
}

/// Forks; the child runs `body` and leaves with its errno as exit status.
fn fork_tracee(body: impl FnOnce() -> io::Result<()>) -> io::Result<i32> {
    // SAFETY: the caller is a single-threaded trial child; the new child ends in _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: plain integers; ends a tracee whose tracer is gone.
        unsafe { libc::alarm(10) };
        let status = body().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status) };
    }
    check(i64::from(pid)).map(|pid| pid as i32)
}

fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: waitpid writes one int.
    check(i64::from(unsafe { libc::waitpid(pid, &raw mut status, 0) }))?;
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 0 {
        return Err(io::Error::from_raw_os_error(libc::WEXITSTATUS(status)));
    }
    Ok(status)
}

fn traced() -> io::Result<()> {
    // SAFETY: TRACEME reads no memory; raise sends a signal to ourselves.
    check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })?;
    // SAFETY: as above.
    check(i64::from(unsafe { libc::raise(libc::SIGSTOP) })).map(drop)
}

fn resume(pid: i32) -> io::Result<()> {
    // SAFETY: integers only; the tracee is stopped, which waitpid has just said.
    check(unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, 0) }).map(drop)
}

/// A child asks to be traced, stops, is resumed and ends.
///
/// # Errors
/// What the place answers, EPERM as a rule.
pub fn trace_child() -> io::Result<()> {
    let pid = fork_tracee(traced)?;
    if !libc::WIFSTOPPED(wait(pid)?) {
        return Err(io::Error::from_raw_os_error(libc::ECHILD));
    }
    resume(pid)?;
    wait(pid).map(drop)
}

/// A traced child meets `SECCOMP_RET_TRACE` and the tracer sees that stop.
///
/// # Errors
/// What the place answers; ENOSYS when the stop did not come.
pub fn trace_by_filter() -> io::Result<()> {
    let pid = fork_tracee(|| {
        no_new_privs()?;
        traced()?;
        install(&catch(libc::SYS_getpgid, libc::SECCOMP_RET_TRACE), 0)?;
        // SAFETY: integers only.
        check(unsafe { libc::syscall(libc::SYS_getpgid, 0) }).map(drop)
    })?;
    wait(pid)?;
    // SAFETY: integers only; the tracee is stopped.
    check(unsafe {
        libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_EXITKILL)
    })?;
    resume(pid)?;
    let status = wait(pid)?;
    if status >> 8 != (libc::SIGTRAP | (libc::PTRACE_EVENT_SECCOMP << 8)) {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    resume(pid)?;
    wait(pid).map(drop)
}

/// Asks for a notification listener.
///
/// # Errors
/// EINVAL before Linux 5.0, EBUSY beneath another listener.
pub fn listen() -> io::Result<()> {
    no_new_privs()?;
    install_with_listener(&catch(libc::SYS_getpgid, libc::SECCOMP_RET_USER_NOTIF), 0).map(drop)
}

/// `SECCOMP_IOCTL_NOTIF_RECV`, _IOWR('!', 0, struct seccomp_notif of 80 bytes).
const NOTIF_RECV: u64 = 0xc050_2100;
/// `SECCOMP_IOCTL_NOTIF_ADDFD`, _IOW('!', 3, struct seccomp_notif_addfd of 24 bytes).
const NOTIF_ADDFD: u64 = 0x4018_2103;

/// A child's call is answered with a descriptor put into it (ADDFD with SEND, 5.14).
///
/// # Errors
/// As [`listen`]; EINVAL when the kernel cannot add and answer at once.
pub fn listen_and_hand_over(gift: BorrowedFd<'_>) -> io::Result<()> {
    no_new_privs()?;
    let listener = install_with_listener(&catch(libc::SYS_getpgid, libc::SECCOMP_RET_USER_NOTIF), 0)?;
    let pid = fork_tracee(|| {
        // SAFETY: integers only.
        let fd = check(unsafe { libc::syscall(libc::SYS_getpgid, 0) })?;
        // SAFETY: F_GETFD takes no third argument.
        check(i64::from(unsafe { libc::fcntl(fd as i32, libc::F_GETFD) })).map(drop)
    })?;
    let answered = hand_over(listener.as_raw_fd(), gift.as_raw_fd());
    // Without a listener the child's call returns ENOSYS and it ends.
    drop(listener);
    let ended = wait(pid);
    answered?;
    ended.map(drop)
}

fn hand_over(listener: i32, gift: i32) -> io::Result<()> {
    // SAFETY: seccomp_notif is plain integers; the kernel wants it zeroed.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request number's size is that of `call`, which the kernel fills.
    check(i64::from(unsafe { libc::ioctl(listener, NOTIF_RECV as _, &raw mut call) }))?;
    let answer = libc::seccomp_notif_addfd {
        id: call.id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: gift as u32,
        newfd: 0,
        newfd_flags: libc::O_CLOEXEC as u32,
    };
    // SAFETY: the kernel reads the 24 bytes of `answer`.
    check(i64::from(unsafe { libc::ioctl(listener, NOTIF_ADDFD as _, &raw const answer) })).map(drop)
}

/// The newest Landlock ABI the kernel speaks.
///
/// # Errors
/// ENOSYS or EOPNOTSUPP without Landlock.
pub fn landlock_abi() -> io::Result<i64> {
    const VERSION: u32 = 1;
    // SAFETY: with the VERSION flag the pointer must be null and the size 0.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION)
    })
}
