//! Interfaces, addresses, routes and neighbours of the network namespace we are in, rtnetlink(7).
//!
//! Requests are gathered, and go to the kernel in one message when they are committed: a
//! start makes half a dozen. Only the root of the namespace's user namespace may.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::wire::ethernet::Mac;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const NEWNEIGH: u16 = 28;
const ERROR: u16 = 2;
const NOOP: u16 = 1;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const REPLACE: u16 = 0x100;
const UP: u32 = 1;

/// The attributes of links (linux/if_link.h) that are used here.
mod link {
    pub const ADDRESS: u16 = 1;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const MASTER: u16 = 10;
    pub const LINKINFO: u16 = 18;
    pub const NET_NS_FD: u16 = 28;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const VETH_PEER: u16 = 1;
}

/// A socket to the kernel's routing of one network namespace: the one it was made in, whatever we enter later.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    serial: u32,
    requests: Vec<u8>,
}

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// The interface's name.
    pub name: &'a str,
    /// Its hardware address; `None` leaves it to the kernel.
    pub mac: Option<Mac>,
    /// The network namespace it goes to; `None` is the socket's own.
    pub namespace: Option<BorrowedFd<'a>>,
    /// The bridge it is a port of, by index, in the socket's own namespace.
    pub bridge: Option<u32>,
    /// The index it shall have; 0 leaves that to the kernel.
    pub index: u32,
}

