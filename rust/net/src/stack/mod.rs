//! The stack of one container: its link on one side, sockets of the host on the other.
//!
//! One thread, one epoll descriptor ([`Stack::descriptor`]), no call that blocks. Whoever owns
//! the loop calls [`Stack::turn`] when that descriptor is readable or [`Stack::patience`] is over.
//! A turn reads frames until the link is empty or it has had its share, then lets every flow
//! that was touched say what it has to say, so that one acknowledgement answers many frames.
//!
//! ```text
//!   link --frames--> guest ---> streams (TCP) ---> host's sockets
//!                      |------> datagrams (UDP), resolver (DNS), echo (ICMP)
//!   published listeners ------> streams, datagrams: the other way round
//! ```

mod conversations;
mod datagrams;
mod doors;
mod echo;
mod events;
mod guest;
mod link;
mod policy;
mod publish;
mod resolver;
mod slots;
mod stream;
mod streams;
mod timers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub use doors::Doors;
pub use policy::{has_ipv6, is_public, own_address};
pub use publish::{bind, reserve, Protocol, Published};
pub use resolver::{servers, Names};

use crate::fragment::Fragments;
use crate::tcp::{Config, Time};
use crate::wire::ethernet::Mac;
use events::{Events, Source};
use link::Link;

/// The container's and our own addresses of one family on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family<A> {
    /// The container's.
    pub guest: A,
    /// Ours: the way out, and the host.
    pub gateway: A,
    /// Ours: the name server.
    pub resolver: A,
    /// Bits of the network that all three are in.
    pub prefix: u8,
}

/// The link's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The container's hardware address.
    pub guest_mac: Mac,
    /// Ours.
    pub gateway_mac: Mac,
    /// IPv4.
    pub v4: Family<Ipv4Addr>,
    /// IPv6, where the host has it.
    pub v6: Option<Family<Ipv6Addr>>,
    /// The largest packet.
    pub mtu: u16,
}

impl Default for Addresses {
    /// The addresses that slirp has had since 1995, and a unique local network.
    fn default() -> Self {
        let v6 = |last| Ipv6Addr::new(0xfd00, 0xd0c2, 0, 0, 0, 0, 0, last);
        Self {
            guest_mac: [2, 0x42, 10, 0, 2, 100],
            gateway_mac: [2, 0x42, 10, 0, 2, 2],
            v4: Family {
                guest: Ipv4Addr::new(10, 0, 2, 100),
                gateway: Ipv4Addr::new(10, 0, 2, 2),
                resolver: Ipv4Addr::new(10, 0, 2, 3),
                prefix: 24,
            },
            v6: Some(Family { guest: v6(0x64), gateway: v6(2), resolver: v6(3), prefix: 64 }),
            mtu: 1500,
        }
    }
}

impl Addresses {
    /// The container's address in the family of `other`.
    #[must_use]
    pub fn guest(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => Some(self.v4.guest.into()),
            IpAddr::V6(_) => self.v6.map(|v6| v6.guest.into()),
        }
    }

    /// Our address in the family of `other`.
    #[must_use]
    pub fn gateway(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => Some(self.v4.gateway.into()),
            IpAddr::V6(_) => self.v6.map(|v6| v6.gateway.into()),
        }
    }

    /// Whether this is the name server's address.
    #[must_use]
    pub fn is_resolver(&self, address: IpAddr) -> bool {
        address == self.v4.resolver || self.v6.is_some_and(|v6| address == v6.resolver)
    }

    /// Whether this is the gateway's address.
    #[must_use]
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        address == self.v4.gateway || self.v6.is_some_and(|v6| address == v6.gateway)
    }
}

/// What a stack is made of.
#[derive(Debug)]
pub struct Settings {
    /// The link's addresses.
    pub addresses: Addresses,
    /// The gateway's address leads to the host's loopback, not only to its other addresses.
    pub host_loopback: bool,
    /// Connections may leave the host; without it only names and published ports work.
    pub reaches_out: bool,
    /// Name servers to ask instead of the host's own.
    pub servers: Vec<IpAddr>,
    /// Ports of the host that lead in.
    pub published: Vec<Published>,
    /// Names that are answered here.
    pub names: Option<Box<dyn Names>>,
}

/// Bytes and packets as the container counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes to the container.
    pub received_bytes: u64,
    /// Frames to the container; one that the link cuts up counts once.
    pub received_packets: u64,
    /// Bytes from it.
    pub sent_bytes: u64,
    /// Frames from it.
    pub sent_packets: u64,
}

/// How long one turn may take before others have theirs.
const TURN: Duration = Duration::from_millis(2);
/// How long it is looked again after something happened: whoever was answered mostly has more to say at once, and to
/// be woken for it takes longer than this. Others that want the processor have it meanwhile. Measured on two idle
/// processors, 2026-11: a round trip takes 42 instead of 81 us, a connection 115 instead of 205, for less time of ours.
const LINGER: Duration = Duration::from_micros(20);
/// Frames that are read before the flows they touched are looked after.
const BATCH: usize = 32;

/// The stack.
#[derive(Debug)]
pub struct Stack {
    addresses: Addresses,
    host_loopback: bool,
    reaches_out: bool,
    events: Events,
    link: Link,
    fragments: Fragments,
    streams: streams::Streams,
    datagrams: datagrams::Datagrams,
    echoes: echo::Echoes,
    resolver: resolver::Resolver,
    published: Vec<publish::Listener>,
    doors: Option<Doors>,
    timers: timers::Timers,
    config: Config,
    started: Instant,
    /// The time of this turn.
    now: Time,
    random: u64,
    traffic: Traffic,
}

