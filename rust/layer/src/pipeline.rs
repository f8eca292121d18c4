//! The reading half of an extraction: bytes from the source to digests, to the
//! kept blob, to unpacked chunks in a bounded channel.
//!
//! ```text
//!  a thread                    a thread                         a thread
//!  source -> inflate -+-> [digest, keep] [diff id]    or, of a plain tar, also -> [zstd, keep]
//!                     |
//!                     +==> chunks ==> the writing half
//! ```
//!
//! Inflating, hashing and writing take about as long as each other, so each has
//! a thread and the slowest sets the pace. Everything is read to its end, also
//! what follows the tar's own end: the digest and the diff id are of all bytes.
//! Chunks go round in a circle, so memory is bounded: [`CHUNKS`] in a queue.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::chunk::{Chunk, Spares};
use crate::compression::{detect, Compression, Decoder, MAGIC_LEN};
use crate::deflate::HISTORY;
use crate::digest::{Digest, Hasher};
use crate::error::ExtractError;
use crate::intake::Intake;
use crate::keep::{Keep, Kept};
use crate::tar::Source;

/// Chunks in a queue, at most. More smooth out a disk that stalls, fewer stay in the processor's cache.
pub const CHUNKS: usize = 32;

/// What the reading half found out.
pub struct Summary {
    /// Digest of the unpacked bytes.
    pub diff_id: Digest,
    /// Number of unpacked bytes.
    pub size: u64,
    /// Digest of the bytes as they came.
    pub source_digest: Digest,
    /// Digest of the blob: as kept, or as it came when none is kept.
    pub blob_digest: Digest,
    /// Size of that blob.
    pub blob_size: u64,
    /// Media type of that blob.
    pub blob_media_type: &'static str,
}

/// What the reading half needs to know.
pub struct Plan {
    /// Where to keep the blob.
    pub blob_out: Option<PathBuf>,
    /// Raised by the caller to give up.
    pub cancel: Option<Arc<AtomicBool>>,
    /// The most unpacked bytes.
    pub max_bytes: u64,
}

/// A piece of the unpacked stream; `None` says that all has been sent and nothing went wrong.
pub type Unit = Option<Arc<Chunk>>;

/// What there is to hash.
pub enum Piece {
    /// Bytes as they came: a buffer, how much of it, and where it goes afterwards.
    Packed(Vec<u8>, usize, Spares),
    /// Unpacked bytes.
    Plain(Arc<Chunk>),
    /// There is no more, and nothing went wrong.
    End,
}

