//! Compression: which codec a layer is in, told by its first bytes, and the
//! decoder for it.
//!
//! Media types are not asked: registries and `docker save` mislabel layers
//! often enough that every engine looks at the magic. gzip may be several
//! members one after another (RFC 1952 §2.2, pigz and `cat a.gz b.gz` make
//! them); zstd may be several frames, some of them skippable (RFC 8878 §3.1).
//! bzip2 and xz are recognised only to name them in the error: no builder
//! writes them today, and they would bring C code with a bad history.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;

use flate2::bufread::GzDecoder;

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
    /// Being inflated.
    Gzip(Box<GzipMembers<R>>),
    /// Being decoded by libzstd.
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// A decoder for `source`, which stands at its first byte.
    pub fn new(compression: Compression, source: R) -> io::Result<Decoder<R>> {
        Ok(match compression {
            Compression::None => Decoder::None(source),
            Compression::Gzip => Decoder::Gzip(Box::new(GzipMembers { state: Some(GzDecoder::new(source)) })),
            Compression::Zstd => Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?)),
        })
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::None(source) => source.read(buffer),
            Decoder::Gzip(members) => members.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Gzip members one after another. After the last one only zeros may follow
/// (padding by tapes and block devices, which gzip(1) ignores too); anything
/// else is an error rather than silently not part of the layer.
pub struct GzipMembers<R> {
    /// `None` after the end.
    state: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.state {
            let n = decoder.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            self.next_member()?;
        }
        Ok(0)
    }
}

impl<R: BufRead> GzipMembers<R> {
    fn next_member(&mut self) -> io::Result<()> {
        let Some(decoder) = self.state.take() else { return Ok(()) };
        let mut source = decoder.into_inner();
        match source.fill_buf()?.first() {
            None => Ok(()),
            Some(0x1f) => {
                self.state = Some(GzDecoder::new(source));
                Ok(())
            }
            Some(_) => skip_zeros(&mut source),
        }
    }
}

fn skip_zeros(source: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = source.fill_buf()?;
        let n = bytes.len();
        if n == 0 {
            return Ok(());
        }
        if bytes.iter().any(|&byte| byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "data after the end of the gzip stream"));
        }
        source.consume(n);
    }
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
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match decoder.read(&mut buffer)? {
            0 => return Ok(compression),
            n => FdWriter(output.as_fd()).write_all(&buffer[..n])?,
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
