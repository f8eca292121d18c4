//! The reading half of an extraction, on its own thread: bytes from the source
//! to digests, to the kept blob, to unpacked chunks in a bounded channel.
//!
//! ```text
//! source -> [digest, keep] -> inflate -> [diff id] -> chunks ==> the writing half
//! ```
//!
//! Everything is read to its end, also what follows the tar's own end: the
//! digest and the diff id are of all bytes. Chunks go round in a circle, so
//! memory is bounded: [`CHUNKS`] of [`CHUNK_SIZE`] and a codec's window.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::Arc;

use crate::compression::{detect, Compression, Decoder, MAGIC_LEN};
use crate::digest::{Digest, Hasher};
use crate::error::ExtractError;
use crate::tar::Source;

/// Bytes in a chunk.
pub const CHUNK_SIZE: usize = 256 * 1024;

/// Chunks between the two halves.
pub const CHUNKS: usize = 24;

/// The level a plain tar is kept at: the fastest that still halves a root file system.
const ZSTD_LEVEL: i32 = 1;

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

/// A piece of the unpacked stream, or its end.
pub enum Chunk {
    /// Bytes.
    Bytes(Vec<u8>),
    /// All bytes have been sent and nothing went wrong.
    End,
}

/// Reads `source` to its end. An early drop of the receiver only stops the sending.
pub fn read_all(
    source: impl Read,
    plan: &Plan,
    chunks: &SyncSender<Chunk>,
    spare: &Receiver<Vec<u8>>,
) -> Result<Summary, ExtractError> {
    let mut intake = Intake::new(source, plan);
    let compression = detect(intake.peek(MAGIC_LEN).map_err(ExtractError::Source)?)?;
    let mut keep = Keep::create(plan.blob_out.as_deref(), compression)?;
    if compression != Compression::None {
        intake.keep = keep.take();
    }
    let mut decoder = Decoder::new(compression, &mut intake).map_err(ExtractError::Source)?;
    let mut diff_id = Hasher::new();
    let mut size = 0u64;
    loop {
        let mut chunk = spare.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_SIZE, 0);
        let n = fill(&mut decoder, &mut chunk).map_err(|error| reading_failed(error, compression))?;
        if n == 0 {
            break;
        }
        chunk.truncate(n);
        size += n as u64;
        if size > plan.max_bytes {
            return Err(ExtractError::Limit { what: "bytes", limit: plan.max_bytes });
        }
        diff_id.update(&chunk);
        if let Some(keep) = &mut keep {
            keep.write(&chunk)?;
        }
        if chunks.send(Chunk::Bytes(chunk)).is_err() {
            // The writing half has failed and says why.
            return Err(ExtractError::Cancelled);
        }
    }
    drop(decoder);
    intake.drain()?;
    let diff_id = diff_id.finish();
    let keep = keep.or(intake.keep.take());
    let summary = summarize(intake, keep, compression, diff_id, size)?;
    let _ = chunks.send(Chunk::End);
    Ok(summary)
}

fn summarize<R: Read>(
    intake: Intake<'_, R>,
    keep: Option<Keep>,
    compression: Compression,
    diff_id: Digest,
    size: u64,
) -> Result<Summary, ExtractError> {
    let source_digest = intake.digest.finish();
    let (blob_digest, blob_size, kept_as) = match keep {
        Some(keep) => keep.finish()?.unwrap_or((source_digest, intake.size, compression)),
        None => (source_digest, intake.size, compression),
    };
    let blob_media_type = kept_as.media_type();
    Ok(Summary { diff_id, size, source_digest, blob_digest, blob_size, blob_media_type })
}

/// Tells apart a source that could not be read or kept, and bytes that are damaged:
/// what the intake has to say comes through the decoder wrapped in its `io::Error`.
fn reading_failed(error: io::Error, compression: Compression) -> ExtractError {
    match error.downcast::<ExtractError>() {
        Ok(failure) => failure,
        Err(source) => ExtractError::Damaged { format: compression.name(), source },
    }
}

/// Fills as much of `buffer` as there is.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The source with its digest taken and its bytes kept as they pass.
struct Intake<'plan, R> {
    source: R,
    plan: &'plan Plan,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    size: u64,
    digest: Hasher,
    keep: Option<Keep>,
}

impl<'plan, R: Read> Intake<'plan, R> {
    fn new(source: R, plan: &'plan Plan) -> Self {
        let buffer = vec![0; CHUNK_SIZE];
        Intake { source, plan, buffer, start: 0, end: 0, size: 0, digest: Hasher::new(), keep: None }
    }

