//! attach: a user's stdio, and messages.
//!
//! Output is taken from the socket only when the last of it is written, so a slow reader of
//! ours slows the container and nothing is lost. Stdin is sent at most [`AHEAD`]
//! bytes further than the container has taken, so that the socket never fills with it and a
//! signal is always heard.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::output::Output;
use super::signals::{Heard, Watch};
use super::terminal::{self, Raw};
use super::{ready, say, tell, End, Manners, Reach, UNKNOWN};
use crate::message::{packet, Attach, ClientMessage, Request, SupervisorMessage};

/// Stdin on its way to the container.
const AHEAD: usize = 128 * 1024;
/// Read from stdin at once.
const PIECE: usize = 32 * 1024;

/// Attaches to a container until it ends or the user leaves; the answer is our exit code.
pub fn attach(reach: Reach, manners: Manners) -> i32 {
    let (socket, attached) = match reach.connect() {
        Ok(reached) => reached,
        Err(error) => {
            say(&format!("duckweed: cannot reach the container's supervisor: {error}"));
            return UNKNOWN;
        }
    };
    let proxy = manners.sig_proxy && !manners.tty;
    let watch = match Watch::new(proxy) {
        Ok(watch) => watch,
        Err(error) => {
            say(&format!("duckweed: cannot watch signals: {error}"));
            return UNKNOWN;
        }
    };
    let raw = if manners.tty && manners.stdin { Raw::enter() } else { None };
    let mut client = Client::new(socket, manners);
    client.introduce(attached);
    let end = client.run(&watch);
    drop(raw);
    end.into_exit_code()
}

struct Client {
    socket: OwnedFd,
    manners: Manners,
    stdout: Output,
    stderr: Output,
    /// Sent and not taken by the container yet.
    ahead: usize,
    stdin_open: bool,
}

/// What a round of poll(2) found.
#[derive(Default)]
struct Ready {
    stdin: bool,
    socket: bool,
    signals: bool,
    stdout: bool,
    stderr: bool,
}

impl Client {
    fn new(socket: OwnedFd, manners: Manners) -> Self {
        Self {
            socket,
            stdin_open: manners.stdin,
            manners,
            stdout: Output::new(rustix::stdio::stdout()),
            stderr: Output::new(rustix::stdio::stderr()),
            ahead: 0,
        }
    }

    /// Says what we want, unless whoever made the channel has said it.
    fn introduce(&self, attached: bool) {
        let (rows, cols) = if self.manners.tty { terminal::size() } else { (0, 0) };
        if attached {
            self.tell_size();
            return;
        }
        let Manners { stdin, stdout, .. } = self.manners;
        let attach = Attach { stdin, stdout, stderr: stdout, rows, cols };
        tell(self.socket.as_fd(), &ClientMessage::Request(Request::Attach(attach)));
    }

    fn tell_size(&self) {
        let (rows, cols) = terminal::size();
        if self.manners.tty && rows > 0 {
            tell(self.socket.as_fd(), &ClientMessage::Resize { rows, cols });
        }
    }

    fn run(&mut self, watch: &Watch) -> End {
        let mut buffer = vec![0; packet::LARGEST];
        loop {
            let ready = match self.wait(watch) {
                Ok(ready) => ready,
                Err(_) => return End::Lost,
            };
            let step = self.step(&ready, watch, &mut buffer);
            if let Some(end) = step {
                return end;
            }
        }
    }

    fn step(&mut self, ready: &Ready, watch: &Watch, buffer: &mut [u8]) -> Option<End> {
        if ready.signals {
            if let Some(end) = self.hear_signals(watch) {
                return Some(end);
            }
        }
        for (is_ready, output) in [(ready.stdout, &mut self.stdout), (ready.stderr, &mut self.stderr)] {
            if is_ready && output.write().is_err() {
                return Some(End::BrokenOutput);
            }
        }
        if ready.stdin {
            if let Some(end) = self.read_stdin(&mut buffer[..PIECE]) {
                return Some(end);
            }
        }
        if ready.socket {
            return self.read_socket(buffer);
        }
        None
    }

    fn wait(&self, watch: &Watch) -> rustix::io::Result<Ready> {
        let (stdin, socket, signals) = (rustix::stdio::stdin(), self.socket.as_fd(), watch.as_fd());
        let idle = !self.stdout.is_waiting() && !self.stderr.is_waiting();
        let wanted = [
            (self.stdin_open && self.ahead < AHEAD, stdin, PollFlags::IN),
            (idle, socket, PollFlags::IN),
            (true, signals, PollFlags::IN),
            (self.stdout.is_waiting(), self.stdout.fd(), PollFlags::OUT),
            (self.stderr.is_waiting(), self.stderr.fd(), PollFlags::OUT),
        ];
        let [stdin, socket, signals, stdout, stderr] = ready::wait(wanted)?;
        Ok(Ready { stdin, socket, signals, stdout, stderr })
    }

    fn hear_signals(&mut self, watch: &Watch) -> Option<End> {
        while let Some(heard) = watch.next() {
            match heard {
                Heard::Resized => self.tell_size(),
                Heard::Pass(signal) => tell(self.socket.as_fd(), &ClientMessage::Signal(signal)),
                Heard::Die(signal) => return Some(End::Signal(signal)),
            }
        }
        None
    }

    fn read_stdin(&mut self, buffer: &mut [u8]) -> Option<End> {
        let count = match rustix::io::read(rustix::stdio::stdin(), &mut *buffer) {
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return None,
            Err(_) => 0,
        };
        if count == 0 {
            self.stdin_open = false;
            tell(self.socket.as_fd(), &ClientMessage::StdinEnd);
            return None;
        }
        let typed = &buffer[..count];
        let mut detached = false;
        let mut passed = Vec::new();
        let bytes = if self.manners.tty {
            detached = self.manners.detach_keys.feed(typed, &mut passed);
            &passed[..]
        } else {
            typed
        };
        if !bytes.is_empty() {
            self.ahead += bytes.len();
            // By reference: ClientMessage::encode would copy.
            let _ = packet::send(self.socket.as_fd(), b'I', bytes, &[]);
        }
        detached.then_some(End::Detached)
    }

    fn read_socket(&mut self, buffer: &mut [u8]) -> Option<End> {
        let bytes = match packet::receive(self.socket.as_fd(), buffer) {
            Ok(Some((bytes, _))) => bytes,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Ok(None) | Err(_) => return Some(End::Lost),
        };
        match SupervisorMessage::decode(bytes) {
            Ok(SupervisorMessage::Stdout(bytes)) if self.manners.stdout => self.stdout.set(bytes),
            Ok(SupervisorMessage::Stderr(bytes)) if self.manners.stdout => self.stderr.set(bytes),
            Ok(SupervisorMessage::StdinTaken(count)) => {
                self.ahead = self.ahead.saturating_sub(count as usize);
            }
            Ok(SupervisorMessage::Exit(exit)) => return Some(exit.into()),
            Ok(SupervisorMessage::Answer(answer)) => {
                return answer.error.map(|error| End::Refused(Box::new(error)));
            }
            // Output nobody asked for, and words of a later release.
            Ok(_) | Err(_) => {}
        }
        None
    }
}
