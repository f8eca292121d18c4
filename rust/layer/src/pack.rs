//! Packing: plain bytes in, a blob out, both digests taken on the way.
//!
//! ```text
//! bytes -> blocks =+=> digest of the plain bytes (and gzip's checksum)
//!                  +=> workers that pack ==> blob's digest, file
//! ```
//!
//! The bytes that come out do not depend on the number of threads. gzip is cut
//! into blocks that each worker packs with the end of the block before it as
//! its dictionary, which costs nothing of the ratio, and joined to one member
//! (the way of pigz); zstd's own threads do the like. Channels are bounded, so
//! a slow disk holds everybody up and memory does not grow.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread::JoinHandle;

use flate2::{Compress, Crc, FlushCompress, Status};

use crate::compression::{Compression, PlainReader};
use crate::digest::{Digest, Hasher, HashingFile};

const BLOCK: usize = 256 * 1024;
/// How far back deflate can refer (RFC 1951).
const WINDOW: usize = 32 * 1024;
/// Blocks waiting at each station.
const WAITING: usize = 4;
const MOST_THREADS: usize = 8;

/// How to pack.
#[derive(Debug, Clone, Copy)]
pub struct Packing {
    /// With what.
    pub compression: Compression,
    /// gzip 0 to 9, zstd 1 to 19; `None` is the codec's usual one (6 and 3).
    pub level: Option<i32>,
}

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the plain bytes.
    pub diff_id: Digest,
    /// Number of them.
    pub size: u64,
    /// Digest of the blob.
    pub blob_digest: Digest,
    /// Its size.
    pub blob_size: u64,
}

/// Takes plain bytes; the blob is complete after [`Packer::finish`], and removed when that never comes.
pub struct Packer {
    block: Vec<u8>,
    blocks: Option<Senders>,
    plain: Option<JoinHandle<(Digest, u64, Crc)>>,
    blob: Option<JoinHandle<io::Result<(Digest, u64)>>>,
    path: std::path::PathBuf,
    is_finished: bool,
}

struct Senders {
    plain: SyncSender<Arc<Vec<u8>>>,
    codec: Codec,
}

/// Where blocks go to be packed.
enum Codec {
    /// One thread, which may have others of its own.
    Stream(SyncSender<Arc<Vec<u8>>>),
    /// One worker after the other; each gets the block before its own too. The last word is gzip's checksum.
    Turns {
        workers: Vec<SyncSender<Job>>,
        next: usize,
        before: Option<Arc<Vec<u8>>>,
        end: SyncSender<[u8; 8]>,
    },
}

struct Job {
    before: Option<Arc<Vec<u8>>>,
    block: Arc<Vec<u8>>,
    is_last: bool,
}

impl Packer {
    /// A packer into the new file `path`.
    ///
    /// # Errors
    /// What open(2) says; `InvalidInput` for a level that the codec has not.
    pub fn create(path: &Path, packing: Packing) -> io::Result<Packer> {
        let most = if packing.compression == Compression::Gzip { 9 } else { 19 };
        if packing.level.is_some_and(|level| level < 0 || level > most) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("levels go from 0 to {most}")));
        }
        let file = File::options().write(true).create_new(true).open(path)?;
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
        let out = HashingFile::new(file);
        let (plain, plain_out) = sync_channel(WAITING);
        let plain_thread = spawn("layer-digest", move || digest_plain(&plain_out))?;
        let (codec, blob_thread) = match packing.compression {
            Compression::Gzip => gzip(out, packing.level.unwrap_or(6).unsigned_abs(), threads)?,
            compression => {
                let (sender, blocks) = sync_channel(WAITING);
                let level = (compression == Compression::Zstd).then(|| packing.level.unwrap_or(3));
                (Codec::Stream(sender), spawn("layer-pack", move || stream(out, level, threads, &blocks))?)
            }
        };
        Ok(Packer {
            block: Vec::with_capacity(BLOCK),
            blocks: Some(Senders { plain, codec }),
            plain: Some(plain_thread),
            blob: Some(blob_thread),
            path: path.to_owned(),
            is_finished: false,
        })
    }

    /// Ends the blob and syncs it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(mut self) -> io::Result<Packed> {
        self.send(true)?;
        let Some(Senders { plain, codec }) = self.blocks.take() else { return Err(gone()) };
        drop(plain);
        let (diff_id, size, crc) = join(self.plain.take())?;
        match codec {
            // Its thread ends with the sender.
            Codec::Stream(sender) => drop(sender),
            Codec::Turns { end, .. } => {
                let [a, b, c, d] = crc.sum().to_le_bytes();
                let [e, f, g, h] = crc.amount().to_le_bytes();
                let _ = end.send([a, b, c, d, e, f, g, h]);
            }
        }
        let (blob_digest, blob_size) = join(self.blob.take())??;
        self.is_finished = true;
        Ok(Packed { diff_id, size, blob_digest, blob_size })
    }

    fn send(&mut self, is_last: bool) -> io::Result<()> {
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
        let Some(senders) = &mut self.blocks else { return Err(gone()) };
        let sent = senders.plain.send(Arc::clone(&block)).is_ok() && senders.codec.send(block, is_last);
        if sent {
            return Ok(());
        }
        // The thread that stopped listening knows why.
        self.blocks = None;
        match self.blob.take().map(|thread| join(Some(thread))) {
            Some(Ok(Err(error))) | Some(Err(error)) => Err(error),
            _ => Err(gone()),
        }
    }
}

