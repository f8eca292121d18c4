//! `struct sockaddr_in` and `sockaddr_in6` as a program's memory holds them.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

const INET: u16 = 2;
const INET6: u16 = 10;
/// The length of the larger one.
pub const LONGEST: usize = 28;

/// Reads one of either family; `None` for what is too short or of another.
pub fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    match family {
        INET if bytes.len() >= 16 => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(octets.into(), port).into())
        }
        // RFC 2133 has no scope; the kernel takes 24 bytes.
        INET6 if bytes.len() >= 24 => {
            let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, word(4)?, word(24).unwrap_or(0)).into())
        }
        _ => None,
    }
}

/// Writes one.
pub fn encode(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LONGEST);
    match address {
        SocketAddr::V4(address) => {
            bytes.extend(INET.to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(address.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(address) => {
            bytes.extend(INET6.to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(address.flowinfo().to_ne_bytes());
            bytes.extend(address.ip().octets());
            bytes.extend(address.scope_id().to_ne_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(v6 in any::<bool>(), a in any::<u128>(), port in any::<u16>(), scope in any::<u32>()) {
            let address: SocketAddr = if v6 {
                SocketAddrV6::new(a.into(), port, 0, scope).into()
            } else {
                SocketAddr::from(((a as u32).to_be_bytes(), port))
            };
            prop_assert_eq!(parse(&encode(address)), Some(address));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&bytes);
        }
    }
}
