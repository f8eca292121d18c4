//! A process of the container that is our child, by its pidfd: signalled and reaped one by one.
//!
//! There is no wildcard wait and no pid to confuse: the descriptor means this process
//! for ever, becomes readable when it ends, and names it to waitid(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{waitid, WaitId, WaitIdOptions};

/// A child that was started.
#[derive(Debug)]
pub struct Child {
    pidfd: OwnedFd,
}

impl Child {
    /// Takes charge of a child by its pidfd.
    #[must_use]
    pub fn new(pidfd: OwnedFd) -> Self {
        Self { pidfd }
    }

    /// Its exit code if it has ended, 128+n for signal n; it is reaped then.
    pub fn exit_code(&self) -> Option<i32> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), options)) {
            Ok(status) => status?,
            // Not our child any more: its end is a fact, its code is lost.
            Err(_) => return Some(137),
        };
        status.exit_status().or_else(|| Some(128 + status.terminating_signal()?))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// ESRCH when it has ended, EINVAL for a number that is no signal.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        duckweed_sys::signal::send(self.pidfd.as_fd(), number)
    }

    /// Ends it.
    pub fn kill(&self) {
        // ESRCH is the aim.
        let _ = self.signal(rustix::process::Signal::KILL.as_raw());
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
