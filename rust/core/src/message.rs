//! The packets that pass between Python and a supervisor (docs/contracts.md §6).
//!
//! One packet of a SOCK_SEQPACKET socket is one message: a type byte, a payload,
//! and perhaps descriptors. Python builds and reads the JSON; this file moves it.

use std::io;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use duckweed_sys::packet;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::process::{borrow, SIGNAL_CHECK};

/// One received message: type, payload, descriptors.
pub type Message = (u8, Vec<u8>, Vec<OwnedFd>);

/// Receives one message, waiting for it; `None` is the end.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut buffer = vec![0; packet::LARGEST];
    let received = packet::receive(socket, &mut buffer)?;
    Ok(received.map(|(bytes, fds)| (bytes[0], bytes[1..].to_vec(), fds)))
}

/// A SEQPACKET pair `(ours, theirs)`, both close-on-exec; the caller owns both numbers.
#[pyfunction]
pub fn channel() -> PyResult<(i32, i32)> {
    let (ours, theirs) = packet::pair().map_err(io::Error::from)?;
    Ok((ours.into_raw_fd(), theirs.into_raw_fd()))
}

/// Connects to a supervisor's socket and returns the descriptor, which the caller owns. Raises OSError (ENOENT, ECONNREFUSED: nobody is there).
#[pyfunction]
pub fn connect(py: Python<'_>, path: PathBuf) -> PyResult<i32> {
    Ok(py.detach(|| packet::connect(&path))?.into_raw_fd())
}

/// Sends one message with at most four descriptors. `kind` is one byte. Raises OSError (EPIPE: the other side is gone).
#[pyfunction]
#[pyo3(signature = (fd, kind, payload, fds=Vec::new()))]
pub fn send(py: Python<'_>, fd: i32, kind: &[u8], payload: &[u8], fds: Vec<i32>) -> PyResult<()> {
    let &[kind] = kind else {
        return Err(pyo3::exceptions::PyValueError::new_err("kind is one byte"));
    };
    if payload.len() >= packet::LARGEST {
        return Err(pyo3::exceptions::PyValueError::new_err("a message is at most 64 KiB"));
    }
    let (socket, payload) = (borrow(fd)?, payload.to_vec());
    let fds = fds.into_iter().map(borrow).collect::<PyResult<Vec<_>>>()?;
    Ok(py.detach(|| packet::send(socket, kind, &payload, &fds)).map_err(io::Error::from)?)
}

/// Waits up to `timeout_s` seconds (None: for ever) for one message: `(kind, payload, fds)`, the fds owned by the caller.
/// None when the time is up; `(b"", b"", [])` when the other side has closed. Raises OSError.
#[pyfunction(name = "receive")]
#[pyo3(signature = (fd, timeout_s=None))]
#[allow(clippy::type_complexity)]
pub fn receive_message(
    py: Python<'_>,
    fd: i32,
    timeout_s: Option<f64>,
) -> PyResult<Option<(Py<PyBytes>, Py<PyBytes>, Vec<i32>)>> {
    let socket = borrow(fd)?;
    let deadline = timeout_s.map(|s| Instant::now() + Duration::from_secs_f64(s.clamp(0.0, 1e9)));
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let slice = left.unwrap_or(Duration::MAX).min(SIGNAL_CHECK);
        if py.detach(|| readable(socket, slice))? {
            break;
        }
        py.check_signals()?;
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
    }
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).unbind();
    Ok(Some(match py.detach(|| receive(socket))? {
        Some((kind, payload, fds)) => {
            (bytes(&[kind]), bytes(&payload), fds.into_iter().map(IntoRawFd::into_raw_fd).collect())
        }
        None => (bytes(b""), bytes(b""), Vec::new()),
    }))
}

fn readable(socket: BorrowedFd<'_>, wait: Duration) -> io::Result<bool> {
    let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    match poll(&mut fds, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
        Err(error) => Err(error.into()),
    }
}
