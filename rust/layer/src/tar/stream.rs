//! From blocks to members: applies extension headers and keeps the place.
//!
//! ```text
//! [x|L|K header, its body]*  header  [sparse blocks]  body, padded to 512   ...   two zero blocks
//! ```

use std::io::{self, BufRead};

use super::header::{text, Block, Header, Kind};
use super::pax::Extension;
use super::sparse::{self, BodyMap, Segment};
use super::{Fault, Member, TarError, Time, BLOCK, EXTENSION_LIMIT};

/// The largest sparse map at the start of a body (PAX 1.0), in blocks.
const BODY_MAP_BLOCKS: u64 = EXTENSION_LIMIT / BLOCK as u64;

/// Where a tar comes from: buffered bytes, of which many may be passed over.
pub trait Source: BufRead {
    /// Passes over `length` bytes; an earlier end is `UnexpectedEof`.
    fn skip(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let available = self.fill_buf()?.len() as u64;
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let n = available.min(length);
            self.consume(n as usize);
            length -= n;
        }
        Ok(())
    }
}

impl Source for &[u8] {}

/// A file is passed over by seeking; what lies beyond its end is found missing
/// at the next read, so the last byte of each stretch is read.
impl Source for io::BufReader<std::fs::File> {
    fn skip(&mut self, length: u64) -> io::Result<()> {
        let Some(all_but_last) = length.checked_sub(1) else { return Ok(()) };
        match i64::try_from(all_but_last) {
            Ok(distance) => self.seek_relative(distance)?,
            Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        io::Read::read_exact(self, &mut [0])
    }
}

/// Reads the members of an archive one after another.
pub struct TarReader<R> {
    source: R,
    position: u64,
    /// Bytes of the current body not yet read, and the padding after it.
    body: u64,
    padding: u64,
    is_over: bool,
}

/// What extension headers have said about the member to come.
#[derive(Default)]
struct Pending {
    pax: Option<Extension>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_path.is_none() && self.long_link.is_none()
    }
}

impl<R: Source> TarReader<R> {
    /// Starts at the first byte of an archive.
    pub fn new(source: R) -> TarReader<R> {
        TarReader { source, position: 0, body: 0, padding: 0, is_over: false }
    }

