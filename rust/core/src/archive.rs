//! Bindings of the writing half of the layer crate: trees in, tars and blobs out.
//!
//! As an extraction, each call does its work on a thread of its own while the
//! calling one looks for signals, and Ctrl-C ends it.

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};

use duckweed_layer::bundle_tar::{write_parts, Content, Part};
use duckweed_layer::pack::{Packed, Packer, Packing};
use duckweed_layer::{describe, Compression, FileSection, NoFacts, Request, WriteError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::layer::{BadImage, LayerReport, StoreError};
use crate::process::{borrow, SIGNAL_CHECK};

/// Runs `job` beside the signals; the flag it is given is raised by one.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    job: impl FnOnce(Arc<AtomicBool>) -> PyResult<T> + Send,
) -> PyResult<T> {
    let cancel = Arc::new(AtomicBool::new(false));
    py.detach(|| {
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let flag = Arc::clone(&cancel);
            scope.spawn(move || sender.send(job(flag)));
            let mut raised = None;
            loop {
                match receiver.recv_timeout(SIGNAL_CHECK) {
                    Ok(result) => return raised.map_or(result, Err),
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        if let Err(error) = Python::attach(|py| py.check_signals()) {
                            cancel.store(true, Ordering::Relaxed);
                            raised.get_or_insert(error);
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        return Err(StoreError::new_err("the work ended without a result"))
                    }
                }
            }
        })
    })
}

fn write_error(error: &WriteError) -> PyErr {
    match error {
        WriteError::Request(_) => PyValueError::new_err(error.to_string()),
        WriteError::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => {
            pyo3::exceptions::PyBrokenPipeError::new_err("nobody reads the archive any more")
        }
        _ => StoreError::new_err(error.to_string()),
    }
}

fn read(request: &str) -> PyResult<Request> {
    let request = Request::parse(request).map_err(|error| write_error(&error))?;
    match request.memory {
        None => Ok(request),
        Some(_) => Err(PyValueError::new_err("`memory` is for the runtime, which can read it")),
    }
}

fn packing(compression: &str, level: Option<i32>) -> PyResult<Packing> {
    let compression = match compression {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        other => return Err(PyValueError::new_err(format!("unknown compression `{other}`"))),
    };
    Ok(Packing { compression, level })
}

fn packer(path: &std::path::Path, packing: Packing) -> PyResult<Packer> {
    Packer::create(path, packing).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => PyValueError::new_err(error.to_string()),
        _ => StoreError::new_err(format!("cannot write `{}`: {}", path.display(), describe(&error))),
    })
}

fn report(packed: Packed, compression: Compression, entries: u64) -> LayerReport {
    LayerReport {
        diff_id: packed.diff_id.to_string(),
        blob_digest: packed.blob_digest.to_string(),
        blob_size: packed.blob_size,
        blob_media_type: compression.media_type(),
        size: packed.size,
        entries,
        skipped: Vec::new(),
    }
}

/// Writes the tar that a request describes; see `_core.pyi`.
#[pyfunction]
pub fn archive_tree(py: Python<'_>, request: &str, out_fd: i32) -> PyResult<(u64, u64)> {
    let request = read(request)?;
    let out = borrow(out_fd)?.try_clone_to_owned()?;
    interruptible(py, move |cancel| {
        let out = BufWriter::with_capacity(256 * 1024, std::fs::File::from(out));
        let written = request.write(out, &NoFacts, Some(cancel)).map_err(|error| write_error(&error))?;
        Ok((written.entries, written.size))
    })
}

/// Lists changes; see `_core.pyi`.
#[pyfunction]
pub fn tree_changes(py: Python<'_>, request: &str) -> PyResult<Vec<(char, Vec<u8>)>> {
    let request = read(request)?;
    py.detach(|| request.changes(&NoFacts)).map_err(|error| write_error(&error))
}

/// Writes a layer's blob; see `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (request, blob_out, *, compression="zstd", level=None))]
pub fn write_layer(
    py: Python<'_>,
    request: &str,
    blob_out: PathBuf,
    compression: &str,
    level: Option<i32>,
) -> PyResult<LayerReport> {
    let request = read(request)?;
    let packing = packing(compression, level)?;
    interruptible(py, move |cancel| {
        let mut packer = packer(&blob_out, packing)?;
        let written =
            request.write(&mut packer, &NoFacts, Some(cancel)).map_err(|error| write_error(&error))?;
        let packed = packer.finish().map_err(|error| write_error(&WriteError::Output(error)))?;
        Ok(report(packed, packing.compression, written.entries))
    })
}

/// Packs a layer anew; see `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (fd, blob_out, *, compression="zstd", level=None, offset=0, length=None))]
pub fn pack_layer(
    py: Python<'_>,
    fd: i32,
    blob_out: PathBuf,
    compression: &str,
    level: Option<i32>,
    offset: u64,
    length: Option<u64>,
) -> PyResult<LayerReport> {
    let (source, packing) = (borrow(fd)?, packing(compression, level)?);
    interruptible(py, move |cancel| {
        let packer = packer(&blob_out, packing)?;
        let packed = duckweed_layer::pack::repack(FileSection::new(source, offset, length), packer, &cancel);
        let packed = packed.map_err(|error| BadImage::new_err(format!("cannot pack the layer: {error}")))?;
        Ok(report(packed, packing.compression, 0))
    })
}

/// A part as Python gives it: name, its bytes or the path of a file, size, whether the file is to be unpacked.
type GivenPart = (String, Either, u64, bool);

/// `bytes` or `str`.
#[derive(FromPyObject)]
pub enum Either {
    /// Contents.
    Bytes(Vec<u8>),
    /// A file.
    Path(PathBuf),
}

/// Writes an image archive; see `_core.pyi`.
#[pyfunction]
pub fn write_archive(py: Python<'_>, out_fd: i32, parts: Vec<GivenPart>) -> PyResult<()> {
    let out = borrow(out_fd)?.try_clone_to_owned()?;
    let parts: Vec<Part> = parts
        .into_iter()
        .map(|(name, content, size, is_packed)| Part {
            name,
            content: match (content, is_packed) {
                (Either::Bytes(bytes), _) => Content::Bytes(bytes),
                (Either::Path(path), false) => Content::File(path, size),
                (Either::Path(path), true) => Content::Unpacked(path, size),
            },
        })
        .collect();
    interruptible(py, move |cancel| {
        let out = BufWriter::with_capacity(256 * 1024, std::fs::File::from(out));
        write_parts(out, &parts, &cancel).map_err(|error| write_error(&error))
    })
}
