//! What can go wrong between a registry and a file, in one line each.

use std::io;

/// Why a transfer did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The connection broke, or the other side fell silent.
    #[error("{host}: {reason}")]
    Network {
        /// Host and port that was spoken to.
        host: String,
        /// What happened.
        reason: String,
    },
    /// No connection could be made at all.
    #[error("{host}: {reason}")]
    Unreachable {
        /// Host and port that was to be spoken to.
        host: String,
        /// What happened.
        reason: String,
    },
    /// No trust, or no TLS at all.
    #[error("{host}: {reason}")]
    Tls {
        /// Host and port that was spoken to.
        host: String,
        /// What happened.
        reason: String,
    },
    /// The registry answered, and it is no success.
    #[error("status {}", .0.status)]
    Status(Box<crate::Reply>),
    /// The bytes are not the ones that were asked for.
    #[error("the blob's digest is {found}, not {expected} as expected")]
    Digest {
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
        /// Whether part of the bytes was there before this transfer.
        resumed: bool,
    },
    /// More or fewer bytes than there should be.
    #[error("the blob has {found} bytes, not {expected} as expected")]
    Size {
        /// What the manifest says.
        expected: u64,
        /// What came, at least.
        found: u64,
    },
    /// A response larger than what was asked for may be.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    /// The part file could not be written or read.
    #[error("{0}")]
    Disk(#[source] io::Error),
    /// No such address can be.
    #[error("bad address `{0}`")]
    BadUrl(String),
    /// Plain http where it was not allowed.
    #[error("{0}: plain http is not allowed here")]
    PlainHttp(String),
    /// Redirected without end.
    #[error("{0}: too many redirects")]
    TooManyRedirects(String),
    /// A certificate or key that cannot be read.
    #[error("{0}")]
    Certificate(String),
    /// [`crate::Client::cancel`] was called.
    #[error("cancelled")]
    Cancelled,
}

impl TransferError {
    /// Whether the same request may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            TransferError::Network { .. } => true,
            TransferError::Status(reply) => matches!(reply.status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Turns the HTTP library's error into ours; `host` is who was spoken to.
    pub(crate) fn from_http(error: ureq::Error, host: &str) -> TransferError {
        let host = host.to_owned();
        match error {
            ureq::Error::Rustls(cause) => TransferError::Tls { host, reason: cause.to_string() },
            ureq::Error::Tls(reason) => TransferError::Tls { host, reason: reason.to_owned() },
            ureq::Error::Io(cause) => from_io(cause, host),
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                TransferError::Unreachable { host, reason: "timed out while connecting".to_owned() }
            }
            ureq::Error::Timeout(what) => {
                TransferError::Network { host, reason: format!("timed out ({what})") }
            }
            ureq::Error::HostNotFound => {
                TransferError::Unreachable { host, reason: "no such host".to_owned() }
            }
            ureq::Error::BadUri(url) => TransferError::BadUrl(url),
            ureq::Error::Http(cause) => TransferError::BadUrl(cause.to_string()),
            ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => {
                TransferError::Unreachable { host, reason: error.to_string() }
            }
            other => TransferError::Network { host, reason: other.to_string() },
        }
    }
}

/// TLS failures during a handshake come wrapped in an `io::Error`.
pub(crate) fn from_io(cause: io::Error, host: String) -> TransferError {
    if cause.kind() == io::ErrorKind::InvalidData {
        return TransferError::Tls { host, reason: cause.to_string() };
    }
    let reason = match cause.raw_os_error() {
        Some(_) => plain_words(&cause),
        None if cause.kind() == io::ErrorKind::UnexpectedEof => "the connection was closed early".to_owned(),
        None => cause.to_string(),
    };
    // getaddrinfo(3)'s own errors have no number here. EAI_AGAIN is worth another try, the rest will not change.
    if reason.starts_with("failed to lookup address") && !reason.contains("Temporary failure") {
        return TransferError::Unreachable { host, reason: "no such host".to_owned() };
    }
    match cause.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => TransferError::Unreachable { host, reason },
        _ => TransferError::Network { host, reason },
    }
}

/// `connection refused (ECONNREFUSED)` would need a table; the words alone say it.
fn plain_words(cause: &io::Error) -> String {
    let text = cause.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map(|first| first.to_lowercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}
