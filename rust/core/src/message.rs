//! The packets that pass between Python and a supervisor (docs/contracts.md §6).
//!
//! One packet of a SOCK_SEQPACKET socket is one message: a type byte, a payload,
//! and perhaps descriptors. Python builds and reads the JSON; this file moves it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::{
    recvmsg, sendmsg, socket_with, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::process::borrow;

/// The largest payload: one type byte and this fit the 64 KiB of the contract.
const LARGEST: usize = 64 * 1024;
/// More descriptors than any message of ours carries.
const MOST_FDS: usize = 4;

/// A connected pair, both ends close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// One received message: type, payload, descriptors.
pub type Message = (u8, Vec<u8>, Vec<OwnedFd>);

/// Receives one message, waiting for it; `None` is the end.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut payload = vec![0; LARGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut payload)], &mut ancillary, flags)
    })?
    .bytes;
    if got == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    payload.truncate(got);
    let kind = payload.remove(0);
    Ok(Some((kind, payload, fds)))
}

fn send_message(socket: BorrowedFd<'_>, kind: u8, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(rustix::io::Errno::INVAL));
    }
    let kind = [kind];
    let parts = [IoSlice::new(&kind), IoSlice::new(payload)];
    rustix::io::retry_on_intr(|| sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The address of a socket file; a path too long for sockaddr_un goes through its directory's descriptor.
fn address(path: &Path) -> io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    if path.as_os_str().as_bytes().len() <= 107 {
        return Ok((SocketAddrUnix::new(path)?, None));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(rustix::io::Errno::INVAL));
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, rustix::fs::Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((SocketAddrUnix::new(short)?, Some(directory)))
}

/// A SEQPACKET pair `(ours, theirs)`, both close-on-exec; the caller owns both numbers.
#[pyfunction]
pub fn channel() -> PyResult<(i32, i32)> {
    let (ours, theirs) = pair()?;
    Ok((ours.into_raw_fd(), theirs.into_raw_fd()))
}

/// Connects to a supervisor's socket and returns the descriptor, which the caller owns. Raises OSError (ENOENT, ECONNREFUSED: nobody is there).
#[pyfunction]
pub fn connect(py: Python<'_>, path: PathBuf) -> PyResult<i32> {
    let socket = py.detach(|| -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (address, _directory) = address(&path)?;
        rustix::net::connect(&socket, &address)?;
        Ok(socket)
    })?;
    Ok(socket.into_raw_fd())
}

/// Sends one message with at most four descriptors. `kind` is one byte. Raises OSError (EPIPE: the other side is gone).
#[pyfunction]
#[pyo3(signature = (fd, kind, payload, fds=Vec::new()))]
pub fn send(py: Python<'_>, fd: i32, kind: &[u8], payload: &[u8], fds: Vec<i32>) -> PyResult<()> {
    let &[kind] = kind else {
        return Err(pyo3::exceptions::PyValueError::new_err("kind is one byte"));
    };
    if payload.len() >= LARGEST {
        return Err(pyo3::exceptions::PyValueError::new_err("a message is at most 64 KiB"));
    }
    let (socket, payload) = (borrow(fd)?, payload.to_vec());
    let fds = fds.into_iter().map(borrow).collect::<PyResult<Vec<_>>>()?;
    Ok(py.detach(|| send_message(socket, kind, &payload, &fds))?)
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
    let deadline = timeout_s.map(|s| std::time::Instant::now() + Duration::from_secs_f64(s.clamp(0.0, 1e9)));
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
        let slice = left.unwrap_or(Duration::MAX).min(Duration::from_millis(100));
        if py.detach(|| readable(socket, slice))? {
            break;
        }
        py.check_signals()?;
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
    }
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).unbind();
    Ok(Some(match py.detach(|| receive(socket)) {
        Ok(Some((kind, payload, fds))) => {
            (bytes(&[kind]), bytes(&payload), fds.into_iter().map(IntoRawFd::into_raw_fd).collect())
        }
        Ok(None) => (bytes(b""), bytes(b""), Vec::new()),
        Err(error) if error.raw_os_error() == Some(104) => (bytes(b""), bytes(b""), Vec::new()), // ECONNRESET: it died with our words unread
        Err(error) => return Err(error.into()),
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