/// Reads `source` to its end. An early drop of the receiver only stops the sending.
pub fn read_all(source: impl Read, plan: &Plan, writing: &SyncSender<Unit>) -> Result<Summary, ExtractError> {
    let mut intake = Intake::new(source, plan.cancel.clone());
    let compression = detect(intake.peek(MAGIC_LEN)?)?;
    let keep = Keep::create(plan.blob_out.as_deref(), compression)?;
    let (kept_as_is, to_pack) = if compression == Compression::None { (None, keep) } else { (keep, None) };
    std::thread::scope(|scope| {
        let (pieces, queue) = sync_channel(CHUNKS);
        let digesting = start(scope, "layer-digest", move || digest_all(&queue, kept_as_is))?;
        let (packing, packer) = match to_pack {
            None => (None, None),
            Some(keep) => {
                let (units, queue) = sync_channel(CHUNKS);
                (Some(units), Some(start(scope, "layer-pack", move || pack_all(&queue, keep))?))
            }
        };
        if compression != Compression::None {
            intake.hand_on(pieces.clone());
        }
        let outlets = Outlets { pieces, packing, writing };
        let read = unpack(intake, compression, plan.max_bytes, &outlets);
        drop(outlets);
        let digests = join(digesting);
        let packed = packer.map(join).transpose();
        summarize(read, digests, packed, compression)
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, ExtractError> {
    Builder::new().name(name.into()).spawn_scoped(scope, run).map_err(ExtractError::Source)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Everyone who waits for unpacked bytes.
struct Outlets<'a> {
    pieces: SyncSender<Piece>,
    packing: Option<SyncSender<Unit>>,
    writing: &'a SyncSender<Unit>,
}

impl Outlets<'_> {
    /// Hands a chunk, or the end, to everyone. A receiver that is gone has failed and says why.
    fn send(&self, unit: Unit) -> Result<(), ExtractError> {
        if let Some(packing) = &self.packing {
            packing.send(unit.clone()).map_err(|_| ExtractError::Cancelled)?;
        }
        let piece = unit.clone().map_or(Piece::End, Piece::Plain);
        self.pieces.send(piece).map_err(|_| ExtractError::Cancelled)?;
        self.writing.send(unit).map_err(|_| ExtractError::Cancelled)
    }
}

/// The sizes of a stream: as it came, and unpacked.
struct Sizes {
    source: u64,
    plain: u64,
}

fn unpack(
    mut intake: Intake<impl Read>,
    compression: Compression,
    max_bytes: u64,
    outlets: &Outlets<'_>,
) -> Result<Sizes, ExtractError> {
    let mut decoder = Decoder::new(compression, &mut intake).map_err(ExtractError::Source)?;
    let spares = Spares::default();
    let mut size = 0u64;
    loop {
        let mut chunk = Chunk::new(&spares);
        let end = decoder.fill(chunk.buffer()).map_err(|error| reading_failed(error, compression))?;
        if end == HISTORY {
            break;
        }
        chunk.set_end(end);
        size += chunk.bytes().len() as u64;
        if size > max_bytes {
            return Err(ExtractError::Limit { what: "bytes", limit: max_bytes });
        }
        outlets.send(Some(Arc::new(chunk)))?;
    }
    drop(decoder);
    intake.drain()?;
    outlets.send(None)?;
    Ok(Sizes { source: intake.size(), plain: size })
}

/// Tells apart a source that could not be read or kept, and bytes that are damaged:
/// what the intake has to say comes through the decoder wrapped in its `io::Error`.
fn reading_failed(error: io::Error, compression: Compression) -> ExtractError {
    match error.downcast::<ExtractError>() {
        Ok(failure) => failure,
        Err(source) => ExtractError::Damaged { format: compression.name(), source },
    }
}

struct Digests {
    /// Of the bytes as they came, when those are not the unpacked ones.
    source: Option<Digest>,
    diff_id: Digest,
}

fn digest_all(pieces: &Receiver<Piece>, mut keep: Option<Keep>) -> Result<Digests, ExtractError> {
    let (mut source, mut diff_id) = (None::<Hasher>, Hasher::new());
    for piece in pieces {
        match piece {
            Piece::Plain(chunk) => diff_id.update(chunk.bytes()),
            Piece::Packed(buffer, length, spares) => {
                source.get_or_insert_default().update(&buffer[..length]);
                if let Some(keep) = &mut keep {
                    keep.write(&buffer[..length])?;
                }
                spares.give(buffer);
            }
            Piece::End => {
                keep.map(Keep::finish).transpose()?;
                return Ok(Digests { source: source.map(Hasher::finish), diff_id: diff_id.finish() });
            }
        }
    }
    Err(ExtractError::Cancelled)
}

fn pack_all(units: &Receiver<Unit>, mut keep: Keep) -> Result<Option<Kept>, ExtractError> {
    for unit in units {
        match unit {
            Some(chunk) => keep.write(chunk.bytes())?,
            None => return keep.finish(),
        }
    }
    Err(ExtractError::Cancelled)
}

/// Puts the threads' answers together. One that was only cut off by the failure of another does not count.
fn summarize(
    read: Result<Sizes, ExtractError>,
    digests: Result<Digests, ExtractError>,
    packed: Result<Option<Option<Kept>>, ExtractError>,
    compression: Compression,
) -> Result<Summary, ExtractError> {
    let (sizes, digests, packed) = match (read, digests, packed) {
        (Ok(sizes), Ok(digests), Ok(packed)) => (sizes, digests, packed.flatten()),
        (read, digests, packed) => {
            let errors = [digests.err(), packed.err(), read.err()];
            let cause = errors.into_iter().flatten().find(|error| !matches!(error, ExtractError::Cancelled));
            return Err(cause.unwrap_or(ExtractError::Cancelled));
        }
    };
    let source_digest = digests.source.unwrap_or(digests.diff_id);
    let blob = packed.unwrap_or(Kept { digest: source_digest, size: sizes.source, compression });
    Ok(Summary {
        diff_id: digests.diff_id,
        size: sizes.plain,
        source_digest,
        blob_digest: blob.digest,
        blob_size: blob.size,
        blob_media_type: blob.compression.media_type(),
    })
}

/// The writing half's end of the channel: the unpacked bytes, without copying them.
pub struct Unpacked {
    units: Receiver<Unit>,
    current: Unit,
    start: usize,
    is_over: bool,
}

impl Unpacked {
    /// Reads what comes from `units`.
    pub fn new(units: Receiver<Unit>) -> Unpacked {
        Unpacked { units, current: None, start: 0, is_over: false }
    }

    /// Passes over all that is left, so that the reading half comes to its end.
    pub fn drain(mut self) -> io::Result<()> {
        loop {
            let n = self.fill_buf()?.len();
            if n == 0 {
                return Ok(());
            }
            self.consume(n);
        }
    }

    fn left(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.start..])
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Unpacked {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left().is_empty() && !self.is_over {
            // Let go of first: its buffer is wanted.
            (self.current, self.start) = (None, 0);
            match self.units.recv() {
                Ok(Some(chunk)) => self.current = Some(chunk),
                Ok(None) => self.is_over = true,
                // The reading half has failed; its error is the one that counts.
                Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        Ok(self.left())
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
    }
}

impl Source for Unpacked {}
