//! The Internet checksum, RFC 1071.

use std::net::IpAddr;

/// A one's complement sum that grows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds `bytes`; an odd last byte counts as the high half of a word, so only the last piece may be odd.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            self.0 += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        }
        let mut rest = words.remainder().chunks(2);
        for pair in &mut rest {
            self.0 += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
        }
        self
    }

    /// Adds one number of 16 bits.
    #[must_use]
    pub fn word(mut self, word: u16) -> Self {
        self.0 += u64::from(word);
        self
    }

    /// The pseudo header of RFC 9293 §3.1 and RFC 8200 §8.1; both addresses are of one family.
    #[must_use]
    pub fn pseudo_header(self, source: IpAddr, target: IpAddr, protocol: u8, length: usize) -> Self {
        let sum = match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => self.bytes(&source.octets()).bytes(&target.octets()),
            (IpAddr::V6(source), IpAddr::V6(target)) => self.bytes(&source.octets()).bytes(&target.octets()),
            _ => self,
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        sum.word(u16::from(protocol)).bytes(&length.to_be_bytes())
    }

    /// The sum folded into 16 bits: what an offloading device wants in the checksum field.
    #[must_use]
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or(u16::MAX)
    }

    /// The checksum: the complement of the folded sum. Over data that contains its own checksum it is 0.
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        assert_eq!(Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    #[test]
    fn an_odd_byte_is_padded_on_the_right() {
        assert_eq!(Sum::default().bytes(&[1, 2, 3]).fold(), 0x0102 + 0x0300);
        assert_eq!(Sum::default().bytes(&[1, 2, 3, 4, 5]).fold(), 0x0102 + 0x0304 + 0x0500);
    }

    #[test]
    fn data_with_its_own_checksum_gives_zero() {
        let mut data = [0x45, 0, 0, 0x1c, 7, 7, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15, 8, 8, 8, 8];
        let checksum = Sum::default().bytes(&data).finish();
        data[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(Sum::default().bytes(&data).finish(), 0);
    }
}
