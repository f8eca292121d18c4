//! One epoll(7) descriptor for the link and every socket of a stack.
//!
//! Flows are watched edge-triggered for everything, once: a connection costs one
//! epoll_ctl, and each flow remembers what it may still read and write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::Timespec;

use super::slots::Number;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The container sent frames.
    Link,
    /// Somebody comes to a published port.
    Listener(u32),
    /// A TCP flow's socket.
    Stream(Number),
    /// A UDP flow's socket.
    Datagram(Number),
    /// The socket of a question that was passed on.
    Query(Number),
    /// A ping socket.
    Echo(Number),
    /// Our end of a connection to the name server.
    Conversation(Number),
    /// The server's.
    Server(Number),
    /// Questions came to a socket of the host.
    Questions,
    /// Somebody wants to ask over TCP there.
    Callers,
}

impl Source {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Link => (0, Number { index: 0, tenant: 0 }),
            Self::Listener(index) => (1, Number { index, tenant: 0 }),
            Self::Stream(number) => (2, number),
            Self::Datagram(number) => (3, number),
            Self::Query(number) => (4, number),
            Self::Echo(number) => (5, number),
            Self::Conversation(number) => (6, number),
            Self::Server(number) => (7, number),
            Self::Questions => (8, Number { index: 0, tenant: 0 }),
            Self::Callers => (9, Number { index: 0, tenant: 0 }),
        };
        kind << 56 | u64::from(number.tenant) << 32 | u64::from(number.index)
    }

    fn unpack(data: u64) -> Option<Self> {
        let index = u32::try_from(data & 0xffff_ffff).ok()?;
        let tenant = u32::try_from(data >> 32 & 0x00ff_ffff).ok()?;
        let number = Number { index, tenant };
        Some(match data >> 56 {
            0 => Self::Link,
            1 => Self::Listener(index),
            2 => Self::Stream(number),
            3 => Self::Datagram(number),
            4 => Self::Query(number),
            5 => Self::Echo(number),
            6 => Self::Conversation(number),
            7 => Self::Server(number),
            8 => Self::Questions,
            9 => Self::Callers,
            _ => return None,
        })
    }
}

/// What a socket can do now that it could not before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    /// There is something to read, or the end.
    pub readable: bool,
    /// There is room to write, or an error to be found out.
    pub writable: bool,
    /// The other side says no more: behind what is to be read comes the end, and no further event.
    pub ended: bool,
}

/// The epoll descriptor.
#[derive(Debug)]
pub struct Events(OwnedFd);

impl Events {
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Watches for everything, from the next change on and for what there is already.
    pub fn add(&self, fd: impl AsFd, source: Source) -> rustix::io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.0, fd, EventData::new_u64(source.pack()), flags)
    }

    /// Watches for something to read, from the next change on and for what there is already.
    pub fn add_input(&self, fd: impl AsFd, source: Source) -> rustix::io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.0, fd, EventData::new_u64(source.pack()), flags)
    }

    /// Watches for something to read, as long as there is something.
    pub fn add_level(&self, fd: impl AsFd, source: Source) -> rustix::io::Result<()> {
        epoll::add(&self.0, fd, EventData::new_u64(source.pack()), EventFlags::IN)
    }

    /// Watches no more.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// What has happened; does not wait.
    pub fn poll(&self) -> Vec<(Source, Happened)> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
        let count = epoll::wait(&self.0, &mut events[..], Some(&now)).unwrap_or(0);
        let read = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let write = EventFlags::OUT | EventFlags::HUP | EventFlags::ERR;
        let end = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let happened = |flags: EventFlags| Happened {
            readable: flags.intersects(read),
            writable: flags.intersects(write),
            ended: flags.intersects(end),
        };
        events[..count]
            .iter()
            .filter_map(|event| Some((Source::unpack(event.data.u64())?, happened(event.flags))))
            .collect()
    }
}
