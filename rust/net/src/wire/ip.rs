//! IPv4 (RFC 791) and IPv6 (RFC 8200): one view of both, and their headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::{be16, be32};

/// Protocol numbers of IANA.
#[allow(missing_docs)]
pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// The length of the IPv4 header that we write.
pub const V4_HEADER: usize = 20;
/// The length of the IPv6 header.
pub const V6_HEADER: usize = 40;
/// Extension headers that are looked through before a packet is taken for an attack.
const MOST_EXTENSIONS: usize = 8;

/// A piece of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// What the pieces of one datagram have in common.
    pub id: u32,
    /// Where it goes, in bytes.
    pub offset: usize,
    /// More follow.
    pub more: bool,
}

/// A packet of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// Who it is for.
    pub target: IpAddr,
    /// What it carries; behind extension headers.
    pub protocol: u8,
    /// Hops it may still go.
    pub hops: u8,
    /// `None`: it is whole.
    pub fragment: Option<Fragment>,
    /// What it carries.
    pub payload: &'a [u8],
    /// The packet from its first byte, as an ICMP error quotes it.
    pub whole: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet of the family its first four bits name; trailing padding is cut off.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let header = usize::from(bytes[0] & 15) * 4;
        let total = usize::from(be16(bytes, 2)?);
        if header < V4_HEADER || total < header {
            return None;
        }
        let whole = bytes.get(..total)?;
        if Sum::default().bytes(&whole[..header]).finish() != 0 {
            return None;
        }
        let flags = be16(bytes, 6)?;
        let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
        let id = u32::from(be16(bytes, 4)?);
        Some(Self {
            source: Ipv4Addr::from(be32(bytes, 12)?).into(),
            target: Ipv4Addr::from(be32(bytes, 16)?).into(),
            protocol: bytes[9],
            hops: bytes[8],
            fragment: (offset > 0 || more).then_some(Fragment { id, offset, more }),
            payload: &whole[header..],
            whole,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::from(be16(bytes, 4)?);
        let whole = bytes.get(..V6_HEADER + length)?;
        let address = |at: usize| -> Option<Ipv6Addr> {
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(whole.get(at..at + 16)?).ok()?))
        };
        let mut packet = Self {
            source: address(8)?.into(),
            target: address(24)?.into(),
            protocol: whole[6],
            hops: whole[7],
            fragment: None,
            payload: &whole[V6_HEADER..],
            whole,
        };
        for _ in 0..MOST_EXTENSIONS {
            let length = match packet.protocol {
                0 | 43 | 60 => usize::from(*packet.payload.get(1)?) * 8 + 8,
                44 => {
                    let flags = be16(packet.payload, 2)?;
                    let (offset, more) = (usize::from(flags & 0xfff8), flags & 1 != 0);
                    let id = be32(packet.payload, 4)?;
                    packet.fragment = (offset > 0 || more).then_some(Fragment { id, offset, more });
                    8
                }
                _ => return Some(packet),
            };
            packet.protocol = packet.payload[0];
            packet.payload = packet.payload.get(length..)?;
            if packet.fragment.is_some_and(|fragment| fragment.offset > 0) {
                return Some(packet);
            }
        }
        None
    }
}

/// How long the header between these two is.
#[must_use]
pub fn header_length(address: IpAddr) -> usize {
    if address.is_ipv4() {
        V4_HEADER
    } else {
        V6_HEADER
    }
}

/// Writes the header of a packet with `length` bytes of payload to the end of `into`. A
/// fragment of IPv6 gets its extension header too.
pub fn write_header(
    into: &mut Vec<u8>,
    (source, target): (IpAddr, IpAddr),
    protocol: u8,
    length: usize,
    fragment: Option<Fragment>,
) {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            write_v4(into, source, target, protocol, length, fragment);
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            write_v6(into, source, target, protocol, length, fragment);
        }
        _ => {}
    }
}

