//! The clients: what a user's terminal runs once Python has found the container.
//!
//! The command line replaces itself by one of these, so that no interpreter stays between
//! a terminal and a container. [`attach`] exchanges messages with the supervisor; [`exec`] hands
//! its descriptors over, or gets a terminal's master, and then only waits. Both end with
//! the exit code they are told, and leave the user's terminal as they found it.

mod attach;
mod detach;
mod exec;
mod output;
mod ready;
mod signals;
mod terminal;

use std::io::Write as _;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::message::{packet, ClientMessage, Exit};
use crate::start_error::StartError;

pub use attach::attach;
pub use detach::DetachKeys;
pub use exec::exec;

/// Ours: the supervisor vanished, or could not be reached.
const UNKNOWN: i32 = 125;

/// Where the supervisor is.
#[derive(Debug)]
pub enum Reach {
    /// Its listening socket.
    Socket(PathBuf),
    /// A connection that is an attached client's already.
    Channel(OwnedFd),
}

/// How a client shall behave; the switches of `attach` and `exec`.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct Manners {
    /// Send what we read on descriptor 0.
    pub stdin: bool,
    /// The other side is a terminal: ours becomes raw, sizes are sent.
    pub tty: bool,
    /// Show output.
    pub stdout: bool,
    /// Pass signals on instead of dying of them.
    pub sig_proxy: bool,
    /// What the user types to leave without ending anything.
    pub detach_keys: DetachKeys,
}

/// How a client ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Told so: the exit code.
    Exit(i32),
    /// The user typed the detach keys.
    Detached,
    /// A signal that was not passed on.
    Signal(i32),
    /// The supervisor said no.
    Refused(Box<StartError>),
    /// The connection ended without an exit code.
    Lost,
    /// Our own output cannot be written: nobody reads it.
    BrokenOutput,
}

impl End {
    /// The process's exit code; a signal's end is by the signal. The terminal has been restored by now.
    fn into_exit_code(self) -> i32 {
        match self {
            Self::Exit(code) => code,
            Self::Detached => {
                say("read escape sequence");
                0
            }
            Self::Signal(signal) => duckweed_sys::signal::die_by(signal),
            Self::BrokenOutput => duckweed_sys::signal::die_by(rustix::process::Signal::PIPE.as_raw()),
            Self::Refused(error) => {
                say(&format!("duckweed: {}", error.message));
                error.exit_code
            }
            Self::Lost => {
                say("duckweed: the container's supervisor is gone; how the container ended is unknown");
                UNKNOWN
            }
        }
    }
}

impl From<Exit> for End {
    fn from(exit: Exit) -> Self {
        if !exit.error.is_empty() {
            say(&format!("duckweed: {}", exit.error));
        }
        Self::Exit(exit.exit_code)
    }
}

/// One line for people.
fn say(line: &str) {
    // A closed stderr is no reason for another end.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says something to the supervisor. One that is gone is noticed when its socket is read next.
fn tell(socket: BorrowedFd<'_>, message: &ClientMessage<'_>) {
    let (kind, payload) = message.encode();
    let _ = packet::send(socket, kind, &payload, &[]);
}

impl Reach {
    fn connect(self) -> std::io::Result<(OwnedFd, bool)> {
        match self {
            Self::Socket(path) => Ok((packet::connect(&path)?, false)),
            Self::Channel(channel) => Ok((channel, true)),
        }
    }
}
