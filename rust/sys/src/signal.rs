//! Signals as data: blocked, then read from a descriptor beside all other events; and sent to a
//! process that cannot come to mean another one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signalfd(2), non-blocking, for signals that are blocked in this (single) thread.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` and opens a descriptor to read them from.
    ///
    /// A child inherits the blocked mask over fork and exec: whoever starts a program must clear it.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM of signalfd(2); EINVAL for a number that is no signal.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset writes the whole set in this frame before anything reads it; sigaddset and
        // sigprocmask read and write only that; a null old set is allowed.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                check(libc::sigaddset(set.as_mut_ptr(), *signal))?;
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()))?;
        }
        // SAFETY: the set was initialised above and is only read.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        check(fd)?;
        // SAFETY: made by the kernel a line ago; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that arrived, or `None` when there is none waiting.
    #[must_use]
    pub fn next(&self) -> Option<i32> {
        // signalfd_siginfo is 128 bytes and begins with the signal's number.
        let mut info = [0u8; 128];
        let got = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut info[..])).ok()?;
        let number = info.first_chunk::<4>().filter(|_| got == info.len())?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends any signal, real-time ones too, to the process behind a pidfd.
///
/// # Errors
/// ESRCH when it has ended, EPERM, EINVAL for a number that is no signal.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: pidfd_send_signal(2) copies two integers; a null siginfo means "as kill(2) does", flags are 0.
    let status = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ignores a signal in this process and, over exec, in programs that do not say otherwise.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours; a bad number only returns an error.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// The highest real-time signal's number; the lowest is [`realtime_min`].
#[must_use]
pub fn realtime_max() -> i32 {
    libc::SIGRTMAX()
}

/// The lowest real-time signal that the C library leaves to programs.
#[must_use]
pub fn realtime_min() -> i32 {
    libc::SIGRTMIN()
}

/// Ends this process by `signal` with its default disposition, or with exit code 128+n when that does not kill.
pub fn die_by(signal: i32) -> ! {
    // SAFETY: resets a disposition and unblocks one signal of this process, then raises it; the set is
    // initialised by sigemptyset before use.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::signal(signal, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::raise(signal);
    }
    std::process::exit(128 + signal)
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_from_the_descriptor() {
        // Its own thread has its own mask, and a signal sent to a thread stays there.
        std::thread::spawn(|| {
            let signals = Signals::block(&[libc::SIGUSR2]).unwrap();
            assert_eq!(signals.next(), None);
            // SAFETY: raise(3) sends to the calling thread, where the signal is blocked.
            unsafe { libc::raise(libc::SIGUSR2) };
            assert_eq!(signals.next(), Some(libc::SIGUSR2));
            assert_eq!(signals.next(), None);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_number_that_is_no_signal_is_refused() {
        let me = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
        assert_eq!(send(me.unwrap().as_fd(), 99).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
