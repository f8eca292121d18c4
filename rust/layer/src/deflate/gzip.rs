//! Members of a gzip file: headers, DEFLATE streams, check sums.

use std::io::{self, BufRead};

use super::inflate::{Inflater, HISTORY};

/// FHCRC, FEXTRA, FNAME, FCOMMENT, and the bits that must be zero (RFC 1952 §2.3.1).
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// Gzip members one after another, as pigz and `cat a.gz b.gz` make them (§2.2).
/// After the last one only zeros may follow (padding by tapes and block devices,
/// which gzip(1) ignores too); anything else is an error rather than silently not
/// part of the layer.
pub struct GzipMembers<R> {
    inflater: Inflater<R>,
    stage: Stage,
    sum: crc32fast::Hasher,
    /// Bytes of this member so far.
    produced: u64,
}

enum Stage {
    Before,
    Within,
    Over,
}

fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<R: BufRead> GzipMembers<R> {
    /// The members that begin at the first byte of `source`.
    pub fn new(source: R) -> GzipMembers<R> {
        let sum = crc32fast::Hasher::new();
        GzipMembers { inflater: Inflater::new(source), stage: Stage::Before, sum, produced: 0 }
    }

    /// Decodes into `out` from `at` on, until less than [`SLACK`](super::SLACK) is left there or all is
    /// over, and returns where writing ended: `at` itself at the end only. What an
    /// earlier call has written last, up to [`HISTORY`] bytes, must stand before `at`.
    ///
    /// Errors: `InvalidData` and `InvalidInput` for a damaged stream, `UnexpectedEof` for one cut short, and
    /// the source's own.
    pub fn inflate(&mut self, out: &mut [u8], at: usize) -> io::Result<usize> {
        let mut from = at;
        loop {
            match self.stage {
                Stage::Over => return Ok(from),
                Stage::Before => self.header()?,
                Stage::Within => {}
            }
            let known = usize::try_from(self.produced).unwrap_or(HISTORY).min(HISTORY);
            let end = self.inflater.inflate(out, from, from - known.min(from))?;
            self.sum.update(&out[from..end]);
            self.produced += (end - from) as u64;
            from = end;
            if !self.inflater.is_over() {
                return Ok(end);
            }
            self.trailer()?;
        }
    }

    fn required(&mut self) -> io::Result<u8> {
        self.inflater.byte()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        for byte in &mut bytes {
            *byte = self.required()?;
        }
        Ok(u32::from_le_bytes(bytes))
    }

    /// After the magic's first byte has been seen: the rest of a header.
    fn header(&mut self) -> io::Result<()> {
        let magic = [self.required()?, self.required()?, self.required()?];
        if magic != [0x1f, 0x8b, 8] {
            return Err(damaged("not a gzip header"));
        }
        self.header_fields()
    }

    fn header_fields(&mut self) -> io::Result<()> {
        let flags = self.required()?;
        if flags & RESERVED != 0 {
            return Err(damaged("unknown flags in a gzip header"));
        }
        // Time, extra flags and system say nothing about the bytes.
        self.skip(6)?;
        if flags & EXTRA != 0 {
            let length = u64::from(self.required()?) | u64::from(self.required()?) << 8;
            self.skip(length)?;
        }
        for flag in [NAME, COMMENT] {
            if flags & flag != 0 {
                while self.required()? != 0 {}
            }
        }
        if flags & HEADER_CRC != 0 {
            self.skip(2)?;
        }
        self.stage = Stage::Within;
        self.sum.reset();
        self.produced = 0;
        self.inflater.begin();
        Ok(())
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            self.required()?;
        }
        Ok(())
    }

    /// Checks the sums, and finds out whether another member follows.
    fn trailer(&mut self) -> io::Result<()> {
        if self.number()? != self.sum.clone().finalize() || self.number()? != self.produced as u32 {
            return Err(damaged("the check sum does not fit"));
        }
        self.stage = Stage::Over;
        match self.inflater.byte()? {
            None => Ok(()),
            Some(0x1f) => {
                if [self.required()?, self.required()?] != [0x8b, 8] {
                    return Err(damaged("not a gzip header"));
                }
                self.header_fields()
            }
            Some(0) => self.zeros(),
            Some(_) => Err(damaged("data after the end of the gzip stream")),
        }
    }

    fn zeros(&mut self) -> io::Result<()> {
        while let Some(byte) = self.inflater.byte()? {
            if byte != 0 {
                return Err(damaged("data after the end of the gzip stream"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::SLACK;
    use super::*;
    use std::io::{Read, Write};

    /// Delivers its bytes in pieces of one size, as a slow connection would.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.fill_buf()?.len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.consume(n);
            Ok(n)
        }
    }

    impl BufRead for Drip<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            Ok(&self.0[..self.1.min(self.0.len())])
        }

        fn consume(&mut self, n: usize) {
            self.0 = &self.0[n..];
        }
    }

    fn inflate(packed: &[u8], piece: usize, room: usize) -> io::Result<Vec<u8>> {
        let mut members = GzipMembers::new(Drip(packed, piece));
        let mut buffer = vec![0; HISTORY + room + SLACK];
        let mut whole = Vec::new();
        loop {
            let end = members.inflate(&mut buffer, HISTORY)?;
            if end == HISTORY {
                return Ok(whole);
            }
            whole.extend_from_slice(&buffer[HISTORY..end]);
            buffer.copy_within(end - HISTORY..end, 0);
        }
    }

    fn pack(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Deterministic bytes: text-like runs, noise, and repetition at many distances.
    fn sample(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut bytes: Vec<u8> = Vec::with_capacity(length + 300);
        while bytes.len() < length {
            match random() % 4 {
                0 => bytes.extend((0..random() % 200).map(|n| (n * 7) as u8)),
                1 => bytes.extend((0..random() % 60).map(|_| random() as u8)),
                2 => bytes.extend(std::iter::repeat_n(random() as u8, random() as usize % 300)),
                _ if bytes.is_empty() => {}
                _ => {
                    let distance = 1 + random() as usize % bytes.len().min(40_000);
                    for _ in 0..random() % 300 {
                        bytes.push(bytes[bytes.len() - distance]);
                    }
                }
            }
        }
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn every_level_and_every_piece_size_gives_the_bytes_back() {
        for (seed, length) in [(1, 0), (2, 1), (3, 700), (4, 70_000), (5, 300_000)] {
            let bytes = sample(seed, length);
            for level in [0, 1, 5, 9] {
                let packed = pack(&bytes, level);
                for (piece, room) in [(1, 1), (7, 100), (100, 5_000), (usize::MAX, 262_144)] {
                    assert!(inflate(&packed, piece, room).unwrap() == bytes, "{seed} {level} {piece} {room}");
                }
            }
        }
    }

    #[test]
    fn members_follow_each_other_and_zeros_follow_the_last() {
        let mut packed = pack(b"one, ", 6);
        packed.extend(pack(b"", 6));
        packed.extend(pack(b"two", 0));
        packed.extend([0; 700]);
        assert_eq!(inflate(&packed, usize::MAX, 1000).unwrap(), b"one, two");
        packed.push(1);
        assert!(inflate(&packed, usize::MAX, 1000).is_err());
    }

    #[test]
    fn a_member_cannot_reach_back_into_the_one_before() {
        let mut packed = pack(b"secret secret", 9);
        // A stored header, then a fixed block whose first symbol is a match of distance 1.
        packed.extend([
            0x1f,
            0x8b,
            8,
            0,
            0,
            0,
            0,
            0,
            0,
            3,
            0b0000_0011,
            0b0000_0010,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]);
        let error = inflate(&packed, usize::MAX, 1000).unwrap_err();
        assert_eq!(error.to_string(), "a match that begins before the data");
    }

    #[test]
    fn optional_fields_of_a_header_are_passed_over() {
        let plain = pack(b"content", 6);
        let mut packed = vec![0x1f, 0x8b, 8, HEADER_CRC | EXTRA | NAME | COMMENT, 0, 0, 0, 0, 0, 3];
        packed.extend(b"\x03\x00abcname\0comment\0\0\0");
        packed.extend(&plain[10..]);
        assert_eq!(inflate(&packed, 3, 1000).unwrap(), b"content");
        packed[3] |= 0x20;
        assert!(inflate(&packed, 3, 1000).is_err());
    }

    #[test]
    fn a_stream_cut_anywhere_is_an_error() {
        let packed = pack(&sample(9, 3000), 9);
        for length in 0..packed.len() {
            let error = inflate(&packed[..length], 50, 500).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
    }

    /// What another inflater makes of the same bytes, `None` for an error.
    fn oracle(packed: &[u8]) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        flate2::bufread::MultiGzDecoder::new(packed).read_to_end(&mut whole).ok().map(|_| whole)
    }

    #[test]
    fn damaged_streams_are_judged_as_zlib_does() {
        let rounds = std::env::var("DUCKWEED_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(3000u64);
        let seeds: Vec<Vec<u8>> =
            (0..6).map(|n| pack(&sample(n + 20, 1500), [1, 6, 9, 0, 6, 9][n as usize])).collect();
        let mut state = 88_172_645_463_325_252u64;
        for round in 0..rounds {
            let mut packed = seeds[round as usize % seeds.len()].clone();
            for _ in 0..=round % 3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let place = 10 + (state >> 33) as usize % (packed.len() - 10);
                packed[place] ^= 1 << (state >> 20 & 7);
            }
            let ours = inflate(&packed, [1, 40, usize::MAX][round as usize % 3], 700).ok();
            // Both may reject; what one takes, the other takes for the same bytes.
            assert!(ours == oracle(&packed), "round {round}");
        }
    }
}