impl Stack {
    /// Takes over `link`: a tap, or anything else that keeps frames apart, each behind a `virtio_net_hdr`.
    ///
    /// # Errors
    /// EMFILE, ENOMEM; the descriptor is none that can be waited for.
    pub fn new(link: OwnedFd, settings: Settings) -> rustix::io::Result<Self> {
        let events = Events::new()?;
        let link = Link::new(link, &settings.addresses)?;
        // Its room to write is not waited for: what does not fit is lost, as on any link.
        events.add_input(link.descriptor(), Source::Link)?;
        let mut published = Vec::new();
        for (number, one) in (0..).zip(settings.published) {
            events.add_level(&one.socket, Source::Listener(number))?;
            published.push(publish::Listener::new(one));
        }
        let segment_size = settings.addresses.mtu - 40;
        let config = Config {
            segment_size,
            burst: link::BURST,
            window: link.window(),
            most_queued: 1 << 20,
            keepalive: Time::from_secs(7200),
        };
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self {
            addresses: settings.addresses,
            host_loopback: settings.host_loopback,
            reaches_out: settings.reaches_out,
            events,
            link,
            fragments: Fragments::default(),
            streams: streams::Streams::default(),
            datagrams: datagrams::Datagrams::default(),
            echoes: echo::Echoes::default(),
            resolver: resolver::Resolver::new(settings.servers, settings.names),
            published,
            doors: None,
            timers: timers::Timers::default(),
            config,
            started: Instant::now(),
            now: Time::ZERO,
            random: u64::from_ne_bytes(seed) | 1,
            traffic: Traffic::default(),
        })
    }

    /// A name server alone, for a container without a link.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn of_doors(doors: Doors, settings: Settings) -> rustix::io::Result<Self> {
        // What nobody writes to brings no frames.
        let silence = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        let mut this = Self::new(silence, settings)?;
        this.events.add_level(&doors.datagrams, Source::Questions)?;
        this.events.add_level(&doors.listener, Source::Callers)?;
        this.doors = Some(doors);
        Ok(this)
    }

    /// Readable when [`Stack::turn`] has something to do.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.descriptor()
    }

    /// What went through so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The link's addresses.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How long there is nothing to do unless the descriptor says so.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let now = self.started.elapsed();
        self.timers.next().map(|at| at.saturating_sub(now))
    }

    /// Does what there is to do, for a few milliseconds at most. Answers whether there may be more.
    pub fn turn(&mut self) -> bool {
        let begun = Instant::now();
        let mut quiet_since = None;
        loop {
            self.now = self.started.elapsed();
            self.run_timers();
            let found = self.events.poll();
            let is_busy = !found.is_empty();
            for (source, happened) in found {
                self.handle(source, happened);
            }
            let more = self.read_link();
            self.look_after_streams();
            if is_busy || more {
                quiet_since = Some(Instant::now());
            } else if quiet_since.is_some_and(|since| since.elapsed() < LINGER) {
                rustix::thread::sched_yield();
                continue;
            } else {
                return false;
            }
            if begun.elapsed() > TURN {
                return true;
            }
        }
    }

    fn handle(&mut self, source: Source, happened: events::Happened) {
        match source {
            Source::Link => self.link.set_readable(),
            Source::Listener(number) => self.accept(number),
            Source::Stream(flow) => self.on_stream_event(flow, happened),
            Source::Datagram(flow) => self.on_datagram_event(flow),
            Source::Query(query) => self.on_answer(query),
            Source::Echo(flow) => self.on_echo_event(flow),
            Source::Conversation(number) => self.on_conversation(number),
            Source::Server(number) => self.on_server(number),
            Source::Questions => self.on_questions(),
            Source::Callers => self.on_callers(),
        }
    }

    /// Reads a batch of frames; answers whether there are more.
    fn read_link(&mut self) -> bool {
        let mut frame = self.link.take_buffer();
        let mut more = self.link.is_readable();
        for _ in 0..BATCH {
            if !self.link.read(&mut frame) {
                more = false;
                break;
            }
            self.traffic.sent_packets += 1;
            self.traffic.sent_bytes += (frame.len() - link::OFFLOAD) as u64;
            self.on_frame(&frame);
        }
        self.link.give_buffer(frame);
        more
    }

    fn run_timers(&mut self) {
        while let Some(what) = self.timers.take(self.now) {
            match what {
                timers::Timer::Stream(flow) => self.on_stream_timer(flow),
                timers::Timer::Datagram(flow) => self.on_datagram_timer(flow),
                timers::Timer::Query(query) => self.on_query_timer(query),
                timers::Timer::Echo(flow) => self.on_echo_timer(flow),
                timers::Timer::Listeners => self.resume_accepting(),
                timers::Timer::Rest => self.rest(),
            }
        }
    }

    /// Without a connection for a while: memory that only speed needs goes back.
    fn rest(&mut self) {
        if self.streams() == 0 {
            self.link.rest();
        }
    }

    /// xorshift64*: initial sequence numbers that nobody on the host's network ever sees.
    fn random(&mut self) -> u32 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        u32::try_from(self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or(0)
    }
}

impl AsFd for Stack {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}
