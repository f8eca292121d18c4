//! The supervisor's side: what is made ready before a container starts, and the stack that serves it then.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use duckweed_net::stack::{Names, Published as Bound, Settings, Stack};

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
        let ports = ports::open(&network.publish)?;
        let (bound, records) = ports.into_iter().map(|port| (port.bound, port.record)).unzip();
        let link = Link { addresses: network.addresses(), namespaces: Vec::new() };
        Ok(Self { link, ports: records, bound })
    }

    /// The container runs, and this is its link.
    ///
    /// # Errors
    /// `network`: no descriptors left.
    pub fn open(
        self,
        network: &Network,
        link: OwnedFd,
        store: &std::path::Path,
    ) -> Result<Stack, StartError> {
        let settings = Settings {
            addresses: self.link.addresses,
            host_loopback: network.host_loopback,
            reaches_out: !network.internal,
            servers: network.servers.clone(),
            published: self.bound,
            names: Some(Box::new(Known {
                gateway: self.link.addresses.v4.gateway.into(),
                members: Members::new(store, &network.networks),
            })),
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
