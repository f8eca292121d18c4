//! Networks without interfaces: who has which address is read from the store, and where each listens on this machine.
//!
//! ```text
//!   networks/<name>/network.json            its ranges of addresses
//!   networks/<name>/addresses/<address>     -> container id      (claimed when the container is made)
//!   containers/<id>/ports/own               -> 127.x.y.z         the first of its addresses on this machine's loopback
//!   containers/<id>/ports/tcp-80            -> 127.x.y.z:port    where what it calls that port is (tcp6: IPv6 too, tcp6only)
//! ```
//!
//! `ports` is made by the supervisor, filled by whoever answers the container's calls, and empty again with its end. Membership is looked up
//! again when a directory has changed, so who joins or leaves while it runs needs not be told.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use duckweed_net::gate::neighbours::Neighbours;
use duckweed_net::gate::rules::{first_address, open_address, Kind, Protocol};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

/// More members than this are not looked through.
const MOST: usize = 4096;
/// Directories that changed less than this before they were read may have changed since, unseen.
const TICK_NS: i128 = 20_000_000;

/// The neighbours of one container.
#[derive(Debug)]
pub(crate) struct Store {
    root: OwnedFd,
    id: String,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When the directories had changed last, and when they were read.
    stamps: Vec<(String, i128)>,
    read_at: i128,
    ranges: Vec<(IpAddr, u8)>,
    own: Vec<IpAddr>,
    members: HashMap<IpAddr, String>,
}

/// Makes the directory of a container's ports, empty.
///
/// # Errors
/// mkdir(2)'s.
pub(crate) fn prepare(container: &Path, number: u32) -> std::io::Result<()> {
    clear(container);
    let ports = container.join("ports");
    std::fs::create_dir_all(&ports)?;
    std::os::unix::fs::symlink(first_address(number).to_string(), ports.join("own"))
}

/// Nobody listens there any more.
pub(crate) fn clear(container: &Path) {
    let _ = std::fs::remove_dir_all(container.join("ports"));
}

impl Store {
    /// The neighbours of the container `id` of a store.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn open(store: &Path, id: &str) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(store, flags, Mode::empty())?;
        Ok(Self { root, id: id.to_owned(), seen: Mutex::default() })
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(&self.root, directory, flags, Mode::empty()) else {
            return Vec::new();
        };
        let Ok(entries) = Dir::new(fd) else { return Vec::new() };
        entries
            .flatten()
            .take(MOST)
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    fn link(&self, path: &str) -> Option<String> {
        rustix::fs::readlinkat(&self.root, path, Vec::new()).ok()?.into_string().ok()
    }

