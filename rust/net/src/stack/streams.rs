//! All TCP flows: how they begin, who looks after them, how they go.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{ipproto, sockopt, AddressFamily, SocketFlags, SocketType};

use super::events::{Happened, Source};
use super::slots::{Number, Slots};
use super::stream::{Ends, Phase, Stream};
use super::timers::Timer;
use super::Stack;
use crate::tcp::{Config, Endpoint, Time};
use crate::wire::icmp::Unreachable;
use crate::wire::ip::{self, Packet};
use crate::wire::tcp::{flag, write_header, Options, Segment, Seq};

/// More flows than descriptors are of no use; this bounds the tables.
const MOST: usize = 16 * 1024;
/// How long buffers are kept after the last flow.
const REST: Time = Time::from_secs(2);

/// All flows.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Slots<Stream>,
    by_ends: HashMap<Ends, Number>,
    /// To be looked after at the end of the batch.
    touched: Vec<Number>,
    /// How many flows move data at the same time, smoothed.
    active: usize,
}

impl Streams {
    fn touch(&mut self, number: Number) {
        if let Some(stream) = self.slots.get_mut(number) {
            if !std::mem::replace(&mut stream.is_touched, true) {
                self.touched.push(number);
            }
        }
    }

    fn remove(&mut self, number: Number) {
        if let Some(stream) = self.slots.remove(number) {
            self.by_ends.remove(&stream.ends);
            if self.slots.len() == 0 {
                self.by_ends = HashMap::new();
                self.touched = Vec::new();
            }
        }
    }

    /// Whether these ends are taken.
    pub fn has(&self, ends: &Ends) -> bool {
        self.by_ends.contains_key(ends)
    }
}

impl Stack {
    /// What all connections to `peer` have in common.
    fn config_for(&self, peer: SocketAddr) -> Config {
        let headers = ip::header_length(peer.ip()) + 20;
        let segment_size = self.addresses.mtu.saturating_sub(u16::try_from(headers).unwrap_or(60));
        let window = self.window_now();
        Config { segment_size, window, ..self.config }
    }

    /// Many flows share the link's room, and the memory that all their backlogs may take.
    fn window_now(&self) -> usize {
        const ALL: usize = 32 << 20;
        let fair = ALL / self.streams.slots.len().max(1);
        self.link.window_of(self.streams.active).min(fair.max(32 * 1024))
    }

    /// A segment of the container.
    pub(super) fn on_segment(&mut self, packet: &Packet<'_>, segment: &Segment<'_>) {
        let ends = Ends {
            guest: SocketAddr::new(packet.source, segment.source),
            peer: SocketAddr::new(packet.target, segment.target),
        };
        let is_opening = segment.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN;
        let Some(number) = self.streams.by_ends.get(&ends).copied() else {
            return match is_opening {
                true => self.open_stream(packet, segment, ends),
                false => self.refuse(ends, segment),
            };
        };
        let Some(stream) = self.streams.slots.get_mut(number) else { return };
        match &stream.phase {
            Phase::Connecting(_) => {
                if segment.has(flag::RST) {
                    self.streams.remove(number);
                }
            }
            Phase::Running(endpoint) if is_opening && endpoint.is_lingering() => {
                // The same ports again: the old connection is history.
                self.streams.remove(number);
                self.open_stream(packet, segment, ends);
            }
            Phase::Running(_) => {
                stream.take(self.now, segment, &mut self.link);
                self.streams.touch(number);
            }
        }
    }

    /// The container opens a connection: the host's socket goes first, so that the answer is the real one.
    fn open_stream(&mut self, packet: &Packet<'_>, syn: &Segment<'_>, ends: Ends) {
        if self.streams.slots.len() >= MOST {
            return self.refuse(ends, syn);
        }
        let is_question = self.addresses.is_resolver(ends.peer.ip()) && ends.peer.port() == 53;
        let connected = match self.destination(ends.peer) {
            _ if is_question => {
                self.prepare_resolver();
                self.open_conversation().map(|socket| (socket, true))
            }
            Ok(target) => connect(target),
            Err(Unreachable::Port) => return self.refuse(ends, syn),
            Err(why) => return self.unreachable(packet, why),
        };
        match connected {
            Ok((socket, is_connected)) => {
                let syn = Segment { payload: b"", ..*syn };
                let waiting = Box::new((syn, packet.whole[..packet.whole.len().min(128)].to_vec()));
                let number = self.add_stream(ends, Phase::Connecting(waiting), socket);
                if let (Some(number), true) = (number, is_connected) {
                    self.establish(number);
                }
            }
            Err(errno) => self.explain(packet, ends, syn, errno),
        }
    }

    /// Says to the container why there is no connection.
    fn explain(&mut self, packet: &Packet<'_>, ends: Ends, syn: &Segment<'_>, errno: Errno) {
        match errno {
            Errno::HOSTUNREACH | Errno::TIMEDOUT => self.unreachable(packet, Unreachable::Host),
            Errno::NETUNREACH | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL => {
                self.unreachable(packet, Unreachable::Network);
            }
            Errno::ACCESS | Errno::PERM => self.unreachable(packet, Unreachable::Prohibited),
            _ => self.refuse(ends, syn),
        }
    }

    fn add_stream(&mut self, ends: Ends, phase: Phase, socket: OwnedFd) -> Option<Number> {
        let number = self.streams.slots.insert(Stream::new(ends, phase, socket));
        self.streams.by_ends.insert(ends, number);
        let stream = self.streams.slots.get_mut(number)?;
        let watched = stream.socket.as_ref().map(|socket| self.events.add(socket, Source::Stream(number)));
        if matches!(watched, Some(Ok(()))) {
            return Some(number);
        }
        self.streams.remove(number);
        None
    }

