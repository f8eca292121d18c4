//! A container's network for a user who has nothing but sockets.
//!
//! The container sees an ordinary Ethernet interface, a gateway and a name server. At the
//! other end of that link there is no wire but this crate: it takes frames apart, holds
//! one end of every connection the container makes ([`tcp`]), and moves the data to and
//! from sockets of the host. No address of the host is needed, no route, no privilege.
//!
//! [`wire`], [`tcp`] and [`fragment`] are pure: bytes in, bytes out, time passed in.
//! [`stack`] does the I/O, in one thread that waits on one descriptor, so it can live in
//! a loop that has other things to do. [`rtnetlink`] and [`interface`] make the
//! container's side of the link, from inside. [`gate`] is the other way out, where there is no link: the container's
//! sockets are the host's.
#![forbid(unsafe_code)]

pub mod fragment;
pub mod gate;
pub mod interface;
pub mod rtnetlink;
pub mod stack;
pub mod tcp;
pub mod wire;
