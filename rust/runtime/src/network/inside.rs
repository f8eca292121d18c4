//! The interfaces of a container, made by its first process in its new network namespace.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use duckweed_net::interface;
use duckweed_net::rtnetlink::{Netlink, VethEnd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};

use super::{Link, Membership, Network};
use crate::start_error::{Code, Doing as _, StartError};

/// The index of the first interface to a network: the loopback, the link and its far end come before.
pub(crate) const FIRST_INDEX: u32 = 10;
/// The bridge's index in a network's namespace.
pub(super) const BRIDGE: u32 = 2;

/// Makes the link, hands its descriptor to the parent, and joins the networks.
///
/// # Errors
/// `network`: what could not be made.
pub(crate) fn make(network: &Network, link: &Link, socket: &OwnedFd) -> Result<(), StartError> {
    soothe();
    let made = interface::make(network.interface(), &link.addresses, !network.internal)
        .doing(Code::Network, || "make the container's network interface")?;
    hand_over(socket, made.as_fd()).doing(Code::Network, || "hand over the network interface")?;
    if network.networks.is_empty() {
        return Ok(());
    }
    let own = own_namespace().doing(Code::Network, || "open the network namespace")?;
    for (index, (member, namespace)) in (FIRST_INDEX..).zip(network.networks.iter().zip(&link.namespaces)) {
        plug_in(member, index, own.as_fd(), namespace.as_fd())
            .doing(Code::Network, || format!("join the network {}", member.name))?;
    }
    Ok(())
}

/// Congestion is the business of the host's sockets: on the link, and between members, nothing is lost on the way, and an
/// algorithm that measures it as if it were a wire only holds back (BBR: 12 Gbit/s where Reno had 18, 2026-11).
/// `--sysctl` comes later and wins.
fn soothe() {
    let _ = std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno");
}

/// Without a link: the loopback has the container's address, so that programs which look for one before they use the
/// network find it. Nothing depends on it.
pub(crate) fn pretend(link: &Link) {
    const LOOPBACK: u32 = 1;
    let addresses = &link.addresses;
    let one = |address: IpAddr, prefix| {
        let mut netlink = Netlink::new()?;
        netlink.add_address(LOOPBACK, address, prefix);
        netlink.commit()
    };
    let _: std::io::Result<()> = one(addresses.v4.guest.into(), 32);
    if let Some(v6) = addresses.v6 {
        let _: std::io::Result<()> = one(v6.guest.into(), 128);
    }
}

fn hand_over(socket: &OwnedFd, link: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let fds = [link];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"l")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The network namespace we are in.
pub(super) fn own_namespace() -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/self/ns/net", flags, Mode::empty())?)
}

/// A cable from the network's bridge into this namespace.
pub(crate) fn plug_in(
    member: &Membership,
    index: u32,
    own: BorrowedFd<'_>,
    network: BorrowedFd<'_>,
) -> std::io::Result<()> {
    // A netlink socket stays in the namespace it was made in.
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
    let there = Netlink::new();
    move_into_link_name_space(own, Some(LinkNameSpaceType::Network))?;
    let mut there = there?;
    let mtu = if member.mtu == 0 { 1500 } else { member.mtu };
    let end = VethEnd { name: "", mac: None, namespace: None, bridge: None, index: 0 };
    // The port of a member that has just died may not be gone yet: its number is not used again.
    let mut random = [0; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let number = (u32::from_ne_bytes(random) & 0x3fff_ffff) + 16;
    let port = format!("p{number:x}");
    there.add_veth(
        mtu,
        VethEnd { name: &port, bridge: Some(BRIDGE), index: number, ..end },
        VethEnd { name: &member.interface, mac: Some(mac_of(member)), namespace: Some(own), index, ..end },
    );
    there.commit()?;
    let mut here = Netlink::new()?;
    here.set_up(index, None, None);
    here.add_address(index, IpAddr::V4(member.address), member.prefix);
    here.commit()?;
    if let Some((address, prefix)) = member.address6 {
        here.add_address(index, address.into(), prefix);
        // Where IPv6 is switched off there is one family less.
        let _ = here.commit();
    }
    Ok(())
}

/// Docker's rule: a local address that has the IPv4 address in it.
#[must_use]
pub fn mac_of(member: &Membership) -> [u8; 6] {
    let [a, b, c, d] = member.address.octets();
    [2, 0x42, a, b, c, d]
}
