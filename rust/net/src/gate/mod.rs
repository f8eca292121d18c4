//! The socket gate: a container whose sockets are the host's, told where they may go.
//!
//! Where a container cannot have an interface of ours, or wants the speed of one that it
//! does not need, its TCP and UDP sockets are made in the host's network (*born* there: the one that
//! socket(2) returns is of the host from the start, so flags, options, duplicates and epoll
//! registrations need no care). What names an address is caught: bind, connect, listen, sendto,
//! sendmsg, getsockname, getpeername. Data is not: it moves at the host's own speed.
//!
//! ```text
//!   the container's call --caught--> front --> rules: which address of the host is meant?
//!                                      |
//!                                      +-----> done on a copy of the socket, or left to the kernel
//! ```
//!
//! [`rules`] decides and remembers, without I/O. [`front`] reads the call, asks, and does it, for whoever
//! can read a caller's memory and copy its descriptors ([`Caller`]). [`rewrite`] is for who can only have the caller make other calls
//! ([`Stopped`]): a tracer. [`neighbours`] are the members of the container's networks, [`listing`] is what /proc/net tells.
//!
//! # What the container sees
//!
//! - Its own ports. A port that is published is the host's port from the moment of bind(2), and clients
//!   come with their true addresses. Any other lies on an address of 127.0.0.0/8 that is this
//!   container's alone, so two containers may both listen on 80; 127.0.0.1, ::1 and the
//!   container's own address lead there. When somebody on this machine has that port on all
//!   addresses, another is taken; the container does not see it.
//! - The gateway's address is the host, whose loopback is out of reach unless asked for.
//! - getsockname and getpeername answer with addresses of the container's world.
//!
//! # Limits
//!
//! - UDP: a socket that listens everywhere on a port that is not published gets another port of the host. What answers
//!   from a translated address is seen with the host's by who is answered by [`front`] (recvfrom and accept are not caught there).
//! - A TCP socket bound to a port and then connected to the outside is refused (EINVAL): it was
//!   bound to the loopback.
//! - No raw sockets, no multicast groups; TCP fast open by sendto is EOPNOTSUPP, and programs fall back.
//! - A bound UDP socket may answer to ports from 32768 up on the host's loopback: clients there have them.
//! - Other processes of this machine reach what the container listens on at its loopback address, as
//!   they reach any loopback port.
//! - connect and bind are done with the address as it was read. sendmsg without an address, and calls on sockets of
//!   other families, go on in the kernel, which reads memory and descriptor again: a program that races itself
//!   can send a datagram where it should not. Its namespaces, not the gate, are what holds it.

pub mod caller;
pub mod front;
pub mod kinds;
pub mod listing;
pub mod neighbours;
pub mod rewrite;
pub mod rules;
mod socket_address;

pub use caller::{Caller, Memory, Stopped};
pub use front::{Front, Reply};
pub use rules::{Protocol, Rules, Way};
