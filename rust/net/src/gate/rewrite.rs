//! The front of those who cannot copy a caller's descriptors: the caller makes the calls itself, with other arguments.
//!
//! Of a tracer's kind: it sees a call before it is run, may change it, sees how it ended, and may then
//! have another one run in its place ([`Run::then`]). What a socket is cannot be asked of a descriptor from
//! outside, so it is remembered by the socket's inode from socket(2) and accept(2) on. One that was not made
//! here (it came from outside by inheritance or in a message) is not told where to go, and may not go anywhere new.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;

use super::caller::{address, address_bytes, is_unspecified, Message, Stopped, FAST_OPEN, MOST_PARTS};
use super::kinds::{admit, Admitted};
use super::rules::{fit, Kind, Place, Protocol, Route, Rules, TRIES};
use super::socket_address::{encode, parse, LONGEST};

/// A call that a caller is had to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// bind(2).
    Bind,
    /// listen(2).
    Listen,
    /// getsockname(2).
    Getsockname,
    /// setsockopt(2).
    Setsockopt,
}

/// An argument in the place of the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// This number.
    Word(u64),
    /// A pointer to these bytes.
    Bytes(Vec<u8>),
    /// The same, with pointers in it: at the first offset stands the address of the second.
    Block(Vec<u8>, Vec<(usize, usize)>),
}

/// How a call ended that was run for us.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What it returned; an errno is negative.
    pub result: i64,
    /// The arguments that it was run with.
    pub arguments: [u64; 6],
}

/// What follows a call.
pub type Then = Box<dyn FnOnce(&mut Rewriter, &dyn Stopped, Ended) -> Outcome>;

/// A call to be run: another than the caller's, or with other arguments.
#[derive(Default)]
pub struct Run {
    /// `None`: the caller's own.
    pub call: Option<Kernel>,
    /// By their index; the others are the caller's.
    pub arguments: Vec<(usize, Argument)>,
    /// What follows.
    pub then: Option<Then>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Run")
            .field("call", &self.call)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

/// What becomes of a call, or of the end of one.
#[derive(Debug)]
pub enum Step {
    /// It is not the gate's business; at the end: the result stands.
    GoOn,
    /// It returns this.
    Value(i64),
    /// This is run.
    Run(Run),
}

/// A step, or the errno that the call fails with.
pub type Outcome = Result<Step, Errno>;

/// Answers one kind of call.
pub type Answer = fn(&mut Rewriter, &dyn Stopped) -> Outcome;

/// The calls that are caught, by the kernel's names, and what answers. Those of [`super::front::CALLS`], and those that tell
/// an address, which can be looked at afterwards here.
pub const CALLS: &[(&str, Answer)] = &[
    ("socket", Rewriter::socket),
    ("bind", Rewriter::bind),
    ("listen", Rewriter::listen),
    ("connect", Rewriter::connect),
    ("accept", Rewriter::accept),
    ("accept4", Rewriter::accept),
    ("sendto", Rewriter::sendto),
    ("sendmsg", Rewriter::sendmsg),
    ("sendmmsg", Rewriter::sendmmsg),
    ("recvfrom", Rewriter::recvfrom),
    ("recvmsg", Rewriter::recvmsg),
    ("recvmmsg", Rewriter::recvmmsg),
    ("getsockname", Rewriter::getsockname),
    ("getpeername", Rewriter::getpeername),
    ("setsockopt", Rewriter::setsockopt),
];

const GO_ON: Outcome = Ok(Step::GoOn);
/// IPPROTO_IPV6, IPV6_V6ONLY (linux/in6.h).
pub const V6_ONLY: (u32, u32) = (41, 26);
/// SOL_IP, IP_BIND_ADDRESS_NO_PORT: the port is chosen when the other end is known, so that there are enough.
const BIND_NO_PORT: (u32, u32) = (0, 24);
/// SOL_SOCKET, SO_REUSEADDR.
const REUSE: (u32, u32) = (1, 2);
/// Messages of one sendmmsg that are rewritten at once: what has room beside the caller's memory. The kernel, too, may send fewer.
const MOST_MESSAGES: u64 = 64;
/// Sockets that are remembered before those that are gone are looked for.
const MOST: usize = 4096;

/// What is known of a socket.
#[derive(Debug, Clone, Copy)]
struct Socket {
    kind: Kind,
    /// It has been bound on the host.
    is_bound: bool,
    /// It asked for any port; which is settled when it listens, or asks.
    wants: Option<SocketAddr>,
    is_connected: bool,
}

impl Socket {
    fn new(kind: Kind) -> Self {
        Self { kind, is_bound: false, wants: None, is_connected: false }
    }
}

/// The gate of one container whose callers do everything themselves.
#[derive(Debug)]
pub struct Rewriter {
    rules: Rules,
    sockets: HashMap<u64, Socket>,
    /// Look for sockets that are gone when there are so many.
    most: usize,
    /// net.ipv6.bindv6only.
    is_v6_only: bool,
}

impl Rewriter {
    /// A gate with these rules; `is_v6_only`: sockets of IPv6 take no IPv4 unless told to.
    #[must_use]
    pub fn new(rules: Rules, is_v6_only: bool) -> Self {
        Self { rules, sockets: HashMap::new(), most: MOST, is_v6_only }
    }

