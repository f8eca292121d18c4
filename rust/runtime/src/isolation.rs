//! Which backend a bundle is for.

use std::os::fd::BorrowedFd;

use crate::bundle::Bundle;
use crate::emulation::Emulation;
use crate::spec::Isolation;
use crate::start_error::StartError;
use crate::userns::{ExecRequest, Io, Started};
use crate::{trap, userns};

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
