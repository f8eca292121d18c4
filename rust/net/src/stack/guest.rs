//! Frames from the container: what they are and who deals with them.

use std::net::IpAddr;

use super::link::{Link, OFFLOAD};
use super::Stack;
use crate::wire::arp;
use crate::wire::ethernet::{kind, Frame};
use crate::wire::icmp::{self, Message, Unreachable};
use crate::wire::ip::{protocol, Packet};
use crate::wire::tcp::Segment;
use crate::wire::udp::Datagram;

impl Stack {
    /// Deals with one frame and the header before it.
    pub(super) fn on_frame(&mut self, bytes: &[u8]) {
        let Some(frame) = bytes.get(OFFLOAD..).and_then(Frame::parse) else { return };
        if frame.source == self.addresses.gateway_mac {
            return; // our own, come back
        }
        match frame.kind {
            kind::ARP => self.on_arp(frame.payload),
            kind::IPV4 | kind::IPV6 => {
                let Some(packet) = Packet::parse(frame.payload) else { return };
                if packet.source.is_ipv6() == (frame.kind == kind::IPV6) {
                    self.on_packet(&packet, Link::is_checked(bytes));
                }
            }
            _ => {}
        }
    }

    fn on_arp(&mut self, bytes: &[u8]) {
        let Some(request) = arp::Request::parse(bytes) else { return };
        let target = request.target.into();
        // A question about itself asks for duplicates.
        if self.addresses.is_gateway(target) || self.addresses.is_resolver(target) {
            let answer = request.answer(self.addresses.gateway_mac);
            let sent = self.link.send_arp(&answer);
            self.count(sent);
        }
    }

    fn on_packet(&mut self, packet: &Packet<'_>, is_checked: bool) {
        if let Some(fragment) = packet.fragment {
            let Some(whole) = self.fragments.add(self.now, packet, fragment) else { return };
            let packet = Packet { fragment: None, payload: &whole, ..*packet };
            return self.on_whole_packet(&packet, is_checked);
        }
        self.on_whole_packet(packet, is_checked);
    }

    fn on_whole_packet(&mut self, packet: &Packet<'_>, is_checked: bool) {
        let ends = (packet.source, packet.target);
        match packet.protocol {
            protocol::TCP => {
                if let Some(segment) = Segment::parse(packet.payload) {
                    self.on_segment(packet, &segment);
                }
            }
            protocol::UDP => {
                if let Some(datagram) = Datagram::parse(packet.payload, ends, is_checked) {
                    self.on_datagram(packet, &datagram);
                }
            }
            protocol::ICMP | protocol::ICMPV6 => match Message::parse(packet.payload, ends, is_checked) {
                Some(Message::Echo { id, sequence, data }) => {
                    self.on_echo(packet, id, sequence, data);
                }
                Some(Message::Solicitation { target }) => self.on_solicitation(packet, target),
                None => {}
            },
            _ if packet.target.is_ipv4() => self.unreachable(packet, Unreachable::Prohibited),
            _ => {}
        }
    }

    fn on_solicitation(&mut self, packet: &Packet<'_>, target: std::net::Ipv6Addr) {
        let asked = IpAddr::from(target);
        // Duplicate address detection asks without an address, RFC 4862 §5.4.
        if packet.source.is_unspecified()
            || !(self.addresses.is_gateway(asked) || self.addresses.is_resolver(asked))
        {
            return;
        }
        let ends = (asked, packet.source);
        let message = icmp::advertisement(ends, target, self.addresses.gateway_mac);
        let sent = self.link.send_packet(ends, protocol::ICMPV6, &message);
        self.count(sent);
    }

    /// Tells the container that a packet did not get through.
    pub(super) fn unreachable(&mut self, packet: &Packet<'_>, why: Unreachable) {
        let from = match packet.target {
            IpAddr::V4(address) if address.is_multicast() || address.is_broadcast() => return,
            IpAddr::V6(address) if address.is_multicast() => return,
            // From the port's own host; the rest is the gateway's opinion.
            target if why == Unreachable::Port => target,
            target => match self.addresses.gateway(target) {
                Some(gateway) => gateway,
                None => return,
            },
        };
        let ends = (from, packet.source);
        let message = icmp::unreachable(ends, why, packet.whole);
        let sent = self.link.send_packet(ends, icmp::protocol_for(from), &message);
        self.count(sent);
    }

    /// So many bytes of a frame went to the container.
    pub(super) fn count(&mut self, bytes: usize) {
        if bytes > 0 {
            self.traffic.received_bytes += bytes as u64;
            self.traffic.received_packets += 1;
        }
    }
}
