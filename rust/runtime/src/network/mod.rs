//! A container's network: what the bundle asks for, and how it comes about.
//!
//! Every container that has a network has a *link*: an interface whose other end is a
//! [`duckweed_net::stack::Stack`] in the supervisor. It is the way out, the name server, and the way in
//! for published ports. A member of named networks has one more interface for each of
//! them: a veth whose other end is a port of a bridge in a network namespace that the
//! network's members share ([`members`]). So what containers say to each other never
//! leaves the kernel, and no process but the supervisors is needed for any of it.
//!
//! [`inside`] runs in the container's first process, where the namespaces are ours to furnish.

pub(crate) mod inside;
pub(crate) mod members;
pub(crate) mod names;
pub(crate) mod neighbours;
pub(crate) mod outlet;
mod ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use duckweed_net::stack::Addresses;
use serde::{Deserialize, Serialize};

pub use ports::Port;

/// `network` of the block (docs/contracts.md §4).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The name of the link's interface in the container; empty: `eth0`.
    pub interface: String,
    /// The link's largest packet; 0: 1500.
    pub mtu: u16,
    /// The gateway leads to the host's loopback.
    pub host_loopback: bool,
    /// No way out: names and published ports only.
    pub internal: bool,
    /// No link: its sockets are the host's, told where they may go.
    #[serde(rename = "socket_gate")]
    pub gate: bool,
    /// A container without a link has a name server of ours all the same.
    pub name_server: bool,
    /// Behind the gate there is nobody but the container itself.
    pub alone: bool,
    /// Name servers to ask instead of the host's.
    pub servers: Vec<IpAddr>,
    /// Ports of the host that lead in.
    pub publish: Vec<Publish>,
    /// The networks that the container is a member of.
    pub networks: Vec<Membership>,
    /// The directory of a container whose network this one has; all else is then that one's.
    pub shares: Option<PathBuf>,
}

/// A run of ports to publish.
#[derive(Debug, Clone, Deserialize)]
pub struct Publish {
    /// Where on the host; empty: everywhere, in both families.
    #[serde(default)]
    pub ip: String,
    /// The first and the last port that may be taken on the host; 0: any.
    pub host: (u16, u16),
    /// The container's port.
    pub container: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Another port will do when this one cannot be had.
    #[serde(default)]
    pub remap: bool,
}

/// A container in a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's name.
    pub name: String,
    /// What tells its namespace from that of a network of the same name before it.
    pub id: String,
    /// Its directory in the store.
    pub directory: PathBuf,
    /// The interface's name in the container.
    pub interface: String,
    /// The container's address there.
    pub address: Ipv4Addr,
    /// Bits of the network.
    pub prefix: u8,
    /// The same for IPv6, where the network has it.
    #[serde(default)]
    pub address6: Option<(Ipv6Addr, u8)>,
    /// The largest packet; 0: 1500.
    #[serde(default)]
    pub mtu: u32,
}

/// What a port became; in state.json, and in what `status` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The address on the host.
    pub ip: String,
    /// The port there.
    pub host: u16,
    /// The port in the container.
    pub container: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// What the container's first process needs to make its interfaces.
#[derive(Debug, Clone)]
pub struct Link {
    /// The link's addresses.
    pub addresses: Addresses,
    /// The namespaces of the networks, in the order of [`Network::networks`].
    pub namespaces: Vec<Arc<OwnedFd>>,
}

impl Network {
    /// The link's addresses. Whether the host has IPv6 is looked up now.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let mut addresses = Addresses::default();
        if self.mtu != 0 {
            // Below 1280 there is no IPv6, and nothing to be gained.
            addresses.mtu = self.mtu.max(1280);
        }
        if !duckweed_net::stack::has_ipv6() {
            addresses.v6 = None;
        }
        addresses
    }

    /// The name of the link's interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        if self.interface.is_empty() {
            "eth0"
        } else {
            &self.interface
        }
    }
}