impl Netlink {
    /// # Errors
    /// EAFNOSUPPORT, EMFILE.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        // NETLINK_ROUTE is protocol 0.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { socket, serial: 0, requests: Vec::new() })
    }

    /// Makes a veth pair; `ours` is up, `peer` is to be switched on by its index.
    pub fn add_veth(&mut self, mtu: u32, ours: VethEnd<'_>, peer: VethEnd<'_>) {
        let mut message = Message::new(NEWLINK, REQUEST | CREATE | EXCL);
        message.link_header(ours.index, UP);
        message.veth_end(mtu, &ours);
        let info = message.open(link::LINKINFO);
        message.attribute(link::INFO_KIND, b"veth");
        let data = message.open(link::INFO_DATA);
        let other = message.open(link::VETH_PEER);
        // It cannot be switched on before the pair is one: ENOTCONN.
        message.link_header(peer.index, 0);
        message.veth_end(mtu, &peer);
        message.close(other);
        message.close(data);
        message.close(info);
        self.request(message);
    }

    /// Removes an interface; a veth's other end goes with it.
    pub fn remove(&mut self, name: &str) {
        let mut message = Message::new(DELLINK, REQUEST);
        message.link_header(0, 0);
        message.text(link::IFNAME, name);
        self.request(message);
    }

    /// Makes a bridge.
    pub fn add_bridge(&mut self, name: &str, index: u32, mtu: u32, mac: Mac) {
        let mut message = Message::new(NEWLINK, REQUEST | CREATE | EXCL);
        message.link_header(index, UP);
        message.text(link::IFNAME, name);
        message.attribute(link::MTU, &mtu.to_ne_bytes());
        message.attribute(link::ADDRESS, &mac);
        let info = message.open(link::LINKINFO);
        message.attribute(link::INFO_KIND, b"bridge");
        message.close(info);
        self.request(message);
    }

    /// Switches an interface on, with what it shall have.
    pub fn set_up(&mut self, index: u32, mtu: Option<u32>, mac: Option<Mac>) {
        let mut message = Message::new(NEWLINK, REQUEST);
        message.link_header(index, UP);
        if let Some(mtu) = mtu {
            message.attribute(link::MTU, &mtu.to_ne_bytes());
        }
        if let Some(mac) = mac {
            message.attribute(link::ADDRESS, &mac);
        }
        self.request(message);
    }

    /// Gives an interface an address; one of IPv6 is used without asking around for duplicates.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        const LOCAL: u16 = 2;
        const ADDRESS: u16 = 1;
        const NODAD: u8 = 2;
        let mut message = Message::new(NEWADDR, REQUEST | CREATE | EXCL);
        let flags = if address.is_ipv6() { NODAD } else { 0 };
        message.bytes(&[family(address), prefix, flags, 0]);
        message.bytes(&index.to_ne_bytes());
        message.address(LOCAL, address);
        message.address(ADDRESS, address);
        self.request(message);
    }

    /// The way to everywhere that has no other.
    pub fn add_default_route(&mut self, index: u32, gateway: IpAddr) {
        const OIF: u16 = 4;
        const GATEWAY: u16 = 5;
        let mut message = Message::new(NEWROUTE, REQUEST | CREATE | EXCL);
        // rtmsg: no prefixes, main table, static, everywhere, unicast.
        message.bytes(&[family(gateway), 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
        message.address(GATEWAY, gateway);
        message.attribute(OIF, &index.to_ne_bytes());
        self.request(message);
    }

    /// A neighbour that need not be asked for.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: Mac) {
        const PERMANENT: u16 = 0x80;
        const TARGET: u16 = 1;
        const LINK_ADDRESS: u16 = 2;
        let mut message = Message::new(NEWNEIGH, REQUEST | CREATE | REPLACE);
        message.bytes(&[family(address), 0, 0, 0]);
        message.bytes(&index.to_ne_bytes());
        message.bytes(&PERMANENT.to_ne_bytes());
        message.bytes(&[0, 0]);
        message.address(TARGET, address);
        message.attribute(LINK_ADDRESS, &mac);
        self.request(message);
    }

    fn request(&mut self, message: Message) {
        self.serial += 1;
        self.requests.extend_from_slice(message.finish(self.serial).as_slice());
    }

    /// Does all that was asked for, in order, up to the first refusal.
    ///
    /// # Errors
    /// EPERM without privilege there; EEXIST; EOPNOTSUPP for a kind of interface the kernel lacks; ENODEV;
    /// ENETUNREACH for a gateway that is no neighbour; EINVAL for an MTU that cannot be.
    pub fn commit(&mut self) -> io::Result<()> {
        // An empty request that is answered: what comes before it is done then.
        self.request(Message::new(NOOP, REQUEST | ACK));
        let requests = std::mem::take(&mut self.requests);
        rustix::net::send(&self.socket, &requests, SendFlags::empty())?;
        let mut answer = Vec::with_capacity(4096);
        let mut refusal = Ok(());
        loop {
            answer.clear();
            match rustix::net::recv(&self.socket, spare_capacity(&mut answer), RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let number = |at: usize| answer.get(at..at + 4).and_then(|four| four.try_into().ok());
            let kind = answer.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes);
            if kind != Some(ERROR) {
                continue;
            }
            let code = number(16).map_or(0, i32::from_ne_bytes);
            if number(8).map(u32::from_ne_bytes) == Some(self.serial) {
                return refusal;
            }
            if refusal.is_ok() && code != 0 {
                refusal = Err(io::Error::from_raw_os_error(-code));
            }
        }
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    u8::try_from(family.as_raw()).unwrap_or(0)
}

/// A request that grows.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self(Vec::with_capacity(256));
        message.bytes(&[0; 4]);
        message.bytes(&kind.to_ne_bytes());
        message.bytes(&flags.to_ne_bytes());
        message.bytes(&[0; 8]);
        message
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// `struct ifinfomsg`.
    fn link_header(&mut self, index: u32, flags: u32) {
        self.bytes(&[0; 4]);
        self.bytes(&index.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes());
    }

    fn veth_end(&mut self, mtu: u32, end: &VethEnd<'_>) {
        self.text(link::IFNAME, end.name);
        self.attribute(link::MTU, &mtu.to_ne_bytes());
        if let Some(mac) = end.mac {
            self.attribute(link::ADDRESS, &mac);
        }
        if let Some(namespace) = end.namespace {
            self.attribute(link::NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        }
        if let Some(bridge) = end.bridge {
            self.attribute(link::MASTER, &bridge.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(0);
        self.bytes(&length.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// Begins an attribute that holds others.
    fn open(&mut self, kind: u16) -> usize {
        let at = self.0.len();
        self.attribute(kind | 0x8000, &[]);
        at
    }

    fn close(&mut self, at: usize) {
        let length = u16::try_from(self.0.len() - at).unwrap_or(0);
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn finish(mut self, serial: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(0);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&serial.to_ne_bytes());
        self.0
    }
}
