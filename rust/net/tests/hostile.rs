//! A stack whose container sends whatever it likes: nothing panics, and what is kept stays bounded.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use duckweed_net::stack::{Addresses, Settings, Stack};
use duckweed_net::wire::ethernet::{self, kind};
use duckweed_net::wire::ip::{self, protocol, Fragment};
use duckweed_net::wire::tcp::{flag, write_header, Options, Segment, Seq};
use duckweed_net::wire::{dns, udp};
use proptest::prelude::*;
use rustix::net::{socketpair, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A stack that reaches nothing, and the container's end of its link.
fn isolated() -> (Stack, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let settings = Settings {
        addresses: Addresses::default(),
        host_loopback: false,
        reaches_out: false,
        servers: vec!["192.0.2.1".parse().unwrap()],
        published: Vec::new(),
        names: None,
    };
    (Stack::new(ours, settings).unwrap(), theirs)
}

fn frame(kind: u16, packet: &[u8]) -> Vec<u8> {
    let addresses = Addresses::default();
    let mut bytes = vec![0; 10];
    bytes.extend_from_slice(&ethernet::header(addresses.gateway_mac, addresses.guest_mac, kind));
    bytes.extend_from_slice(packet);
    bytes
}

fn packet(target: IpAddr, protocol: u8, payload: &[u8], fragment: Option<Fragment>) -> Vec<u8> {
    let source = Addresses::default().guest(target).unwrap();
    let mut bytes = Vec::new();
    ip::write_header(&mut bytes, (source, target), protocol, payload.len(), fragment);
    bytes.extend_from_slice(payload);
    frame(if target.is_ipv4() { kind::IPV4 } else { kind::IPV6 }, &bytes)
}

/// Sends a frame, lets the stack work, and answers with what came back.
fn exchange(stack: &mut Stack, container: &OwnedFd, frame: &[u8]) -> Vec<Vec<u8>> {
    let _ = rustix::net::send(container, frame, SendFlags::NOSIGNAL);
    while stack.turn() {}
    let mut answers = Vec::new();
    let mut buffer = vec![0; 70_000];
    while let Ok((count, _)) = rustix::net::recv(container.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
        answers.push(buffer[..count].to_vec());
    }
    answers
}

fn targets() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        Just("10.0.2.2".parse().unwrap()),
        Just("10.0.2.3".parse().unwrap()),
        Just("127.0.0.1".parse().unwrap()),
        Just("203.0.113.9".parse().unwrap()),
        Just("224.0.0.251".parse().unwrap()),
        Just("fd00:d0c2::2".parse().unwrap()),
        Just("fd00:d0c2::3".parse().unwrap()),
        Just("::1".parse().unwrap()),
        Just("ff02::1".parse().unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_frame_makes_it_panic(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 1..20)) {
        let (mut stack, container) = isolated();
        for bytes in frames {
            exchange(&mut stack, &container, &bytes);
            for kind in [kind::ARP, kind::IPV4, kind::IPV6] {
                exchange(&mut stack, &container, &frame(kind, &bytes));
            }
        }
    }

    #[test]
    fn no_payload_makes_it_panic(
        payloads in proptest::collection::vec(
            (targets(), prop_oneof![Just(1_u8), Just(6), Just(17), Just(58), Just(99)],
             proptest::collection::vec(any::<u8>(), 0..300), proptest::option::of((any::<u32>(), 0..9000_usize, any::<bool>()))), 1..40),
    ) {
        let (mut stack, container) = isolated();
        for (target, protocol, payload, fragment) in payloads {
            let fragment = fragment.map(|(id, offset, more)| Fragment { id: id % 4, offset: offset / 8 * 8, more });
            let mut bytes = packet(target, protocol, &payload, fragment);
            exchange(&mut stack, &container, &bytes);
            bytes[0] = 1; // whoever is asked vouches for the checksum
            exchange(&mut stack, &container, &bytes);
        }
        prop_assert_eq!(stack.streams(), 0);
    }

    #[test]
    fn no_question_makes_it_panic(message in proptest::collection::vec(any::<u8>(), 0..300), at in 0..40_usize, value in any::<u8>()) {
        let (mut stack, container) = isolated();
        let mut good = dns::query(7, "example.org", dns::kind::A);
        let length = good.len();
        good[at % length] = value;
        for message in [message, good] {
            let target = "10.0.2.3".parse().unwrap();
            let source = Addresses::default().guest(target).unwrap();
            let datagram = udp::datagram((source, target), (4000, 53), &message);
            exchange(&mut stack, &container, &packet(target, protocol::UDP, &datagram, None));
        }
    }
}

fn syn(port: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let segment = Segment {
        source: port,
        target: 80,
        seq: Seq(5),
        ack: Seq(0),
        flags: flag::SYN,
        window: 9000,
        options: Options::default(),
        payload: b"",
    };
    write_header(&mut bytes, &segment);
    bytes
}

#[test]
fn what_an_isolated_container_opens_is_refused_and_leaves_nothing() {
    let (mut stack, container) = isolated();
    for (target, protocol) in
        [("203.0.113.9", protocol::ICMP), ("127.0.0.1", protocol::ICMP), ("10.0.2.2", protocol::ICMP)]
    {
        let answers = exchange(
            &mut stack,
            &container,
            &packet(target.parse().unwrap(), protocol::TCP, &syn(4000), None),
        );
        let answer = ip::Packet::parse(&answers[0][24..]).unwrap();
        assert_eq!((answer.protocol, answer.payload[0]), (protocol, 3), "{target}: unreachable");
    }
    assert_eq!(stack.streams(), 0);
}

#[test]
fn an_isolated_container_learns_that_names_do_not_exist() {
    let (mut stack, container) = isolated();
    let target = "10.0.2.3".parse().unwrap();
    let source = Addresses::default().guest(target).unwrap();
    let datagram = udp::datagram((source, target), (4000, 53), &dns::query(9, "example.org", dns::kind::A));
    let answers = exchange(&mut stack, &container, &packet(target, protocol::UDP, &datagram, None));
    let answer = ip::Packet::parse(&answers[0][24..]).unwrap();
    let datagram = udp::Datagram::parse(answer.payload, (answer.source, answer.target), false).unwrap();
    assert_eq!((datagram.source, datagram.target), (53, 4000));
    assert_eq!((datagram.payload[..2].to_vec(), datagram.payload[3] & 15), (vec![0, 9], dns::code::NO_NAME));
}

#[test]
fn the_gateway_answers_ping_and_arp() {
    let (mut stack, container) = isolated();
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0x42, 10, 0, 2, 100, 10, 0, 2, 100, 0, 0, 0, 0, 0, 0];
    arp.extend_from_slice(&[10, 0, 2, 2]);
    let answers = exchange(&mut stack, &container, &frame(kind::ARP, &arp));
    assert_eq!(answers[0][24 + 8..24 + 18], [2, 0x42, 10, 0, 2, 2, 10, 0, 2, 2]);
    let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
    echo.extend_from_slice(b"ping");
    let mut bytes = packet("10.0.2.2".parse().unwrap(), protocol::ICMP, &echo, None);
    bytes[0] = 1;
    let answers = exchange(&mut stack, &container, &bytes);
    let answer = ip::Packet::parse(&answers[0][24..]).unwrap();
    assert_eq!((answer.payload[0], &answer.payload[8..]), (0, &b"ping"[..]));
}
