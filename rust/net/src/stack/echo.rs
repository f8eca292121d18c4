//! ping: our own addresses answer, the rest goes through the host's ping sockets where it lets us (icmp(7),
//! `net.ipv4.ping_group_range`).

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{ipproto, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::events::Source;
use super::slots::{Number, Slots};
use super::timers::Timer;
use super::Stack;
use crate::tcp::Time;
use crate::wire::icmp::{self, Unreachable};
use crate::wire::ip::Packet;

/// Silence after which a ping is over.
const PATIENCE: Time = Time::from_secs(30);
/// Pings at the same time; the one that was quiet the longest makes room.
const MOST: usize = 64;

#[derive(Debug)]
struct Flow {
    guest: IpAddr,
    target: IpAddr,
    id: u16,
    socket: OwnedFd,
    used: Time,
}

/// All pings under way.
#[derive(Debug, Default)]
pub(super) struct Echoes(Slots<Flow>);

impl Stack {
    /// An echo request of the container.
    pub(super) fn on_echo(&mut self, packet: &Packet<'_>, id: u16, sequence: u16, data: &[u8]) {
        if self.addresses.is_gateway(packet.target) || self.addresses.is_resolver(packet.target) {
            let ends = (packet.target, packet.source);
            let message = icmp::echo_reply(ends, id, sequence, data);
            let sent = self.link.send_packet(ends, icmp::protocol_for(ends.0), &message);
            return self.count(sent);
        }
        let target = match self.destination(SocketAddr::new(packet.target, 0)) {
            Ok(target) => target.ip(),
            Err(why) => return self.unreachable(packet, why),
        };
        let known =
            self.echoes.0.iter().find(|(_, flow)| {
                flow.guest == packet.source && flow.target == packet.target && flow.id == id
            });
        let number = match known.map(|(number, _)| number) {
            Some(number) => number,
            None => match self.open_echo(packet, target, id) {
                Some(number) => number,
                // The host's administrator has not let users ping.
                None => return self.unreachable(packet, Unreachable::Prohibited),
            },
        };
        let now = self.now;
        let Some(flow) = self.echoes.0.get_mut(number) else { return };
        flow.used = now;
        let request = icmp::echo_request(target.is_ipv4(), sequence, data);
        if rustix::net::send(&flow.socket, &request, SendFlags::DONTWAIT).is_err() {
            self.unreachable(packet, Unreachable::Host);
        }
    }

    fn open_echo(&mut self, packet: &Packet<'_>, target: IpAddr, id: u16) -> Option<Number> {
        let (family, protocol) = if target.is_ipv4() {
            (AddressFamily::INET, ipproto::ICMP)
        } else {
            (AddressFamily::INET6, ipproto::ICMPV6)
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(protocol)).ok()?;
        rustix::net::connect(&socket, &SocketAddr::new(target, 0)).ok()?;
        if self.echoes.0.len() >= MOST {
            let oldest = self.echoes.0.iter().min_by_key(|(_, flow)| flow.used).map(|(number, _)| number);
            oldest.and_then(|number| self.echoes.0.remove(number));
        }
        let flow = Flow { guest: packet.source, target: packet.target, id, socket, used: self.now };
        let number = self.echoes.0.insert(flow);
        let watched = self
            .echoes
            .0
            .get_mut(number)
            .map(|flow| self.events.add_level(&flow.socket, Source::Echo(number)));
        self.timers.set(self.now + PATIENCE, Timer::Echo(number));
        matches!(watched, Some(Ok(()))).then_some(number)
    }

    pub(super) fn on_echo_event(&mut self, number: Number) {
        let mut buffer = [0; 2048];
        while let Some(flow) = self.echoes.0.get_mut(number) {
            let Ok((count, _)) = rustix::net::recv(&flow.socket, &mut buffer[..], RecvFlags::DONTWAIT) else {
                return;
            };
            let bytes = &buffer[..count.min(buffer.len())];
            let is_reply =
                matches!((flow.target.is_ipv4(), bytes.first()), (true, Some(0)) | (false, Some(129)));
            if !is_reply || bytes.len() < 8 {
                continue;
            }
            let ends = (flow.target, flow.guest);
            let sequence = u16::from_be_bytes([bytes[6], bytes[7]]);
            let message = icmp::echo_reply(ends, flow.id, sequence, &bytes[8..]);
            let sent = self.link.send_packet(ends, icmp::protocol_for(ends.0), &message);
            self.count(sent);
        }
    }

    pub(super) fn on_echo_timer(&mut self, number: Number) {
        let now = self.now;
        let Some(flow) = self.echoes.0.get_mut(number) else { return };
        let at = flow.used + PATIENCE;
        if at <= now {
            self.echoes.0.remove(number);
        } else {
            self.timers.set(at, Timer::Echo(number));
        }
    }
}
