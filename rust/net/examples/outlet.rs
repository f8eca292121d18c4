//! Runs a command in a network namespace of its own whose only way out is this crate: for trying and measuring.
//!
//! `outlet [--mtu N] [--host-loopback] [-p HOST:CONTAINER]... COMMAND [ARGUMENT...]`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use duckweed_net::interface;
use duckweed_net::stack::{bind, has_ipv6, Addresses, Protocol, Published, Settings, Stack};
use duckweed_sys::clone::{fork, Fork, NEWNET, NEWUSER};
use duckweed_sys::packet;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

fn main() {
    let mut words = std::env::args().skip(1).peekable();
    let mut addresses =
        Addresses { v6: Addresses::default().v6.filter(|_| has_ipv6()), ..Addresses::default() };
    let (mut host_loopback, mut published) = (false, Vec::new());
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        match option.as_str() {
            "--mtu" => addresses.mtu = words.next().unwrap().parse().unwrap(),
            "--host-loopback" => host_loopback = true,
            "-p" => {
                let (host, port) =
                    words.next().unwrap().split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, host.parse().unwrap()));
                    let (socket, _) = bind(address, protocol).unwrap();
                    published.push(Published { socket, protocol, port: port.parse().unwrap() });
                }
            }
            other => panic!("unknown option {other}"),
        }
    }
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let (ours, theirs) = packet::pair().unwrap();
    match fork(NEWUSER | NEWNET).unwrap() {
        Fork::Child => {
            std::fs::write("/proc/self/setgroups", "deny").unwrap();
            std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
            std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
            duckweed_sys::interface::loopback_up().unwrap();
            let link = interface::make("eth0", &addresses, true).unwrap();
            packet::send(theirs.as_fd(), b'l', b"", &[link.as_fd()]).unwrap();
            let error = Command::new(words.next().unwrap()).args(words).exec();
            eprintln!("{error}");
            std::process::exit(127);
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let mut buffer = [0; 8];
            let (_, fds) = packet::receive(ours.as_fd(), &mut buffer).unwrap().unwrap();
            let link = fds.into_iter().next().unwrap();
            let settings = Settings {
                addresses,
                host_loopback,
                reaches_out: true,
                servers: Vec::new(),
                published,
                names: None,
            };
            serve(Stack::new(link, settings).unwrap(), &pidfd);
        }
    }
}

/// Until the command ends.
fn serve(mut stack: Stack, pidfd: &OwnedFd) {
    let mut more = true;
    loop {
        let patience = if more { Some(std::time::Duration::ZERO) } else { stack.patience() };
        let limit = patience.map(|limit| Timespec {
            tv_sec: limit.as_secs().try_into().unwrap(),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let mut ready = [PollFd::new(&stack, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        let _ = poll(&mut ready, limit.as_ref());
        if ready[1].revents().contains(PollFlags::IN) {
            eprintln!("{:?}", stack.traffic());
            return;
        }
        more = stack.turn();
    }
}
