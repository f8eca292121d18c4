//! Builds archives byte by byte, crooked ones too: no writer in the world makes
//! what these tests need.
#![allow(dead_code)]

pub const BLOCK: usize = 512;

/// A header block under construction; the checksum is worked out at the end.
#[derive(Clone)]
pub struct Header(pub [u8; BLOCK]);

impl Header {
    /// A ustar header with plain values.
    pub fn new(name: &[u8], flag: u8, size: u64) -> Header {
        let mut header = Header([0; BLOCK]);
        header.0[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header.octal(100, 8, if flag == b'5' { 0o755 } else { 0o644 });
        header.octal(108, 8, 0);
        header.octal(116, 8, 0);
        header.octal(124, 12, size);
        header.octal(136, 12, 1_000_000_000);
        header.0[156] = flag;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header
    }

    pub fn octal(&mut self, at: usize, width: usize, value: u64) -> &mut Header {
        let text = format!("{value:0width$o}\0", width = width - 1);
        self.raw(at, text.as_bytes())
    }

    pub fn raw(&mut self, at: usize, bytes: &[u8]) -> &mut Header {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn mode(&mut self, mode: u64) -> &mut Header {
        self.octal(100, 8, mode)
    }

    pub fn owner(&mut self, uid: u64, gid: u64) -> &mut Header {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    pub fn link(&mut self, target: &[u8]) -> &mut Header {
        self.raw(157, &target[..target.len().min(100)])
    }

    pub fn gnu(&mut self) -> &mut Header {
        self.raw(257, b"ustar  \0")
    }

    pub fn v7(&mut self) -> &mut Header {
        self.raw(257, &[0; 8])
    }

    pub fn block(&mut self) -> [u8; BLOCK] {
        self.raw(148, b"        ");
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.raw(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// An archive under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn add(mut self, header: &mut Header, body: &[u8]) -> Tar {
        self.0.extend_from_slice(&header.block());
        self.body(body)
    }

    pub fn body(mut self, body: &[u8]) -> Tar {
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub fn file(self, name: &str, body: &[u8]) -> Tar {
        self.add(&mut Header::new(name.as_bytes(), b'0', body.len() as u64), body)
    }

    pub fn dir(self, name: &str) -> Tar {
        self.add(&mut Header::new(name.as_bytes(), b'5', 0), b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.add(Header::new(name.as_bytes(), b'2', 0).link(target.as_bytes()), b"")
    }

    pub fn hardlink(self, name: &str, target: &str) -> Tar {
        self.add(Header::new(name.as_bytes(), b'1', 0).link(target.as_bytes()), b"")
    }

    pub fn fifo(self, name: &str) -> Tar {
        self.add(&mut Header::new(name.as_bytes(), b'6', 0), b"")
    }

    pub fn device(self, name: &str, flag: u8, major: u64, minor: u64) -> Tar {
        self.add(Header::new(name.as_bytes(), flag, 0).octal(329, 8, major).octal(337, 8, minor), b"")
    }

    /// An extension header of any kind with its body.
    pub fn extension(self, flag: u8, body: &[u8]) -> Tar {
        self.add(&mut Header::new(b"extension", flag, body.len() as u64), body)
    }

    /// A PAX header for the next member.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.extension(b'x', &body)
    }

    /// The two zero blocks.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }

    /// No end blocks.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }
}

/// A PAX record with its length worked out.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = body.len() + 2;
    while format!("{length} ").len() + body.len() != length {
        length += 1;
    }
    [format!("{length} ").as_bytes(), &body[..]].concat()
}