    /// Whether it is time to [`Self::forget`].
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.sockets.len() >= self.most
    }

    /// Forgets sockets that are not among these inodes.
    pub fn forget(&mut self, open: &std::collections::HashSet<u64>) {
        self.sockets.retain(|inode, _| open.contains(inode));
        self.most = MOST.max(self.sockets.len() * 2);
    }

    /// What rules there are.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    fn find(&self, caller: &dyn Stopped) -> Option<(u64, Socket)> {
        let inode = caller.socket(caller.argument(0) as i32)?;
        Some((inode, *self.sockets.get(&inode)?))
    }

    /// The socket of a call that names an address of ours; `None`: it is of another family. Whatever has an address of ours and is
    /// not known came from outside.
    fn named(&self, caller: &dyn Stopped, at: u64, length: u64) -> Result<Option<(u64, Socket)>, Errno> {
        if let Some(found) = self.find(caller) {
            return Ok(Some(found));
        }
        let bytes = address_bytes(caller, at, length.min(LONGEST as u64))?;
        match parse(&bytes) {
            Some(_) => Err(Errno::ACCESS),
            None => Ok(None),
        }
    }

    fn note(&mut self, inode: u64, change: impl FnOnce(&mut Socket)) {
        if let Some(socket) = self.sockets.get_mut(&inode) {
            change(socket);
        }
    }

    fn socket(&mut self, caller: &dyn Stopped) -> Outcome {
        let (family, kind, protocol) = (caller.argument(0), caller.argument(1), caller.argument(2));
        match admit(family as u32, kind as u32, protocol as u32)? {
            Admitted::Unix | Admitted::Routes => GO_ON,
            Admitted::Netlink => Err(Errno::PROTONOSUPPORT),
            Admitted::Ours(kind) => {
                let kind = Kind { is_v6_only: kind.is_v6 && self.is_v6_only, ..kind };
                Ok(after(move |this, caller, ended| {
                    if let Some(inode) = caller.socket(i32::try_from(ended.result).unwrap_or(-1)) {
                        this.sockets.insert(inode, Socket::new(kind));
                    }
                    GO_ON
                }))
            }
        }
    }

    fn bind(&mut self, caller: &dyn Stopped) -> Outcome {
        let (at, length) = (caller.argument(1), caller.argument(2));
        let Some((inode, socket)) = self.named(caller, at, length)? else { return GO_ON };
        let asked = address(caller, at, length)?;
        if asked.is_ipv6() != socket.kind.is_v6 {
            return Err(Errno::AFNOSUPPORT);
        }
        if socket.is_bound || socket.wants.is_some() {
            return Err(Errno::INVAL);
        }
        if socket.kind.protocol == Protocol::Tcp
            && asked.port() == 0
            && asked.ip().to_canonical().is_unspecified()
        {
            // Most who do this connect next, and a port of our loopback would lead nowhere.
            self.note(inode, |socket| socket.wants = Some(asked));
            return Ok(Step::Value(0));
        }
        self.place(inode, socket, asked, None)
    }

    /// Binds a socket; then `next` is run.
    fn place(&mut self, inode: u64, socket: Socket, asked: SocketAddr, next: Option<Run>) -> Outcome {
        let place = self.rules.bind(socket.kind, asked)?;
        let mut options = Vec::new();
        if place.is_held {
            options.push(set(REUSE, 1));
        }
        if place.host.is_ipv4() && socket.kind.is_v6_only {
            // Our loopback has an address of IPv4 alone.
            options.push(set(V6_ONLY, 0));
        }
        Ok(Step::Run(in_turn(options, Self::bound((inode, socket), asked, place, TRIES, next))))
    }

    fn bound(
        (inode, socket): (u64, Socket),
        asked: SocketAddr,
        place: Place,
        tries: usize,
        next: Option<Run>,
    ) -> Run {
        let arguments = name(1, fit(socket.kind.is_v6, place.host));
        let then: Then = Box::new(move |this, _, ended| {
            match ended.result {
                0 => {}
                error if error == refusal(Errno::ADDRINUSE) && !place.is_held && tries > 0 => {
                    let host = this.rules.elsewhere(socket.kind, asked).ok_or(Errno::ADDRINUSE)?;
                    let (place, known) = (Place { host, ..place }, (inode, socket));
                    return Ok(Step::Run(Self::bound(known, asked, place, tries - 1, next)));
                }
                _ => return GO_ON,
            }
            this.note(inode, |socket| socket.is_bound = true);
            if place.host.port() != 0 {
                this.rules.remember(socket.kind, asked, place.host);
                return Ok(next.map_or(Step::GoOn, Step::Run));
            }
            let learn: Then = Box::new(move |this, caller, ended| {
                if let Some(host) = told(caller, ended) {
                    this.rules.remember(socket.kind, asked, host);
                }
                Ok(next.map_or(Step::GoOn, Step::Run))
            });
            Ok(Step::Run(Run { call: Some(Kernel::Getsockname), arguments: room(), then: Some(learn) }))
        });
        Run { call: Some(Kernel::Bind), arguments, then: Some(then) }
    }

    fn listen(&mut self, caller: &dyn Stopped) -> Outcome {
        let Some((inode, socket)) = self.find(caller) else { return GO_ON };
        if socket.is_bound || socket.kind.protocol != Protocol::Tcp {
            return GO_ON;
        }
        // The kernel would take a port on every address of the host.
        let listen = Run { call: Some(Kernel::Listen), ..Run::default() };
        self.place(inode, socket, socket.wants.unwrap_or(anywhere(socket.kind)), Some(listen))
    }

    fn connect(&mut self, caller: &dyn Stopped) -> Outcome {
        let (at, length) = (caller.argument(1), caller.argument(2));
        let Some((inode, socket)) = self.named(caller, at, length)? else { return GO_ON };
        if is_unspecified(caller, at, length)? {
            self.note(inode, |socket| socket.is_connected = false);
            return GO_ON;
        }
        let target = address(caller, at, length)?;
        if target.is_ipv6() != socket.kind.is_v6 && socket.kind.protocol == Protocol::Tcp {
            return Err(Errno::AFNOSUPPORT);
        }
        let (options, host) = self.translated(inode, socket, target)?;
        if options.is_empty() && host == target {
            // As it stands, and without another stop.
            self.note(inode, |socket| socket.is_connected = true);
            return GO_ON;
        }
        let then: Then = Box::new(move |this, _, ended| {
            // It may be on its way, or go on after a signal.
            let begun = [0, refusal(Errno::INPROGRESS), refusal(Errno::INTR)].contains(&ended.result);
            if begun || ended.result < -511 {
                this.note(inode, |socket| socket.is_connected = true);
            }
            GO_ON
        });
        Ok(Step::Run(in_turn(options, Run { arguments: name(1, host), then: Some(then), call: None })))
    }

    /// Where a target is on the host, and what must be done before.
    fn translated(
        &self,
        inode: u64,
        socket: Socket,
        target: SocketAddr,
    ) -> Result<(Vec<Run>, SocketAddr), Errno> {
        let Route { host, source } = match self.rules.connect(socket.kind, target) {
            Err(Errno::CONNREFUSED) if socket.kind.protocol == Protocol::Udp && socket.is_bound => {
                self.rules.answer_to(target).ok_or(Errno::CONNREFUSED)?.into()
            }
            route => route?,
        };
        let must_mix = host.is_ipv4() && socket.kind.is_v6_only;
        let mut before: Vec<Run> = must_mix.then(|| set(V6_ONLY, 0)).into_iter().collect();
        if let (Some(source), false) = (source, socket.is_bound || socket.is_connected) {
            before.extend(come_from(inode, socket, source));
        }
        Ok((before, fit(socket.kind.is_v6, host)))
    }

    fn accept(&mut self, caller: &dyn Stopped) -> Outcome {
        let Some((_, listener)) = self.find(caller) else { return GO_ON };
        let room = (caller.argument(1) != 0).then(|| length_at(caller, caller.argument(2))).transpose()?;
        Ok(after(move |this, caller, ended| {
            if let Some(inode) = caller.socket(i32::try_from(ended.result).unwrap_or(-1)) {
                let accepted = Socket { is_bound: true, is_connected: true, ..Socket::new(listener.kind) };
                this.sockets.insert(inode, accepted);
                if let Some(room) = room {
                    this.retell(caller, listener, (caller.argument(1), caller.argument(2)), room);
                }
            }
            GO_ON
        }))
    }

    fn sendto(&mut self, caller: &dyn Stopped) -> Outcome {
        let (at, length) = (caller.argument(4), caller.argument(5));
        if at == 0 {
            return GO_ON;
        }
        let Some((inode, socket)) = self.named(caller, at, length)? else { return GO_ON };
        if socket.kind.protocol == Protocol::Tcp {
            return with_name_of_a_stream(caller.argument(3));
        }
        let target = address(caller, at, length)?;
        let (options, host) = self.translated(inode, socket, target)?;
        if options.is_empty() && host == target {
            return GO_ON;
        }
        Ok(Step::Run(in_turn(options, Run { arguments: name(4, host), ..Run::default() })))
    }

    fn sendmsg(&mut self, caller: &dyn Stopped) -> Outcome {
        let message = Message::read(caller, caller.argument(1))?;
        if message.name == 0 {
            return GO_ON;
        }
        let (at, length) = (message.name, u64::from(message.name_length));
        let Some((inode, socket)) = self.named(caller, at, length)? else { return GO_ON };
        if socket.kind.protocol == Protocol::Tcp {
            return with_name_of_a_stream(caller.argument(2));
        }
        let (options, host) = self.translated(inode, socket, address(caller, at, length)?)?;
        let mut block = Block::default();
        block.header(caller, caller.argument(1), Message::LENGTH, Some(host))?;
        Ok(Step::Run(in_turn(options, Run { arguments: vec![(1, block.finish())], ..Run::default() })))
    }

    fn sendmmsg(&mut self, caller: &dyn Stopped) -> Outcome {
        let count = caller.argument(2).min(MOST_PARTS);
        let at = |index: u64| caller.argument(1) + index * Message::LENGTH_OF_SEVERAL;
        let messages =
            (0..count).map(|index| Message::read(caller, at(index))).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = messages.iter().find(|message| message.name != 0) else { return GO_ON };
        let Some((inode, socket)) = self.named(caller, first.name, u64::from(first.name_length))? else {
            return GO_ON;
        };
        if socket.kind.protocol == Protocol::Tcp {
            return with_name_of_a_stream(caller.argument(3));
        }
        let (mut block, mut options, mut sent) = (Block::default(), Vec::new(), 0);
        for (index, message) in (0..count.min(MOST_MESSAGES)).zip(&messages) {
            let named = (message.name != 0)
                .then(|| address(caller, message.name, u64::from(message.name_length)))
                .transpose()
                .and_then(|target| target.map(|target| self.translated(inode, socket, target)).transpose());
            let host = match named {
                Err(errno) if sent == 0 => return Err(errno),
                Err(_) => break,
                Ok(named) => named.map(|(more, host)| {
                    options = more;
                    host
                }),
            };
            block.header(caller, at(index), Message::LENGTH_OF_SEVERAL, host)?;
            sent += 1;
        }
        let then: Then = Box::new(move |_, caller, ended| {
            for index in 0..u64::try_from(ended.result).unwrap_or(0) {
                let offset = index * Message::LENGTH_OF_SEVERAL + Message::LENGTH;
                let mut length = [0; 4];
                caller.read(ended.arguments[1] + offset, &mut length)?;
                caller.write(caller.argument(1) + offset, &length)?;
            }
            GO_ON
        });
        let arguments = vec![(1, block.finish()), (2, Argument::Word(sent))];
        Ok(Step::Run(in_turn(options, Run { arguments, then: Some(then), call: None })))
    }

    fn datagrams(&self, caller: &dyn Stopped) -> Option<Socket> {
        self.find(caller).map(|(_, socket)| socket).filter(|socket| socket.kind.protocol == Protocol::Udp)
    }

    fn recvfrom(&mut self, caller: &dyn Stopped) -> Outcome {
        if caller.argument(4) == 0 || caller.argument(5) == 0 {
            return GO_ON;
        }
        let Some(socket) = self.datagrams(caller) else { return GO_ON };
        let room = length_at(caller, caller.argument(5))?;
        Ok(after(move |this, caller, ended| {
            if ended.result >= 0 {
                this.retell(caller, socket, (caller.argument(4), caller.argument(5)), room);
            }
            GO_ON
        }))
    }

    fn recvmsg(&mut self, caller: &dyn Stopped) -> Outcome {
        self.received(caller, Message::LENGTH, |_| 1)
    }

    fn recvmmsg(&mut self, caller: &dyn Stopped) -> Outcome {
        self.received(caller, Message::LENGTH_OF_SEVERAL, |result| u64::try_from(result).unwrap_or(0))
    }

    fn received(&mut self, caller: &dyn Stopped, step: u64, count: fn(i64) -> u64) -> Outcome {
        let Some(socket) = self.datagrams(caller) else { return GO_ON };
        let most = if step == Message::LENGTH { 1 } else { caller.argument(2).min(MOST_PARTS) };
        let mut names = Vec::new();
        for index in 0..most {
            let message = Message::read(caller, caller.argument(1) + index * step)?;
            names.push((message.name, message.name_length as usize));
        }
        if names.iter().all(|(name, _)| *name == 0) {
            return GO_ON;
        }
        Ok(after(move |this, caller, ended| {
            if ended.result >= 0 {
                for (index, (name, room)) in (0..count(ended.result)).zip(&names) {
                    if *name != 0 {
                        let length = caller.argument(1) + index * step + 8;
                        this.retell(caller, socket, (*name, length), *room);
                    }
                }
            }
            GO_ON
        }))
    }

    /// Puts the container's view of a peer where the kernel has put its own. What cannot be read any more stays as it is.
    fn retell(&self, caller: &dyn Stopped, socket: Socket, (at, length): (u64, u64), room: usize) {
        let _ = rewrite(caller, (at, length), room, |host| self.rules.peer(socket.kind, host));
    }

    fn getsockname(&mut self, caller: &dyn Stopped) -> Outcome {
        let Some((inode, socket)) = self.find(caller) else { return GO_ON };
        if let (Some(asked), false, false) = (socket.wants, socket.is_bound, socket.is_connected) {
            let room = length_at(caller, caller.argument(2))?;
            let ask = Run {
                call: Some(Kernel::Getsockname),
                ..Self::own_name(Socket { is_bound: true, ..socket }, room)
            };
            return self.place(inode, socket, asked, Some(ask));
        }
        let room = length_at(caller, caller.argument(2))?;
        Ok(Step::Run(Self::own_name(socket, room)))
    }

    fn own_name(socket: Socket, room: usize) -> Run {
        let then: Then = Box::new(move |this, caller, ended| {
            if ended.result == 0 {
                let view = |host| this.rules.local(socket.kind, host, socket.is_connected);
                rewrite(caller, (caller.argument(1), caller.argument(2)), room, view)?;
            }
            GO_ON
        });
        Run { then: Some(then), ..Run::default() }
    }

    fn getpeername(&mut self, caller: &dyn Stopped) -> Outcome {
        let Some((_, socket)) = self.find(caller) else { return GO_ON };
        let room = length_at(caller, caller.argument(2))?;
        Ok(after(move |this, caller, ended| {
            if ended.result == 0 {
                this.retell(caller, socket, (caller.argument(1), caller.argument(2)), room);
            }
            GO_ON
        }))
    }

    /// IPV6_V6ONLY alone means anything to us.
    fn setsockopt(&mut self, caller: &dyn Stopped) -> Outcome {
        if (caller.argument(1) as u32, caller.argument(2) as u32) != V6_ONLY {
            return GO_ON;
        }
        let Some((inode, _)) = self.find(caller) else { return GO_ON };
        let mut value = [0; 4];
        caller.read(caller.argument(3), &mut value)?;
        Ok(after(move |this, _, ended| {
            if ended.result == 0 {
                this.note(inode, |socket| socket.kind.is_v6_only = value != [0; 4]);
            }
            GO_ON
        }))
    }
}

