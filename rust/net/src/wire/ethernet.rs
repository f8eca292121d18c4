//! Ethernet II frames.

use super::be16;

/// The length of the header; there are no VLAN tags on a link of ours.
pub const HEADER: usize = 14;

/// A hardware address.
pub type Mac = [u8; 6];

/// All stations.
pub const BROADCAST: Mac = [0xff; 6];

/// EtherTypes of IEEE 802.
#[allow(missing_docs)]
pub mod kind {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
}

/// A frame's header and what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Who it is for.
    pub target: Mac,
    /// Who sent it.
    pub source: Mac,
    /// The EtherType.
    pub kind: u16,
    /// The rest.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Some(Self {
            target: bytes.get(..6)?.try_into().ok()?,
            source: bytes.get(6..12)?.try_into().ok()?,
            kind: be16(bytes, 12)?,
            payload: bytes.get(HEADER..)?,
        })
    }
}

/// The 14 bytes of a header.
#[must_use]
pub fn header(target: Mac, source: Mac, kind: u16) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..6].copy_from_slice(&target);
    bytes[6..12].copy_from_slice(&source);
    bytes[12..].copy_from_slice(&kind.to_be_bytes());
    bytes
}
