//! One epoll(7) descriptor for everything a supervisor waits for.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::Timespec;
use rustix::io::{Errno, Result};

/// What an event is about; a number goes with those that there are many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Somebody connects.
    Listener,
    /// A signal for the supervisor itself.
    Signals,
    /// Init has ended.
    Init,
    /// The emulator has ended.
    Emulation,
    /// The container reads its stdin.
    Input,
    /// It wrote to stdout or its terminal.
    Stdout,
    /// It wrote to stderr.
    Stderr,
    /// A client said something, can listen again, or left.
    Connection(u32),
    /// The command of an exec has ended.
    Session(u32),
    /// A detached command wrote to its terminal.
    Terminal(u32),
    /// The container's network has something to do.
    Network,
}

impl Source {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Init => (2, 0),
            Self::Input => (3, 0),
            Self::Stdout => (4, 0),
            Self::Stderr => (5, 0),
            Self::Connection(number) => (6, number),
            Self::Session(number) => (7, number),
            Self::Terminal(number) => (8, number),
            Self::Emulation => (9, 0),
            Self::Network => (10, 0),
        };
        kind << 32 | u64::from(number)
    }

    fn unpack(data: u64) -> Option<Self> {
        let number = u32::try_from(data & 0xffff_ffff).ok()?;
        Some(match data >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Init,
            3 => Self::Input,
            4 => Self::Stdout,
            5 => Self::Stderr,
            6 => Self::Connection(number),
            7 => Self::Session(number),
            8 => Self::Terminal(number),
            9 => Self::Emulation,
            10 => Self::Network,
            _ => return None,
        })
    }
}

/// What a descriptor is watched for right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// There is something to read, or the other side is gone.
    pub read: bool,
    /// There is room to write.
    pub write: bool,
}

impl Interest {
    /// Reading only.
    pub const READ: Self = Self { read: true, write: false };
    /// Writing only.
    pub const WRITE: Self = Self { read: false, write: true };
    /// Not watched: epoll reports a hang-up even to those who asked for nothing, so such a descriptor is taken out.
    pub const NONE: Self = Self { read: false, write: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

/// The epoll descriptor.
#[derive(Debug)]
pub struct Events(OwnedFd);

impl Events {
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM of epoll_create1(2).
    pub fn new() -> Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Goes from one interest in `fd` to another.
    ///
    /// # Errors
    /// EPERM when the descriptor cannot be waited for (a regular file), ENOMEM, ENOSPC.
    pub fn change(&self, fd: impl AsFd, source: Source, old: Interest, new: Interest) -> Result<()> {
        if old == new {
            return Ok(());
        }
        let data = EventData::new_u64(source.pack());
        if old == Interest::NONE {
            epoll::add(&self.0, fd, data, new.flags())
        } else if new == Interest::NONE {
            epoll::delete(&self.0, fd)
        } else {
            epoll::modify(&self.0, fd, data, new.flags())
        }
    }

    /// Waits for events, at most `limit`; none when the time is up or a signal came.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn wait(&self, limit: Option<Duration>, found: &mut Vec<Source>) -> Result<()> {
        found.clear();
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 32];
        let count = match epoll::wait(&self.0, &mut events[..], limit.as_ref()) {
            Err(Errno::INTR) => 0,
            counted => counted?,
        };
        found.extend(events[..count].iter().filter_map(|event| Source::unpack(event.data.u64())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_the_kernel() {
        for source in [
            Source::Listener,
            Source::Signals,
            Source::Init,
            Source::Input,
            Source::Stdout,
            Source::Stderr,
            Source::Connection(0),
            Source::Session(u32::MAX),
            Source::Terminal(7),
            Source::Emulation,
            Source::Network,
        ] {
            assert_eq!(Source::unpack(source.pack()), Some(source));
        }
    }

    #[test]
    fn a_descriptor_of_no_interest_does_not_report_its_hang_up() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let events = Events::new().unwrap();
        let mut found = Vec::new();
        events.change(&read, Source::Stdout, Interest::NONE, Interest::READ).unwrap();
        drop(write);
        events.wait(Some(Duration::ZERO), &mut found).unwrap();
        assert_eq!(found, [Source::Stdout]);
        events.change(&read, Source::Stdout, Interest::READ, Interest::NONE).unwrap();
        events.wait(Some(Duration::ZERO), &mut found).unwrap();
        assert_eq!(found, []);
    }
}
