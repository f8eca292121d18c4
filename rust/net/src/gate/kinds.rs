//! Which kinds of sockets there are for a container behind the gate.

use rustix::io::Errno;
use rustix::net::{ipproto, AddressFamily, SocketFlags, SocketType};

use super::rules::{Kind, Protocol};

/// NETLINK_ROUTE.
const ROUTE: u32 = 0;

/// A kind of socket that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// One that the gate tells where it may go.
    Ours(Kind),
    /// One with names in the file system, or of its own.
    Unix,
    /// Asks the kernel about interfaces and routes.
    Routes,
    /// Other netlink.
    Netlink,
}

/// Whether a socket may be made: the arguments of socket(2).
///
/// # Errors
/// EAFNOSUPPORT, EPROTONOSUPPORT, EPERM for raw ones: what a kernel says that has no such thing, or lets others have it.
pub fn admit(family: u32, kind: u32, protocol: u32) -> Result<Admitted, Errno> {
    let family = u16::try_from(family).map(AddressFamily::from_raw).map_err(|_| Errno::AFNOSUPPORT)?;
    let is_v6 = match family {
        AddressFamily::INET => false,
        AddressFamily::INET6 => true,
        AddressFamily::UNIX => return Ok(Admitted::Unix),
        AddressFamily::NETLINK if protocol == ROUTE => return Ok(Admitted::Routes),
        AddressFamily::NETLINK => return Ok(Admitted::Netlink),
        _ => return Err(Errno::AFNOSUPPORT),
    };
    let kind = kind & !(SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).bits();
    let is_one_of = |known: &[rustix::net::Protocol]| {
        protocol == 0 || known.iter().any(|known| known.as_raw().get() == protocol)
    };
    let protocol = match SocketType::from_raw(kind) {
        SocketType::STREAM if is_one_of(&[ipproto::TCP]) => Protocol::Tcp,
        SocketType::DGRAM if is_one_of(&[ipproto::UDP, ipproto::ICMP, ipproto::ICMPV6]) => Protocol::Udp,
        SocketType::RAW => return Err(Errno::PERM),
        _ => return Err(Errno::PROTONOSUPPORT),
    };
    Ok(Admitted::Ours(Kind { protocol, is_v6, is_v6_only: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_gate_knows_is_admitted() {
        let tcp = |is_v6| Ok(Admitted::Ours(Kind { protocol: Protocol::Tcp, is_v6, is_v6_only: false }));
        assert_eq!(admit(2, 1, 0), tcp(false));
        assert_eq!(admit(10, 1 | 0o4000 | 0o2_000_000, 6), tcp(true));
        assert_eq!(admit(16, 3, 0), Ok(Admitted::Routes));
        assert_eq!(admit(16, 3, 4), Ok(Admitted::Netlink));
        for (family, kind, protocol, errno) in [
            (2, 3, 1, Errno::PERM),
            (2, 1, 262, Errno::PROTONOSUPPORT),
            (2, 1, 132, Errno::PROTONOSUPPORT),
            (2, 2, 136, Errno::PROTONOSUPPORT),
            (17, 3, 0, Errno::AFNOSUPPORT),
            (40, 1, 0, Errno::AFNOSUPPORT),
            (0x1_0002, 1, 0, Errno::AFNOSUPPORT),
        ] {
            assert_eq!(admit(family, kind, protocol), Err(errno), "{family} {kind} {protocol}");
        }
    }
}
