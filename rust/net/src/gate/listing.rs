//! What /proc/net says of sockets (proc(5)), as a container's: its own alone, with the addresses that it believes in.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::rules::{Kind, Protocol, Rules};

/// TCP_LISTEN, and a UDP socket without a peer.
const WITHOUT_PEER: [&str; 2] = ["0A", "07"];

/// The lines of `text`, a table of sockets like /proc/net/tcp, about the sockets in `open`. The first is the heading.
pub fn translate(rules: &Rules, kind: Kind, text: &str, open: &HashSet<u64>) -> String {
    let mut lines = text.lines();
    let mut out = String::new();
    out.extend(lines.next().map(|heading| format!("{heading}\n")));
    out.extend(lines.filter_map(|line| translate_line(rules, kind, line, open)));
    out
}

fn translate_line(rules: &Rules, kind: Kind, line: &str, open: &HashSet<u64>) -> Option<String> {
    let mut words = line.split_whitespace();
    let (number, local, peer, state) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let rest: Vec<&str> = words.collect();
    // Queues, timers and retransmits; then the owner, probes, and the inode.
    let inode = rest.get(5)?.parse().ok()?;
    if !open.contains(&inode) {
        return None;
    }
    let has_peer = !WITHOUT_PEER.contains(&state);
    let local = rules.local(kind, parse(local)?, has_peer);
    let there = parse(peer)?;
    let there = if has_peer { rules.peer(kind, there) } else { there };
    let (local, there) = (write(kind, local), write(kind, there));
    let (before, after) = (rest.get(..3)?.join(" "), rest.get(4..)?.join(" "));
    Some(format!("{number:>6} {local} {there} {state} {before}     0 {after}\n"))
}

/// Words of 32 bits as the machine has them, then a port.
fn parse(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut octets = Vec::new();
    for at in (0..address.len()).step_by(8) {
        octets.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address: IpAddr = match octets.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

fn write(kind: Kind, address: SocketAddr) -> String {
    let octets = match super::rules::fit(kind.is_v6, address).ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let word = |word: &[u8]| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    format!("{}:{:04X}", octets.chunks_exact(4).map(word).collect::<String>(), address.port())
}

/// The kind of socket that a file of /proc/net is about.
#[must_use]
pub fn kind_of(name: &str) -> Option<Kind> {
    let (protocol, is_v6) = match name {
        "tcp" => (Protocol::Tcp, false),
        "tcp6" => (Protocol::Tcp, true),
        "udp" => (Protocol::Udp, false),
        "udp6" => (Protocol::Udp, true),
        _ => return None,
    };
    Some(Kind { protocol, is_v6, is_v6_only: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::rules::Terms;
    use crate::stack::Addresses;
    use proptest::prelude::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000 100 0 0 10 0
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0000 100 0 0 10 0
";

    #[test]
    fn only_sockets_of_the_container_are_told_of_and_by_its_addresses() {
        let mut rules = Rules::new(Terms::alone(Addresses::default(), 4));
        let kind = kind_of("tcp").unwrap();
        let (asked, host) = ("0.0.0.0:80".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        rules.remember(kind, asked, host);
        let text = translate(&rules, kind, TABLE, &HashSet::from([4711]));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1][..4], ["0:", "00000000:0050", "00000000:0000", "0A"]);
        assert_eq!((lines[1][7], lines[1][9]), ("0", "4711"));
        assert_eq!(lines[1].len(), TABLE.lines().nth(1).unwrap().split_whitespace().count());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9A-F: \\n]{0,200}") {
            let rules = Rules::new(Terms::alone(Addresses::default(), 4));
            for name in ["tcp", "udp6"] {
                let _ = translate(&rules, kind_of(name).unwrap(), &text, &HashSet::from([0, 1, 10]));
            }
        }

        #[test]
        fn what_is_written_is_read_again(a in any::<u128>(), port in any::<u16>(), v6 in any::<bool>()) {
            let kind = kind_of(if v6 { "tcp6" } else { "tcp" }).unwrap();
            let address: SocketAddr = if v6 { (a.to_be_bytes(), port).into() } else { ((a as u32).to_be_bytes(), port).into() };
            prop_assert_eq!(parse(&write(kind, address)), Some(address));
        }
    }
}
