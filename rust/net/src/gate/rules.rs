//! Which address of the host a container means, and what it shall believe. No I/O.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use rustix::io::Errno;

use super::neighbours::Neighbours;
use crate::stack::{is_public, Addresses};

/// Ports below this need privilege on the host, unless it was told otherwise.
const PRIVILEGED: u16 = 1024;
/// Where those of a container lie on its loopback address: above what the kernel gives away by itself.
const SHIFTED: u16 = 64_000;
/// The first port that kernels give to clients, ip_local_port_range.
const GIVEN_AWAY: u16 = 32_768;
/// How many of them there are.
const GIVEN: u16 = 28_232;
/// How often another of these is tried when somebody has one.
pub(super) const TRIES: usize = 8;
/// Set in the addresses of what is bound to more than the loopback.
const OPEN: u32 = 2;
/// Ports that are remembered; the oldest are forgotten first.
const MOST: usize = 4096;
/// The same for those that the kernel chose.
const MOST_CHOSEN: usize = 16_384;

/// What a port is a port of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, and ping sockets.
    Udp,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// In the container.
    pub port: u16,
    /// On the host.
    pub host: SocketAddr,
}

/// Where a socket is bound really.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The address on the host.
    pub host: SocketAddr,
    /// Somebody holds this port for the container: it must be bound with SO_REUSEADDR.
    pub is_held: bool,
}

/// One socket's view of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// AF_INET6.
    pub is_v6: bool,
    /// IPV6_V6ONLY.
    pub is_v6_only: bool,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The address on the host.
    pub host: SocketAddr,
    /// What an unbound socket is bound to before, so that the other end knows it.
    pub source: Option<Ipv4Addr>,
}

impl From<SocketAddr> for Route {
    fn from(host: SocketAddr) -> Self {
        Self { host, source: None }
    }
}

/// A port of the container, in IPv6 or not, on its loopback alone or not.
type Port = (Protocol, u16, bool, bool);
/// An address of the host.
type Seen = (Protocol, SocketAddr);

/// A container's rules and what it has bound.
#[derive(Debug)]
pub struct Rules {
    addresses: Addresses,
    /// The container's addresses on the host's loopback: the first of four, see [`Self::own_address`].
    own: Ipv4Addr,
    host_loopback: bool,
    reaches_out: bool,
    /// The host's addresses to everybody else.
    outside: [Option<IpAddr>; 2],
    /// Name servers, which may be reached wherever they are.
    servers: Vec<IpAddr>,
    ways: Vec<Way>,
    /// The container's name server on the host; without one its address leads nowhere.
    resolver: Option<SocketAddr>,
    neighbours: Option<Arc<dyn Neighbours>>,
    /// By protocol, port in the container, and family.
    bound: HashMap<Port, Bound>,
    /// What a host's address was asked for as.
    shown: HashMap<Seen, SocketAddr>,
    /// The order of those whose port the kernel chose, and of the others: a service is not forgotten for clients' sake.
    chosen: VecDeque<(Port, Seen)>,
    named: VecDeque<(Port, Seen)>,
    /// How many have been bound.
    count: u64,
    random: u64,
}

/// What is bound, or has been: nobody says when a socket is closed.
#[derive(Debug, Clone, Copy)]
struct Bound {
    is_v6_only: bool,
    asked: IpAddr,
    host: SocketAddr,
    /// Its place in the order of all.
    number: u64,
}

/// What the rules of a container are made of.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The addresses that the container believes in.
    pub addresses: Addresses,
    /// A number that no other container of this machine has, most likely.
    pub number: u32,
    /// The gateway leads to the host's loopback.
    pub host_loopback: bool,
    /// Connections may leave the host.
    pub reaches_out: bool,
    /// The host's addresses to everybody else: IPv4, IPv6.
    pub outside: [Option<IpAddr>; 2],
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Published ports.
    pub ways: Vec<Way>,
    /// The name server of the container's own on the host, for UDP and TCP.
    pub resolver: Option<SocketAddr>,
    /// The members of its networks.
    pub neighbours: Option<Arc<dyn Neighbours>>,
}

/// The first of the four addresses of 127.0.0.0/8 that the container with this number has.
#[must_use]
pub fn first_address(number: u32) -> Ipv4Addr {
    // 127.80.0.0 and up, away from the addresses that people choose by hand.
    Ipv4Addr::from(0x7f40_0000 | (number & 0x003f_fffc) | 0x0010_0000)
}

