//! Questions over TCP: a connection to the name server leads here, not to a server.
//!
//! One end of a socket pair is the flow's socket like any other; at the other end questions are
//! told apart. Names of containers are answered here, as over UDP. The rest goes to the host's server over
//! TCP, since who asks that way wants an answer too long for UDP; where that server takes no TCP, over UDP.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::events::Source;
use super::resolver::Asker;
use super::slots::Number;
use super::{streams, Stack};

/// Conversations at the same time; more connections are refused.
const MOST: usize = 64;
/// What waits in either direction; whoever does not take it is hung up on.
const LARGEST: usize = 256 * 1024;
/// Questions of one conversation that a server has not answered.
const UNANSWERED: usize = 64;

/// A server that was asked.
#[derive(Debug)]
struct Server {
    socket: OwnedFd,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
}

/// A connection of the container to its name server.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: OwnedFd,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    server: Option<Server>,
    /// The server took no TCP.
    is_refused: bool,
    asked: Vec<Vec<u8>>,
    has_ended: bool,
}

/// Takes a whole message, RFC 1035 §4.2.2, off the front.
fn take_message(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    let message = bytes.get(2..2 + length)?.to_vec();
    bytes.drain(..2 + length);
    Some(message)
}

fn put_message(bytes: &mut Vec<u8>, message: &[u8]) {
    if let Ok(length) = u16::try_from(message.len()) {
        bytes.extend(length.to_be_bytes());
        bytes.extend(message);
    }
}

/// Reads all there is; answers whether the end came with it.
fn read_all(socket: &OwnedFd, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    while into.len() < LARGEST {
        match rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return true,
            Ok((count, _)) => into.extend(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
    true
}

/// Writes what goes; answers whether somebody is there to take it.
fn write_all(socket: &OwnedFd, from: &mut Vec<u8>) -> bool {
    while !from.is_empty() {
        match rustix::net::send(socket, from, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => drop(from.drain(..count)),
            Err(Errno::INTR) => {}
            // Not connected yet; or full.
            Err(Errno::AGAIN | Errno::NOTCONN) => return from.len() < LARGEST,
            Err(_) => return false,
        }
    }
    true
}

impl Stack {
    /// The socket of a flow to the name server.
    ///
    /// # Errors
    /// EMFILE; ECONNREFUSED when there are too many.
    pub(super) fn open_conversation(&mut self) -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, flow) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        self.converse(socket)?;
        Ok(flow)
    }

    /// Takes questions from a socket.
    ///
    /// # Errors
    /// ECONNREFUSED when there are too many.
    pub(super) fn converse(&mut self, socket: OwnedFd) -> rustix::io::Result<()> {
        if self.resolver.conversations.len() >= MOST {
            return Err(Errno::CONNREFUSED);
        }
        let number = self.resolver.conversations.insert(Conversation {
            socket,
            inbox: Vec::new(),
            outbox: Vec::new(),
            server: None,
            is_refused: false,
            asked: Vec::new(),
            has_ended: false,
        });
        let Some(conversation) = self.resolver.conversations.get_mut(number) else { return Err(Errno::IO) };
        self.events.add(&conversation.socket, Source::Conversation(number))
    }

    /// The container said something, or takes more.
    pub(super) fn on_conversation(&mut self, number: Number) {
        let Some(conversation) = self.resolver.conversations.get_mut(number) else { return };
        // Said to have ended only when all that it asked is under way.
        let has_ended = read_all(&conversation.socket, &mut conversation.inbox);
        let mut messages = Vec::new();
        while let Some(message) = take_message(&mut conversation.inbox) {
            messages.push(message);
        }
        for message in messages {
            if let Some(answer) = self.answer_here(&message) {
                self.reply(number, &answer);
            } else {
                self.pass_on(number, message);
            }
        }
        if let Some(conversation) = self.resolver.conversations.get_mut(number) {
            conversation.has_ended |= has_ended;
        }
        self.settle(number);
    }

    /// Asks the server over TCP.
    fn pass_on(&mut self, number: Number, message: Vec<u8>) {
        let server = self.resolver.server();
        let reaches_out = self.reaches_out;
        let Some(conversation) = self.resolver.conversations.get_mut(number) else { return };
        if conversation.is_refused || !reaches_out || conversation.asked.len() >= UNANSWERED {
            return self.put(Asker::Conversation(number), &message);
        }
        if conversation.server.is_none() {
            let connected = server.ok_or(Errno::HOSTUNREACH).and_then(streams::connect);
            let watched = connected.and_then(|(socket, _)| {
                self.events.add(&socket, Source::Server(number))?;
                Ok(Server { socket, outbox: Vec::new(), inbox: Vec::new() })
            });
            match watched {
                Ok(server) => conversation.server = Some(server),
                Err(_) => {
                    conversation.is_refused = true;
                    return self.put(Asker::Conversation(number), &message);
                }
            }
        }
        if let Some(server) = &mut conversation.server {
            put_message(&mut server.outbox, &message);
            conversation.asked.push(message);
            let _ = write_all(&server.socket, &mut server.outbox);
        }
    }

    /// The server said something, takes more, or went away.
    pub(super) fn on_server(&mut self, number: Number) {
        let Some(conversation) = self.resolver.conversations.get_mut(number) else { return };
        let Some(server) = &mut conversation.server else { return };
        let is_there = write_all(&server.socket, &mut server.outbox);
        let has_ended = read_all(&server.socket, &mut server.inbox) || !is_there;
        while let Some(answer) = take_message(&mut server.inbox) {
            if let Some(at) = conversation.asked.iter().position(|asked| asked.get(..2) == answer.get(..2)) {
                conversation.asked.remove(at);
                put_message(&mut conversation.outbox, &answer);
            }
        }
        if has_ended {
            conversation.server = None;
            // What it left open is asked again in the other way.
            let open = std::mem::take(&mut conversation.asked);
            conversation.is_refused = !open.is_empty();
            for message in open {
                self.put(Asker::Conversation(number), &message);
            }
        }
        self.settle(number);
    }

    /// An answer for a conversation.
    pub(super) fn reply(&mut self, number: Number, answer: &[u8]) {
        if let Some(conversation) = self.resolver.conversations.get_mut(number) {
            put_message(&mut conversation.outbox, answer);
        }
        self.settle(number);
    }

    /// Writes, and ends what has ended.
    fn settle(&mut self, number: Number) {
        let waits = self.resolver.waits_for(number);
        let Some(conversation) = self.resolver.conversations.get_mut(number) else { return };
        let is_there = write_all(&conversation.socket, &mut conversation.outbox);
        let is_over = conversation.has_ended
            && conversation.outbox.is_empty()
            && conversation.asked.is_empty()
            && !waits;
        if is_over || !is_there {
            self.resolver.conversations.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_when_they_are_whole() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, b"one");
        put_message(&mut bytes, b"");
        put_message(&mut bytes, b"three");
        let last = bytes.pop();
        assert_eq!(take_message(&mut bytes).as_deref(), Some(&b"one"[..]));
        assert_eq!(take_message(&mut bytes).as_deref(), Some(&b""[..]));
        assert_eq!(take_message(&mut bytes), None);
        bytes.extend(last);
        assert_eq!(take_message(&mut bytes).as_deref(), Some(&b"three"[..]));
        assert_eq!(take_message(&mut bytes), None);
    }
}
