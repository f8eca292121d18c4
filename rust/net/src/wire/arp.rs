//! ARP for IPv4 over Ethernet, RFC 826: requests in, answers out.

use std::net::Ipv4Addr;

use super::ethernet::Mac;

/// Ethernet, IPv4, lengths 6 and 4.
const PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Somebody asks who has `target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The asker's hardware address.
    pub mac: Mac,
    /// The asker; 0.0.0.0 in a probe for duplicates.
    pub source: Ipv4Addr,
    /// The address that is asked for.
    pub target: Ipv4Addr,
}

impl Request {
    /// Reads the payload of a frame; `None` for anything but a request.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..28)?;
        if bytes[..6] != PREFIX || bytes[6..8] != [0, 1] {
            return None;
        }
        let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        Some(Self { mac: bytes[8..14].try_into().ok()?, source: address(14), target: address(24) })
    }

    /// "It is at `mac`."
    #[must_use]
    pub fn answer(&self, mac: Mac) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..6].copy_from_slice(&PREFIX);
        bytes[7] = 2;
        bytes[8..14].copy_from_slice(&mac);
        bytes[14..18].copy_from_slice(&self.target.octets());
        bytes[18..24].copy_from_slice(&self.mac);
        bytes[24..].copy_from_slice(&self.source.octets());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_with_the_roles_turned_round() {
        let mut bytes = [0; 28];
        bytes[..6].copy_from_slice(&PREFIX);
        bytes[7] = 1;
        bytes[8..14].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        bytes[14..18].copy_from_slice(&[10, 0, 2, 100]);
        bytes[24..].copy_from_slice(&[10, 0, 2, 2]);
        let request = Request::parse(&bytes).unwrap();
        let answer = request.answer([2, 0, 0, 0, 0, 1]);
        assert_eq!(answer[6..8], [0, 2]);
        assert_eq!(answer[8..18], [2, 0, 0, 0, 0, 1, 10, 0, 2, 2]);
        assert_eq!(answer[18..], [2, 0, 0, 0, 0, 9, 10, 0, 2, 100]);
        assert_eq!(Request::parse(&answer), None);
        assert_eq!(Request::parse(&bytes[..27]), None);
    }
}
