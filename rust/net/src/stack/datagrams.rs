//! UDP flows: a socket of the host for each pair of ends, as long as it is used.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::events::Source;
use super::slots::{Number, Slots};
use super::stream::Ends;
use super::timers::Timer;
use super::Stack;
use crate::tcp::Time;
use crate::wire::icmp::{self, Unreachable};
use crate::wire::ip::{self, protocol, Packet};
use crate::wire::udp::{self, Datagram};

/// RFC 4787 wants two minutes at least for what was answered; what was not is over sooner.
const ANSWERED: Time = Time::from_secs(180);
const UNANSWERED: Time = Time::from_secs(30);
/// Flows at the same time; the one that was quiet the longest makes room.
const MOST: usize = 1024;
/// Datagrams that one flow may bring before others have their turn.
const SHARE: usize = 64;
/// The largest payload of a datagram.
const LARGEST: usize = 65_507;

/// Where a flow's datagrams leave the host.
#[derive(Debug)]
enum Way {
    /// By a connected socket of its own.
    Own(OwnedFd),
    /// By a published port's socket, to this client.
    Published(u32, SocketAddr),
}

#[derive(Debug)]
struct Flow {
    ends: Ends,
    way: Way,
    used: Time,
    is_answered: bool,
    /// The packet that a refusal quotes.
    last: Vec<u8>,
}

impl Flow {
    fn ends_at(&self) -> Time {
        self.used + if self.is_answered { ANSWERED } else { UNANSWERED }
    }
}

/// All flows.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    slots: Slots<Flow>,
    by_ends: HashMap<Ends, Number>,
}

impl Datagrams {
    fn remove(&mut self, number: Number) {
        if let Some(flow) = self.slots.remove(number) {
            self.by_ends.remove(&flow.ends);
        }
    }

    fn make_room(&mut self) {
        if self.slots.len() >= MOST {
            let oldest = self.slots.iter().min_by_key(|(_, flow)| flow.used).map(|(number, _)| number);
            if let Some(number) = oldest {
                self.remove(number);
            }
        }
    }
}

impl Stack {
    /// A datagram of the container.
    pub(super) fn on_datagram(&mut self, packet: &Packet<'_>, datagram: &Datagram<'_>) {
        let ends = Ends {
            guest: SocketAddr::new(packet.source, datagram.source),
            peer: SocketAddr::new(packet.target, datagram.target),
        };
        if self.addresses.is_resolver(packet.target) && datagram.target == 53 {
            return self.on_query(ends, datagram.payload);
        }
        let number = match self.datagrams.by_ends.get(&ends).copied() {
            Some(number) => number,
            None => match self.open_datagrams(ends) {
                Ok(number) => number,
                Err(why) => return self.unreachable(packet, why),
            },
        };
        let now = self.now;
        let Some(flow) = self.datagrams.slots.get_mut(number) else { return };
        flow.used = now;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match &flow.way {
            Way::Own(socket) => {
                if flow.last.is_empty() || !flow.is_answered {
                    flow.last.clear();
                    flow.last.extend_from_slice(&packet.whole[..packet.whole.len().min(64)]);
                }
                rustix::net::send(socket, datagram.payload, flags)
            }
            Way::Published(listener, client) => {
                flow.is_answered = true;
                match self.published.get(*listener as usize) {
                    Some(listener) => rustix::net::sendto(listener.socket(), datagram.payload, flags, client),
                    None => return,
                }
            }
        };
        if let Err(errno) = sent {
            self.on_send_error(packet, number, errno);
        }
    }

    fn on_send_error(&mut self, packet: &Packet<'_>, number: Number, errno: Errno) {
        let why = match errno {
            // What the last one met; this one was not sent.
            Errno::CONNREFUSED => Unreachable::Port,
            Errno::NETUNREACH => Unreachable::Network,
            Errno::HOSTUNREACH => Unreachable::Host,
            Errno::ACCESS | Errno::PERM => Unreachable::Prohibited,
            _ => return,
        };
        self.datagrams.remove(number);
        self.unreachable(packet, why);
    }