impl Codec {
    fn send(&mut self, block: Arc<Vec<u8>>, is_last: bool) -> bool {
        match self {
            Codec::Stream(sender) => sender.send(block).is_ok(),
            Codec::Turns { workers, next, before, .. } => {
                let job = Job { before: before.replace(Arc::clone(&block)), block, is_last };
                let sent = workers[*next].send(job).is_ok();
                *next = (*next + 1) % workers.len();
                sent
            }
        }
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        if self.block.len() == BLOCK {
            self.send(false)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.blocks = None;
        if let Some(thread) = self.blob.take() {
            let _ = thread.join();
        }
        if !self.is_finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Unpacks `source` (plain, gzip or zstd, by its magic) into a packer, and finishes it.
///
/// # Errors
/// What reading, the codec or the packer says; `Other` ("cancelled") once the flag is raised.
pub fn repack(source: impl Read, mut packer: Packer, cancel: &AtomicBool) -> io::Result<Packed> {
    let mut source = PlainReader::new(io::BufReader::with_capacity(BLOCK, source))?;
    let mut buffer = vec![0; BLOCK];
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        match source.read(&mut buffer)? {
            0 => return packer.finish(),
            n => packer.write_all(&buffer[..n])?,
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn spawn<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).spawn(job)
}

fn join<T>(thread: Option<JoinHandle<T>>) -> io::Result<T> {
    match thread.map(JoinHandle::join) {
        Some(Ok(value)) => Ok(value),
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None => Err(gone()),
    }
}

fn digest_plain(blocks: &Receiver<Arc<Vec<u8>>>) -> (Digest, u64, Crc) {
    let (mut digest, mut size, mut crc) = (Hasher::new(), 0, Crc::new());
    for block in blocks {
        digest.update(&block);
        crc.update(&block);
        size += block.len() as u64;
    }
    (digest.finish(), size, crc)
}

/// Without a level: as it is. One zstd worker at least, so that the bytes are those of any number.
fn stream(
    out: HashingFile,
    level: Option<i32>,
    threads: usize,
    blocks: &Receiver<Arc<Vec<u8>>>,
) -> io::Result<(Digest, u64)> {
    let Some(level) = level else {
        let mut out = out;
        blocks.iter().try_for_each(|block| out.write_all(&block))?;
        return out.finish();
    };
    let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
    encoder.include_checksum(true)?;
    encoder.multithread(threads as u32)?;
    for block in blocks {
        encoder.write_all(&block)?;
    }
    encoder.finish()?.finish()
}

type BlobThread = JoinHandle<io::Result<(Digest, u64)>>;

fn gzip(out: HashingFile, level: u32, threads: usize) -> io::Result<(Codec, BlobThread)> {
    let (mut workers, mut packed) = (Vec::new(), Vec::new());
    for _ in 0..threads {
        let (job_in, jobs) = sync_channel(WAITING);
        let (packed_in, packed_out) = sync_channel(WAITING);
        spawn("layer-deflate", move || deflate_all(level, &jobs, &packed_in))?;
        workers.push(job_in);
        packed.push(packed_out);
    }
    let (end, end_out) = sync_channel(1);
    let thread = spawn("layer-pack", move || join_blocks(out, &packed, &end_out))?;
    Ok((Codec::Turns { workers, next: 0, before: None, end }, thread))
}

/// The blocks of each worker in turn, as they were handed out, between gzip's header and trailer (RFC 1952 §2.3).
fn join_blocks(
    mut out: HashingFile,
    packed: &[Receiver<(Vec<u8>, bool)>],
    end: &Receiver<[u8; 8]>,
) -> io::Result<(Digest, u64)> {
    out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    for worker in packed.iter().cycle() {
        let (bytes, is_last) = worker.recv().map_err(|_| gone())?;
        out.write_all(&bytes)?;
        if is_last {
            break;
        }
    }
    out.write_all(&end.recv().map_err(|_| gone())?)?;
    out.finish()
}

fn deflate_all(level: u32, jobs: &Receiver<Job>, packed: &SyncSender<(Vec<u8>, bool)>) {
    let mut deflate = Compress::new(flate2::Compression::new(level), false);
    for job in jobs {
        deflate.reset();
        if let Some(before) = job.before.filter(|before| !before.is_empty()) {
            // Only a dictionary of no bytes is refused.
            let _ = deflate.set_dictionary(&before[before.len().saturating_sub(WINDOW)..]);
        }
        let bytes = deflate_block(&mut deflate, &job.block, job.is_last);
        if packed.send((bytes, job.is_last)).is_err() {
            return;
        }
    }
}

/// One block, to a byte's end; the last one ends the stream.
fn deflate_block(deflate: &mut Compress, block: &[u8], is_last: bool) -> Vec<u8> {
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut packed = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let taken = (deflate.total_in() as usize).min(block.len());
        let status = deflate.compress_vec(&block[taken..], &mut packed, flush);
        let is_through = deflate.total_in() as usize == block.len() && packed.len() < packed.capacity();
        if is_through && (!is_last || matches!(status, Ok(Status::StreamEnd))) {
            return packed;
        }
        packed.reserve(block.len() / 4 + 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::detect;

    /// Bytes that pack neither well nor badly.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        };
        (0..length).map(|at| if at % 3 == 0 { next() as u8 } else { (at / 7) as u8 }).collect()
    }

    fn pack(bytes: &[u8], compression: Compression, level: Option<i32>) -> (Vec<u8>, Packed) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("blob");
        let mut packer = Packer::create(&path, Packing { compression, level }).unwrap();
        for piece in bytes.chunks(70_001) {
            packer.write_all(piece).unwrap();
        }
        let packed = packer.finish().unwrap();
        (std::fs::read(path).unwrap(), packed)
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given_and_names_both_ends() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            for length in [0, 1, BLOCK, 2 * BLOCK + 17] {
                let bytes = sample(length);
                let (blob, packed) = pack(&bytes, compression, None);
                let mut plain = Vec::new();
                PlainReader::new(&blob[..]).unwrap().read_to_end(&mut plain).unwrap();
                assert!(plain == bytes, "{compression:?} {length}");
                assert_eq!((packed.diff_id, packed.size), (Digest::of(&bytes), length as u64));
                assert_eq!((packed.blob_digest, packed.blob_size), (Digest::of(&blob), blob.len() as u64));
                assert!(length == 0 || detect(&blob).unwrap() == compression);
            }
        }
    }

    #[test]
    fn blocks_cost_little_of_the_ratio_and_levels_are_heard() {
        // Text, of 256 words in no order.
        let numbers = sample(3 * BLOCK / 6);
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| format!("word{n} ").into_bytes()).collect();
        let blob = |level| pack(&bytes, Compression::Gzip, Some(level)).0.len();
        let mut whole = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        whole.write_all(&bytes).unwrap();
        let whole = whole.finish().unwrap().len();
        assert!(blob(6) < whole + whole / 100, "{} against {whole}", blob(6));
        assert!(blob(9) <= blob(1) && blob(1) < blob(0));
        assert!(Packer::create(
            Path::new("/dev/null/x"),
            Packing { compression: Compression::Gzip, level: Some(10) }
        )
        .is_err());
    }

    #[test]
    fn an_abandoned_blob_is_removed() {
        let place = tempfile::tempdir().unwrap();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let path = place.path().join("blob");
            let mut packer = Packer::create(&path, Packing { compression, level: None }).unwrap();
            packer.write_all(&sample(3 * BLOCK)).unwrap();
            drop(packer);
            assert!(!path.exists(), "{compression:?}");
        }
    }
}
