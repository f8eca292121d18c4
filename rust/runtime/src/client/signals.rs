//! Which signals a client keeps, passes on, or dies of.
//!
//! With a proxy everything that can be caught and says something goes to the command
//! (Docker's rule, without SIGCHLD, SIGPIPE and SIGURG). SIGTTIN and SIGTTOU stay the
//! kernel's, so that a client in the background stops as any program does; what a
//! program raises by its own mistake stays its own.

use std::os::fd::{AsFd, BorrowedFd};

use duckweed_sys::signal::{realtime_max, realtime_min, Signals};
use rustix::process::Signal;

/// What a signal asks of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The terminal has another size.
    Resized,
    /// Send it on.
    Pass(u8),
    /// Go.
    Die(i32),
}

/// The client's signals.
#[derive(Debug)]
pub struct Watch {
    signals: Signals,
    proxy: bool,
}

/// Those that end a client which passes nothing on; caught so that the terminal is restored first.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
/// Further ones that are worth passing on.
const PASSED: [Signal; 12] = [
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::CONT,
    Signal::TSTP,
    Signal::XCPU,
    Signal::XFSZ,
    Signal::VTALARM,
    Signal::PROF,
    Signal::IO,
    Signal::POWER,
    Signal::STKFLT,
];

impl Watch {
    /// Begins to catch signals.
    ///
    /// # Errors
    /// What signalfd(2) says.
    pub fn new(proxy: bool) -> std::io::Result<Self> {
        let mut numbers = vec![Signal::WINCH.as_raw()];
        numbers.extend(ENDING.map(Signal::as_raw));
        if proxy {
            numbers.extend(PASSED.map(Signal::as_raw));
            numbers.extend(realtime_min()..=realtime_max());
        }
        Ok(Self { signals: Signals::block(&numbers)?, proxy })
    }

    /// The next one that came.
    pub fn next(&self) -> Option<Heard> {
        let number = self.signals.next()?;
        Some(if number == Signal::WINCH.as_raw() {
            Heard::Resized
        } else if let (true, Ok(number)) = (self.proxy, u8::try_from(number)) {
            Heard::Pass(number)
        } else {
            Heard::Die(number)
        })
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