    /// Somebody came to a published port: the connection goes on into the container.
    pub(super) fn open_inward(&mut self, ends: Ends, socket: OwnedFd) {
        let initial = Seq(self.random());
        let endpoint = Endpoint::connect(self.now, initial, self.config_for(ends.peer));
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        if let Some(number) = self.add_stream(ends, Phase::Running(Box::new(endpoint)), socket) {
            self.streams.touch(number);
        }
    }

    /// The host's socket is connected: now the container gets its answer.
    fn establish(&mut self, number: Number) {
        let initial = Seq(self.random());
        let now = self.now;
        let Some(stream) = self.streams.slots.get_mut(number) else { return };
        let Phase::Connecting(waiting) = &stream.phase else { return };
        let (syn, peer) = (waiting.0, stream.ends.peer);
        let config = self.config_for(peer);
        let endpoint = Endpoint::accept(now, &syn, initial, config);
        if let Some(stream) = self.streams.slots.get_mut(number) {
            stream.phase = Phase::Running(Box::new(endpoint));
            stream.writable = true;
            self.streams.touch(number);
        }
    }

    pub(super) fn on_stream_event(&mut self, number: Number, happened: Happened) {
        let Some(stream) = self.streams.slots.get_mut(number) else { return };
        stream.readable |= happened.readable;
        stream.writable |= happened.writable;
        stream.ended |= happened.ended;
        let Phase::Connecting(waiting) = &stream.phase else { return self.streams.touch(number) };
        let Some(socket) = stream.socket.as_ref().filter(|_| happened.writable) else { return };
        match sockopt::socket_error(socket) {
            Ok(Ok(())) => self.establish(number),
            Ok(Err(errno)) | Err(errno) => {
                let (syn, quoted) = (waiting.0, waiting.1.clone());
                let ends = stream.ends;
                self.streams.remove(number);
                // Long enough to be told apart, if no longer whole.
                if let Some(packet) = quoted_packet(&quoted) {
                    self.explain(&packet, ends, &syn, errno);
                }
            }
        }
    }

    pub(super) fn on_stream_timer(&mut self, number: Number) {
        let now = self.now;
        let Some(stream) = self.streams.slots.get_mut(number) else { return };
        stream.timer = None;
        if let Phase::Running(endpoint) = &mut stream.phase {
            if endpoint.deadline().is_some_and(|at| at <= now) {
                endpoint.on_timer(now);
            }
        }
        self.streams.touch(number);
    }

    /// Lets every flow that something happened to say what it has to say.
    pub(super) fn look_after_streams(&mut self) {
        let mut touched = std::mem::take(&mut self.streams.touched);
        self.streams.active = touched.len().max(self.streams.active * 7 / 8).max(1);
        let window = self.window_now();
        for number in touched.drain(..) {
            self.look_after(number, window);
        }
        // Nothing was touched meanwhile; the list's memory is kept.
        self.streams.touched = touched;
    }

    fn look_after(&mut self, number: Number, window: usize) {
        let (now, traffic) = (self.now, &mut self.traffic);
        let Some(stream) = self.streams.slots.get_mut(number) else { return };
        stream.is_touched = false;
        if let Phase::Running(endpoint) = &mut stream.phase {
            endpoint.limit_window(window);
        }
        stream.advance(now, &mut self.link, |bytes| {
            traffic.received_bytes += bytes as u64;
            traffic.received_packets += u64::from(bytes > 0);
        });
        if matches!(&stream.phase, Phase::Running(endpoint) if endpoint.is_closed()) {
            self.streams.remove(number);
            if self.streams.slots.len() == 0 {
                self.timers.set(now + REST, Timer::Rest);
            }
            return;
        }
        if let Some(at) = stream.deadline() {
            let at = at.max(now);
            if stream.timer.is_none_or(|set| at < set) {
                stream.timer = Some(at);
                self.timers.set(at, Timer::Stream(number));
            }
        }
    }

    /// A segment that belongs nowhere is answered with RST, RFC 9293 §3.10.7.1.
    fn refuse(&mut self, ends: Ends, segment: &Segment<'_>) {
        if segment.has(flag::RST) {
            return;
        }
        let (seq, ack, flags) = if segment.has(flag::ACK) {
            (segment.ack, Seq(0), flag::RST)
        } else {
            (Seq(0), segment.seq + segment.length(), flag::RST | flag::ACK)
        };
        let reset = Segment {
            source: ends.peer.port(),
            target: ends.guest.port(),
            seq,
            ack,
            flags,
            window: 0,
            options: Options::default(),
            payload: b"",
        };
        let sent = self.link.send_segment(ends.to_guest(), 1, &[], |into| write_header(into, &reset));
        self.count(sent);
    }

    /// How many TCP flows there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.slots.len()
    }
}

/// A packet whose beginning was kept. Its length field speaks of more than there is.
fn quoted_packet(quoted: &[u8]) -> Option<Packet<'_>> {
    Packet::parse(quoted)
}

/// A socket of the host on its way to `target`; and whether it is there already.
pub(super) fn connect(target: SocketAddr) -> rustix::io::Result<(OwnedFd, bool)> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // The container's kernel has decided when to send; deciding again would only delay.
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &target) {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        Err(errno) => Err(errno),
    }
}