/// Where what a container shows to others is seen to come from: the third.
#[must_use]
pub fn open_address(first: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) | OPEN)
}

impl Terms {
    /// For a container that reaches nobody.
    #[must_use]
    pub fn alone(addresses: Addresses, number: u32) -> Self {
        Self {
            addresses,
            number,
            host_loopback: false,
            reaches_out: false,
            outside: [None, None],
            servers: Vec::new(),
            ways: Vec::new(),
            resolver: None,
            neighbours: None,
        }
    }
}

impl Rules {
    /// The rules, with nothing bound.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self {
            addresses: terms.addresses,
            own: first_address(terms.number),
            host_loopback: terms.host_loopback,
            reaches_out: terms.reaches_out,
            outside: terms.outside,
            servers: terms.servers,
            ways: terms.ways,
            resolver: terms.resolver,
            neighbours: terms.neighbours,
            bound: HashMap::new(),
            shown: HashMap::new(),
            chosen: VecDeque::new(),
            named: VecDeque::new(),
            count: 0,
            random: u64::from(terms.number) << 8 | 1,
        }
    }

    fn is_self(&self, address: IpAddr) -> bool {
        is_loop(address) || self.addresses.guest(address) == Some(address) || self.is_in_a_network(address)
    }

    /// One of its addresses in networks.
    fn is_in_a_network(&self, address: IpAddr) -> bool {
        self.neighbours.as_ref().is_some_and(|known| known.own().contains(&address))
    }

    /// Where a socket that asks for `asked` is bound.
    ///
    /// # Errors
    /// EADDRNOTAVAIL for what is no address of the container's.
    pub fn bind(&mut self, kind: Kind, asked: SocketAddr) -> Result<Place, Errno> {
        let port = if asked.port() == 0 { self.choose(kind.protocol) } else { asked.port() };
        let address = asked.ip().to_canonical();
        if !self.is_self(address) {
            return Err(Errno::ADDRNOTAVAIL);
        }
        if !address.is_loopback() {
            if let Some(host) = self.way(kind, asked.port()) {
                return Ok(Place { host, is_held: true });
            }
            if kind.protocol == Protocol::Udp {
                // It may speak to everybody; where nobody knows its port, nobody speaks to it first.
                let any: IpAddr = if kind.is_v6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
                let port = if asked.port() == 0 { port } else { 0 };
                return Ok(Place { host: SocketAddr::new(any, port), is_held: false });
            }
        }
        Ok(Place { host: self.own_address(kind.is_v6, address.is_loopback(), port), is_held: false })
    }

    /// A port that nothing of the container's has on any of its addresses; the kernel would look at one of them alone.
    fn choose(&mut self, protocol: Protocol) -> u16 {
        for _ in 0..64 {
            // xorshift64: nobody gains by guessing it.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let port = GIVEN_AWAY + u16::try_from(self.random % u64::from(GIVEN)).unwrap_or(0);
            let keys = [(false, false), (false, true), (true, false), (true, true)];
            let is_ours = |(is_v6, is_loop)| self.bound.contains_key(&(protocol, port, is_v6, is_loop));
            if !keys.into_iter().any(is_ours) {
                return port;
            }
        }
        0
    }

    fn way(&self, kind: Kind, port: u16) -> Option<SocketAddr> {
        let mut ways = self.ways.iter().filter(|way| way.protocol == kind.protocol && way.port == port);
        let same = ways.clone().find(|way| way.host.is_ipv6() == kind.is_v6);
        // A socket of IPv6 takes IPv4 as well, unless it was told not to.
        same.or_else(|| ways.find(|way| kind.is_v6 && !kind.is_v6_only && way.host.is_ipv4()))
            .map(|way| way.host)
    }

    /// Each family has an address, so that both may have a port; and what is bound to the loopback has one that no
    /// neighbour is told of.
    fn own_address(&self, is_v6: bool, is_loop: bool, port: u16) -> SocketAddr {
        let port = shifted(port);
        let which = u32::from(is_v6) | if is_loop { 0 } else { OPEN };
        SocketAddr::new(Ipv4Addr::from(u32::from(self.own) | which).into(), port)
    }

    /// Whether an address of the host is one of the container's; then whether for IPv6, and for its loopback alone.
    fn own_kind(&self, address: Ipv4Addr) -> Option<(bool, bool)> {
        let which = u32::from(address) ^ u32::from(self.own);
        (which < 4).then_some((which & 1 != 0, which & OPEN == 0))
    }

    /// A socket that asked for `asked` is bound to `host` now. Answers with what it is to believe.
    pub fn remember(&mut self, kind: Kind, asked: SocketAddr, host: SocketAddr) -> SocketAddr {
        let mut asked = asked;
        let is_loop = asked.ip().to_canonical().is_loopback();
        let is_chosen = asked.port() == 0;
        if is_chosen {
            asked.set_port(host.port());
        } else if let (Some(known), false) = (&self.neighbours, is_loop) {
            known.publish(kind, asked.port(), canonical(host));
        }
        let key = (kind.protocol, asked.port(), kind.is_v6, is_loop);
        let seen = (kind.protocol, canonical(host));
        self.count += 1;
        let bound = Bound {
            is_v6_only: kind.is_v6_only,
            asked: asked.ip().to_canonical(),
            host: canonical(host),
            number: self.count,
        };
        self.bound.insert(key, bound);
        self.shown.insert(seen, asked);
        let (order, most) = match is_chosen {
            true => (&mut self.chosen, MOST_CHOSEN),
            false => (&mut self.named, MOST),
        };
        order.push_back((key, seen));
        if order.len() > most {
            if let Some((key, seen)) = order.pop_front() {
                // A later socket in the same place is remembered by its own entry.
                if !order.iter().any(|other| other.0 == key) {
                    self.bound.remove(&key);
                }
                if !order.iter().any(|other| other.1 == seen) {
                    self.shown.remove(&seen);
                }
            }
        }
        asked
    }

    /// Where a socket that wants to reach `target` goes.
    ///
    /// # Errors
    /// ENETUNREACH, EHOSTUNREACH as a router would say; ECONNREFUSED: nobody of the container is there.
    pub fn connect(&self, kind: Kind, target: SocketAddr) -> Result<Route, Errno> {
        let address = target.ip().to_canonical();
        let port = target.port();
        if port == 53 && self.servers.contains(&address) {
            return Ok(target.into());
        }
        if self.is_self(address) {
            return self.inside(kind.protocol, port, address).map(Route::from).ok_or(Errno::CONNREFUSED);
        }
        if let (Some(resolver), 53, true) = (self.resolver, port, self.addresses.is_resolver(address)) {
            return Ok(resolver.into());
        }
        if let Some(route) = self.neighbour(kind, SocketAddr::new(address, port)) {
            return route;
        }
        if self.addresses.is_gateway(address) {
            let host: IpAddr = match (self.host_loopback, address.is_ipv4()) {
                (true, true) => Ipv4Addr::LOCALHOST.into(),
                (true, false) => std::net::Ipv6Addr::LOCALHOST.into(),
                (false, _) if !self.reaches_out => return Err(Errno::HOSTUNREACH),
                (false, is_v4) => self.outside[usize::from(!is_v4)].ok_or(Errno::HOSTUNREACH)?,
            };
            return Ok(SocketAddr::new(host, port).into());
        }
        if !self.reaches_out {
            return Err(Errno::NETUNREACH);
        }
        if !is_public(address) || self.addresses.is_resolver(address) {
            return Err(Errno::HOSTUNREACH);
        }
        Ok(target.into())
    }

    /// The way to a member of a network of ours.
    fn neighbour(&self, kind: Kind, target: SocketAddr) -> Option<Result<Route, Errno>> {
        let known = self.neighbours.as_ref()?;
        let there = known.find(target.ip())?;
        let Some(first) = there else { return Some(Err(Errno::HOSTUNREACH)) };
        let host = match known.port(target, kind.protocol) {
            // Whatever address of 127.0.0.0/8 leads there; it answers from this one.
            Some(host) if host.ip().is_unspecified() => {
                SocketAddr::new(loopback(host.is_ipv6() && target.is_ipv6()), host.port())
            }
            Some(host) => host,
            // The port of a client that asked without binding its socket.
            None if kind.protocol == Protocol::Udp && target.port() >= GIVEN_AWAY => {
                SocketAddr::new(open_address(first).into(), target.port())
            }
            None if kind.protocol == Protocol::Udp => return Some(Err(Errno::CONNREFUSED)),
            // One that was chosen by the kernel is told nobody: it is where most are, or nowhere.
            None => SocketAddr::new(open_address(first).into(), shifted(target.port())),
        };
        Some(Ok(Route { host, source: host.is_ipv4().then(|| open_address(self.own)) }))
    }

    /// A port of the container, as the host knows it.
    fn inside(&self, protocol: Protocol, port: u16, address: IpAddr) -> Option<SocketAddr> {
        let is_v6 = address.is_ipv6();
        let families = if is_v6 { [true].iter() } else { [false, true].iter() };
        let found = families
            .flat_map(|family| [(*family, true), (*family, false)])
            .filter_map(|(family, is_loop)| {
                self.bound.get(&(protocol, port, family, is_loop)).map(|one| (family, one))
            })
            .filter(|(family, one)| *family == is_v6 || !one.is_v6_only)
            .filter(|(_, one)| one.asked.is_unspecified() || is_loop(one.asked) == is_loop(address))
            // Two that would be meant cannot be open at once, so it is the later one that is.
            .max_by_key(|(_, one)| one.number)
            .map(|(_, one)| one.host);
        match found {
            // Anybody's listener on all addresses would answer at ours, too.
            None => None,
            Some(host) if host.ip().is_unspecified() => {
                let here: IpAddr = match host.is_ipv4() {
                    true => Ipv4Addr::LOCALHOST.into(),
                    false => std::net::Ipv6Addr::LOCALHOST.into(),
                };
                Some(SocketAddr::new(if is_v6 { here } else { Ipv4Addr::LOCALHOST.into() }, host.port()))
            }
            Some(host) => Some(host),
        }
    }

    /// Where a datagram of a bound socket to `target` goes when nobody of the container is there: a client on the
    /// host's loopback may have asked and want its answer. Ports that people choose are not among them.
    #[must_use]
    pub fn answer_to(&self, target: SocketAddr) -> Option<SocketAddr> {
        let address = target.ip().to_canonical();
        if !address.is_loopback() || target.port() < GIVEN_AWAY {
            return None;
        }
        // Where recvfrom is not translated, a neighbour is answered at the address that it was seen at.
        let known = self.neighbours.as_ref().zip(match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let is_neighbour = |(known, address): (&Arc<dyn Neighbours>, Ipv4Addr)| {
            known.name(Protocol::Udp, address, target.port()).is_some()
        };
        let to = if known.is_some_and(is_neighbour) { address } else { loopback(address.is_ipv6()) };
        Some(SocketAddr::new(to, target.port()))
    }

    /// Where a socket is bound when somebody else on this machine has its port on all addresses; `None`: the port is the
    /// container's own, and taken.
    #[must_use]
    pub fn elsewhere(&mut self, kind: Kind, asked: SocketAddr) -> Option<SocketAddr> {
        let is_loop = asked.ip().to_canonical().is_loopback();
        let is_ours = self.bound.contains_key(&(kind.protocol, asked.port(), kind.is_v6, is_loop));
        if asked.port() == 0 {
            return self.bind(kind, asked).ok().map(|place| place.host);
        }
        (!is_ours).then(|| self.own_address(kind.is_v6, is_loop, 0))
    }

    /// What a socket is told of the address it is bound to.
    #[must_use]
    pub fn local(&self, kind: Kind, host: SocketAddr, is_connected: bool) -> SocketAddr {
        let real = canonical(host);
        if let Some(asked) = self.shown.get(&(kind.protocol, real)) {
            return match asked.ip().is_unspecified() && is_connected {
                true => fit(kind.is_v6, SocketAddr::new(self.name_of_self(asked.is_ipv6()), asked.port())),
                false => *asked,
            };
        }
        // Accepted at a port that was bound everywhere: the address is the one that the client used.
        let port = self.everywhere(kind.protocol, real).unwrap_or(real.port());
        let address = match real.ip() {
            any if any.is_unspecified() => any,
            IpAddr::V4(own) if self.own_kind(own).is_some() => return self.own_seen(kind, own, port),
            loopback if loopback.is_loopback() => loopback,
            other => self.addresses.guest(other).unwrap_or(other),
        };
        fit(kind.is_v6, SocketAddr::new(address, port))
    }

    fn own_seen(&self, kind: Kind, own: Ipv4Addr, port: u16) -> SocketAddr {
        let port = if port > SHIFTED && port < SHIFTED + PRIVILEGED { port - SHIFTED } else { port };
        let address = match self.own_kind(own) {
            Some((is_v6, true)) => loopback(is_v6),
            Some((is_v6, false)) => self.name_of_self(is_v6),
            None => own.into(),
        };
        fit(kind.is_v6, SocketAddr::new(address, port))
    }

    /// The address that others have for the container; without networks there are no others.
    fn name_of_self(&self, is_v6: bool) -> IpAddr {
        let own = self.neighbours.as_ref().map(|known| known.own()).unwrap_or_default();
        own.into_iter().find(|address| address.is_ipv6() == is_v6).unwrap_or_else(|| loopback(is_v6))
    }

    /// The container's port of which `host` is one address, when it is bound to all.
    fn everywhere(&self, protocol: Protocol, host: SocketAddr) -> Option<u16> {
        let old: IpAddr = [0_u8; 4].into();
        // A socket of IPv6 takes IPv4, too.
        let all = [[0_u16; 8].into(), old];
        let asked =
            |any| self.shown.get(&(protocol, SocketAddr::new(any, host.port()))).map(SocketAddr::port);
        all.into_iter().take(if host.is_ipv4() { 2 } else { 1 }).find_map(asked)
    }

    /// What a socket is told of the other end.
    #[must_use]
    pub fn peer(&self, kind: Kind, host: SocketAddr) -> SocketAddr {
        let real = canonical(host);
        if let Some(asked) = self.shown.get(&(kind.protocol, real)) {
            if !asked.ip().is_unspecified() {
                return fit(kind.is_v6, canonical(*asked));
            }
        }
        let is_here = real.ip() == loopback(real.is_ipv6());
        if let Some(port) = self.everywhere(kind.protocol, real).filter(|_| is_here) {
            // Published, or of a socket for datagrams to everybody.
            return fit(kind.is_v6, SocketAddr::new(real.ip(), port));
        }
        if self.resolver == Some(real) {
            return fit(kind.is_v6, SocketAddr::new(self.addresses.v4.resolver.into(), 53));
        }
        match real.ip() {
            IpAddr::V4(own) if self.own_kind(own).is_some() => self.own_seen(kind, own, real.port()),
            IpAddr::V4(address) if address.is_loopback() => {
                let known = self
                    .neighbours
                    .as_ref()
                    .and_then(|known| known.name(kind.protocol, address, real.port()));
                known.map_or(host, |named| fit(kind.is_v6, named))
            }
            _ => host,
        }
    }
}

