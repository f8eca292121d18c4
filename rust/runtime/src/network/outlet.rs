//! The supervisor's side: what is made ready before a container starts, and the stack that serves it then.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use duckweed_net::gate;
use duckweed_net::gate::rules::Terms;
use duckweed_net::stack::{
    own_address, servers, Addresses, Doors, Names, Protocol, Published as Bound, Settings, Stack,
};

use super::names::Members;
use super::{ports, Link, Network, Published};
use crate::start_error::{Code, Doing as _, StartError};

/// What is ready before the start.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// For the container's first process.
    pub link: Link,
    /// For state.json.
    pub ports: Vec<Published>,
    bound: Vec<Bound>,
}

impl Outlet {
    /// Takes the ports and settles the addresses.
    ///
    /// # Errors
    /// `network`: a port that cannot be had.
    pub fn prepare(network: &Network) -> Result<Self, StartError> {
        let ports = ports::open(&network.publish, network.gate)?;
        let (bound, records) = ports.into_iter().map(|port| (port.bound, port.record)).unzip();
        let link = Link { addresses: network.addresses(), namespaces: Vec::new() };
        Ok(Self { link, ports: records, bound })
    }

    /// What the socket gate of the container with this number is told.
    pub fn terms(&self, network: &Network, number: u32) -> Terms {
        if network.alone {
            return Terms::alone(self.link.addresses, number);
        }
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let servers = if network.servers.is_empty() { servers(&text) } else { network.servers.clone() };
        let way = |port: &Published| {
            let protocol = if port.protocol == "udp" { gate::Protocol::Udp } else { gate::Protocol::Tcp };
            let host = SocketAddr::new(port.ip.parse().ok()?, port.host);
            Some(gate::Way { protocol, port: port.container, host })
        };
        Terms {
            addresses: self.link.addresses,
            number,
            host_loopback: network.host_loopback,
            reaches_out: !network.internal,
            outside: [own_address(true), own_address(false)],
            servers,
            ways: self.ports.iter().filter_map(way).collect(),
            resolver: None,
            neighbours: None,
        }
    }

    /// The sockets that keep ports for a container whose sockets are the host's. Those of UDP would take what is
    /// sent to it, so they have shown that the ports are free, and are gone.
    pub fn held(self) -> Vec<OwnedFd> {
        let of_tcp = self.bound.into_iter().filter(|bound| bound.protocol == Protocol::Tcp);
        of_tcp.map(|bound| bound.socket).collect()
    }

    /// The name server of a container without a link.
    ///
    /// # Errors
    /// `network`: no descriptors left.
    pub fn name_server(
        network: &Network,
        addresses: Addresses,
        doors: Doors,
        members: Members,
    ) -> Result<Stack, StartError> {
        let settings = Settings {
            addresses,
            host_loopback: false,
            reaches_out: !network.internal,
            servers: network.servers.clone(),
            published: Vec::new(),
            names: Some(Box::new(Known { gateway: addresses.v4.gateway.into(), members })),
        };
        Stack::of_doors(doors, settings).doing(Code::Network, || "open the container's name server")
    }

    /// The container runs, and this is its link.
    ///
    /// # Errors
    /// `network`: no descriptors left.
    pub fn open(self, network: &Network, link: OwnedFd, members: Members) -> Result<Stack, StartError> {
        let settings = Settings {
            addresses: self.link.addresses,
            host_loopback: network.host_loopback,
            reaches_out: !network.internal,
            servers: network.servers.clone(),
            published: self.bound,
            names: Some(Box::new(Known { gateway: self.link.addresses.v4.gateway.into(), members })),
        };
        Stack::new(link, settings).doing(Code::Network, || "connect the container's network")
    }
}

/// The names that the container's name server answers itself.
#[derive(Debug)]
struct Known {
    gateway: IpAddr,
    members: Members,
}

impl Names for Known {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        match name {
            "host.docker.internal" | "gateway.docker.internal" | "host.containers.internal" => {
                Some(vec![self.gateway])
            }
            _ => self.members.addresses(name),
        }
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        self.members.name(address)
    }
}
