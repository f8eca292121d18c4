//! ICMP (RFC 792), ICMPv6 (RFC 4443) and the two messages of neighbour discovery (RFC 4861) that a link needs.

use std::net::{IpAddr, Ipv6Addr};

use super::be16;
use super::checksum::Sum;
use super::ethernet::Mac;
use super::ip::protocol;

/// Bytes of the offending packet that an error quotes: enough for any TCP header, and below the smallest MTU.
const QUOTED: usize = 512;

/// A message from the container that we act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Echo request: identifier, sequence number, data.
    Echo {
        /// Which ping it is.
        id: u16,
        /// Which of its packets.
        sequence: u16,
        /// What shall come back.
        data: &'a [u8],
    },
    /// Somebody asks for a neighbour's hardware address.
    Solicitation {
        /// The neighbour.
        target: Ipv6Addr,
    },
}

/// Why a packet did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens there.
    Port,
    /// The way ends before it.
    Host,
    /// There is no way.
    Network,
    /// It is not allowed.
    Prohibited,
}

impl<'a> Message<'a> {
    /// Reads a message of either family; `None` for what we do not act on.
    #[must_use]
    pub fn parse(bytes: &'a [u8], ends: (IpAddr, IpAddr), is_checked: bool) -> Option<Self> {
        let start = sum_start(ends, bytes.len());
        if bytes.len() < 8 || (!is_checked && start.bytes(bytes).finish() != 0) {
            return None;
        }
        match (ends.0.is_ipv4(), bytes[0], bytes[1]) {
            (true, 8, 0) | (false, 128, 0) => {
                Some(Self::Echo { id: be16(bytes, 4)?, sequence: be16(bytes, 6)?, data: &bytes[8..] })
            }
            (false, 135, 0) => {
                let target = <[u8; 16]>::try_from(bytes.get(8..24)?).ok()?;
                Some(Self::Solicitation { target: target.into() })
            }
            _ => None,
        }
    }
}

/// The pseudo header is part of the sum in IPv6 only.
fn sum_start(ends: (IpAddr, IpAddr), length: usize) -> Sum {
    match ends.0 {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => Sum::default().pseudo_header(ends.0, ends.1, protocol::ICMPV6, length),
    }
}

fn finish(mut bytes: Vec<u8>, ends: (IpAddr, IpAddr)) -> Vec<u8> {
    let sum = sum_start(ends, bytes.len()).bytes(&bytes).finish();
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// ICMP's protocol number in the family of `address`.
#[must_use]
pub fn protocol_for(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        protocol::ICMP
    } else {
        protocol::ICMPV6
    }
}

/// The answer to an echo request, from `ends.0`.
#[must_use]
pub fn echo_reply(ends: (IpAddr, IpAddr), id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if ends.0.is_ipv4() { 0 } else { 129 }, 0, 0, 0];
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(data);
    finish(bytes, ends)
}

/// An echo request as a ping socket of the host takes it (icmp(7)): the kernel fills in identifier and checksum.
#[must_use]
pub fn echo_request(is_ipv4: bool, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if is_ipv4 { 8 } else { 128 }, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// Tells the sender of `offending` why it did not get through.
#[must_use]
pub fn unreachable(ends: (IpAddr, IpAddr), why: Unreachable, offending: &[u8]) -> Vec<u8> {
    let (kind, code) = match (ends.0.is_ipv4(), why) {
        (true, Unreachable::Network) => (3, 0),
        (true, Unreachable::Host) => (3, 1),
        (true, Unreachable::Port) => (3, 3),
        (true, Unreachable::Prohibited) => (3, 13),
        (false, Unreachable::Network) => (1, 0),
        (false, Unreachable::Prohibited) => (1, 1),
        (false, Unreachable::Host) => (1, 3),
        (false, Unreachable::Port) => (1, 4),
    };
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&offending[..offending.len().min(QUOTED)]);
    finish(bytes, ends)
}

/// "`target` is at `mac`": solicited, overriding.
#[must_use]
pub fn advertisement(ends: (IpAddr, IpAddr), target: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut bytes = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    bytes.extend_from_slice(&target.octets());
    bytes.extend_from_slice(&[2, 1]);
    bytes.extend_from_slice(&mac);
    finish(bytes, ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_is_read_in_both_families_and_a_damaged_one_is_not() {
        let ends: [(IpAddr, IpAddr); 2] = [
            ("10.0.2.100".parse().unwrap(), "1.1.1.1".parse().unwrap()),
            ("fd00::1".parse().unwrap(), "2001:db8::1".parse().unwrap()),
        ];
        for ends in ends {
            let mut bytes = echo_request(ends.0.is_ipv4(), 3, b"payload");
            bytes[4..6].copy_from_slice(&[0, 9]);
            let mut bytes = finish(bytes, ends);
            assert_eq!(
                Message::parse(&bytes, ends, false),
                Some(Message::Echo { id: 9, sequence: 3, data: b"payload" })
            );
            bytes[9] ^= 1;
            assert_eq!(Message::parse(&bytes, ends, false), None);
        }
    }
}
