//! Published ports: sockets of the host whose clients are led into the container.
//!
//! The stack is the container's whole network, so it can say truly who the client is: the
//! connection into the container comes from the client's own address and port. Only
//! a client on the host itself, whose address means something else inside, comes from
//! the gateway's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{sockopt, AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::events::Source;
use super::policy::is_public;
use super::stream::Ends;
use super::timers::Timer;
use super::Stack;
use crate::tcp::Time;

/// Clients that are let in, or datagrams, before others have their turn.
const SHARE: usize = 64;
/// How long listeners are left alone when there are no descriptors left.
const PAUSE: Time = Time::from_millis(100);

/// What a port is a port of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host, bound, and the container's port it leads to.
#[derive(Debug)]
pub struct Published {
    /// Listening, or bound for UDP.
    pub socket: OwnedFd,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// In the container.
    pub port: u16,
}

/// Binds a port of the host; port 0 is any free one. Answers with the socket and the port it got.
///
/// # Errors
/// EADDRINUSE, EACCES below `net.ipv4.ip_unprivileged_port_start`, EADDRNOTAVAIL for an address that is not the host's.
pub fn bind(address: SocketAddr, protocol: Protocol) -> io::Result<(OwnedFd, u16)> {
    let (socket, port) = reserve(address, protocol)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&socket, 1024)?;
    }
    Ok((socket, port))
}

/// The same for somebody else who will listen there: a port of TCP may be bound once more with SO_REUSEADDR.
///
/// # Errors
/// As [`bind`].
pub fn reserve(address: SocketAddr, protocol: Protocol) -> io::Result<(OwnedFd, u16)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if protocol == Protocol::Tcp {
        // Connections of a container that is gone must not keep its port for minutes.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        // 0.0.0.0 has a socket of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

/// A published port at work.
#[derive(Debug)]
pub(super) struct Listener {
    published: Published,
    is_paused: bool,
}

impl Listener {
    pub fn new(published: Published) -> Self {
        Self { published, is_paused: false }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.published.socket.as_fd()
    }
}

impl Stack {
    /// Something came to a published port.
    pub(super) fn accept(&mut self, number: u32) {
        let Some(listener) = self.published.get(number as usize) else { return };
        match listener.published.protocol {
            Protocol::Tcp => self.accept_connections(number),
            Protocol::Udp => self.accept_datagrams(number),
        }
    }

    fn accept_connections(&mut self, number: u32) {
        for _ in 0..SHARE {
            let Some(listener) = self.published.get_mut(number as usize) else { return };
            let port = listener.published.port;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(listener.socket(), flags) {
                Ok((socket, Some(client))) => {
                    let Ok(client) = SocketAddr::try_from(client) else { continue };
                    if let Some(ends) = self.inward_ends(client, port) {
                        self.open_inward(ends, socket);
                    }
                }
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    listener.is_paused = true;
                    self.events.remove(&listener.published.socket);
                    self.timers.set(self.now + PAUSE, Timer::Listeners);
                    return;
                }
                Err(Errno::AGAIN) => return,
                Ok((_, None)) | Err(_) => {}
            }
        }
    }

    /// Descriptors may be free again.
    pub(super) fn resume_accepting(&mut self) {
        for (number, listener) in (0..).zip(&mut self.published) {
            if std::mem::take(&mut listener.is_paused) {
                let _ = self.events.add_level(&listener.published.socket, Source::Listener(number));
            }
        }
    }

    fn accept_datagrams(&mut self, number: u32) {
        let mut buffer = vec![0; 65_535];
        for _ in 0..SHARE {
            let Some(listener) = self.published.get(number as usize) else { return };
            let port = listener.published.port;
            let received = rustix::net::recvfrom(listener.socket(), &mut buffer[..], RecvFlags::DONTWAIT);
            let Ok((count, _, Some(client))) = received else { return };
            let Ok(client) = SocketAddr::try_from(client) else { continue };
            if let Some(ends) = self.ends_from(client, port) {
                self.pass_inward(number, client, ends, &buffer[..count.min(65_507)]);
            }
        }
    }

    /// Both ends of a client's connection as the container shall see them.
    fn ends_from(&self, client: SocketAddr, port: u16) -> Option<Ends> {
        // A v4 client of a dual-stack socket is a v4 client.
        let address = client.ip().to_canonical();
        let is_true =
            is_public(address) && self.addresses.guest(address).is_some() && !self.is_on_our_link(address);
        let source = if is_true {
            address
        } else {
            self.addresses.gateway(address).or_else(|| Some(self.addresses.v4.gateway.into()))?
        };
        let guest = self.addresses.guest(source)?;
        Some(Ends { guest: SocketAddr::new(guest, port), peer: SocketAddr::new(source, client.port()) })
    }

    /// The same for a connection, whose ends must not be another's: several addresses of the host become one.
    fn inward_ends(&mut self, client: SocketAddr, port: u16) -> Option<Ends> {
        let mut ends = self.ends_from(client, port)?;
        for _ in 0..64 {
            if !self.streams.has(&ends) {
                return Some(ends);
            }
            let port = 32_768 + u16::try_from(self.random() % 28_000).unwrap_or(0);
            ends.peer.set_port(port);
        }
        None
    }
}
