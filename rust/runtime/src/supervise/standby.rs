//! A supervisor that waits to be given its container.
//!
//! A program that starts one ephemeral container after another would wait each time for
//! this executable to be mapped and initialised. Instead it keeps one supervisor ahead:
//! executed, in the shared user namespace already, asleep on its channel. One packet
//! wakes it: `J {"op":"start","container":"/abs"}` with the descriptors that become 0, 1 and 2.
//! From there on it is an ordinary `--inherit` supervisor. When the channel closes first,
//! nobody needs it any more.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::Deserialize;

use crate::message::packet;
use crate::start_error::{Code, Doing as _, StartError};
use crate::userns::Ahead;

#[derive(Deserialize)]
struct Start {
    op: String,
    container: PathBuf,
}

/// Sleeps until there is a container; `None` when the channel closed instead.
///
/// # Errors
/// A packet that is not the one expected.
pub fn wait(channel: &OwnedFd, ahead: &mut Option<Ahead>) -> Result<Option<PathBuf>, StartError> {
    let mut buffer = vec![0; 8 * 1024];
    let received =
        packet::receive(channel.as_fd(), &mut buffer).doing(Code::Internal, || "wait for a container")?;
    let Some((bytes, fds)) = received else { return Ok(None) };
    let wrong = || StartError::new(Code::Internal, "wait for a container", "the packet names none");
    let start: Start = bytes
        .strip_prefix(b"J")
        .and_then(|json| serde_json::from_slice(json).ok())
        .filter(|start: &Start| start.op == "start")
        .ok_or_else(wrong)?;
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| wrong())?;
    if let Some(process) = ahead {
        // Our own stay /dev/null: the caller's pipes end with the container.
        if process.begin(&start.container, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).is_ok() {
            return Ok(Some(start.container));
        }
        *ahead = None;
    }
    rustix::stdio::dup2_stdin(&stdin).doing(Code::Internal, || "take stdin")?;
    rustix::stdio::dup2_stdout(&stdout).doing(Code::Internal, || "take stdout")?;
    rustix::stdio::dup2_stderr(&stderr).doing(Code::Internal, || "take stderr")?;
    Ok(Some(start.container))
}
