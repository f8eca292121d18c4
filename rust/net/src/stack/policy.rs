//! Where a packet may go: the one place that is asked, whatever the protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Stack;
use crate::wire::icmp::Unreachable;

impl Stack {
    /// The host's view of `target` as the container sees it.
    ///
    /// # Errors
    /// What to tell the container instead.
    pub(super) fn destination(&self, target: SocketAddr) -> Result<SocketAddr, Unreachable> {
        let address = target.ip();
        if self.addresses.is_resolver(address) {
            // Only names are to be had there, and they have a way of their own.
            return Err(Unreachable::Port);
        }
        if self.addresses.is_gateway(address) {
            let host = self.host_address(address).ok_or(Unreachable::Host)?;
            return Ok(SocketAddr::new(host, target.port()));
        }
        if !self.reaches_out {
            return Err(Unreachable::Network);
        }
        if is_public(address) && !self.is_on_our_link(address) {
            Ok(target)
        } else {
            Err(Unreachable::Host)
        }
    }

    /// What the gateway's address stands for.
    fn host_address(&self, family: IpAddr) -> Option<IpAddr> {
        match (self.host_loopback, family) {
            (true, IpAddr::V4(_)) => Some(Ipv4Addr::LOCALHOST.into()),
            (true, IpAddr::V6(_)) => Some(Ipv6Addr::LOCALHOST.into()),
            (false, _) if !self.reaches_out => None,
            (false, family) => own_address(family.is_ipv4()),
        }
    }

    /// Our own network holds nobody but the container.
    pub(super) fn is_on_our_link(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let v4 = self.addresses.v4;
                let mask = u32::MAX.checked_shl(32 - u32::from(v4.prefix)).unwrap_or(0);
                u32::from(address) & mask == u32::from(v4.guest) & mask
            }
            IpAddr::V6(address) => self.addresses.v6.is_some_and(|v6| {
                let mask = u128::MAX.checked_shl(128 - u32::from(v6.prefix)).unwrap_or(0);
                u128::from(address) & mask == u128::from(v6.guest) & mask
            }),
        }
    }
}

/// Not the host itself by a name for "here", not many at once, and not a link that is not ours.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.octets()[0] != 0
                && !address.is_loopback()
                && !address.is_multicast()
                && !address.is_broadcast()
        }
        IpAddr::V6(address) => {
            !address.is_loopback()
                && !address.is_unspecified()
                && !address.is_multicast()
                && address.segments()[0] & 0xffc0 != 0xfe80
                && address.to_ipv4_mapped().is_none()
                && address.to_ipv4().is_none()
        }
    }
}

/// The address that the host has towards everybody else, if it has one. Nothing is sent.
#[must_use]
pub fn own_address(is_ipv4: bool) -> Option<IpAddr> {
    let (family, somewhere) = if is_ipv4 {
        (AddressFamily::INET, SocketAddr::from((Ipv4Addr::new(192, 0, 2, 254), 9)))
    } else {
        (AddressFamily::INET6, SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9)))
    };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    rustix::net::connect(&socket, &somewhere).ok()?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket).ok()?).ok()?.ip();
    is_public(address).then_some(address)
}

/// Whether the host reaches anybody over IPv6.
#[must_use]
pub fn has_ipv6() -> bool {
    own_address(false).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_the_host_itself_is_public() {
        for address in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.251",
            "255.255.255.255",
            "::1",
            "::",
            "ff02::fb",
            "fe80::1",
            "febf::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["10.1.2.3", "192.168.1.1", "8.8.8.8", "169.254.169.254", "fd00::1", "2001:db8::1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
