//! The trap backend on a machine whose registers it does not know.

use crate::bundle::Bundle;
use crate::emulation::Emulation;
use crate::isolation::{ExecRequest, Io, Started};
use crate::start_error::{Code, StartError};

fn refuse<T>() -> Result<T, StartError> {
    let message = "the trap isolation is for x86_64 alone in this release";
    Err(StartError::new(Code::Internal, "start the command", message))
}

/// # Errors
/// Always.
pub fn start(_: &Bundle, _: Io) -> Result<Started, StartError> {
    refuse()
}

/// # Errors
/// Always.
pub fn exec(_: &Bundle, _: &ExecRequest, _: Io, _: Option<&Emulation>) -> Result<Started, StartError> {
    refuse()
}

/// # Errors
/// Always.
pub fn reach(_: &Bundle, _: &dyn Fn() -> i32) -> Result<i32, StartError> {
    refuse()
}