fn write_v4(
    into: &mut Vec<u8>,
    source: Ipv4Addr,
    target: Ipv4Addr,
    protocol: u8,
    length: usize,
    fragment: Option<Fragment>,
) {
    let mut header = [0; V4_HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&u16::try_from(V4_HEADER + length).unwrap_or(0).to_be_bytes());
    // Not a fragment: must not become one.
    let mut flags = 0x4000;
    if let Some(fragment) = fragment {
        header[4..6].copy_from_slice(&fragment.id.to_be_bytes()[2..]);
        flags = u16::try_from(fragment.offset / 8).unwrap_or(0) | if fragment.more { 0x2000 } else { 0 };
    }
    header[6..8].copy_from_slice(&flags.to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&target.octets());
    let checksum = Sum::default().bytes(&header).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    into.extend_from_slice(&header);
}

fn write_v6(
    into: &mut Vec<u8>,
    source: Ipv6Addr,
    target: Ipv6Addr,
    protocol: u8,
    length: usize,
    fragment: Option<Fragment>,
) {
    let length = length + if fragment.is_some() { 8 } else { 0 };
    into.extend_from_slice(&[0x60, 0, 0, 0]);
    into.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
    // Neighbour discovery is believed only from next door, RFC 4861 §7.1.
    let hops = if protocol == super::ip::protocol::ICMPV6 { 255 } else { 64 };
    into.extend_from_slice(&[if fragment.is_some() { 44 } else { protocol }, hops]);
    into.extend_from_slice(&source.octets());
    into.extend_from_slice(&target.octets());
    if let Some(fragment) = fragment {
        into.extend_from_slice(&[protocol, 0]);
        let flags = u16::try_from(fragment.offset).unwrap_or(0) & 0xfff8 | u16::from(fragment.more);
        into.extend_from_slice(&flags.to_be_bytes());
        into.extend_from_slice(&fragment.id.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> [(IpAddr, IpAddr); 2] {
        [
            (Ipv4Addr::new(10, 0, 2, 100).into(), Ipv4Addr::new(192, 0, 2, 1).into()),
            ("fd00::64".parse().unwrap(), "2001:db8::1".parse().unwrap()),
        ]
    }

    #[test]
    fn what_is_written_is_read_again_whole_and_in_pieces() {
        for ends in both() {
            for fragment in [None, Some(Fragment { id: 77, offset: 1480, more: true })] {
                let mut bytes = Vec::new();
                write_header(&mut bytes, ends, protocol::UDP, 5, fragment);
                bytes.extend_from_slice(b"hello");
                bytes.extend_from_slice(&[0; 9]); // Ethernet pads
                let packet = Packet::parse(&bytes).unwrap();
                assert_eq!((packet.source, packet.target), ends);
                assert_eq!((packet.protocol, packet.payload), (protocol::UDP, &b"hello"[..]));
                assert_eq!(packet.fragment, fragment);
            }
        }
    }

    #[test]
    fn no_prefix_of_a_packet_is_a_packet() {
        for ends in both() {
            let mut bytes = Vec::new();
            write_header(&mut bytes, ends, protocol::UDP, 5, None);
            bytes.extend_from_slice(b"hello");
            for length in 0..bytes.len() {
                assert_eq!(Packet::parse(&bytes[..length]), None);
            }
        }
    }

    #[test]
    fn a_header_with_a_wrong_checksum_is_refused() {
        let mut bytes = Vec::new();
        write_header(&mut bytes, both()[0], protocol::UDP, 0, None);
        bytes[8] ^= 1;
        assert_eq!(Packet::parse(&bytes), None);
    }

    #[test]
    fn extension_headers_are_looked_through_and_a_long_chain_is_refused() {
        let packet_with = |count: usize| {
            let mut bytes = Vec::new();
            write_header(&mut bytes, both()[1], if count > 0 { 60 } else { 17 }, count * 8, None);
            for left in (0..count).rev() {
                bytes.extend_from_slice(&[if left > 0 { 60 } else { 17 }, 0, 1, 4, 0, 0, 0, 0]);
            }
            bytes
        };
        assert_eq!(Packet::parse(&packet_with(3)).unwrap().protocol, 17);
        assert_eq!(Packet::parse(&packet_with(20)), None);
    }
}
