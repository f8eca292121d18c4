//! Bindings of `cp`'s two ends on this machine; the container's are the runtime's.

use std::io::{BufWriter, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use duckweed_layer::copying::{own_root, receive, send, Arrival, CopyFault};
use duckweed_layer::unpack::{Links, NewOwner};
use duckweed_layer::FileSection;
use pyo3::exceptions::{PyBrokenPipeError, PyFileNotFoundError, PyIsADirectoryError, PyNotADirectoryError};
use pyo3::prelude::*;
use std::os::unix::ffi::OsStrExt as _;

use crate::archive::interruptible;
use crate::layer::StoreError;
use crate::process::borrow;

fn fault(error: &CopyFault) -> PyErr {
    let text = error.to_string();
    match error {
        CopyFault::NotThere => PyFileNotFoundError::new_err(text),
        CopyFault::NoDirectory => PyNotADirectoryError::new_err(text),
        CopyFault::OntoFile => PyIsADirectoryError::new_err(text),
        CopyFault::Write(duckweed_layer::WriteError::Output(source))
            if source.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            PyBrokenPipeError::new_err("nobody reads the archive any more")
        }
        _ => StoreError::new_err(text),
    }
}

fn relative(path: &std::path::Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().position(|&byte| byte != b'/').unwrap_or(bytes.len());
    bytes[start..].to_vec()
}

/// Writes a path of this machine as a tar; see `_core.pyi`.
#[pyfunction]
pub fn send_path(py: Python<'_>, path: PathBuf, follow: bool, out_fd: i32) -> PyResult<u64> {
    let out = borrow(out_fd)?.try_clone_to_owned()?;
    interruptible(py, move |_| {
        let root = own_root().map_err(|errno| fault(&CopyFault::Path(errno)))?;
        let out = BufWriter::with_capacity(256 * 1024, std::fs::File::from(out));
        let written = send(&root, &relative(&path), follow, ".", out).map_err(|error| fault(&error))?;
        Ok(written.size)
    })
}

/// Puts such a tar to a path of this machine; see `_core.pyi`.
#[pyfunction]
pub fn receive_path(
    py: Python<'_>,
    fd: i32,
    path: PathBuf,
    name: Vec<u8>,
    contents: bool,
) -> PyResult<(u64, Vec<String>)> {
    let source = borrow(fd)?;
    interruptible(py, move |cancel| {
        let root = own_root().map_err(|errno| fault(&CopyFault::Path(errno)))?;
        let arrival = Arrival { name, is_contents: contents, owner: NewOwner::Maker, links: Links::Refused };
        let size = Arc::new(AtomicU64::new(0));
        let counted = Counted { source: FileSection::whole(source), size: Arc::clone(&size), cancel };
        let done = receive(root, &relative(&path), &arrival, counted).map_err(|error| fault(&error))?;
        Ok((size.load(Ordering::Relaxed), done.skipped))
    })
}

/// A stream whose bytes are counted, and which ends when the caller gives up.
struct Counted<R> {
    source: R,
    size: Arc<AtomicU64>,
    cancel: Arc<AtomicBool>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("cancelled"));
        }
        let n = self.source.read(buffer)?;
        self.size.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
