//! The name server that the container sees.
//!
//! Names of containers are answered here. Everything else goes, byte for byte, to the
//! servers of the host's own /etc/resolv.conf, from a socket of the host: a stub on
//! 127.0.0.53 with its split DNS and its VPN works as it does for the user. Questions over TCP: `conversations`.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags};

use super::conversations::Conversation;
use super::datagrams;
use super::events::Source;
use super::slots::{Number, Slots};
use super::stream::Ends;
use super::timers::Timer;
use super::Stack;
use crate::tcp::Time;
use crate::wire::dns::{code, kind, Answer, Question};

/// How long one server is waited for, resolv.conf(5).
const PATIENCE: Time = Time::from_secs(5);
/// Questions under way; more are dropped, and asked again.
const MOST: usize = 256;
/// How long what resolv.conf said is believed.
const FRESH: Time = Time::from_secs(2);

/// Who knows names that are answered here.
pub trait Names: std::fmt::Debug {
    /// The addresses of `name`, in lower case and without the last dot; `None` when it is none of ours.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;
    /// The name of `address`; `None` when it is none of ours.
    fn name(&self, address: IpAddr) -> Option<String>;
}

/// Who wants an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Somebody over UDP.
    Datagram(Ends),
    /// Somebody over TCP.
    Conversation(Number),
    /// Somebody who asked at a socket of the host, over UDP.
    Outside(SocketAddr),
}

#[derive(Debug)]
struct Query {
    asker: Asker,
    message: Vec<u8>,
    socket: OwnedFd,
    /// The server that was asked, counted from the first.
    attempt: usize,
}

/// The forwarder.
#[derive(Debug)]
pub(super) struct Resolver {
    fixed: Vec<IpAddr>,
    found: Vec<IpAddr>,
    found_at: Option<Time>,
    names: Option<Box<dyn Names>>,
    queries: Slots<Query>,
    pub conversations: Slots<Conversation>,
}

impl Resolver {
    pub fn new(fixed: Vec<IpAddr>, names: Option<Box<dyn Names>>) -> Self {
        Self {
            fixed,
            found: Vec::new(),
            found_at: None,
            names,
            queries: Slots::default(),
            conversations: Slots::default(),
        }
    }

    /// The first server, as known.
    pub fn server(&self) -> Option<SocketAddr> {
        let servers = if self.fixed.is_empty() { &self.found } else { &self.fixed };
        servers.first().map(|address| SocketAddr::new(*address, 53))
    }

    /// Whether a question of this conversation is open.
    pub fn waits_for(&self, number: Number) -> bool {
        self.queries.iter().any(|(_, query)| query.asker == Asker::Conversation(number))
    }

    fn refresh(&mut self, now: Time) {
        if self.fixed.is_empty() && self.found_at.is_none_or(|at| at + FRESH < now) {
            self.found_at = Some(now);
            let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            self.found = servers(&text);
        }
    }

    fn server_at(&self, attempt: usize) -> Option<SocketAddr> {
        let servers = if self.fixed.is_empty() { &self.found } else { &self.fixed };
        servers.get(attempt).map(|address| SocketAddr::new(*address, 53))
    }

    /// What we say to a question ourselves.
    fn own_answer(&self, question: &Question) -> Option<Answer> {
        let names = self.names.as_ref()?;
        if let Some(address) = question.reversed() {
            return names.name(address).map(Answer::Name);
        }
        // Other records of a name of ours do not exist.
        names.addresses(&question.name).map(|addresses| match question.kind {
            kind::A | kind::AAAA | kind::ANY => Answer::Addresses(addresses),
            _ => Answer::Addresses(Vec::new()),
        })
    }
}

/// The servers that a resolv.conf names; without any it is the host itself, resolv.conf(5).
#[must_use]
pub fn servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()?.parse().ok()
    };
    let found: Vec<IpAddr> = text.lines().filter_map(server).take(3).collect();
    if found.is_empty() {
        vec![std::net::Ipv4Addr::LOCALHOST.into()]
    } else {
        found
    }
}

