//! Caught calls: what the rules decide is done on a copy of the caller's socket.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::io::Errno;
use rustix::net::{
    sockopt, AddressFamily, Protocol as Number, SendFlags, SocketAddrAny, SocketFlags, SocketType,
};

use super::caller::{address, at_most, is_unspecified, tell, Caller, Message, FAST_OPEN, MOST_PARTS};
use super::kinds::{admit, Admitted};
use super::rules::{fit, Kind, Protocol, Route, Rules, TRIES};

/// Flags of a sent datagram that mean something to us: MSG_DONTROUTE, MSG_MORE, MSG_CONFIRM.
const PASSED_ON: u32 = 0x4 | 0x8000 | 0x800;
/// How long a full socket may keep us.
const PATIENCE_MS: i64 = 20;

/// What becomes of the call.
#[derive(Debug)]
pub enum Reply {
    /// The kernel runs it, or whoever else answers it.
    GoOn,
    /// It returns this.
    Value(i64),
    /// It returns a new descriptor for this socket.
    Socket {
        /// The socket.
        socket: OwnedFd,
        /// SOCK_CLOEXEC was asked for.
        close_on_exec: bool,
    },
}

/// A reply, or the errno that the call fails with.
pub type Outcome = Result<Reply, Errno>;

/// Answers one kind of call.
pub type Answer = fn(&mut Front, &dyn Caller) -> Outcome;

/// The calls that are caught, by the kernel's names, and what answers.
pub const CALLS: &[(&str, Answer)] = &[
    ("socket", Front::socket),
    ("bind", Front::bind),
    ("listen", Front::listen),
    ("connect", Front::connect),
    ("sendto", Front::sendto),
    ("sendmsg", Front::sendmsg),
    ("sendmmsg", Front::sendmmsg),
    ("getsockname", Front::getsockname),
    ("getpeername", Front::getpeername),
];

const DONE: Outcome = Ok(Reply::Value(0));
const GO_ON: Outcome = Ok(Reply::GoOn);

/// The gate of one container.
#[derive(Debug)]
pub struct Front {
    rules: Rules,
}

struct Socket {
    fd: OwnedFd,
    kind: Kind,
    is_stream: bool,
}