    /// The first bytes, `wanted` or all there are. They are not yet hashed or kept.
    fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.end < wanted {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // They count as unread until fill_buf hands them out.
        self.start = self.end;
        Ok(&self.buffer[..self.end])
    }

    fn drain(&mut self) -> Result<(), ExtractError> {
        loop {
            match self.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(bytes) => {
                    let n = bytes.len();
                    self.consume(n);
                }
                Err(error) => return Err(reading_failed(error, Compression::None)),
            }
        }
    }

    fn refill(&mut self) -> Result<(), ExtractError> {
        if self.plan.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(ExtractError::Cancelled);
        }
        let peeked = if self.size == 0 { self.end } else { 0 };
        self.start = 0;
        self.end = match peeked {
            0 => fill_once(&mut self.source, &mut self.buffer).map_err(ExtractError::Source)?,
            n => n,
        };
        let bytes = &self.buffer[..self.end];
        self.size += bytes.len() as u64;
        self.digest.update(bytes);
        match &mut self.keep {
            Some(keep) => keep.write(bytes),
            None => Ok(()),
        }
    }
}

fn fill_once(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl<R: Read> Read for Intake<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for Intake<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            if let Err(error) = self.refill() {
                self.end = self.start;
                return Err(io::Error::other(error));
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
    }
}

/// The blob being kept: as it comes, or a plain tar packed with zstd.
struct Keep {
    path: PathBuf,
    out: Out,
}

enum Out {
    AsIs(File),
    Packed(Box<zstd::stream::write::Encoder<'static, HashingFile>>),
}

struct HashingFile {
    file: File,
    digest: Hasher,
    size: u64,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.digest.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Keep {
    fn create(path: Option<&Path>, compression: Compression) -> Result<Option<Keep>, ExtractError> {
        let Some(path) = path else { return Ok(None) };
        let fail = |source| ExtractError::Destination { path: path.to_owned(), source };
        let file = File::options().write(true).create_new(true).open(path).map_err(fail)?;
        let out = if compression == Compression::None {
            let file = HashingFile { file, digest: Hasher::new(), size: 0 };
            let mut encoder = zstd::stream::write::Encoder::new(file, ZSTD_LEVEL).map_err(fail)?;
            encoder.include_checksum(true).map_err(fail)?;
            Out::Packed(Box::new(encoder))
        } else {
            Out::AsIs(file)
        };
        Ok(Some(Keep { path: path.to_owned(), out }))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ExtractError> {
        let result = match &mut self.out {
            Out::AsIs(file) => file.write_all(bytes),
            Out::Packed(encoder) => encoder.write_all(bytes),
        };
        result.map_err(|source| ExtractError::Destination { path: self.path.clone(), source })
    }

    /// Syncs the blob (blobs are what images are made of; trees can be made again). What it is, if it is not the source's bytes.
    fn finish(self) -> Result<Option<(Digest, u64, Compression)>, ExtractError> {
        let path = self.path;
        let result = match self.out {
            Out::AsIs(file) => file.sync_all().map(|()| None),
            Out::Packed(encoder) => encoder.finish().and_then(|packed| {
                packed.file.sync_all()?;
                Ok(Some((packed.digest.finish(), packed.size, Compression::Zstd)))
            }),
        };
        result.map_err(|source| ExtractError::Destination { path, source })
    }
}

/// The writing half's end of the channel: the unpacked bytes, without copying them.
pub struct Unpacked {
    chunks: Receiver<Chunk>,
    spare: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    start: usize,
    is_over: bool,
}

impl Unpacked {
    /// Reads from `chunks` and gives used ones back through `spare`.
    pub fn new(chunks: Receiver<Chunk>, spare: SyncSender<Vec<u8>>) -> Unpacked {
        Unpacked { chunks, spare, current: Vec::new(), start: 0, is_over: false }
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
        if self.start == self.current.len() && !self.is_over {
            let used = std::mem::take(&mut self.current);
            self.start = 0;
            if used.capacity() > 0 {
                let _ = self.spare.try_send(used);
            }
            match self.chunks.recv() {
                Ok(Chunk::Bytes(bytes)) => self.current = bytes,
                Ok(Chunk::End) => self.is_over = true,
                // The reading half has failed; its error is the one that counts.
                Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        Ok(&self.current[self.start..])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
    }
}

impl Source for Unpacked {}
