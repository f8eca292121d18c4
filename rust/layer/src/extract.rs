//! Extraction of one layer: bytes in, `fs/` and `index.json` out.
//!
//! One half reads, hashes, keeps and unpacks on threads of its own (`pipeline`), the
//! calling thread writes files (`writer`); creating files takes longest on a disk,
//! inflating does on a tmpfs. Only when both are through and the digests fit is
//! the layer complete; until then everything lies in a directory that nobody
//! uses, and after any error it is removed again.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Mode, OFlags};

use crate::digest::Digest;
use crate::error::ExtractError;
use crate::gate::Gate;
use crate::index;
use crate::ledger::Ledger;
use crate::parents::Parents;
use crate::pipeline::{self, Plan, Summary, Unpacked, CHUNKS};
use crate::tar::{self, TarReader};
use crate::tree;
use crate::writer::Writer;

/// What to extract and what to expect.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// The `fs/` trees below, topmost first: hard links may lead into them.
    pub parents: Vec<PathBuf>,
    /// The trees below are there only when this opens; it is waited for when one of them is needed.
    pub parents_ready: Option<Arc<Gate>>,
    /// The digest that the unpacked bytes must have.
    pub expected_diff_id: Option<Digest>,
    /// The digest that the bytes as they come must have.
    pub expected_blob: Option<Digest>,
    /// A new file that receives the blob: as it comes, or packed with zstd if it comes as a plain tar.
    pub blob_out: Option<PathBuf>,
    /// Raised by another thread to give up; looked at for every entry and every chunk.
    pub cancel: Option<Arc<AtomicBool>>,
    /// Bounds on what one layer may contain.
    pub limits: Limits,
}

/// Bounds on what one layer may contain.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Members of the archive.
    pub entries: u64,
    /// Bytes of the unpacked archive.
    pub bytes: u64,
}

impl Default for Limits {
    /// Ten million entries (each costs some memory until the end); no bound on bytes but the disk's.
    fn default() -> Limits {
        Limits { entries: 10_000_000, bytes: u64::MAX }
    }
}

/// What an extraction found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerReport {
    /// Digest of the unpacked tar.
    pub diff_id: Digest,
    /// Digest of the blob: of the one kept in `blob_out`, or of the bytes as they came.
    pub blob_digest: Digest,
    /// Size of that blob in bytes.
    pub blob_size: u64,
    /// OCI media type of that blob.
    pub blob_media_type: &'static str,
    /// Size of the unpacked tar in bytes.
    pub size: u64,
    /// Members of the archive.
    pub entries: u64,
    /// What was left out, one line each: `path: reason`.
    pub skipped: Vec<String>,
}

/// Extracts the layer that `source` delivers into `dest/fs`, and writes `dest/index.json`.
///
/// `dest` is a directory of the caller's, made if it is missing, without `fs` in
/// it. After an error nothing that this call made is left, `blob_out` included.
pub fn extract_layer(
    source: impl Read + Send,
    dest: &Path,
    options: &ExtractOptions,
) -> Result<LayerReport, ExtractError> {
    let destination = Destination::create(dest, options.blob_out.as_deref())?;
    let report = run(source, &destination, options)?;
    destination.keep();
    Ok(report)
}

fn run(
    source: impl Read + Send,
    destination: &Destination<'_>,
    options: &ExtractOptions,
) -> Result<LayerReport, ExtractError> {
    let root = destination.make_root()?;
    let mask = destination.probe_mask()?;
    let parents = Parents::new(&options.parents, options.parents_ready.clone(), options.cancel.clone());
    let writer = Writer::new(root, Ledger::new(parents, mask));
    let (summary, written) = stream(source, writer, options)?;
    check("digest", options.expected_blob, summary.source_digest)?;
    check("diff id", options.expected_diff_id, summary.diff_id)?;
    let mut ledger = written.ledger;
    let failed = |source| ExtractError::Destination { path: destination.path.join(index::FILE_NAME), source };
    ledger.index.write(destination.path).map_err(failed)?;
    Ok(LayerReport {
        diff_id: summary.diff_id,
        blob_digest: summary.blob_digest,
        blob_size: summary.blob_size,
        blob_media_type: summary.blob_media_type,
        size: summary.size,
        entries: written.entries,
        skipped: ledger.take_skipped(),
    })
}

fn check(what: &'static str, expected: Option<Digest>, found: Digest) -> Result<(), ExtractError> {
    match expected {
        Some(expected) if expected != found => Err(ExtractError::Mismatch { what, expected, found }),
        _ => Ok(()),
    }
}

struct Written {
    ledger: Ledger,
    entries: u64,
}

