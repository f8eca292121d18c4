//! Sparse files: where the data lies, in GNU tar's four spellings.
//!
//! Old GNU keeps (offset, length) pairs in the header and in blocks after it;
//! PAX 0.0 and 0.1 keep them in records, 1.0 at the start of the body. All end
//! as one list, checked by [`validate`] before anybody seeks by it.

use super::header::{unsigned, Block};
use super::{pax, Fault};

/// A stretch of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Checks that the stretches are in order, apart, inside a file of `size`
/// bytes, and together as long as the `stored` bytes of the archive.
pub fn validate(map: &[Segment], size: u64, stored: u64) -> Result<(), Fault> {
    let mut end = 0;
    let mut sum = 0u64;
    for segment in map {
        if segment.offset < end {
            return Err(Fault::Sparse("stretches overlap or are out of order"));
        }
        end = segment.offset.checked_add(segment.length).ok_or(Fault::Sparse("a stretch is too long"))?;
        if end > size {
            return Err(Fault::Sparse("a stretch lies beyond the end of the file"));
        }
        sum += segment.length;
    }
    if sum != stored {
        return Err(Fault::Sparse("the stretches are not as long as the data"));
    }
    Ok(())
}

/// The four pairs and the size in an old GNU header; whether more blocks follow.
pub fn parse_old_header(block: &Block, map: &mut Vec<Segment>) -> Result<(u64, bool), Fault> {
    pairs(&block[386..482], map)?;
    Ok((unsigned(&block[483..495], "size of a sparse file")?, block[482] != 0))
}

/// The 21 pairs of an extension block; whether more follow.
pub fn parse_old_extension(block: &Block, map: &mut Vec<Segment>) -> Result<bool, Fault> {
    pairs(&block[..504], map)?;
    Ok(block[504] != 0)
}

/// Pairs of 12-byte numbers; an empty pair ends the list.
fn pairs(bytes: &[u8], map: &mut Vec<Segment>) -> Result<(), Fault> {
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 || pair[12] == 0 {
            break;
        }
        let offset = unsigned(&pair[..12], "sparse map")?;
        let length = unsigned(&pair[12..], "sparse map")?;
        map.push(Segment { offset, length });
    }
    Ok(())
}

/// `OFFSET,LENGTH,OFFSET,LENGTH...` of PAX 0.1.
pub fn parse_list(text: &[u8]) -> Result<Vec<Segment>, Fault> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Option<Vec<u64>> = text.split(|&byte| byte == b',').map(pax::decimal).collect();
    let numbers = numbers.ok_or(Fault::Sparse("not a number"))?;
    if numbers.len() % 2 != 0 {
        return Err(Fault::Sparse("an offset without its length"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Reads a PAX 1.0 map as it comes out of the body: a count, then offsets and
/// lengths, each a decimal line, the whole padded to a block.
#[derive(Debug, Default)]
pub struct BodyMap {
    line: Vec<u8>,
    numbers: Vec<u64>,
    expected: Option<u64>,
}

impl BodyMap {
    /// Takes a block; `true` when the map is complete (the rest of the block is padding).
    pub fn take(&mut self, block: &Block) -> Result<bool, Fault> {
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 20 {
                    return Err(Fault::Sparse("not a number"));
                }
                continue;
            }
            let number = pax::decimal(&self.line).ok_or(Fault::Sparse("not a number"))?;
            self.line.clear();
            match self.expected {
                None => {
                    self.expected = Some(number.checked_mul(2).ok_or(Fault::Sparse("too many stretches"))?)
                }
                Some(_) => self.numbers.push(number),
            }
            if self.expected == Some(self.numbers.len() as u64) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The map.
    pub fn segments(&self) -> Vec<Segment> {
        self.numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|&(offset, length)| Segment { offset, length }).collect()
    }

    #[test]
    fn only_ordered_maps_that_fit_are_valid() {
        type Row = (&'static [(u64, u64)], u64, u64, bool);
        let table: &[Row] = &[
            (&[], 0, 0, true),
            (&[], 100, 0, true),
            (&[(0, 10), (20, 5)], 25, 15, true),
            (&[(0, 10), (10, 0), (25, 0)], 25, 10, true),
            (&[(0, 10), (9, 5)], 25, 15, false),
            (&[(20, 5), (0, 10)], 25, 15, false),
            (&[(20, 6)], 25, 6, false),
            (&[(20, 5)], 25, 4, false),
            (&[(20, 5)], 25, 6, false),
            (&[(u64::MAX, 2)], u64::MAX, 2, false),
        ];
        for (pairs, size, stored, expected) in table {
            assert_eq!(validate(&map(pairs), *size, *stored).is_ok(), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn body_map_ends_where_its_count_says() {
        let mut block = [0; 512];
        block[..14].copy_from_slice(b"2\n0\n5\n10\n123\n\0");
        let mut body = BodyMap::default();
        assert!(body.take(&block).unwrap());
        assert_eq!(body.segments(), map(&[(0, 5), (10, 123)]));
    }

    #[test]
    fn body_map_of_rubbish_is_refused() {
        for text in [
            &b"\n"[..],
            b"x\n",
            b"-1\n",
            b"1\n1\n\n",
            b"99999999999999999999\n",
            b"9223372036854775807\n1\n\n",
        ] {
            let mut block = [0; 512];
            block[..text.len()].copy_from_slice(text);
            assert!(BodyMap::default().take(&block).is_err(), "{}", text.escape_ascii());
        }
    }
}