fn refusal(errno: Errno) -> i64 {
    -i64::from(errno.raw_os_error())
}

/// The caller's own call, looked at afterwards.
fn after(then: impl FnOnce(&mut Rewriter, &dyn Stopped, Ended) -> Outcome + 'static) -> Step {
    Step::Run(Run { then: Some(Box::new(then)), ..Run::default() })
}

/// One call after another, whatever the earlier ones say.
fn in_turn(first: Vec<Run>, last: Run) -> Run {
    first.into_iter().rev().fold(last, |next, run| {
        let also = run.then;
        let then: Then = Box::new(move |this, caller, ended| {
            if let Some(also) = also {
                also(this, caller, ended)?;
            }
            Ok(Step::Run(next))
        });
        Run { then: Some(then), ..run }
    })
}

/// Gives an unbound socket the address that neighbours know its container by.
fn come_from(inode: u64, socket: Socket, source: Ipv4Addr) -> [Run; 2] {
    let arguments = name(1, fit(socket.kind.is_v6, (source, 0).into()));
    let note: Then = Box::new(move |this, _, ended| {
        if ended.result == 0 {
            this.note(inode, |socket| socket.is_bound = true);
        }
        GO_ON
    });
    [set(BIND_NO_PORT, 1), Run { call: Some(Kernel::Bind), arguments, then: Some(note) }]
}