/// Runs both halves. When both fail, the one that failed by itself says why.
fn stream(
    source: impl Read + Send,
    writer: Writer,
    options: &ExtractOptions,
) -> Result<(Summary, Written), ExtractError> {
    let plan = Plan {
        blob_out: options.blob_out.clone(),
        cancel: options.cancel.clone(),
        max_bytes: options.limits.bytes,
    };
    let (units, queue) = sync_channel(CHUNKS);
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("layer-reader".into())
            .spawn_scoped(scope, move || pipeline::read_all(source, &plan, &units))
            .map_err(ExtractError::Source)?;
        let written = write_all(Unpacked::new(queue), writer, options);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (read, written) {
            (Ok(summary), Ok(written)) => Ok((summary, written)),
            (Err(error), Err(written)) if is_starved(&written) => Err(error),
            (_, Err(error)) | (Err(error), _) => Err(error),
        }
    })
}

/// Whether the writing half only failed because the reading half did.
fn is_starved(error: &ExtractError) -> bool {
    let starved = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match error {
        ExtractError::Source(error) => starved(error),
        ExtractError::Tar(error) => matches!(&error.fault, tar::Fault::Io(error) if starved(error)),
        _ => false,
    }
}

fn write_all(
    unpacked: Unpacked,
    mut writer: Writer,
    options: &ExtractOptions,
) -> Result<Written, ExtractError> {
    let mut tar = TarReader::new(unpacked);
    let mut entries = 0;
    while let Some(member) = tar.next_member()? {
        if options.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(ExtractError::Cancelled);
        }
        entries += 1;
        if entries > options.limits.entries {
            return Err(ExtractError::Limit { what: "entries", limit: options.limits.entries });
        }
        writer.add(&member, &mut tar)?;
    }
    tar.into_source().drain().map_err(ExtractError::Source)?;
    Ok(Written { ledger: writer.finish()?, entries })
}

/// What is being made; removed when dropped unless it is kept.
struct Destination<'a> {
    path: &'a Path,
    blob_out: Option<&'a Path>,
    directory: OwnedFd,
    is_ours: bool,
    is_kept: bool,
}

impl<'a> Destination<'a> {
    fn create(path: &'a Path, blob_out: Option<&'a Path>) -> Result<Self, ExtractError> {
        let fail = |source: io::Error| ExtractError::Destination { path: path.to_owned(), source };
        let is_ours = match fs::mkdir(path, Mode::RWXU) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(errno) => return Err(fail(errno.into())),
        };
        let directory = fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = directory.map_err(|errno| fail(errno.into()))?;
        for name in ["fs", index::FILE_NAME] {
            if tree::stat_at(&directory, name.as_bytes()).map_err(|errno| fail(errno.into()))?.is_some() {
                let exists = io::Error::from(rustix::io::Errno::EXIST);
                return Err(ExtractError::Destination { path: path.join(name), source: exists });
            }
        }
        if let Some(blob_out) = blob_out.filter(|blob_out| blob_out.symlink_metadata().is_ok()) {
            let exists = io::Error::from(rustix::io::Errno::EXIST);
            return Err(ExtractError::Destination { path: blob_out.to_owned(), source: exists });
        }
        Ok(Destination { path, blob_out, directory, is_ours, is_kept: false })
    }

    fn make_root(&self) -> Result<OwnedFd, ExtractError> {
        let fail = |errno: rustix::io::Errno| ExtractError::Destination {
            path: self.path.join("fs"),
            source: errno.into(),
        };
        fs::mkdirat(&self.directory, "fs", Mode::RWXU).map_err(fail)?;
        fs::chmodat(&self.directory, "fs", Mode::RWXU, AtFlags::empty()).map_err(fail)?;
        fs::openat(&self.directory, "fs", tree::DIRECTORY, Mode::empty()).map_err(fail)
    }

    /// Which mode bits new files lose to the umask or a default ACL. The umask
    /// cannot be asked without being changed, which is not ours to do in
    /// somebody's process; so a file is made and looked at.
    fn probe_mask(&self) -> Result<u32, ExtractError> {
        let fail = |errno: rustix::io::Errno| ExtractError::Destination {
            path: self.path.to_owned(),
            source: errno.into(),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let probe = fs::openat(&self.directory, ".probe", flags, Mode::from_raw_mode(0o777)).map_err(fail)?;
        let mode = fs::fstat(&probe).map_err(fail)?.st_mode;
        fs::unlinkat(&self.directory, ".probe", AtFlags::empty()).map_err(fail)?;
        Ok(!mode & 0o777)
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Destination<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // The error that led here is the one to report; what cannot be removed
        // stays in the store's tmp/ for the next cleaning.
        for name in ["fs", index::FILE_NAME, ".index.json.new", ".probe"] {
            let _ = tree::remove_tree(self.directory.as_fd(), name.as_bytes());
        }
        if let Some(blob_out) = self.blob_out {
            let _ = std::fs::remove_file(blob_out);
        }
        if self.is_ours {
            let _ = std::fs::remove_dir(self.path);
        }
    }
}
