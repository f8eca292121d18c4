//! One client of a supervisor: a non-blocking socket, what it wants, and what it has yet to be told.
//!
//! A client may stop reading. What it is owed then waits here; past [`MUCH`] the
//! supervisor stops reading the container's output, so the container waits in its
//! write(2), as it would for a full pipe, and nothing is lost or grows without bound.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::events::{Events, Interest, Source};
use crate::message::{packet, Attach, SupervisorMessage};

/// Owed bytes above which the container's output must wait.
pub const MUCH: usize = 256 * 1024;
/// Owed bytes below which it may go on.
pub const LITTLE: usize = 64 * 1024;

/// What a connection is for; it begins idle and a request gives it a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It may ask.
    Idle,
    /// It sees the container's output and may write its input.
    Attached(Attach),
    /// It waits for the end.
    Waiting,
    /// It waits for the end of its own command, the session of this number.
    Executing(u32),
}

/// A connected client.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// What it is for.
    pub role: Role,
    owed: VecDeque<Packet>,
    owed_bytes: usize,
    watched: Interest,
    gone: bool,
}

#[derive(Debug)]
struct Packet {
    kind: u8,
    payload: Vec<u8>,
    fd: Option<OwnedFd>,
}

impl Connection {
    /// A client that just connected; its socket becomes non-blocking.
    ///
    /// # Errors
    /// None for a socket.
    pub fn new(socket: OwnedFd) -> rustix::io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            role: Role::Idle,
            owed: VecDeque::new(),
            owed_bytes: 0,
            watched: Interest::NONE,
            gone: false,
        })
    }

    /// Its socket, to receive from.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a message, with a descriptor perhaps; it waits here when the client does not read.
    pub fn tell(&mut self, message: &SupervisorMessage<'_>, fd: Option<OwnedFd>) {
        let (kind, payload) = message.encode();
        self.send(kind, payload, fd);
    }

    /// Sends output without copying it unless it has to wait.
    pub fn tell_output(&mut self, kind: u8, bytes: &[u8]) {
        if self.owed.is_empty() && !self.gone {
            match packet::send(self.socket(), kind, bytes, &[]) {
                Ok(()) => return,
                Err(Errno::AGAIN) => {}
                Err(_) => self.gone = true,
            }
        }
        if !self.gone {
            self.owe(Packet { kind, payload: bytes.to_vec(), fd: None });
        }
    }

    fn send(&mut self, kind: u8, payload: Vec<u8>, fd: Option<OwnedFd>) {
        self.owe(Packet { kind, payload, fd });
        self.flush();
    }

    fn owe(&mut self, packet: Packet) {
        self.owed_bytes += packet.payload.len();
        self.owed.push_back(packet);
    }

    /// Sends what waits, as far as the client reads.
    pub fn flush(&mut self) {
        while let (false, Some(packet)) = (self.gone, self.owed.front()) {
            let fds: Vec<BorrowedFd<'_>> = packet.fd.iter().map(AsFd::as_fd).collect();
            match packet::send(self.socket.as_fd(), packet.kind, &packet.payload, &fds) {
                Ok(()) => {
                    self.owed_bytes -= packet.payload.len();
                    self.owed.pop_front();
                }
                Err(Errno::AGAIN) => return,
                Err(_) => self.gone = true,
            }
        }
    }

    /// How many bytes wait for it.
    #[must_use]
    pub fn owed_bytes(&self) -> usize {
        self.owed_bytes
    }

    /// Whether it has been told everything (or will never be).
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.gone || self.owed.is_empty()
    }

    /// Marks it as gone: it closed, or it cannot be talked to.
    pub fn leave(&mut self) {
        self.gone = true;
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Watches for what matters now: its words unless `deaf`, and room to write when something waits.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC of epoll_ctl(2).
    pub fn watch(&mut self, events: &Events, number: u32, deaf: bool) -> rustix::io::Result<()> {
        let wanted =
            if self.gone { Interest::NONE } else { Interest { read: !deaf, write: !self.owed.is_empty() } };
        events.change(&self.socket, Source::Connection(number), self.watched, wanted)?;
        self.watched = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};

    fn pair() -> (Connection, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Connection::new(ours).unwrap(), theirs)
    }

    #[test]
    fn what_a_slow_client_is_owed_arrives_in_order_once_it_reads() {
        let (mut connection, client) = pair();
        let mut sent = 0u8;
        while connection.owed_bytes() < MUCH {
            connection.tell_output(b'O', &[sent; 32768]);
            sent += 1;
        }
        connection.tell(&SupervisorMessage::StdinTaken(1), None);
        let mut buffer = vec![0; packet::LARGEST];
        for number in 0..sent {
            let (bytes, _) = packet::receive(client.as_fd(), &mut buffer).unwrap().unwrap();
            assert_eq!((bytes[0], bytes[1], bytes.len()), (b'O', number, 32769));
            connection.flush();
        }
        assert_eq!(packet::receive(client.as_fd(), &mut buffer).unwrap().unwrap().0[0], b'A');
        assert!(connection.is_settled());
        assert_eq!(connection.owed_bytes(), 0);
    }

    #[test]
    fn a_client_that_left_is_owed_nothing() {
        let (mut connection, client) = pair();
        drop(client);
        connection.tell_output(b'O', b"x");
        assert!(connection.is_gone() && connection.is_settled());
    }
}
