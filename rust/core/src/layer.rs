//! Bindings of the layer crate: bytes in, trees and digests out.
//!
//! An extraction can take seconds, so it runs on a thread of its own while the
//! calling one looks for signals; Ctrl-C raises the crate's cancel flag and the
//! half-made tree is gone before Python sees KeyboardInterrupt.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};

use duckweed_layer::{
    archive_index as index_of, decompress as unpack, digest_file as digest_of, extract_layer as extract,
    Compression, DecompressError, Digest, ExtractError, ExtractOptions, FileSection,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::process::{borrow, SIGNAL_CHECK};
use crate::transfer::{os_error, Part};

pyo3::import_exception!(duckweed.errors, BadImage);
pyo3::import_exception!(duckweed.errors, StoreError);

/// What one layer was found to be.
#[pyclass(frozen, get_all, module = "duckweed._core")]
pub struct LayerReport {
    pub(crate) diff_id: String,
    pub(crate) blob_digest: String,
    pub(crate) blob_size: u64,
    pub(crate) blob_media_type: &'static str,
    pub(crate) size: u64,
    pub(crate) entries: u64,
    pub(crate) skipped: Vec<String>,
}

impl From<duckweed_layer::LayerReport> for LayerReport {
    fn from(report: duckweed_layer::LayerReport) -> Self {
        Self {
            diff_id: report.diff_id.to_string(),
            blob_digest: report.blob_digest.to_string(),
            blob_size: report.blob_size,
            blob_media_type: report.blob_media_type,
            size: report.size,
            entries: report.entries,
            skipped: report.skipped,
        }
    }
}

/// Opens when the layers below are there; see `_core.pyi`.
#[pyclass(frozen, module = "duckweed._core")]
#[derive(Default)]
pub struct Gate(Arc<duckweed_layer::Gate>);

#[pymethods]
impl Gate {
    #[new]
    fn new() -> Gate {
        Gate::default()
    }

    fn open(&self) {
        self.0.open();
    }

    fn wait(&self, py: Python<'_>, cancel: &Cancel) -> bool {
        py.detach(|| self.0.wait(Some(&cancel.0)))
    }
}

/// Ends extractions that run on other threads; see `_core.pyi`.
#[pyclass(frozen, module = "duckweed._core")]
#[derive(Default)]
pub struct Cancel(Arc<AtomicBool>);

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Cancel {
        Cancel::default()
    }

    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The disk's faults are the store's; everything else is the image's, with the crate's word for it as `code`.
fn extract_error(py: Python<'_>, error: &ExtractError) -> PyErr {
    use rustix::io::Errno;
    let of_the_disk = matches!(
        error.errno(),
        Some(
            Errno::NOSPC
                | Errno::DQUOT
                | Errno::ROFS
                | Errno::ACCESS
                | Errno::PERM
                | Errno::IO
                | Errno::MFILE
                | Errno::NFILE
                | Errno::FBIG
                | Errno::STALE
        )
    ) || matches!(error, ExtractError::Destination { .. });
    if of_the_disk {
        let raised = StoreError::new_err(error.to_string());
        with_fact(py, raised, "errno", error.errno().map(Errno::raw_os_error))
    } else {
        with_fact(py, BadImage::new_err(error.to_string()), "code", Some(error.code()))
    }
}

/// The error with one more attribute, if there is a value for it.
fn with_fact<'py>(
    py: Python<'py>,
    raised: PyErr,
    name: &str,
    value: Option<impl IntoPyObject<'py>>,
) -> PyErr {
    match value.map(|value| raised.value(py).setattr(name, value)) {
        Some(Err(failure)) => failure,
        _ => raised,
    }
}

fn digest(text: Option<String>) -> PyResult<Option<Digest>> {
    text.map(|text| text.parse().map_err(|_| PyValueError::new_err(format!("not a sha256 digest: {text}"))))
        .transpose()
}

/// Where a layer's bytes come from: a descriptor, or a blob that may still be on its way.
#[derive(FromPyObject)]
pub enum LayerSource {
    Descriptor(i32),
    Part(Py<Part>),
}

