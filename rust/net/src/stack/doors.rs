//! The name server of a container without a link: what is a packet to an address of ours elsewhere comes to sockets of the host here.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::resolver::Asker;
use super::Stack;

/// Questions, or callers, before others have their turn.
const SHARE: usize = 64;
/// Ports that are tried: one must be free for both protocols.
const TRIES: usize = 16;

/// Where questions come in, over UDP and over TCP, at the same port.
#[derive(Debug)]
pub struct Doors {
    pub(super) datagrams: OwnedFd,
    pub(super) listener: OwnedFd,
    /// The address of both.
    pub address: SocketAddr,
}

impl Doors {
    /// Opens them at an address of the host's loopback.
    ///
    /// # Errors
    /// EMFILE; EADDRINUSE when no port is free.
    pub fn open(address: Ipv4Addr) -> rustix::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..TRIES {
            let datagrams = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
            rustix::net::bind(&datagrams, &SocketAddr::from((address, 0)))?;
            let address = SocketAddr::try_from(rustix::net::getsockname(&datagrams)?)?;
            let listener = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            if rustix::net::bind(&listener, &address).is_ok() {
                rustix::net::listen(&listener, 64)?;
                return Ok(Self { datagrams, listener, address });
            }
        }
        Err(Errno::ADDRINUSE)
    }
}

impl Stack {
    /// Questions came over UDP.
    pub(super) fn on_questions(&mut self) {
        let mut buffer = vec![0; 4096];
        for _ in 0..SHARE {
            let Some(doors) = &self.doors else { return };
            let heard = rustix::net::recvfrom(&doors.datagrams, &mut buffer[..], RecvFlags::DONTWAIT);
            let Ok((count, _, Some(asker))) = heard else { return };
            let Ok(asker) = SocketAddr::try_from(asker) else { continue };
            let message = &buffer[..count.min(4096)];
            match self.answer_here(message) {
                Some(answer) => self.give_outside(asker, &answer),
                None => self.put(Asker::Outside(asker), message),
            }
        }
    }

    /// An answer to who asked there.
    pub(super) fn give_outside(&self, asker: SocketAddr, answer: &[u8]) {
        if let Some(doors) = &self.doors {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            // Whoever is gone has no use for it, and whoever is not asks again.
            let _ = rustix::net::sendto(&doors.datagrams, answer, flags, &asker);
        }
    }

    /// Somebody wants to ask over TCP.
    pub(super) fn on_callers(&mut self) {
        for _ in 0..SHARE {
            let Some(doors) = &self.doors else { return };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = rustix::net::accept_with(&doors.listener, flags) else { return };
            // More than there may be at the same time are hung up on.
            let _ = self.converse(socket);
        }
    }
}