/// setsockopt(2) with a number.
fn set((level, option): (u32, u32), value: i32) -> Run {
    let arguments = vec![
        (1, Argument::Word(u64::from(level))),
        (2, Argument::Word(u64::from(option))),
        (3, Argument::Bytes(value.to_ne_bytes().to_vec())),
        (4, Argument::Word(4)),
    ];
    Run { call: Some(Kernel::Setsockopt), arguments, then: None }
}

/// An address and its length as arguments.
fn name(index: usize, host: SocketAddr) -> Vec<(usize, Argument)> {
    let bytes = encode(host);
    vec![(index + 1, Argument::Word(bytes.len() as u64)), (index, Argument::Bytes(bytes))]
}

/// Room for an address that is told.
fn room() -> Vec<(usize, Argument)> {
    let length = (LONGEST as u32).to_ne_bytes().to_vec();
    vec![(1, Argument::Bytes(vec![0; LONGEST])), (2, Argument::Bytes(length))]
}

/// What was told there.
fn told(caller: &dyn Stopped, ended: Ended) -> Option<SocketAddr> {
    let mut bytes = [0; LONGEST];
    caller.read(ended.arguments[1], &mut bytes).ok()?;
    (ended.result == 0).then(|| parse(&bytes)).flatten()
}

fn anywhere(kind: Kind) -> SocketAddr {
    if kind.is_v6 {
        ([0_u16; 8], 0).into()
    } else {
        ([0_u8; 4], 0).into()
    }
}

