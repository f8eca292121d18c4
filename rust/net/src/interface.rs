//! The container's side of the link, made from inside its network namespace.
//!
//! A tap is best: it makes the sender wait when we are slow. Where /dev/net/tun is missing or
//! not for users (containers, many servers), a veth pair does the same: the container uses
//! one end, and a packet socket on the other carries the frames. Both ends are in the
//! container's namespace then; the second has no address and is not in its way.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use duckweed_sys::link;
use rustix::io::Errno;

use crate::rtnetlink::{Netlink, VethEnd};
use crate::stack::Addresses;

/// The index of the container's interface: `lo` is 1, and the namespace is new.
const INDEX: u32 = 2;
/// What is asked for to hold frames that were not read yet; the kernel gives what `net.core.rmem_max` allows.
const ROOM: usize = 4 << 20;
/// The far end of the veth pair.
const FAR_END: &str = "uplink";

/// Makes the interface `name` with addresses, neighbours and, if wanted, the way out; answers with the descriptor that carries
/// its frames.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN in this namespace; EOPNOTSUPP where there is neither tun nor veth.
pub fn make(name: &str, addresses: &Addresses, default_route: bool) -> io::Result<OwnedFd> {
    let mut netlink = Netlink::new()?;
    let mtu = u32::from(addresses.mtu);
    let tap = match link::tap(name) {
        Ok(tap) => {
            netlink.set_up(INDEX, Some(mtu), Some(addresses.guest_mac));
            Some(tap)
        }
        Err(_) => {
            let end = VethEnd { name, mac: None, namespace: None, bridge: None, index: 0 };
            let ours = VethEnd { mac: Some(addresses.guest_mac), index: INDEX, ..end };
            netlink.add_veth(mtu, ours, VethEnd { name: FAR_END, index: INDEX + 1, ..end });
            netlink.set_up(INDEX + 1, None, None);
            None
        }
    };
    configure(&mut netlink, addresses, default_route);
    let configured = netlink.commit();
    if let Err(error) = configured {
        // A kernel without IPv6, or one where it is switched off, refuses its addresses and nothing else.
        let is_v6 = [Errno::ACCESS, Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::PERM]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
        if !(is_v6 && addresses.v6.is_some() && is_usable(name)) {
            return Err(error);
        }
    }
    match tap {
        Some(tap) => Ok(tap),
        None => link::packet_socket(INDEX + 1, ROOM),
    }
}

/// Queues the addresses and the ways of one link.
pub fn configure(netlink: &mut Netlink, addresses: &Addresses, default_route: bool) {
    let mut family = |guest: IpAddr, gateway: IpAddr, resolver: IpAddr, prefix| {
        netlink.add_address(INDEX, guest, prefix);
        netlink.add_neighbour(INDEX, gateway, addresses.gateway_mac);
        netlink.add_neighbour(INDEX, resolver, addresses.gateway_mac);
        if default_route {
            netlink.add_default_route(INDEX, gateway);
        }
    };
    let v4 = addresses.v4;
    family(v4.guest.into(), v4.gateway.into(), v4.resolver.into(), v4.prefix);
    if let Some(v6) = addresses.v6 {
        family(v6.guest.into(), v6.gateway.into(), v6.resolver.into(), v6.prefix);
    }
}

/// Whether the interface is there.
fn is_usable(name: &str) -> bool {
    rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .is_ok_and(|socket| rustix::net::netdevice::name_to_index(&socket, name).is_ok())
}