/// What a port is on an address of the container's own.
fn shifted(port: u16) -> u16 {
    if port != 0 && port < PRIVILEGED {
        port + SHIFTED
    } else {
        port
    }
}

/// The loopback, or whatever address there is.
fn is_loop(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

fn loopback(is_v6: bool) -> IpAddr {
    if is_v6 {
        std::net::Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    }
}

/// Without the IPv6 spelling of an IPv4 address, and without what only a link knows.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address in the spelling of the socket's family.
#[must_use]
pub fn fit(is_v6: bool, address: SocketAddr) -> SocketAddr {
    match (is_v6, address) {
        (true, SocketAddr::V4(v4)) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TCP4: Kind = Kind { protocol: Protocol::Tcp, is_v6: false, is_v6_only: false };
    const TCP6: Kind = Kind { protocol: Protocol::Tcp, is_v6: true, is_v6_only: false };
    const UDP4: Kind = Kind { protocol: Protocol::Udp, is_v6: false, is_v6_only: false };

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn rules(number: u32, ways: &[(u16, &str)]) -> Rules {
        let way = |(port, host): &(u16, &str)| Way { protocol: Protocol::Tcp, port: *port, host: at(host) };
        Rules::new(Terms {
            addresses: Addresses::default(),
            number,
            host_loopback: false,
            reaches_out: true,
            outside: [Some("192.0.2.2".parse().unwrap()), None],
            servers: vec!["127.0.0.53".parse().unwrap()],
            ways: ways.iter().map(way).collect(),
            resolver: None,
            neighbours: None,
        })
    }

    #[test]
    fn two_containers_listen_on_80_and_each_finds_its_own() {
        let (mut one, mut two) = (rules(2, &[]), rules(4, &[]));
        let host = one.bind(TCP4, at("0.0.0.0:80")).unwrap().host;
        assert_ne!(host, two.bind(TCP4, at("0.0.0.0:80")).unwrap().host);
        assert!(host.ip().is_loopback() && host.port() >= 1024, "{host}");
        assert_eq!(one.remember(TCP4, at("0.0.0.0:80"), host), at("0.0.0.0:80"));
        assert_eq!(one.local(TCP4, host, true), at("127.0.0.1:80"), "accepted");
        for own in ["127.0.0.1:80", "10.0.2.100:80", "0.0.0.0:80"] {
            assert_eq!(one.connect(TCP4, at(own)).unwrap().host, host);
            assert_eq!(two.connect(TCP4, at(own)), Err(Errno::CONNREFUSED));
        }
        assert_eq!(one.local(TCP4, host, false), at("0.0.0.0:80"));
        assert_eq!(two.local(TCP4, two.own_address(false, true, 80), true), at("127.0.0.1:80"));
    }

    #[test]
    fn a_published_port_is_the_hosts_and_is_seen_as_the_containers() {
        let mut one = rules(2, &[(80, "0.0.0.0:8080"), (80, "[::]:8080")]);
        let place = one.bind(TCP4, at("0.0.0.0:80")).unwrap();
        assert_eq!(place, Place { host: at("0.0.0.0:8080"), is_held: true });
        assert!(!one.bind(TCP4, at("127.0.0.1:80")).unwrap().is_held, "its loopback is not published");
        one.remember(TCP4, at("0.0.0.0:80"), place.host);
        assert_eq!(one.peer(TCP4, at("127.0.0.1:8080")), at("127.0.0.1:80"));
        assert_eq!(one.connect(TCP4, at("127.0.0.1:80")).unwrap().host, at("127.0.0.1:8080"));
        assert_eq!(one.local(TCP4, at("192.0.2.2:8080"), true), at("10.0.2.100:80"));
        assert_eq!(one.peer(TCP4, at("198.51.100.7:4000")), at("198.51.100.7:4000"));
        assert_eq!(one.bind(TCP6, at("[::]:80")).unwrap().host, at("[::]:8080"));
    }

    #[test]
    fn a_listener_for_both_families_is_found_by_both() {
        let mut one = rules(2, &[]);
        let host = one.bind(TCP6, at("[::]:8000")).unwrap().host;
        one.remember(TCP6, at("[::]:8000"), fit(true, host));
        assert_eq!(one.connect(TCP4, at("127.0.0.1:8000")).unwrap().host, host);
        assert_eq!(one.connect(TCP6, at("[::1]:8000")).unwrap().host, host);
        assert_eq!(one.connect(TCP6, at("[::ffff:127.0.0.1]:8000")).unwrap().host, host);
        let only = Kind { is_v6_only: true, ..TCP6 };
        let mut two = rules(4, &[]);
        let host = two.bind(only, at("[::]:8000")).unwrap().host;
        two.remember(only, at("[::]:8000"), host);
        assert_eq!(two.connect(TCP4, at("127.0.0.1:8000")), Err(Errno::CONNREFUSED));
    }

    #[test]
    fn the_hosts_loopback_is_out_of_reach_and_the_gateway_is_the_host() {
        let mut one = rules(2, &[]);
        assert_eq!(one.connect(TCP4, at("10.0.2.2:22")).unwrap().host, at("192.0.2.2:22"));
        assert_eq!(one.connect(TCP6, at("[fd00:d0c2::2]:22")), Err(Errno::HOSTUNREACH));
        assert_eq!(
            one.connect(UDP4, at("127.0.0.53:53")).unwrap().host,
            at("127.0.0.53:53"),
            "a name server"
        );
        assert_eq!(one.connect(TCP4, at("198.51.100.7:80")).unwrap().host, at("198.51.100.7:80"));
        one.host_loopback = true;
        assert_eq!(one.connect(TCP4, at("10.0.2.2:22")).unwrap().host, at("127.0.0.1:22"));
        one.reaches_out = false;
        assert_eq!(one.connect(TCP4, at("198.51.100.7:80")), Err(Errno::NETUNREACH));
        assert_eq!(one.bind(TCP4, at("198.51.100.7:80")), Err(Errno::ADDRNOTAVAIL));
    }

    #[test]
    fn udp_everywhere_can_speak_to_everybody_and_is_found_inside() {
        let mut one = rules(2, &[]);
        let place = one.bind(UDP4, at("0.0.0.0:5353")).unwrap();
        assert_eq!(place.host, at("0.0.0.0:0"));
        one.remember(UDP4, at("0.0.0.0:5353"), at("0.0.0.0:40000"));
        assert_eq!(one.connect(UDP4, at("127.0.0.1:5353")).unwrap().host, at("127.0.0.1:40000"));
        assert_eq!(one.local(UDP4, at("0.0.0.0:40000"), false), at("0.0.0.0:5353"));
        assert_eq!(one.peer(UDP4, at("127.0.0.1:40000")), at("127.0.0.1:5353"));
        let v6 = Kind { is_v6: true, ..UDP4 };
        one.remember(v6, at("[::]:54"), at("[::]:40001"));
        assert_eq!(one.peer(UDP4, at("127.0.0.1:40001")), at("127.0.0.1:54"));
        assert_eq!(one.peer(UDP4, at("192.0.2.1:40001")), at("192.0.2.1:40001"));
    }

    #[test]
    fn ports_that_are_chosen_are_no_others_on_any_address() {
        let mut one = rules(2, &[]);
        let mut seen = std::collections::HashSet::new();
        for number in 0..2000 {
            let (kind, asked) =
                [(TCP4, "0.0.0.0:0"), (TCP4, "127.0.0.1:0"), (TCP6, "[::]:0"), (TCP6, "[::1]:0")][number % 4];
            let host = one.bind(kind, at(asked)).unwrap().host;
            one.remember(kind, at(asked), host);
            assert!(seen.insert(host.port()) && host.port() >= GIVEN_AWAY, "{host}");
        }
    }

    #[test]
    fn a_port_that_was_given_up_leads_to_who_has_it_now() {
        let mut one = rules(2, &[]);
        for asked in ["127.0.0.1:8000", "0.0.0.0:8000", "127.0.0.1:8000"] {
            let host = one.bind(TCP4, at(asked)).unwrap().host;
            one.remember(TCP4, at(asked), host);
            assert_eq!(one.connect(TCP4, at("127.0.0.1:8000")).unwrap().host, host, "{asked}");
        }
        let host = one.bind(TCP6, at("[::]:8000")).unwrap().host;
        one.remember(TCP6, at("[::]:8000"), host);
        assert_eq!(one.connect(TCP4, at("127.0.0.1:8000")).unwrap().host, host);
        // What the address of the container is bound to is not on its loopback, nor the other way round.
        let host = one.bind(TCP4, at("10.0.2.100:81")).unwrap().host;
        one.remember(TCP4, at("10.0.2.100:81"), host);
        assert_eq!(one.connect(TCP4, at("127.0.0.1:81")), Err(Errno::CONNREFUSED));
        assert_eq!(one.connect(TCP4, at("10.0.2.100:81")).unwrap().host, host);
        let host = one.bind(TCP4, at("127.0.0.1:82")).unwrap().host;
        one.remember(TCP4, at("127.0.0.1:82"), host);
        assert_eq!(one.connect(TCP4, at("10.0.2.100:82")), Err(Errno::CONNREFUSED));
    }

    proptest! {
        /// Whatever is asked for, a container that may not reach the host's loopback never does.
        #[test]
        fn no_address_leads_to_the_hosts_loopback(v6 in any::<bool>(), a in any::<u128>(), low in any::<bool>(), port in 1..=65_535_u16, socket_v6 in any::<bool>()) {
            let one = rules(2, &[]);
            let bits = if low { a & 0xffff_ffff } else { a };
            let address: IpAddr = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((0x7f00_0000 | (bits as u32 & 0xff_ffff)).into()) };
            prop_assume!(!one.servers.contains(&address));
            let kind = Kind { is_v6: socket_v6, ..TCP4 };
            if let Ok(host) = one.connect(kind, SocketAddr::new(address, port)) {
                let host = host.host.ip().to_canonical();
                prop_assert!(is_public(host), "{address} led to {host}");
            }
        }

        #[test]
        fn memory_is_bounded(ports in proptest::collection::vec(any::<u16>(), 1..50)) {
            let mut one = rules(2, &[]);
            for round in 0..200_u16 {
                for port in &ports {
                    one.remember(TCP4, SocketAddr::new([0; 4].into(), port.wrapping_add(round)), SocketAddr::new(one.own.into(), *port));
                }
            }
            prop_assert!(one.named.len() <= MOST && one.chosen.len() <= MOST_CHOSEN);
            let most = MOST + MOST_CHOSEN;
            prop_assert!(one.bound.len() <= most && one.shown.len() <= most);
        }
    }
}
