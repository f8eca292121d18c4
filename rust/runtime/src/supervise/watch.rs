//! The loop: everything a supervisor waits for, and what it does then.
//!
//! One thread, one epoll descriptor, no call that blocks. An event leads to one small
//! step; after each round follows what comes of all of them: who is gone, whether it is over,
//! and in `settle` who must be waited for and whether the container's output has to wait.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use duckweed_sys::signal::Signals;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::child::Child;
use super::connection::{Connection, Role, LITTLE, MUCH};
use super::ending::Ending;
use super::events::{Events, Interest, Source};
use super::log::{Log, Stream};
use super::network::Connected;
use super::session::Session;
use super::slots::Slots;
use super::state::State;
use super::stdio::{Read, Stdio};
use super::terms::Terms;
use crate::bundle::Bundle;
use crate::emulation::Emulation;
use crate::message::{packet, ClientMessage};

/// Stdin that may wait for the container before a client is not listened to any more. Ours never
/// send so much ahead, so that their signals are always heard.
const MUCH_INPUT: usize = 1024 * 1024;
/// Words of one client, or pieces of one stream, before the others have their turn.
const TURN: usize = 16;
/// How long the loop leaves the listener alone when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// A container that the caller waits for anyway is written down and listened for when it has lived this long: state.json and
/// the socket cost a tenth of a short run, and nobody has found their way there by then.
pub(super) const SHORT_LIFE: Duration = Duration::from_millis(100);

/// Where a container lives.
#[derive(Debug)]
pub struct Place {
    /// Its directory.
    pub container: PathBuf,
    /// The store that holds it.
    pub store: PathBuf,
    /// Its id: the directory's name.
    pub id: String,
}

/// A running container's supervisor.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) place: Place,
    pub(super) terms: Terms,
    pub(super) state: State,
    /// Kept in short lives only; read again when it is needed.
    pub(super) bundle: Option<Bundle>,
    pub(super) events: Events,
    pub(super) signals: Signals,
    pub(super) init: Child,
    /// Who answers the container's trapped calls.
    pub(super) emulation: Option<Emulation>,
    pub(super) stdio: Stdio,
    pub(super) log: Option<Log>,
    pub(super) connections: Slots<Connection>,
    pub(super) sessions: Slots<Session>,
    /// When state.json and the socket are due, if they are not made yet.
    pub(super) announce_at: Option<Instant>,
    pub(super) listener: Option<OwnedFd>,
    /// The listener is watched (it is not while descriptors are short).
    pub(super) accepting: bool,
    /// `--inherit`: the connection whose end is the container's.
    pub(super) owner: Option<u32>,
    pub(super) ending: Option<Ending>,
    pub(super) congested: bool,
    /// The container's way out, if it has one.
    pub(super) network: Option<Connected>,
    /// This process is in the container's user namespace.
    pub(super) joined: bool,
    /// Descriptors that keep others out while we live: the container's lock.
    pub(super) lock: Option<OwnedFd>,
}

impl Supervisor {
    /// Supervises until the container has ended and everybody has been told; the answer is its exit code.
    ///
    /// # Errors
    /// When epoll itself fails, which only a lack of kernel memory can bring about.
    pub fn run(mut self) -> rustix::io::Result<i32> {
        let none = Interest::NONE;
        self.events.change(&self.signals, Source::Signals, none, Interest::READ)?;
        self.events.change(&self.init, Source::Init, none, Interest::READ)?;
        if let Some(emulation) = &self.emulation {
            self.events.change(emulation, Source::Emulation, none, Interest::READ)?;
        }
        if let Some(network) = &self.network {
            if let Some(descriptor) = network.descriptor() {
                self.events.change(descriptor, Source::Network, none, Interest::READ)?;
            }
        }
        let mut found = Vec::with_capacity(32);
        let mut buffer = vec![0; packet::LARGEST];
        loop {
            self.announce_if_due();
            // Who is gone is not waited for; and who is owed the news of the end is, which `finished` may only now have told.
            self.part_with_the_gone();
            if let Some(exit_code) = self.finished() {
                return Ok(exit_code);
            }
            self.settle()?;
            let patience = self.patience();
            let network = self.network.as_ref().and_then(Connected::patience);
            let patience = patience.into_iter().chain(network).min();
            self.events.wait(patience, &mut found)?;
            for source in &found {
                self.handle(*source, &mut buffer);
            }
            if let Some(network) = &mut self.network {
                network.turn();
            }
        }
    }

