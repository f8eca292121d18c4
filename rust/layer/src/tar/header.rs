//! One header block: fixed fields at fixed offsets, in four dialects.
//!
//! The layout is v7's; ustar adds a magic, a name prefix and device numbers;
//! star uses a shorter prefix; GNU uses the prefix's place for other things,
//! among them the map of a sparse file.

use super::{Fault, BLOCK};

/// One block of an archive.
pub type Block = [u8; BLOCK];

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file (also contiguous and old GNU sparse ones).
    File,
    /// A hard link to an earlier member.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// Something else, by its type flag: vendor extensions, volume labels.
    Other(u8),
}

impl Kind {
    /// A short name: `file`, `link`, `symlink`, `char`, `block`, `dir`, `fifo`, `other`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::HardLink => "link",
            Kind::Symlink => "symlink",
            Kind::CharDevice => "char",
            Kind::BlockDevice => "block",
            Kind::Directory => "dir",
            Kind::Fifo => "fifo",
            Kind::Other(_) => "other",
        }
    }

    /// Whether bytes follow the header.
    pub fn has_body(self) -> bool {
        matches!(self, Kind::File | Kind::Other(_))
    }
}

/// How the fields after the link name are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Nothing there.
    V7,
    /// POSIX: 155 bytes of prefix.
    Ustar,
    /// star: 131 bytes of prefix, then times.
    Star,
    /// GNU: times and a sparse map.
    Gnu,
}

/// The fields of a header, before any extension is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Name, the prefix joined on.
    pub path: Vec<u8>,
    /// Link target.
    pub link: Vec<u8>,
    /// The raw type flag.
    pub flag: u8,
    /// Size of the body.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time in seconds.
    pub mtime: i64,
    /// Device numbers, for devices.
    pub device: (u32, u32),
    /// Layout of the tail.
    pub dialect: Dialect,
}

impl Header {
    /// Reads a block; the caller has seen that it is not all zeros.
    pub fn parse(block: &Block) -> Result<Header, Fault> {
        verify_checksum(block)?;
        let dialect = dialect(block);
        let flag = block[156];
        let is_device = matches!(flag, b'3' | b'4');
        Ok(Header {
            path: full_name(block, dialect),
            link: text(&block[157..257]).to_vec(),
            flag,
            size: unsigned(&block[124..136], "size")?,
            mode: (unsigned(&block[100..108], "mode")? & 0o7777) as u32,
            uid: unsigned(&block[108..116], "uid")?,
            gid: unsigned(&block[116..124], "gid")?,
            mtime: number(&block[136..148]).ok_or(Fault::Number("mtime"))?,
            device: if is_device && dialect != Dialect::V7 { device(block)? } else { (0, 0) },
            dialect,
        })
    }

    /// What the type flag says; v7 marks directories by a final slash only.
    pub fn kind(&self) -> Kind {
        match self.flag {
            b'0' | b'\0' | b'7' | b'S' if self.path.ends_with(b"/") => Kind::Directory,
            b'0' | b'\0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        }
    }
}

fn dialect(block: &Block) -> Dialect {
    match (&block[257..263], &block[263..265]) {
        (b"ustar\0", _) if &block[508..512] == b"tar\0" => Dialect::Star,
        (b"ustar\0", _) => Dialect::Ustar,
        (b"ustar ", b" \0") => Dialect::Gnu,
        _ => Dialect::V7,
    }
}

/// The sum of all bytes with the checksum field as blanks. Some old writers
/// summed signed characters, so both sums are accepted, as everywhere.
fn verify_checksum(block: &Block) -> Result<(), Fault> {
    let stated = number(&block[148..156]).ok_or(Fault::Checksum)?;
    let (mut plain, mut signed) = (0i64, 0i64);
    for (place, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&place) { b' ' } else { byte };
        plain += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    if stated == plain || stated == signed {
        Ok(())
    } else {
        Err(Fault::Checksum)
    }
}

fn full_name(block: &Block, dialect: Dialect) -> Vec<u8> {
    let name = text(&block[0..100]);
    let prefix = match dialect {
        Dialect::Ustar => text(&block[345..500]),
        Dialect::Star => text(&block[345..476]),
        Dialect::V7 | Dialect::Gnu => b"",
    };
    if prefix.is_empty() {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    }
}

fn device(block: &Block) -> Result<(u32, u32), Fault> {
    let major = unsigned(&block[329..337], "device number")?;
    let minor = unsigned(&block[337..345], "device number")?;
    let fits = |n: u64| u32::try_from(n).map_err(|_| Fault::Number("device number"));
    Ok((fits(major)?, fits(minor)?))
}

/// A field up to its first NUL.
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number that cannot be negative.
pub fn unsigned(field: &[u8], what: &'static str) -> Result<u64, Fault> {
    number(field).and_then(|n| u64::try_from(n).ok()).ok_or(Fault::Number(what))
}

/// A numeric field: octal digits between blanks and NULs (nothing at all is 0),
/// or two's complement big endian when the first bit is set (GNU, star).
pub fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(&first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(is_blank) {
        return None;
    }
    digits[..end].iter().try_fold(0i64, |n, &digit| match digit {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// The first bit is only the mark; the second is the sign.
fn base_256(field: &[u8]) -> Option<i64> {
    let is_negative = field[0] & 0x40 != 0;
    let first = if is_negative { field[0] | 0x80 } else { field[0] & 0x7f };
    let start = i128::from(first as i8);
    let wide =
        field[1..].iter().try_fold(start, |n, &byte| n.checked_mul(256)?.checked_add(i128::from(byte)))?;
    i64::try_from(wide).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_spelling() {
        let table: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"00000644", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"00008\0\0\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"64 4\0\0\0\0", None),
            (b"0x1f\0\0\0\0", None),
        ];
        for (field, expected) in table {
            assert_eq!(number(field), *expected, "{field:?}");
        }
    }

    #[test]
    fn header_with_a_wrong_checksum_is_refused() {
        let mut block = [0; BLOCK];
        block[0] = b'x';
        assert!(matches!(Header::parse(&block), Err(Fault::Checksum)));
    }

    #[test]
    fn signed_checksums_are_accepted() {
        let mut block = [0; BLOCK];
        block[0] = 0xe9;
        let sum = 0xe9u8 as i8 as i64 + 8 * 32;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(Header::parse(&block).unwrap().path, b"\xe9");
    }
}
