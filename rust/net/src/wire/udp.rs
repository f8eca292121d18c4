//! UDP, RFC 768.

use std::net::IpAddr;

use super::be16;
use super::checksum::Sum;
use super::ip::protocol;

/// The length of the header.
pub const HEADER: usize = 8;

/// A datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub target: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads a datagram; the checksum is judged only where nobody vouches for it (`is_checked`).
    #[must_use]
    pub fn parse(bytes: &'a [u8], ends: (IpAddr, IpAddr), is_checked: bool) -> Option<Self> {
        let length = usize::from(be16(bytes, 4)?);
        let whole = bytes.get(..length.max(HEADER))?;
        if length < HEADER {
            return None;
        }
        let has_checksum = whole[6..8] != [0, 0];
        if !is_checked && has_checksum {
            let sum = Sum::default().pseudo_header(ends.0, ends.1, protocol::UDP, length).bytes(whole);
            if sum.finish() != 0 {
                return None;
            }
        }
        Some(Self { source: be16(whole, 0)?, target: be16(whole, 2)?, payload: &whole[HEADER..] })
    }
}

/// A whole datagram, checksum included.
#[must_use]
pub fn datagram(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = HEADER + payload.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&ports.0.to_be_bytes());
    bytes.extend_from_slice(&ports.1.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(payload);
    let sum = Sum::default().pseudo_header(ends.0, ends.1, protocol::UDP, length).bytes(&bytes).finish();
    // Zero would say that there is none.
    let sum = if sum == 0 { 0xffff } else { sum };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_survives_and_a_damaged_one_does_not() {
        let ends: (IpAddr, IpAddr) = ("10.0.2.100".parse().unwrap(), "8.8.8.8".parse().unwrap());
        let mut bytes = datagram(ends, (4000, 53), b"question");
        let read = Datagram::parse(&bytes, ends, false).unwrap();
        assert_eq!((read.source, read.target, read.payload), (4000, 53, &b"question"[..]));
        bytes[10] ^= 4;
        assert_eq!(Datagram::parse(&bytes, ends, false), None);
        assert!(Datagram::parse(&bytes, ends, true).is_some());
        assert_eq!(Datagram::parse(&bytes[..12], ends, true), None);
    }
}