/// With an address it opens or fails; an open connection looks at none.
fn with_name_of_a_stream(flags: u64) -> Outcome {
    if flags as u32 & FAST_OPEN != 0 {
        Err(Errno::OPNOTSUPP)
    } else {
        GO_ON
    }
}

/// A length that says how much room there is.
fn length_at(caller: &dyn Stopped, at: u64) -> Result<usize, Errno> {
    let mut length = [0; 4];
    caller.read(at, &mut length)?;
    usize::try_from(i32::from_ne_bytes(length)).map_err(|_| Errno::INVAL)
}

/// Changes an address that the kernel has told, and its length.
fn rewrite(
    caller: &dyn Stopped,
    (at, length): (u64, u64),
    room: usize,
    view: impl FnOnce(SocketAddr) -> SocketAddr,
) -> Result<(), Errno> {
    let told = length_at(caller, length)?;
    if told > room {
        // Cut short: whoever has no room for it does not look at it.
        return Ok(());
    }
    let mut bytes = vec![0; told.min(LONGEST)];
    caller.read(at, &mut bytes)?;
    let Some(host) = parse(&bytes) else { return Ok(()) };
    let new = encode(view(host));
    caller.write(at, &new[..new.len().min(room)])?;
    caller.write(length, &u32::try_from(new.len()).unwrap_or(0).to_ne_bytes())
}

/// Message headers with other names, in one piece of memory.
#[derive(Debug, Default)]
struct Block {
    headers: Vec<u8>,
    /// Which header has which name.
    names: Vec<(usize, Vec<u8>)>,
}

impl Block {
    fn header(
        &mut self,
        caller: &dyn Stopped,
        at: u64,
        size: u64,
        host: Option<SocketAddr>,
    ) -> Result<(), Errno> {
        let here = self.headers.len();
        self.headers.resize(here + size as usize, 0);
        caller.read(at, &mut self.headers[here..])?;
        if let Some(host) = host {
            let name = encode(host);
            self.headers[here + 8..here + 12].copy_from_slice(&(name.len() as u32).to_ne_bytes());
            self.names.push((here, name));
        }
        Ok(())
    }

    fn finish(self) -> Argument {
        let (mut bytes, mut pointers) = (self.headers, Vec::new());
        for (header, name) in self.names {
            pointers.push((header, bytes.len()));
            bytes.extend(name);
        }
        Argument::Block(bytes, pointers)
    }
}