impl LayerSource {
    fn open(
        self,
        offset: u64,
        length: Option<u64>,
        cancel: &Arc<AtomicBool>,
    ) -> PyResult<Box<dyn Read + Send>> {
        Ok(match self {
            LayerSource::Descriptor(fd) => Box::new(FileSection::new(borrow(fd)?, offset, length)),
            LayerSource::Part(part) => Box::new(part.get().0.follow(Some(Arc::clone(cancel)))),
        })
    }
}

/// Extracts one layer; see `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (source, dest, *, parents=Vec::new(), offset=0, length=None, expected_diff_id=None, expected_blob=None, blob_out=None, parents_ready=None, cancel=None))]
#[allow(clippy::too_many_arguments)]
pub fn extract_layer(
    py: Python<'_>,
    source: LayerSource,
    dest: PathBuf,
    parents: Vec<PathBuf>,
    offset: u64,
    length: Option<u64>,
    expected_diff_id: Option<String>,
    expected_blob: Option<String>,
    blob_out: Option<PathBuf>,
    parents_ready: Option<Bound<'_, Gate>>,
    cancel: Option<Bound<'_, Cancel>>,
) -> PyResult<LayerReport> {
    let cancel = cancel.map(|cancel| Arc::clone(&cancel.get().0)).unwrap_or_default();
    let options = ExtractOptions {
        parents,
        parents_ready: parents_ready.map(|gate| Arc::clone(&gate.get().0)),
        expected_diff_id: digest(expected_diff_id)?,
        expected_blob: digest(expected_blob)?,
        blob_out,
        cancel: Some(Arc::clone(&cancel)),
        ..ExtractOptions::default()
    };
    let source = source.open(offset, length, &cancel)?;
    let result = py.detach(|| {
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let (dest, options) = (&dest, &options);
            scope.spawn(move || {
                let _ = sender.send(extract(source, dest, options));
            });
            let mut raised = None;
            loop {
                match receiver.recv_timeout(SIGNAL_CHECK) {
                    Ok(result) => {
                        return match raised {
                            Some(error) => Err(error),
                            None => Ok(result),
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        if let Err(error) = Python::attach(|py| py.check_signals()) {
                            cancel.store(true, Ordering::Relaxed);
                            raised.get_or_insert(error);
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        return Err(StoreError::new_err("the extraction ended without a result"))
                    }
                }
            }
        })
    })?;
    result.map(LayerReport::from).map_err(|error| extract_error(py, &error))
}

/// A member as Python sees it: name, kind, size, offset, link.
type Listed = (String, &'static str, u64, u64, String);

/// Lists the members of an outer tar; see `_core.pyi`.
#[pyfunction]
pub fn archive_index(py: Python<'_>, fd: i32) -> PyResult<Vec<Listed>> {
    let file = borrow(fd)?;
    let members =
        py.detach(|| index_of(file)).map_err(|error| BadImage::new_err(format!("bad tar: {error}")))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(members.into_iter().map(|m| (text(m.name), m.kind, m.size, m.offset, text(m.link))).collect())
}

/// Inflates a whole file; see `_core.pyi`.
#[pyfunction]
pub fn decompress(py: Python<'_>, fd: i32, out_fd: i32) -> PyResult<&'static str> {
    let (input, output) = (borrow(fd)?, borrow(out_fd)?);
    match py.detach(|| unpack(input, output)) {
        Ok(Compression::None) => Ok("none"),
        Ok(compression) => Ok(compression.name()),
        Err(DecompressError::Io(error)) if error.raw_os_error().is_some() => Err(os_error(&error)),
        Err(error) => Err(BadImage::new_err(error.to_string())),
    }
}

/// Digest and size of a file; see `_core.pyi`.
#[pyfunction]
pub fn digest_file(py: Python<'_>, fd: i32) -> PyResult<(String, u64)> {
    let file = borrow(fd)?;
    let (digest, size) = py.detach(|| digest_of(file))?;
    Ok((digest.to_string(), size))
}
