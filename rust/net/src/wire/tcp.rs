//! TCP segments, RFC 9293, with the options of RFC 7323 (window scaling) and RFC 2018 (SACK).

use super::{be16, be32};

/// The length of a header without options.
pub const HEADER: usize = 20;

/// Flag bits.
#[allow(missing_docs)]
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

/// A sequence number: it wraps, so it has no order but a distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// How far `self` is behind `other`; negative when it is before it.
    #[must_use]
    #[allow(clippy::cast_possible_wrap)] // the point
    pub fn since(self, other: Seq) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// `self` is before `other`.
    #[must_use]
    pub fn is_before(self, other: Seq) -> bool {
        self.since(other) < 0
    }

    /// The number of bytes from `start` to here; 0 when we are before it.
    #[must_use]
    pub fn distance_from(self, start: Seq) -> usize {
        usize::try_from(self.since(start)).unwrap_or(0)
    }

    /// The later of two.
    #[must_use]
    pub fn later(self, other: Seq) -> Seq {
        if self.is_before(other) {
            other
        } else {
            self
        }
    }
}

impl std::ops::Add<usize> for Seq {
    type Output = Seq;
    #[allow(clippy::cast_possible_truncation)] // modulo 2^32
    fn add(self, count: usize) -> Seq {
        Seq(self.0.wrapping_add(count as u32))
    }
}

/// The options that mean something to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// The largest segment that the sender takes.
    pub mss: Option<u16>,
    /// By how many bits it shifts its windows.
    pub window_scale: Option<u8>,
    /// It understands selective acknowledgements.
    pub sack_permitted: bool,
    /// What it has beyond the acknowledged: left and right edges; unused ones are equal.
    pub sack: [(Seq, Seq); 3],
}

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub target: u16,
    /// The number of the first byte, or of SYN.
    pub seq: Seq,
    /// The next number the sender expects, if the ACK flag is set.
    pub ack: Seq,
    /// `flag::*`.
    pub flags: u8,
    /// The window as it stands in the header.
    pub window: u16,
    /// The options.
    pub options: Options,
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = usize::from(*bytes.get(12)? >> 4) * 4;
        if header < HEADER {
            return None;
        }
        let options = bytes.get(HEADER..header)?;
        Some(Self {
            source: be16(bytes, 0)?,
            target: be16(bytes, 2)?,
            seq: Seq(be32(bytes, 4)?),
            ack: Seq(be32(bytes, 8)?),
            flags: bytes[13],
            window: be16(bytes, 14)?,
            options: Options::parse(options),
            payload: &bytes[header..],
        })
    }

    /// Whether `flag` is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How much of the sequence space it takes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.payload.len() + usize::from(self.has(flag::SYN)) + usize::from(self.has(flag::FIN))
    }
}

impl Options {
    /// Reads what can be read; nonsense ends it.
    fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let [kind, rest @ ..] = bytes {
            bytes = match kind {
                0 => break,
                1 => rest,
                _ => {
                    let Some(body) = rest.first().and_then(|length| bytes.get(2..usize::from(*length)))
                    else {
                        break;
                    };
                    options.take(*kind, body);
                    &bytes[2 + body.len()..]
                }
            };
        }
        options
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body.len()) {
            (2, 2) => self.mss = be16(body, 0),
            // RFC 7323 §2.3: more than 14 counts as 14.
            (3, 1) => self.window_scale = Some(body[0].min(14)),
            (4, 0) => self.sack_permitted = true,
            (5, _) => {
                for (block, edges) in self.sack.iter_mut().zip(body.chunks_exact(8)) {
                    if let (Some(left), Some(right)) = (be32(edges, 0), be32(edges, 4)) {
                        *block = (Seq(left), Seq(right));
                    }
                }
            }
            _ => {}
        }
    }

    /// Writes them, padded to whole words.
    fn write(&self, into: &mut Vec<u8>) {
        if let Some(mss) = self.mss {
            into.extend_from_slice(&[2, 4]);
            into.extend_from_slice(&mss.to_be_bytes());
        }
        if let Some(scale) = self.window_scale {
            into.extend_from_slice(&[1, 3, 3, scale]);
        }
        if self.sack_permitted {
            into.extend_from_slice(&[1, 1, 4, 2]);
        }
        let blocks = self.sack.iter().filter(|(left, right)| left != right);
        let count = blocks.clone().count();
        if count > 0 {
            into.extend_from_slice(&[1, 1, 5, u8::try_from(2 + 8 * count).unwrap_or(0)]);
            for (left, right) in blocks {
                into.extend_from_slice(&left.0.to_be_bytes());
                into.extend_from_slice(&right.0.to_be_bytes());
            }
        }
    }
}

/// Writes a header to the end of `into`, its checksum field 0; answers with its length.
pub fn write_header(into: &mut Vec<u8>, segment: &Segment<'_>) -> usize {
    let start = into.len();
    into.extend_from_slice(&segment.source.to_be_bytes());
    into.extend_from_slice(&segment.target.to_be_bytes());
    into.extend_from_slice(&segment.seq.0.to_be_bytes());
    into.extend_from_slice(&segment.ack.0.to_be_bytes());
    into.extend_from_slice(&[0, segment.flags]);
    into.extend_from_slice(&segment.window.to_be_bytes());
    into.extend_from_slice(&[0, 0, 0, 0]);
    segment.options.write(into);
    let length = into.len() - start;
    into[start + 12] = u8::try_from(length / 4).unwrap_or(15) << 4;
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_every_option_survives() {
        let syn = Segment {
            source: 1,
            target: 2,
            seq: Seq(u32::MAX),
            ack: Seq(7),
            flags: flag::SYN | flag::ACK,
            window: 65535,
            options: Options {
                mss: Some(1460),
                window_scale: Some(9),
                sack_permitted: true,
                sack: [(Seq(1), Seq(5)), (Seq(9), Seq(11)), (Seq(0), Seq(0))],
            },
            payload: b"",
        };
        let mut bytes = Vec::new();
        assert_eq!(write_header(&mut bytes, &syn), bytes.len());
        assert_eq!(Segment::parse(&bytes), Some(syn));
    }

    #[test]
    fn options_that_claim_too_much_are_left_alone() {
        for nonsense in [&[2][..], &[2, 0], &[2, 1, 9], &[3, 40, 1], &[5, 7, 0, 0, 0, 0, 0]] {
            assert_eq!(Options::parse(nonsense), Options::default(), "{nonsense:?}");
        }
    }

    #[test]
    fn sequence_numbers_wrap() {
        assert!(Seq(u32::MAX).is_before(Seq(3)));
        assert_eq!((Seq(u32::MAX) + 4), Seq(3));
        assert_eq!(Seq(3).distance_from(Seq(u32::MAX)), 4);
        assert_eq!(Seq(u32::MAX).distance_from(Seq(3)), 0);
    }
}
