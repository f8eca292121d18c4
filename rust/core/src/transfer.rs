//! Bindings of the transfer crate: Python says what to ask a registry for, this moves the bytes.
//!
//! Every call runs on a thread of its own while the calling one looks for
//! signals. Ctrl-C cancels the whole transport, so that the downloads of other
//! threads end too; a connection that is just being made is left to its timeout.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

use duckweed_transfer as transfer;
use duckweed_transfer::{Body, Client, Download, Options, Patience, Request, TransferError as Failure};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::process::{borrow, SIGNAL_CHECK};

pyo3::import_exception!(duckweed.errors, TransferError);

/// How long a cancelled request may take to notice, before it is left alone.
const FAREWELL: Duration = Duration::from_secs(1);

type Headers = Vec<(String, String)>;

/// What a registry answered.
#[pyclass(frozen, get_all, module = "duckweed._core")]
pub struct Reply {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
    url: String,
}

#[pymethods]
impl Reply {
    fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    }
}

impl From<transfer::Reply> for Reply {
    fn from(reply: transfer::Reply) -> Self {
        Self { status: reply.status, headers: reply.headers, body: reply.body, url: reply.url }
    }
}

/// Bytes that went up, readable while they go.
#[pyclass(frozen, module = "duckweed._core")]
#[derive(Default)]
pub struct Counter(Arc<AtomicU64>);

#[pymethods]
impl Counter {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter]
    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A blob on its way to a file.
#[pyclass(frozen, module = "duckweed._core")]
pub struct Part(pub(crate) Arc<transfer::Part>);

#[pymethods]
impl Part {
    #[new]
    fn new(path: PathBuf, digest: &str, size: u64) -> PyResult<Self> {
        Ok(Self(Arc::new(transfer::Part::open(&path, digest, size).map_err(failed)?)))
    }

    #[getter]
    fn received(&self) -> u64 {
        self.0.received()
    }

    #[getter]
    fn resumed(&self) -> u64 {
        self.0.resumed()
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    #[getter]
    fn is_whole(&self) -> bool {
        self.0.is_whole()
    }

    fn fail(&self, reason: &str) {
        self.0.fail(reason);
    }
}

/// Connections to one registry.
#[pyclass(frozen, module = "duckweed._core")]
pub struct Transport(Arc<Client>);

#[pymethods]
impl Transport {
    #[new]
    #[pyo3(signature = (home, user_agent, *, plain_http=false, verify=true, ca_files=Vec::new(), client_certificate=None, attempts=6, pause_s=0.5, idle_timeout_s=120.0))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        home: &str,
        user_agent: &str,
        plain_http: bool,
        verify: bool,
        ca_files: Vec<PathBuf>,
        client_certificate: Option<(PathBuf, PathBuf)>,
        attempts: u32,
        pause_s: f64,
        idle_timeout_s: f64,
    ) -> Self {
        let mut options = Options::new(home, user_agent);
        options.allow_plain_http = plain_http;
        options.trust.anyone = !verify;
        options.trust.ca_files = ca_files;
        options.trust.client = client_certificate;
        options.patience = Patience { attempts, pause: seconds(pause_s) };
        options.idle_timeout = seconds(idle_timeout_s);
        Self(Arc::new(Client::new(options)))
    }

    #[pyo3(signature = (method, url, headers=Vec::new(), body=None, *, limit=4 << 20, follow=true))]
    #[allow(clippy::too_many_arguments)]
    fn request(
        &self,
        py: Python<'_>,
        method: String,
        url: String,
        headers: Headers,
        body: Option<Vec<u8>>,
        limit: u64,
        follow: bool,
    ) -> PyResult<Reply> {
        let reply = self.run(py, move |client| {
            let body = body.as_deref().map_or(Body::Empty, Body::Bytes);
            let request = Request { method: &method, url: &url, headers: &headers, body, follow };
            client.request(&request, limit)
        })?;
        Ok(reply.into())
    }

