//! What starts a command, whichever backend a bundle is for: what it is given, and what comes back.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::process::Pid;
use serde::Deserialize;

use crate::bundle::Bundle;
use crate::emulation::Emulation;
use crate::spec::Isolation;
use crate::start_error::StartError;
use crate::{trap, userns};

/// The command's stdin, stdout and stderr.
#[derive(Debug)]
pub enum Io {
    /// Ours.
    Inherit,
    /// These.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// This terminal.
    Slave(OwnedFd),
    /// A new terminal of the container's own devpts.
    Terminal {
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        cols: u16,
    },
}

/// A command that runs.
#[derive(Debug)]
pub struct Started {
    /// In our pid namespace; ours to reap.
    pub pid: Pid,
    /// The same, for ever.
    pub pidfd: OwnedFd,
    /// The terminal's master side, for [`Io::Terminal`].
    pub console: Option<OwnedFd>,
    /// Who answers its trapped calls, when it is the container's first and there are any.
    pub emulation: Option<Emulation>,
    /// Our end of the container's network interface, for [`Bundle::link`].
    pub link: Option<OwnedFd>,
}

/// A command for a running container, contracts.md §6.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ExecRequest {
    /// The command; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, after the container's own environment and winning over it.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub cwd: String,
    /// Empty: the container's.
    pub user: String,
    /// More groups.
    pub groups: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// With all capabilities and without the filter.
    pub privileged: bool,
    /// No command, but this request of `duckweed-runtime copy` (trap isolation only).
    #[serde(skip)]
    pub copy: Option<String>,
}

/// Starts the bundle's command.
///
/// # Errors
/// As [`userns::start`].
pub fn start(bundle: &Bundle, io: Io) -> Result<Started, StartError> {
    match bundle.block.isolation {
        Isolation::Userns => userns::start(bundle, io),
        Isolation::Trap => trap::start(bundle, io),
    }
}

/// Starts a further command.
///
/// # Errors
/// As [`userns::exec`].
pub fn exec(
    bundle: &Bundle,
    init: BorrowedFd<'_>,
    request: &ExecRequest,
    io: Io,
    emulation: Option<&Emulation>,
) -> Result<Started, StartError> {
    match bundle.block.isolation {
        Isolation::Userns => userns::exec(bundle, init, request, io, emulation),
        Isolation::Trap => trap::exec(bundle, request, io, emulation),
    }
}
