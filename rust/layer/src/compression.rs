//! Compression: which codec a layer is in, told by its first bytes, and the
//! decoder for it.
//!
//! Media types are not asked: registries and `docker save` mislabel layers
//! often enough that every engine looks at the magic. gzip may be several members
//! one after another (see `deflate`); zstd may be several frames, some of them skippable (RFC 8878 §3.1).
//! bzip2 and xz are recognised only to name them in the error: no builder
//! writes them today, and they would bring C code with a bad history.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;

use crate::chunk::CHUNK_SIZE;
use crate::deflate::{GzipMembers, HISTORY, SLACK};
use crate::section::FileSection;

/// How a stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar (or anything without a known magic).
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

impl Compression {
    /// `gzip`, `zstd` or `none`.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// The OCI media type of a layer packed like this.
    pub fn media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A codec that is recognised but not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the layer is compressed with {0}, which is not supported (only gzip, zstd and plain tar are)")]
pub struct Unsupported(pub &'static str);

/// The bytes that `detect` wants to see, when there are so many.
pub const MAGIC_LEN: usize = 10;

/// Tells the codec by the first bytes.
pub fn detect(start: &[u8]) -> Result<Compression, Unsupported> {
    match start {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
        // A skippable frame first: pzstd and seekable zstd begin so.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(Unsupported("xz")),
        // The magic alone is a possible file name; with the block's mark (pi) it is not.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Err(Unsupported("bzip2")),
        [0x04, 0x22, 0x4d, 0x18, ..] => Err(Unsupported("lz4")),
        _ => Ok(Compression::None),
    }
}

/// The unpacked bytes of `R`.
pub enum Decoder<R: BufRead> {
    /// Passed through.
    None(R),
    /// Being inflated; the last bytes that came out, for matches to reach back to.
    Gzip(Box<GzipMembers<R>>, Vec<u8>),
    /// Being decoded by libzstd.
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

/// The least buffer that [`Decoder::fill`] takes.
pub const BUFFER_SIZE: usize = HISTORY + CHUNK_SIZE + SLACK;

impl<R: BufRead> Decoder<R> {
    /// A decoder for `source`, which stands at its first byte.
    pub fn new(compression: Compression, source: R) -> io::Result<Decoder<R>> {
        Ok(match compression {
            Compression::None => Decoder::None(source),
            Compression::Gzip => Decoder::Gzip(Box::new(GzipMembers::new(source)), vec![0; HISTORY]),
            Compression::Zstd => Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?)),
        })
    }

    /// Decodes the next bytes into `buffer` from [`HISTORY`] on, about [`CHUNK_SIZE`] of them or
    /// all there are, and returns where they end. [`HISTORY`] itself means that all is over.
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = &mut buffer[HISTORY..HISTORY + CHUNK_SIZE];
        match self {
            Decoder::None(source) => Ok(HISTORY + read_full(source, room)?),
            Decoder::Zstd(decoder) => Ok(HISTORY + read_full(decoder, room)?),
            Decoder::Gzip(members, window) => {
                buffer[..HISTORY].copy_from_slice(window);
                let end = members.inflate(buffer, HISTORY)?;
                window.copy_from_slice(&buffer[end - HISTORY..end]);
                Ok(end)
            }
        }
    }
}

/// The plain bytes of a source in whatever codec, told by its magic, as a reader.
pub struct PlainReader<R: BufRead> {
    decoder: Decoder<R>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: BufRead> PlainReader<R> {
    /// A reader of `source`, which stands at its first byte.
    pub fn new(mut source: R) -> io::Result<PlainReader<R>> {
        let compression = detect(source.fill_buf()?).map_err(io::Error::other)?;
        let decoder = Decoder::new(compression, source)?;
        Ok(PlainReader { decoder, buffer: vec![0; BUFFER_SIZE], start: 0, end: 0 })
    }
}

impl<R: BufRead> Read for PlainReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            self.end = self.decoder.fill(&mut self.buffer)?;
            self.start = HISTORY;
        }
        let n = buffer.len().min(self.end - self.start);
        buffer[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
        self.start += n;
        Ok(n)
    }
}

/// Fills as much of `buffer` as there is.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
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

/// Unpacks the whole of `input` into `output` and says what it was packed
/// with. Nothing is written when it was not packed.
pub fn decompress(input: impl AsFd, output: impl AsFd) -> Result<Compression, DecompressError> {
    let mut source = io::BufReader::with_capacity(256 * 1024, FileSection::whole(input.as_fd()));
    let compression = detect(source.fill_buf()?)?;
    if compression == Compression::None {
        return Ok(compression);
    }
    let mut decoder = Decoder::new(compression, source)?;
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match decoder.fill(&mut buffer)? {
            HISTORY => return Ok(compression),
            end => FdWriter(output.as_fd()).write_all(&buffer[HISTORY..end])?,
        }
    }
}

/// What can go wrong in [`decompress`].
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// A codec that is not read.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Reading, writing, or a damaged stream (`InvalidData`, `InvalidInput`, `UnexpectedEof`).
    #[error("{}", crate::error::describe(.0))]
    Io(#[from] io::Error),
}

struct FdWriter<'fd>(std::os::fd::BorrowedFd<'fd>);

impl Write for FdWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
