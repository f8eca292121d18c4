//! Digests: how content is named, `sha256:` and 64 lower-case hex digits.
//!
//! Only SHA-256 is spoken: it is the one algorithm the image-spec makes
//! mandatory and the only one that registries use in practice.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::str::FromStr;

use sha2::Digest as _;

use crate::section::FileSection;

/// A SHA-256 digest (image-spec `descriptor.md`, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// The text is not `sha256:` followed by 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest of the form sha256:<64 lower-case hex digits>")]
pub struct BadDigest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let nibbles = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles.map(|nibble| DIGITS[usize::from(nibble)] as char).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Digest, BadDigest> {
        let bad = || BadDigest(text.chars().take(100).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?.as_bytes();
        if hex.len() != 64 {
            return Err(bad());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0]).ok_or_else(bad)? << 4 | nibble(pair[1]).ok_or_else(bad)?;
        }
        Ok(Digest(digest))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Starts at the digest of nothing.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Digest and size in bytes of a whole file, whatever its offset stands at;
/// a pipe is read to its end.
pub fn digest_file(file: impl AsFd) -> io::Result<(Digest, u64)> {
    let mut section = FileSection::whole(file.as_fd());
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match io::Read::read(&mut section, &mut buffer)? {
            0 => return Ok((hasher.finish(), size)),
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

/// A file that is digested as it is written.
pub(crate) struct HashingFile {
    file: File,
    digest: Hasher,
    size: u64,
}

impl HashingFile {
    /// Begins at the file's offset, with the digest of nothing.
    pub fn new(file: File) -> HashingFile {
        HashingFile { file, digest: Hasher::new(), size: 0 }
    }

    /// Syncs the file. The digest and the number of the bytes written.
    pub fn finish(self) -> io::Result<(Digest, u64)> {
        self.file.sync_all()?;
        Ok((self.digest.finish(), self.size))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_published_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
    }

    #[test]
    fn digest_survives_a_round_trip_through_text() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn odd_spellings_of_digests_are_refused() {
        let upper = EMPTY.to_uppercase();
        let short = &EMPTY[..70];
        for text in ["", "sha256:", "sha512:00", short, &upper, &EMPTY.replace("e3", "g3"), &EMPTY[7..]] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn file_digest_does_not_depend_on_the_offset() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        assert_eq!(digest_file(&file).unwrap(), (Digest::of(b"abc"), 3));
    }
}