    fn download(&self, py: Python<'_>, url: String, headers: Headers, part: &Part) -> PyResult<()> {
        let part = Arc::clone(&part.0);
        self.run(py, move |client| Download { url: &url, headers: &headers }.run(client, &part))
    }

    fn fetch(&self, py: Python<'_>, url: String, headers: Headers, fd: i32) -> PyResult<Reply> {
        let file = std::fs::File::from(borrow(fd)?.try_clone_to_owned()?);
        let reply = self.run(py, move |client| {
            let request =
                Request { method: "GET", url: &url, headers: &headers, body: Body::Empty, follow: true };
            client.fetch(&request, &file)
        })?;
        Ok(reply.into())
    }

    #[allow(clippy::too_many_arguments)]
    fn upload(
        &self,
        py: Python<'_>,
        method: String,
        url: String,
        headers: Headers,
        fd: i32,
        offset: u64,
        length: u64,
        sent: &Counter,
    ) -> PyResult<Reply> {
        // A descriptor of its own: after Ctrl-C the thread may outlive Python's.
        let file: OwnedFd = borrow(fd)?.try_clone_to_owned()?;
        let sent = Arc::clone(&sent.0);
        let reply = self.run(py, move |client| {
            let body = Body::File { file: file.as_fd(), offset, length, sent: &sent };
            let request = Request { method: &method, url: &url, headers: &headers, body, follow: false };
            client.request(&request, 4 << 20)
        })?;
        Ok(reply.into())
    }

    fn cancel(&self) {
        self.0.cancel();
    }
}

impl Transport {
    fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Client) -> Result<T, Failure> + Send + 'static,
    ) -> PyResult<T> {
        let client = Arc::clone(&self.0);
        let (sender, receiver) = mpsc::channel();
        let worker = Arc::clone(&client);
        py.detach(move || {
            std::thread::spawn(move || {
                let _ = sender.send(work(&worker));
            });
            let mut raised: Option<(PyErr, Instant)> = None;
            loop {
                match receiver.recv_timeout(SIGNAL_CHECK) {
                    Ok(result) => {
                        return match raised {
                            Some((error, _)) => Err(error),
                            None => result.map_err(failed),
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        return Err(TransferError::new_err("the transfer ended without a result"))
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => match &raised {
                        Some((_, since)) if since.elapsed() > FAREWELL => {
                            return Err(raised.map_or_else(|| failed(Failure::Cancelled), |(error, _)| error))
                        }
                        Some(_) => {}
                        None => {
                            if let Err(error) = Python::attach(|py| py.check_signals()) {
                                client.cancel();
                                raised = Some((error, Instant::now()));
                            }
                        }
                    },
                }
            }
        })
    }
}

fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(Duration::from_secs(120))
}

/// An OSError with its number, which `From<io::Error>` leaves out.
pub(crate) fn os_error(cause: &std::io::Error) -> PyErr {
    let words = cause.to_string();
    let strerror = words.split(" (os error").next().unwrap_or(&words).to_owned();
    PyOSError::new_err((cause.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()), strerror))
}

/// The kind is for programs, the words are for people; a disk's refusal is an OSError.
fn failed(error: Failure) -> PyErr {
    let words = error.to_string();
    let kind = match error {
        Failure::Disk(cause) => return os_error(&cause),
        Failure::Status(reply) => {
            return TransferError::new_err((words, "status", reply.status, reply.headers, reply.body))
        }
        Failure::Network { .. } => "network",
        Failure::Unreachable { .. } => "unreachable",
        Failure::Tls { .. } => "tls",
        Failure::Digest { resumed: true, .. } => "digest-resumed",
        Failure::Digest { .. } => "digest",
        Failure::Size { .. } => "size",
        Failure::TooLarge(_) => "too-large",
        Failure::BadUrl(_) => "address",
        Failure::PlainHttp(_) => "plain-http",
        Failure::TooManyRedirects(_) => "redirects",
        Failure::Certificate(_) => "certificate",
        Failure::Cancelled => "cancelled",
        _ => "transfer",
    };
    TransferError::new_err((words, kind))
}