impl Front {
    /// A gate with these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules }
    }

    /// The socket that an argument names; `None` when the gate has nothing to do with it.
    fn known(caller: &dyn Caller) -> Result<Option<Socket>, Errno> {
        let fd = caller.descriptor(caller.argument(0) as i32)?;
        let Ok(family) = sockopt::socket_domain(&fd) else { return Ok(None) };
        let is_v6 = family == AddressFamily::INET6;
        if !is_v6 && family != AddressFamily::INET {
            return Ok(None);
        }
        let is_stream = sockopt::socket_type(&fd)? == SocketType::STREAM;
        let protocol = if is_stream { Protocol::Tcp } else { Protocol::Udp };
        let is_v6_only = is_v6 && sockopt::ipv6_v6only(&fd).unwrap_or(false);
        Ok(Some(Socket { fd, kind: Kind { protocol, is_v6, is_v6_only }, is_stream }))
    }

    /// socket(2): born in our network.
    fn socket(&mut self, caller: &dyn Caller) -> Outcome {
        let (family, kind, number) =
            (caller.argument(0), caller.argument(1) as u32, caller.argument(2) as u32);
        // Other families that are let in are of the container's namespaces.
        let Admitted::Ours(_) = admit(family as u32, kind, number)? else { return GO_ON };
        let flags =
            SocketFlags::from_bits_retain(kind & (SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).bits());
        let kind = SocketType::from_raw(kind & !flags.bits());
        let (family, number) =
            (AddressFamily::from_raw(family as u16), NonZeroU32::new(number).map(Number::from_raw));
        let socket = rustix::net::socket_with(family, kind, flags | SocketFlags::CLOEXEC, number)?;
        Ok(Reply::Socket { socket, close_on_exec: flags.contains(SocketFlags::CLOEXEC) })
    }

    fn bind(&mut self, caller: &dyn Caller) -> Outcome {
        let Some(socket) = Self::known(caller)? else { return GO_ON };
        let asked = address(caller, caller.argument(1), caller.argument(2))?;
        self.place(&socket, asked)?;
        DONE
    }

    fn place(&mut self, socket: &Socket, asked: SocketAddr) -> Result<(), Errno> {
        if asked.is_ipv6() != socket.kind.is_v6 {
            return Err(Errno::AFNOSUPPORT);
        }
        let place = self.rules.bind(socket.kind, asked)?;
        if place.is_held {
            sockopt::set_socket_reuseaddr(&socket.fd, true)?;
        }
        if place.host.is_ipv4() && socket.kind.is_v6_only {
            // Our loopback has an address of IPv4 alone.
            let _ = sockopt::set_ipv6_v6only(&socket.fd, false);
        }
        let mut bound = rustix::net::bind(&socket.fd, &fit(socket.kind.is_v6, place.host));
        for _ in 0..TRIES {
            if place.is_held || bound != Err(Errno::ADDRINUSE) {
                break;
            }
            let host = self.rules.elsewhere(socket.kind, asked).ok_or(Errno::ADDRINUSE)?;
            bound = rustix::net::bind(&socket.fd, &fit(socket.kind.is_v6, host));
        }
        bound?;
        let host = SocketAddr::try_from(rustix::net::getsockname(&socket.fd)?)?;
        self.rules.remember(socket.kind, asked, host);
        Ok(())
    }

    fn listen(&mut self, caller: &dyn Caller) -> Outcome {
        let Some(socket) = Self::known(caller)? else { return GO_ON };
        let local = SocketAddr::try_from(rustix::net::getsockname(&socket.fd)?)?;
        if socket.is_stream && local.port() == 0 {
            // The kernel would take a port on every address of the host.
            let any = if socket.kind.is_v6 { "[::]:0" } else { "0.0.0.0:0" };
            self.place(&socket, any.parse().map_err(|_| Errno::INVAL)?)?;
        }
        rustix::net::listen(&socket.fd, caller.argument(1) as i32)?;
        DONE
    }

    fn connect(&mut self, caller: &dyn Caller) -> Outcome {
        let Some(socket) = Self::known(caller)? else { return GO_ON };
        let length = caller.argument(2);
        if is_unspecified(caller, caller.argument(1), length)? {
            rustix::net::connect_unspec(&socket.fd)?;
            return DONE;
        }
        let target = address(caller, caller.argument(1), length)?;
        if target.is_ipv6() != socket.kind.is_v6 && socket.is_stream {
            return Err(Errno::AFNOSUPPORT);
        }
        let host = self.translated(&socket, target)?;
        if !socket.is_stream {
            rustix::net::connect(&socket.fd, &host)?;
            return DONE;
        }
        // We never wait: a caller that wants to does so in its own call, which finds the connection
        // on its way and looks at no address any more.
        let flags = fcntl_getfl(&socket.fd)?;
        if flags.contains(OFlags::NONBLOCK) {
            rustix::net::connect(&socket.fd, &host)?;
            return DONE;
        }
        fcntl_setfl(&socket.fd, flags | OFlags::NONBLOCK)?;
        let connected = rustix::net::connect(&socket.fd, &host);
        fcntl_setfl(&socket.fd, flags)?;
        match connected {
            Ok(()) => DONE,
            Err(Errno::INPROGRESS) => GO_ON,
            Err(errno) => Err(errno),
        }
    }

    fn translated(&self, socket: &Socket, target: SocketAddr) -> Result<SocketAddr, Errno> {
        let Route { host, source } = match self.rules.connect(socket.kind, target) {
            Err(Errno::CONNREFUSED) if !socket.is_stream && is_bound(&socket.fd) => {
                self.rules.answer_to(target).ok_or(Errno::CONNREFUSED)?.into()
            }
            route => route?,
        };
        if host.is_ipv4() && socket.kind.is_v6_only {
            let _ = sockopt::set_ipv6_v6only(&socket.fd, false);
        }
        if let (Some(source), false) = (source, is_bound(&socket.fd)) {
            let _ = rustix::net::bind(&socket.fd, &fit(socket.kind.is_v6, (source, 0).into()));
        }
        Ok(fit(socket.kind.is_v6, host))
    }

    fn sendto(&mut self, caller: &dyn Caller) -> Outcome {
        if caller.argument(4) == 0 {
            return GO_ON;
        }
        let Some(socket) = Self::known(caller)? else { return GO_ON };
        let flags = caller.argument(3) as u32;
        if socket.is_stream {
            // With an address it opens or fails; an open connection looks at none.
            return if flags & FAST_OPEN != 0 { Err(Errno::OPNOTSUPP) } else { GO_ON };
        }
        let target = address(caller, caller.argument(4), caller.argument(5))?;
        let length = usize::try_from(caller.argument(2)).unwrap_or(usize::MAX);
        let mut payload = vec![0; at_most(length)?];
        caller.read(caller.argument(1), &mut payload)?;
        let sent = self.send(&socket, &payload, flags, target)?;
        Ok(Reply::Value(sent as i64))
    }

    fn send(&self, socket: &Socket, payload: &[u8], flags: u32, target: SocketAddr) -> Result<usize, Errno> {
        let host = self.translated(socket, target)?;
        let passed =
            SendFlags::from_bits_retain(flags & PASSED_ON) | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let try_it = || rustix::net::sendto(&socket.fd, payload, passed, &host);
        match try_it() {
            Err(Errno::AGAIN) if !is_impatient(socket, flags) => {
                use rustix::event::{poll, PollFd, PollFlags, Timespec};
                let patience = Timespec { tv_sec: 0, tv_nsec: PATIENCE_MS * 1_000_000 };
                let _ = poll(&mut [PollFd::new(&socket.fd, PollFlags::OUT)], Some(&patience));
                // What the kernel says when a queue is full.
                try_it().map_err(|errno| if errno == Errno::AGAIN { Errno::NOBUFS } else { errno })
            }
            other => other,
        }
    }

    fn sendmsg(&mut self, caller: &dyn Caller) -> Outcome {
        let message = Message::read(caller, caller.argument(1))?;
        if message.name == 0 {
            return GO_ON;
        }
        let Some(socket) = Self::known(caller)? else { return GO_ON };
        let flags = caller.argument(2) as u32;
        if socket.is_stream {
            return if flags & FAST_OPEN != 0 { Err(Errno::OPNOTSUPP) } else { GO_ON };
        }
        self.send_message(caller, &socket, &message, flags).map(|sent| Reply::Value(sent as i64))
    }

    fn sendmmsg(&mut self, caller: &dyn Caller) -> Outcome {
        let count = caller.argument(2).min(MOST_PARTS);
        let mut at = caller.argument(1);
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push((at, Message::read(caller, at)?));
            at += Message::LENGTH_OF_SEVERAL;
        }
        if messages.iter().all(|(_, message)| message.name == 0) {
            return GO_ON;
        }
        let Some(socket) = Self::known(caller)? else { return GO_ON };
        if socket.is_stream {
            return GO_ON;
        }
        let flags = caller.argument(3) as u32;
        let mut sent = 0;
        for (at, message) in messages {
            match self.send_message(caller, &socket, &message, flags) {
                Ok(bytes) => {
                    let length = u32::try_from(bytes).unwrap_or(0).to_ne_bytes();
                    caller.write(at + Message::LENGTH, &length)?;
                    sent += 1;
                }
                Err(errno) if sent == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(Reply::Value(sent))
    }

    fn send_message(
        &self,
        caller: &dyn Caller,
        socket: &Socket,
        message: &Message,
        flags: u32,
    ) -> Result<usize, Errno> {
        let payload = message.payload(caller)?;
        if message.name == 0 {
            // To the one it is connected to.
            return rustix::net::send(&socket.fd, &payload, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        let target = address(caller, message.name, u64::from(message.name_length))?;
        match message.segment(caller)? {
            Some(size) if size > 0 => {
                for piece in payload.chunks(size) {
                    self.send(socket, piece, flags, target)?;
                }
                Ok(payload.len())
            }
            _ => self.send(socket, &payload, flags, target),
        }
    }

    fn getsockname(&mut self, caller: &dyn Caller) -> Outcome {
        let Some(socket) = Self::known(caller)? else { return GO_ON };
        let is_connected = rustix::net::getpeername(&socket.fd).is_ok_and(|peer| peer.is_some());
        let host = SocketAddr::try_from(rustix::net::getsockname(&socket.fd)?)?;
        tell(caller, self.rules.local(socket.kind, host, is_connected))?;
        DONE
    }

    fn getpeername(&mut self, caller: &dyn Caller) -> Outcome {
        let Some(socket) = Self::known(caller)? else { return GO_ON };
        let host: Option<SocketAddrAny> = rustix::net::getpeername(&socket.fd)?;
        let host = SocketAddr::try_from(host.ok_or(Errno::NOTCONN)?)?;
        tell(caller, self.rules.peer(socket.kind, host))?;
        DONE
    }
}

fn is_bound(socket: &OwnedFd) -> bool {
    let local = rustix::net::getsockname(socket).map(SocketAddr::try_from);
    matches!(local, Ok(Ok(local)) if local.port() != 0)
}

fn is_impatient(socket: &Socket, flags: u32) -> bool {
    flags & SendFlags::DONTWAIT.bits() != 0
        || fcntl_getfl(&socket.fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}