    fn open_datagrams(&mut self, ends: Ends) -> Result<Number, Unreachable> {
        let target = self.destination(ends.peer)?;
        let socket = connect(target).map_err(|errno| match errno {
            Errno::NETUNREACH | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL => Unreachable::Network,
            Errno::ACCESS | Errno::PERM => Unreachable::Prohibited,
            _ => Unreachable::Host,
        })?;
        let number = self.add_datagrams(ends, Way::Own(socket));
        let Some(flow) = self.datagrams.slots.get_mut(number) else { return Err(Unreachable::Host) };
        if let Way::Own(socket) = &flow.way {
            if self.events.add_level(socket, Source::Datagram(number)).is_err() {
                self.datagrams.remove(number);
                return Err(Unreachable::Host);
            }
        }
        Ok(number)
    }

    fn add_datagrams(&mut self, ends: Ends, way: Way) -> Number {
        self.datagrams.make_room();
        let flow = Flow { ends, way, used: self.now, is_answered: false, last: Vec::new() };
        let number = self.datagrams.slots.insert(flow);
        self.datagrams.by_ends.insert(ends, number);
        self.timers.set(self.now + UNANSWERED, Timer::Datagram(number));
        number
    }

    /// A client of a published port sent a datagram.
    pub(super) fn pass_inward(&mut self, listener: u32, client: SocketAddr, ends: Ends, payload: &[u8]) {
        let number = match self.datagrams.by_ends.get(&ends) {
            Some(number) => *number,
            None => self.add_datagrams(ends, Way::Published(listener, client)),
        };
        let now = self.now;
        if let Some(flow) = self.datagrams.slots.get_mut(number) {
            flow.used = now;
        }
        self.deliver(ends, payload);
    }

    /// A datagram from a flow's other end to the container.
    pub(super) fn deliver(&mut self, ends: Ends, payload: &[u8]) {
        let pair = ends.to_guest();
        let bytes = udp::datagram(pair, (ends.peer.port(), ends.guest.port()), payload);
        let sent = self.link.send_packet(pair, protocol::UDP, &bytes);
        self.count(sent);
    }

    pub(super) fn on_datagram_event(&mut self, number: Number) {
        let mut buffer = self.link.take_chunk();
        buffer.resize(LARGEST, 0);
        for _ in 0..SHARE {
            let Some(flow) = self.datagrams.slots.get_mut(number) else { break };
            let Way::Own(socket) = &flow.way else { break };
            match rustix::net::recv(socket.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    flow.used = self.now;
                    flow.is_answered = true;
                    let ends = flow.ends;
                    self.deliver(ends, &buffer[..count.min(LARGEST)]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => {
                    self.on_datagram_error(number, errno);
                    break;
                }
            }
        }
        self.link.give_chunk(buffer);
    }

    /// The host's socket was told that nobody is there; the container shall know too.
    fn on_datagram_error(&mut self, number: Number, errno: Errno) {
        let Some(flow) = self.datagrams.slots.get_mut(number) else { return };
        let why = match errno {
            Errno::CONNREFUSED => Unreachable::Port,
            Errno::NETUNREACH => Unreachable::Network,
            Errno::HOSTUNREACH => Unreachable::Host,
            _ => return,
        };
        let (ends, quoted) = (flow.ends, std::mem::take(&mut flow.last));
        self.datagrams.remove(number);
        let pair = ends.to_guest();
        if quoted.len() >= ip::header_length(pair.0) + udp::HEADER {
            let message = icmp::unreachable(pair, why, &quoted);
            let sent = self.link.send_packet(pair, icmp::protocol_for(pair.0), &message);
            self.count(sent);
        }
    }

    pub(super) fn on_datagram_timer(&mut self, number: Number) {
        let now = self.now;
        let Some(flow) = self.datagrams.slots.get_mut(number) else { return };
        let at = flow.ends_at();
        if at <= now {
            self.datagrams.remove(number);
        } else {
            self.timers.set(at, Timer::Datagram(number));
        }
    }
}

/// A socket of the host that talks to `target` alone.
pub(super) fn connect(target: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    rustix::net::connect(&socket, &target)?;
    Ok(socket)
}
