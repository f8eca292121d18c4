//! One TCP flow: an endpoint towards the container and a socket of the host.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{sockopt, RecvFlags, SendFlags, Shutdown};

use super::link::Link;
use crate::tcp::{Endpoint, Sink, Time};
use crate::wire::tcp::{write_header, Segment};

/// Both ends as the container sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The container's.
    pub guest: SocketAddr,
    /// The other.
    pub peer: SocketAddr,
}

impl Ends {
    /// Source and target of what goes to the container.
    pub fn to_guest(self) -> (IpAddr, IpAddr) {
        (self.peer.ip(), self.guest.ip())
    }
}

/// How far a flow is.
#[derive(Debug)]
pub enum Phase {
    /// The host's socket is connecting; the container's SYN and its packet wait.
    Connecting(Box<(Segment<'static>, Vec<u8>)>),
    /// The endpoint is at work.
    Running(Box<Endpoint>),
}

/// A flow.
#[derive(Debug)]
pub struct Stream {
    pub ends: Ends,
    pub phase: Phase,
    /// `None` when both directions have ended.
    pub socket: Option<OwnedFd>,
    pub readable: bool,
    pub writable: bool,
    /// The host's socket has no more than what is in it.
    pub ended: bool,
    /// The host's socket was told that the container has no more.
    pub is_shut: bool,
    /// It is on the list of those to be looked after.
    pub is_touched: bool,
    /// When its timer goes off, at the latest.
    pub timer: Option<Time>,
}

/// The host's socket as the place where the container's data goes.
pub struct SocketSink<'a> {
    pub socket: Option<BorrowedFd<'a>>,
    pub is_full: bool,
    pub is_broken: bool,
}

impl Sink for SocketSink<'_> {
    fn accept(&mut self, bytes: &[u8]) -> usize {
        let Some(socket) = self.socket else { return bytes.len() };
        let mut taken = 0;
        while taken < bytes.len() && !self.is_full && !self.is_broken {
            match rustix::net::send(socket, &bytes[taken..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => taken += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.is_full = true,
                Err(_) => self.is_broken = true,
            }
        }
        // Nobody will take it any more: the flow ends with a reset, and nothing must wait for that.
        if self.is_broken {
            bytes.len()
        } else {
            taken
        }
    }
}

impl Stream {
    pub fn new(ends: Ends, phase: Phase, socket: OwnedFd) -> Self {
        Self {
            ends,
            phase,
            socket: Some(socket),
            readable: false,
            writable: false,
            ended: false,
            is_shut: false,
            is_touched: false,
            timer: None,
        }
    }

    /// A segment of the container.
    pub fn take(&mut self, now: Time, segment: &Segment<'_>, link: &mut Link) {
        let Phase::Running(endpoint) = &mut self.phase else { return };
        let socket = self.socket.as_ref().map(AsFd::as_fd);
        let mut sink = SocketSink { socket, is_full: !self.writable, is_broken: false };
        endpoint.on_segment(now, segment, &mut sink, &mut |chunk| link.give_chunk(chunk));
        self.writable = !sink.is_full;
        if sink.is_broken {
            endpoint.abort();
        }
    }

    /// Moves what can be moved and says what is to be said; answers with the bytes of every segment that went out.
    pub fn advance(&mut self, now: Time, link: &mut Link, mut count: impl FnMut(usize)) {
        let Phase::Running(endpoint) = &mut self.phase else { return };
        if let Some(socket) = &self.socket {
            let mut sink =
                SocketSink { socket: Some(socket.as_fd()), is_full: !self.writable, is_broken: false };
            endpoint.flush(&mut sink);
            self.writable = !sink.is_full;
            if sink.is_broken {
                endpoint.abort();
            }
            if endpoint.has_received_all() && !self.is_shut {
                self.is_shut = true;
                let _ = rustix::net::shutdown(socket, Shutdown::Write);
            }
        }
        loop {
            Self::emit(endpoint, self.ends, now, link, &mut count);
            let Some(socket) = &self.socket else { break };
            if !self.readable || endpoint.room() == 0 {
                break;
            }
            self.readable = fill(endpoint, socket.as_fd(), self.ended, link);
        }
        endpoint.settle(now);
        if endpoint.was_reset() {
            self.reset_socket();
        } else if endpoint.is_lingering() || endpoint.is_closed() {
            self.socket = None;
        }
    }

    fn emit(endpoint: &mut Endpoint, ends: Ends, now: Time, link: &mut Link, count: &mut impl FnMut(usize)) {
        while let Some(outgoing) = endpoint.poll(now) {
            let mut slices = Vec::new();
            endpoint.slices(&outgoing, &mut slices);
            let segment = Segment {
                source: ends.peer.port(),
                target: ends.guest.port(),
                seq: outgoing.seq,
                ack: outgoing.ack,
                flags: outgoing.flags,
                window: outgoing.window,
                options: outgoing.options,
                payload: b"",
            };
            let size = endpoint.segment_size();
            count(link.send_segment(ends.to_guest(), size, &slices, |into| write_header(into, &segment)));
        }
    }

    /// The other side shall see that this was no good end.
    pub fn reset_socket(&mut self) {
        if let Some(socket) = self.socket.take() {
            let _ = sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO));
        }
    }

    /// When its timer has to go off.
    pub fn deadline(&self) -> Option<Time> {
        match &self.phase {
            Phase::Connecting(_) => None,
            Phase::Running(endpoint) => endpoint.deadline(),
        }
    }
}

/// Below this a chunk's bytes are copied, and its buffer is free at once.
const FEW: usize = 8 * 1024;

/// Takes a chunk from the host's socket; answers whether there may be more.
fn fill(endpoint: &mut Endpoint, socket: BorrowedFd<'_>, ended: bool, link: &mut Link) -> bool {
    let mut chunk = link.take_chunk();
    // Not a byte more than is wanted: the rest waits in the host's socket, whose sender learns of it.
    let most = endpoint.room().min(endpoint.burst()).min(chunk.len());
    let received = rustix::net::recv(socket, &mut chunk[..most], RecvFlags::DONTWAIT);
    let more = match received {
        Ok((count, _)) if count > FEW => {
            chunk.truncate(count);
            endpoint.push(chunk);
            return true;
        }
        Ok((0, _)) => {
            endpoint.finish();
            false
        }
        Ok((count, _)) => {
            endpoint.push_copy(&chunk[..count]);
            // What came in one piece was all, and the next event tells of more; but the end may have come in the
            // same event as the last piece.
            count == most || ended
        }
        Err(Errno::INTR) => true,
        Err(Errno::AGAIN) => false,
        Err(_) => {
            endpoint.abort();
            false
        }
    };
    link.give_chunk(chunk);
    more
}