    /// Lets others find a container that did not end at once. Where that fails it goes on unfound: its caller has the channel.
    fn announce_if_due(&mut self) {
        if self.ending.is_some() || self.announce_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.announce_at = None;
        self.listener = super::announce(&self.place, &mut self.state).ok();
    }

    /// How long there is nothing to do unless something happens.
    fn patience(&self) -> Option<Duration> {
        if let Some(ending) = &self.ending {
            return ending.patience(Instant::now());
        }
        if let Some(at) = self.announce_at {
            return Some(at.saturating_duration_since(Instant::now()));
        }
        (self.listener.is_some() && !self.accepting).then_some(PAUSE)
    }

    fn handle(&mut self, source: Source, buffer: &mut [u8]) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.hear_signals(),
            Source::Init => {
                if let Some(exit_code) = self.init.exit_code() {
                    self.begin_ending(exit_code, buffer);
                }
            }
            Source::Emulation => self.lose_emulation(),
            Source::Input => self.write_input(),
            Source::Stdout => self.read_output(Stream::Stdout, buffer),
            Source::Stderr => self.read_output(Stream::Stderr, buffer),
            Source::Connection(number) => self.listen_to(number, buffer),
            Source::Session(number) => self.end_session(number),
            Source::Terminal(number) => self.drain_terminal(number, buffer),
            Source::Network => {
                if let Some(network) = &mut self.network {
                    network.wake();
                }
            }
        }
    }

    /// Nobody answers the container any more: it would only see calls that do not exist.
    fn lose_emulation(&mut self) {
        if let Some(emulation) = self.emulation.take() {
            let _ = self.events.change(&emulation, Source::Emulation, Interest::READ, Interest::NONE);
            self.init.kill();
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => {
                if let Ok(connection) = Connection::new(socket) {
                    self.connections.insert(connection);
                }
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => self.pause_accepting(),
            Err(_) => {}
        }
    }

    /// A level-triggered listener would report a connection that cannot be accepted for ever.
    fn pause_accepting(&mut self) {
        if let Some(listener) = &self.listener {
            let _ = self.events.change(listener, Source::Listener, Interest::READ, Interest::NONE);
            self.accepting = false;
        }
    }

    /// SIGTERM and SIGINT mean us: the container ends and is recorded; when it has ended already, those
    /// who do not read their news are left behind. SIGHUP is only a terminal that went.
    fn hear_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal == rustix::process::Signal::HUP.as_raw() {
                continue;
            }
            if self.ending.is_some() {
                self.connections.iter_mut().for_each(|(_, connection)| connection.leave());
            } else {
                self.init.kill();
            }
        }
    }

    fn write_input(&mut self) {
        let (connections, input) = (&mut self.connections, &mut self.stdio.input);
        input.write(&self.events, |number, count| {
            if let (Some(connection), Ok(count)) = (connections.get_mut(number), u32::try_from(count)) {
                connection.tell(&crate::message::SupervisorMessage::StdinTaken(count), None);
            }
        });
    }

    /// Moves output to the log and to everybody who wants it.
    pub(super) fn read_output(&mut self, stream: Stream, buffer: &mut [u8]) {
        let output = match stream {
            Stream::Stdout => &mut self.stdio.stdout,
            Stream::Stderr => &mut self.stdio.stderr,
        };
        for _ in 0..TURN {
            let bytes = match output.read(&self.events, buffer) {
                Read::Bytes(bytes) => bytes,
                Read::Nothing => return,
                Read::End => {
                    if let Some(log) = &mut self.log {
                        log.finish(stream);
                    }
                    return;
                }
            };
            if let Some(log) = &mut self.log {
                log.append(stream, bytes);
            }
            if tell_attached(&mut self.connections, stream, bytes) >= MUCH {
                return;
            }
        }
    }

    fn listen_to(&mut self, number: u32, buffer: &mut [u8]) {
        for _ in 0..TURN {
            let Some(connection) = self.connections.get_mut(number) else { return };
            connection.flush();
            if connection.is_gone() || self.is_deaf_to(number) {
                return;
            }
            let Some(connection) = self.connections.get_mut(number) else { return };
            match packet::receive(connection.socket(), buffer) {
                Ok(Some((bytes, fds))) => match ClientMessage::decode(bytes) {
                    Ok(message) => self.obey(number, message, fds),
                    Err(error) => self.refuse(number, &error.0),
                },
                Err(Errno::AGAIN) => return,
                Ok(None) | Err(_) => return connection.leave(),
            }
        }
    }

    /// Whether a client has sent more stdin than the container takes.
    fn is_deaf_to(&mut self, number: u32) -> bool {
        self.stdio.input.waiting_bytes() > MUCH_INPUT
            && self
                .connections
                .get_mut(number)
                .is_some_and(|c| matches!(c.role, Role::Attached(a) if a.stdin))
    }

    fn settle(&mut self) -> rustix::io::Result<()> {
        if let (Some(listener), false) = (&self.listener, self.accepting) {
            self.events.change(listener, Source::Listener, Interest::NONE, Interest::READ)?;
            self.accepting = true;
        }
        let most = self.connections.iter().map(Connection::owed_bytes).max().unwrap_or(0);
        self.congested = most >= if self.congested { LITTLE } else { MUCH };
        // What an ended container left is bounded by its pipes: it is taken out of them at once.
        let wanted = self.ending.is_some() || !self.congested;
        self.stdio.stdout.watch(&self.events, wanted);
        self.stdio.stderr.watch(&self.events, wanted);
        let full = self.stdio.input.waiting_bytes() > MUCH_INPUT;
        for (number, connection) in self.connections.iter_mut() {
            let deaf = full && matches!(connection.role, Role::Attached(attach) if attach.stdin);
            connection.watch(&self.events, number, deaf)?;
        }
        Ok(())
    }

    fn part_with_the_gone(&mut self) {
        let gone: Vec<u32> =
            self.connections.iter_mut().filter(|(_, c)| c.is_gone()).map(|(number, _)| number).collect();
        for number in gone {
            if let Some(mut connection) = self.connections.remove(number) {
                let _ = connection.watch(&self.events, number, true);
                self.part(number, connection.role);
            }
        }
    }

    /// What the end of a connection means for the rest.
    fn part(&mut self, number: u32, role: Role) {
        if self.owner == Some(number) {
            self.init.kill();
        }
        match role {
            Role::Attached(attach) if attach.stdin => self.end_input(),
            Role::Executing(session) => self.abandon_session(session),
            _ => {}
        }
    }

    /// An attached client will send no more stdin.
    pub(super) fn end_input(&mut self) {
        if self.terms.stdin == crate::spec::Stdin::Once && !self.stdio.is_terminal() {
            self.stdio.input.end();
            self.write_input();
        }
    }

    /// Bytes of a client for the container.
    pub(super) fn take_input(&mut self, number: u32, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let may = matches!(connection.role, Role::Attached(attach) if attach.stdin);
        if may && self.terms.stdin != crate::spec::Stdin::Null {
            self.stdio.input.add(number, bytes);
            self.write_input();
        }
    }

    /// The socket that clients can find, closed for new ones.
    pub(super) fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            if self.accepting {
                let _ =
                    self.events.change(listener.as_fd(), Source::Listener, Interest::READ, Interest::NONE);
            }
            let _ = std::fs::remove_file(&self.state.socket);
        }
    }
}

/// Sends output to those attached to the stream; the answer is what the slowest of them is owed.
fn tell_attached(connections: &mut Slots<Connection>, stream: Stream, bytes: &[u8]) -> usize {
    let mut most = 0;
    for (_, connection) in connections.iter_mut() {
        let Role::Attached(attach) = connection.role else { continue };
        let (wanted, kind) = match stream {
            Stream::Stdout => (attach.stdout, b'O'),
            Stream::Stderr => (attach.stderr, b'R'),
        };
        if wanted {
            for piece in bytes.chunks(crate::message::LARGEST_PAYLOAD) {
                connection.tell_output(kind, piece);
            }
            most = most.max(connection.owed_bytes());
        }
    }
    most
}
