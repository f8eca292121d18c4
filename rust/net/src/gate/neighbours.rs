//! The other members of a container's networks, for the rules: where on the host each is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use super::rules::{Kind, Protocol};

/// Who is in the networks that the container is in now. Asked for each new connection; what is looked up may be kept for a moment.
pub trait Neighbours: std::fmt::Debug + Send + Sync {
    /// What must stay open for this to work.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// The container's own addresses.
    fn own(&self) -> Vec<IpAddr>;
    /// The first of the host's addresses of the member that has `address`; `Some(None)`: it would be in a network of ours, and nobody
    /// is there; `None`: it is in none.
    fn find(&self, address: IpAddr) -> Option<Option<Ipv4Addr>>;
    /// Where on the host a member listens at one of its ports.
    fn port(&self, target: SocketAddr, protocol: Protocol) -> Option<SocketAddr>;
    /// Who is seen at an address of the host's loopback, and the port as the member knows it.
    fn name(&self, protocol: Protocol, host: Ipv4Addr, port: u16) -> Option<SocketAddr>;
    /// The container listens at this port.
    fn publish(&self, kind: Kind, port: u16, host: SocketAddr);
}