    fn changed_at(&self, path: &str) -> i128 {
        rustix::fs::statat(&self.root, path, AtFlags::empty())
            .map_or(0, |stat| i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec))
    }

    /// Looks at what is known, after reading it anew if it has changed.
    fn with<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = !seen.stamps.is_empty()
            && seen
                .stamps
                .iter()
                .all(|(path, at)| self.changed_at(path) == *at && seen.read_at - at > TICK_NS);
        if !is_fresh {
            *seen = self.read();
        }
        look(&seen)
    }

    fn read(&self) -> Seen {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let mut seen = Seen {
            stamps: vec![("networks".to_owned(), self.changed_at("networks"))],
            read_at: i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec),
            ..Seen::default()
        };
        for network in self.names("networks") {
            let directory = format!("networks/{network}/addresses");
            seen.stamps.push((directory.clone(), self.changed_at(&directory)));
            let members: Vec<(IpAddr, String)> = self
                .names(&directory)
                .into_iter()
                .filter_map(|name| Some((name.parse().ok()?, self.link(&format!("{directory}/{name}"))?)))
                .collect();
            let own = members.iter().filter(|(_, id)| *id == self.id).map(|(address, _)| *address);
            let before = seen.own.len();
            seen.own.extend(own);
            // Addresses of a network that it is not in lead nowhere, either.
            seen.ranges.extend(self.ranges(&network));
            if seen.own.len() > before {
                seen.members.extend(members.into_iter().filter(|(_, id)| *id != self.id));
            }
        }
        // The first that is shown is an address of IPv4, always the same.
        seen.own.sort();
        seen
    }

    fn ranges(&self, network: &str) -> Vec<(IpAddr, u8)> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("networks/{network}/network.json");
        let Ok(file) = rustix::fs::openat(&self.root, path, flags, Mode::empty()) else { return Vec::new() };
        let document: serde_json::Value =
            serde_json::from_reader(std::fs::File::from(file)).unwrap_or_default();
        let ranges = document["IPAM"]["Config"].as_array().cloned().unwrap_or_default();
        let range = |range: &serde_json::Value| {
            let (address, bits) = range["Subnet"].as_str()?.split_once('/')?;
            Some((address.parse().ok()?, bits.parse().ok()?))
        };
        ranges.iter().filter_map(range).collect()
    }

    fn member(&self, address: IpAddr) -> Option<String> {
        self.with(|seen| seen.members.get(&address).cloned())
    }

    fn first(&self, id: &str) -> Option<Ipv4Addr> {
        self.link(&format!("containers/{id}/ports/own"))?.parse().ok()
    }

    /// The port of a member that is at an address of the host.
    fn port_at(&self, id: &str, protocol: Protocol, host: SocketAddr) -> Option<u16> {
        let directory = format!("containers/{id}/ports");
        self.names(&directory).into_iter().find_map(|name| {
            let (kind, port) = name.split_once('-')?;
            let is_it = kind.starts_with(word(protocol))
                && self.link(&format!("{directory}/{name}"))?.parse::<SocketAddr>().is_ok_and(|at| {
                    at.port() == host.port() && (at.ip() == host.ip() || at.ip().is_unspecified())
                });
            is_it.then(|| port.parse().ok()).flatten()
        })
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn is_in(address: IpAddr, (network, bits): (IpAddr, u8)) -> bool {
    let shifted = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    address.is_ipv4() == network.is_ipv4() && (shifted(address) ^ shifted(network)) & mask == 0
}

impl AsFd for Store {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Neighbours for Store {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn own(&self) -> Vec<IpAddr> {
        self.with(|seen| seen.own.clone())
    }

    fn find(&self, address: IpAddr) -> Option<Option<Ipv4Addr>> {
        if let Some(id) = self.member(address) {
            return Some(self.first(&id));
        }
        self.with(|seen| seen.ranges.iter().any(|range| is_in(address, *range))).then_some(None)
    }

    fn port(&self, target: SocketAddr, protocol: Protocol) -> Option<SocketAddr> {
        let id = self.member(target.ip())?;
        let (word, port) = (word(protocol), target.port());
        let ways: &[&str] = if target.is_ipv4() { &["", "6"] } else { &["6", "6only"] };
        ways.iter()
            .find_map(|way| self.link(&format!("containers/{id}/ports/{word}{way}-{port}"))?.parse().ok())
    }

    fn name(&self, protocol: Protocol, host: Ipv4Addr, port: u16) -> Option<SocketAddr> {
        let at = SocketAddr::new(host.into(), port);
        let mut members: Vec<(IpAddr, String)> =
            self.with(|seen| seen.members.iter().map(|(address, id)| (*address, id.clone())).collect());
        // Who has addresses of both families is shown by the older one.
        members.sort();
        if host == Ipv4Addr::LOCALHOST {
            let named = |(address, id): &(IpAddr, String)| {
                Some(SocketAddr::new(*address, self.port_at(id, protocol, at)?))
            };
            return members.iter().find_map(named);
        }
        let is_there =
            |(_, id): &&(IpAddr, String)| self.first(id).is_some_and(|first| is_one_of(first, host));
        let (address, id) = members.iter().find(is_there)?;
        Some(SocketAddr::new(*address, self.port_at(id, protocol, at).unwrap_or(port)))
    }

    fn publish(&self, kind: Kind, port: u16, host: SocketAddr) {
        let way = match (kind.is_v6, kind.is_v6_only) {
            (false, _) => "",
            (true, false) => "6",
            (true, true) => "6only",
        };
        let directory = format!("containers/{}/ports", self.id);
        let (new, name) =
            (format!("{directory}/.new"), format!("{directory}/{}{way}-{port}", word(kind.protocol)));
        // Without an entry the port is looked for where most are; a neighbour that does not find it is refused.
        let _ = rustix::fs::symlinkat(host.to_string(), &self.root, &new)
            .or_else(|errno| match errno {
                Errno::EXIST => {
                    rustix::fs::unlinkat(&self.root, &new, AtFlags::empty())?;
                    rustix::fs::symlinkat(host.to_string(), &self.root, &new)
                }
                other => Err(other),
            })
            .and_then(|()| rustix::fs::renameat(&self.root, &new, &self.root, &name));
    }
}

/// Whether an address is one of the two that a container shows to others.
fn is_one_of(first: Ipv4Addr, host: Ipv4Addr) -> bool {
    let open = u32::from(open_address(first));
    u32::from(host) & !1 == open
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Kind = Kind { protocol: Protocol::Tcp, is_v6: false, is_v6_only: false };

    fn container(store: &Path, id: &str, number: u32, networks: &[(&str, &str)]) -> Store {
        prepare(&store.join("containers").join(id), number).unwrap();
        for (network, address) in networks {
            let directory = store.join("networks").join(network).join("addresses");
            std::fs::create_dir_all(&directory).unwrap();
            std::os::unix::fs::symlink(id, directory.join(address)).unwrap();
            let text = r#"{"IPAM":{"Config":[{"Subnet":"10.89.0.0/24"},{"Subnet":"fd00:1::/64"}]}}"#;
            std::fs::write(store.join("networks").join(network).join("network.json"), text).unwrap();
        }
        Store::open(store, id).unwrap()
    }

    #[test]
    fn members_of_a_network_find_each_other_and_no_others() {
        let store = tempfile::tempdir().unwrap();
        let one = container(store.path(), "one", 4, &[("lan", "10.89.0.2"), ("lan", "fd00:1::2")]);
        let two = container(store.path(), "two", 8, &[("lan", "10.89.0.3")]);
        let other = container(store.path(), "other", 12, &[("away", "10.90.0.2")]);
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(one.own(), [at("10.89.0.2:0").ip(), at("[fd00:1::2]:0").ip()]);
        assert_eq!(two.find(at("10.89.0.2:0").ip()), Some(Some(first_address(4))));
        assert_eq!(two.find(at("10.89.0.9:0").ip()), Some(None));
        assert_eq!(two.find(at("10.90.0.2:0").ip()), None);
        assert_eq!(other.find(at("10.89.0.2:0").ip()), Some(None));
        let host = SocketAddr::new(open_address(first_address(4)).into(), 64_080);
        one.publish(TCP, 80, host);
        assert_eq!(two.port(at("10.89.0.2:80"), Protocol::Tcp), Some(host));
        assert_eq!(two.port(at("10.89.0.2:80"), Protocol::Udp), None);
        let IpAddr::V4(ip) = host.ip() else { panic!("{host}") };
        assert_eq!(two.name(Protocol::Tcp, ip, 64_080), Some(at("10.89.0.2:80")));
        assert_eq!(two.name(Protocol::Tcp, ip, 40_000), Some(at("10.89.0.2:40000")));
        assert_eq!(other.name(Protocol::Tcp, ip, 64_080), None);
        // Who leaves is gone at once, and so is who has ended.
        std::fs::remove_file(store.path().join("networks/lan/addresses/10.89.0.2")).unwrap();
        assert_eq!(two.find(at("10.89.0.2:0").ip()), Some(None));
        clear(&store.path().join("containers/one"));
        assert_eq!(two.find(at("[fd00:1::2]:0").ip()), Some(None));
    }
}
