//! What can go wrong with a layer, in one line each: object, operation, cause.

use std::io;
use std::path::PathBuf;

use crate::compression::Unsupported;
use crate::digest::Digest;
use crate::tar::TarError;

/// Why a layer could not be extracted. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The blob could not be read.
    #[error("cannot read the layer: {}", describe(.0))]
    Source(#[source] io::Error),
    /// A codec that is not read.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The compressed stream is damaged or cut short.
    #[error("the {format} stream is damaged: {}", describe(.source))]
    Damaged {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// The archive is malformed.
    #[error("bad tar: {0}")]
    Tar(#[from] TarError),
    /// A member that may not be, or cannot be, in a layer.
    #[error("`{path}`: {reason}")]
    Member {
        /// Its name in the archive.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A system call on a member's file failed.
    #[error("`{path}`: {operation}: {}", errno_text(*.errno))]
    Entry {
        /// Its path in the layer.
        path: String,
        /// What was tried.
        operation: &'static str,
        /// Why it did not work.
        errno: rustix::io::Errno,
    },
    /// The bytes are not the ones that were asked for.
    #[error("the layer's {what} is {found}, not {expected} as expected")]
    Mismatch {
        /// `digest` (of the blob) or `diff id`.
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More of something than the caller allows.
    #[error("the layer has more than {limit} {what}")]
    Limit {
        /// `entries`, `bytes` ...
        what: &'static str,
        /// The limit that was passed.
        limit: u64,
    },
    /// The destination, the index or the kept blob could not be written.
    #[error("cannot write `{}`: {}", path.display(), describe(.source))]
    Destination {
        /// Which of them.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The caller raised its flag.
    #[error("cancelled")]
    Cancelled,
}

/// What is done in the trees below, as [`ExtractError::Entry`] names it.
pub const LOOK_UP: &str = "look up in the lower layers";
/// See [`LOOK_UP`].
pub const COPY_UP: &str = "copy from a lower layer";

impl ExtractError {
    /// What went wrong in one word, for programs: the words never change.
    pub fn code(&self) -> &'static str {
        match self {
            ExtractError::Source(_) => "source",
            ExtractError::Unsupported(_) => "unsupported-compression",
            ExtractError::Damaged { .. } => "damaged",
            ExtractError::Tar(_) => "bad-tar",
            ExtractError::Member { .. } => "bad-member",
            ExtractError::Entry { operation: LOOK_UP | COPY_UP, .. } => "lower-layers",
            ExtractError::Entry { .. } => "entry",
            ExtractError::Mismatch { .. } => "digest-mismatch",
            ExtractError::Limit { .. } => "too-large",
            ExtractError::Destination { .. } => "destination",
            ExtractError::Cancelled => "cancelled",
        }
    }

    /// The errno at the bottom, for callers that treat a full disk in a special way.
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            ExtractError::Entry { errno, .. } => Some(*errno),
            ExtractError::Source(source) | ExtractError::Destination { source, .. } => {
                rustix::io::Errno::from_io_error(source)
            }
            _ => None,
        }
    }
}

/// Why a tree could not be written as a tar. What was written so far has no end mark.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A tree or its index could not be opened.
    #[error("cannot read `{}`: {}", path.display(), describe(.source))]
    Tree {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call on an entry failed.
    #[error("`{path}`: {operation}: {}", errno_text(*.errno))]
    Entry {
        /// Its path in the tree.
        path: String,
        /// What was tried.
        operation: &'static str,
        /// Why it did not work.
        errno: rustix::io::Errno,
    },
    /// An entry that cannot be in a layer.
    #[error("`{path}`: {reason}")]
    Member {
        /// Its path in the tree.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The receiver of the tar refused it.
    #[error("cannot write the archive: {}", describe(.0))]
    Output(#[source] io::Error),
    /// What to write was not described properly.
    #[error("bad description of what to archive: {0}")]
    Request(String),
    /// The caller raised its flag.
    #[error("cancelled")]
    Cancelled,
}

impl WriteError {
    /// The errno at the bottom.
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            WriteError::Entry { errno, .. } => Some(*errno),
            WriteError::Tree { source, .. } | WriteError::Output(source) => {
                rustix::io::Errno::from_io_error(source)
            }
            _ => None,
        }
    }
}

/// An I/O error as `no space left on device (ENOSPC)`: lower case, errno by name.
pub fn describe(error: &io::Error) -> String {
    match rustix::io::Errno::from_io_error(error) {
        Some(errno) => errno_text(errno),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it ends too early".into(),
        None => error.to_string(),
    }
}

/// An errno as `no space left on device (ENOSPC)`.
pub fn errno_text(errno: rustix::io::Errno) -> String {
    let text = errno.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let name = duckweed_sys::errno::name(errno.raw_os_error());
    let (first, rest) = text.split_at(text.len().min(1));
    format!("{}{rest} ({name})", first.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_object_operation_and_cause() {
        let error = ExtractError::Entry {
            path: "usr/bin/x".into(),
            operation: "write",
            errno: rustix::io::Errno::NOSPC,
        };
        assert_eq!(error.to_string(), "`usr/bin/x`: write: no space left on device (ENOSPC)");
    }
}