    /// The next member, or `None` at the end of the archive. What is left of
    /// the body before it is passed over.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut at = self.position;
        self.read_member(&mut at).map_err(|fault| TarError { offset: at, fault })
    }

    /// Bytes of the current body that are at hand; empty at its end.
    pub fn body(&mut self) -> Result<&[u8], TarError> {
        if self.body == 0 {
            return Ok(&[]);
        }
        let offset = self.position;
        let limit = usize::try_from(self.body).unwrap_or(usize::MAX);
        match self.source.fill_buf() {
            Ok([]) => Err(TarError { offset, fault: Fault::Truncated }),
            Ok(bytes) => Ok(&bytes[..bytes.len().min(limit)]),
            Err(error) => Err(TarError { offset, fault: error.into() }),
        }
    }

    /// Marks `n` bytes of the body as read.
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n as u64 <= self.body);
        self.source.consume(n);
        self.body -= n as u64;
        self.position += n as u64;
    }

    /// The source, standing after what has been read.
    pub fn into_source(self) -> R {
        self.source
    }

    fn read_member(&mut self, at: &mut u64) -> Result<Option<Member>, Fault> {
        let mut pending = Pending::default();
        loop {
            self.skip(self.body)?;
            self.skip(self.padding)?;
            (self.body, self.padding) = (0, 0);
            *at = self.position;
            let Some(block) = self.header_block()? else {
                return if pending.is_empty() { Ok(None) } else { Err(Fault::Orphan) };
            };
            let header = Header::parse(&block)?;
            match header.flag {
                b'x' | b'X' => pending.pax = Some(Extension::parse(&self.extension(header.size)?)?),
                // Read for its errors only; see the dialects in the module's head.
                b'g' => drop(Extension::parse(&self.extension(header.size)?)?),
                b'L' => pending.long_path = Some(text(&self.extension(header.size)?).to_vec()),
                b'K' => pending.long_link = Some(text(&self.extension(header.size)?).to_vec()),
                b'M' => return Err(Fault::MultiVolume),
                _ => return self.member(&block, header, pending).map(Some),
            }
        }
    }

    /// The next block, or `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<Block>, Fault> {
        if self.is_over {
            return Ok(None);
        }
        let Some(block) = self.block()? else {
            self.is_over = true;
            return Ok(None);
        };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        self.is_over = true;
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(Fault::LoneZeroBlock),
            _ => Ok(None),
        }
    }

    /// One block; `None` if the source ends exactly here.
    fn block(&mut self) -> Result<Option<Block>, Fault> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.source.fill_buf()?;
            let n = bytes.len().min(BLOCK - filled);
            if n == 0 {
                return if filled == 0 { Ok(None) } else { Err(Fault::Truncated) };
            }
            block[filled..filled + n].copy_from_slice(&bytes[..n]);
            self.source.consume(n);
            self.position += n as u64;
            filled += n;
        }
        Ok(Some(block))
    }

    fn skip(&mut self, length: u64) -> Result<(), Fault> {
        self.source.skip(length).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Truncated,
            _ => error.into(),
        })?;
        self.position = self.position.checked_add(length).ok_or(Fault::Truncated)?;
        Ok(())
    }

    /// The body of an extension header, whole.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > EXTENSION_LIMIT {
            return Err(Fault::ExtensionTooLarge);
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let block = self.block()?.ok_or(Fault::Truncated)?;
            bytes.extend_from_slice(&block);
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn member(&mut self, block: &Block, mut header: Header, pending: Pending) -> Result<Member, Fault> {
        let pax = pending.pax.unwrap_or_default();
        if let Some(path) = pending.long_path.or(pax.sparse.name.clone()).or(pax.path) {
            header.path = path;
        }
        if let Some(link) = pending.long_link.or(pax.link) {
            header.link = link;
        }
        header.size = pax.size.unwrap_or(header.size);
        let kind = header.kind();
        self.set_body(if kind.has_body() { header.size } else { 0 })?;
        let sparse = if kind == Kind::File { self.sparse_map(block, &header, pax.sparse)? } else { None };
        let (size, sparse) = match sparse {
            Some((size, map)) => (size, Some(map)),
            None => (self.body, None),
        };
        if header.path.is_empty() {
            return Err(Fault::Name("name"));
        }
        Ok(Member {
            kind,
            size,
            sparse,
            stored: self.body,
            offset: self.position,
            mode: header.mode,
            uid: id(pax.uid.unwrap_or(header.uid), "uid")?,
            gid: id(pax.gid.unwrap_or(header.gid), "gid")?,
            mtime: pax.mtime.unwrap_or(Time { seconds: header.mtime, nanoseconds: 0 }),
            device: header.device,
            xattrs: pax.xattrs,
            path: header.path,
            link: header.link,
        })
    }

    fn set_body(&mut self, size: u64) -> Result<(), Fault> {
        let unit = BLOCK as u64;
        self.padding = (unit - size % unit) % unit;
        self.body = size;
        match self.position.checked_add(size).and_then(|end| end.checked_add(self.padding)) {
            Some(_) => Ok(()),
            None => Err(Fault::Number("size")),
        }
    }

    /// The size and map of a sparse member; `None` for an ordinary one.
    fn sparse_map(
        &mut self,
        block: &Block,
        header: &Header,
        pax: super::pax::Sparse,
    ) -> Result<Option<(u64, Vec<Segment>)>, Fault> {
        let found = if header.flag == b'S' {
            self.old_sparse_map(block)?
        } else if !pax.is_present() {
            return Ok(None);
        } else {
            let size = pax.size.ok_or(Fault::Sparse("no size"))?;
            match pax.version {
                (1, 0) => (size, self.body_map()?),
                (0, _) => (size, pax.map.unwrap_or_default()),
                _ => return Err(Fault::Sparse("unknown version")),
            }
        };
        sparse::validate(&found.1, found.0, self.body)?;
        Ok(Some(found))
    }

    fn old_sparse_map(&mut self, block: &Block) -> Result<(u64, Vec<Segment>), Fault> {
        let mut map = Vec::new();
        let (size, mut has_more) = sparse::parse_old_header(block, &mut map)?;
        let mut blocks = 0;
        while has_more {
            blocks += 1;
            if blocks > BODY_MAP_BLOCKS {
                return Err(Fault::ExtensionTooLarge);
            }
            let extension = self.block()?.ok_or(Fault::Truncated)?;
            has_more = sparse::parse_old_extension(&extension, &mut map)?;
        }
        Ok((size, map))
    }

    /// PAX 1.0: the map is part of the body, in whole blocks.
    fn body_map(&mut self) -> Result<Vec<Segment>, Fault> {
        let mut map = BodyMap::default();
        for _ in 0..BODY_MAP_BLOCKS {
            if self.body < BLOCK as u64 {
                return Err(Fault::Sparse("longer than the body"));
            }
            self.body -= BLOCK as u64;
            let block = self.block()?.ok_or(Fault::Truncated)?;
            if map.take(&block)? {
                return Ok(map.segments());
            }
        }
        Err(Fault::ExtensionTooLarge)
    }
}

/// `u32::MAX` means "no change" to chown(2), so it is nobody's id.
fn id(number: u64, what: &'static str) -> Result<u32, Fault> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Fault::Number(what)),
    }
}