impl Stack {
    /// Reads what is needed before a connection to the name server can be made.
    pub(super) fn prepare_resolver(&mut self) {
        self.resolver.refresh(self.now);
    }

    /// A question of the container.
    pub(super) fn on_query(&mut self, ends: Ends, message: &[u8]) {
        match self.answer_here(message) {
            Some(answer) => self.deliver(ends, &answer),
            None => self.put(Asker::Datagram(ends), message),
        }
    }

    /// The answer to a question about a name of ours.
    pub(super) fn answer_here(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.prepare_resolver();
        let question = Question::parse(message)?;
        let answer = self.resolver.own_answer(&question)?;
        Some(question.answer(message, &answer))
    }

    /// Passes a question on over UDP.
    pub(super) fn put(&mut self, asker: Asker, message: &[u8]) {
        if self.resolver.queries.len() >= MOST {
            return;
        }
        if !self.reaches_out || !self.ask(asker, message, 0) {
            self.refuse_query(asker, message);
        }
    }

    fn give(&mut self, asker: Asker, answer: &[u8]) {
        match asker {
            Asker::Datagram(ends) => self.deliver(ends, answer),
            Asker::Conversation(number) => self.reply(number, answer),
            Asker::Outside(asker) => self.give_outside(asker, answer),
        }
    }

    fn refuse_query(&mut self, asker: Asker, message: &[u8]) {
        if let Some(question) = Question::parse(message) {
            // An isolated network knows its own names and nothing else.
            let code = if self.reaches_out { code::SERVER_FAILURE } else { code::NO_NAME };
            let bytes = question.answer(message, &Answer::Code(code));
            self.give(asker, &bytes);
        }
    }

    /// Asks the server of this attempt, or the next that can be asked.
    fn ask(&mut self, asker: Asker, message: &[u8], mut attempt: usize) -> bool {
        while let Some(server) = self.resolver.server_at(attempt) {
            let asked = datagrams::connect(server).and_then(|socket| {
                rustix::net::send(&socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
                Ok(socket)
            });
            let Ok(socket) = asked else {
                attempt += 1;
                continue;
            };
            let query = Query { asker, message: message.to_vec(), socket, attempt };
            let number = self.resolver.queries.insert(query);
            let Some(query) = self.resolver.queries.get_mut(number) else { return false };
            if self.events.add_level(&query.socket, Source::Query(number)).is_err() {
                self.resolver.queries.remove(number);
                return false;
            }
            self.timers.set(self.now + PATIENCE, Timer::Query(number));
            return true;
        }
        false
    }

    /// A server answered, or refused.
    pub(super) fn on_answer(&mut self, number: Number) {
        let Some(query) = self.resolver.queries.get_mut(number) else { return };
        let mut buffer = vec![0; 65_535];
        match rustix::net::recv(&query.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            // An answer carries the number of its question; anything else is somebody's guess.
            Ok((count, _)) if count >= 12 && buffer[..2] == query.message[..2.min(query.message.len())] => {
                if let Some(query) = self.resolver.queries.remove(number) {
                    self.give(query.asker, &buffer[..count]);
                }
            }
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.on_query_timer(number),
        }
    }

    /// A server is silent, or not there: the next is asked.
    pub(super) fn on_query_timer(&mut self, number: Number) {
        let Some(query) = self.resolver.queries.remove(number) else { return };
        if !self.ask(query.asker, &query.message, query.attempt + 1) {
            self.refuse_query(query.asker, &query.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_are_those_of_resolv_conf_or_the_host_itself() {
        let text = "# a comment\nsearch lan\nnameserver 127.0.0.53\nnameserver  fd00::1\noptions edns0\nnameserver x\n";
        let addresses: Vec<IpAddr> = vec!["127.0.0.53".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(servers(text), addresses);
        assert_eq!(servers("search lan\n"), vec![IpAddr::from([127, 0, 0, 1])]);
    }
}
