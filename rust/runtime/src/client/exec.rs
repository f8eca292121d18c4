//! exec: a further command in a running container, with the user's own descriptors.
//!
//! Without a terminal the command gets our descriptors 0, 1 and 2 themselves, and this
//! program only waits and passes signals on. With one it gets a terminal inside the
//! container, and the master comes here: bytes go between two terminals and past the supervisor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::termios::{tcsetwinsize, Winsize};

use super::output::Output;
use super::signals::{Heard, Watch};
use super::terminal::{self, Raw};
use super::{ready, say, tell, End, Manners, UNKNOWN};
use crate::message::{packet, ClientMessage, Exec, Request, SupervisorMessage};

/// Moved at once between the terminals.
const PIECE: usize = 16 * 1024;

/// Runs a command in the container behind `socket`; the answer is our exit code.
pub fn exec(socket: &Path, request: Exec, manners: Manners) -> i32 {
    match try_exec(socket, request, manners) {
        Ok(end) => end.into_exit_code(),
        Err(error) => {
            say(&format!("duckweed: cannot reach the container's supervisor: {error}"));
            UNKNOWN
        }
    }
}

fn try_exec(socket: &Path, mut request: Exec, manners: Manners) -> std::io::Result<End> {
    let socket = packet::connect(socket)?;
    if request.tty && request.rows == 0 {
        (request.rows, request.cols) = terminal::size();
    }
    let watch = Watch::new(manners.sig_proxy && !request.tty)?;
    let (detach, tty) = (request.detach, request.tty);
    ask(socket.as_fd(), request, manners.stdin)?;
    let master = match answer(socket.as_fd(), detach)? {
        Ok(master) => master,
        Err(end) => return Ok(end),
    };
    match master {
        Some(master) if tty => {
            rustix::io::ioctl_fionbio(&master, true)?;
            let raw = if manners.stdin { Raw::enter() } else { None };
            let end = Pump::new(socket, master, manners).run(&watch);
            drop(raw);
            Ok(end)
        }
        _ => Ok(wait(&socket, &watch)),
    }
}

fn ask(socket: BorrowedFd<'_>, request: Exec, stdin: bool) -> std::io::Result<()> {
    let without_stdio = request.tty || request.detach;
    let (kind, payload) = ClientMessage::Request(Request::Exec(request)).encode();
    if without_stdio {
        return Ok(packet::send(socket, kind, &payload, &[])?);
    }
    let null = std::fs::File::open("/dev/null")?;
    let input = if stdin { rustix::stdio::stdin() } else { null.as_fd() };
    Ok(packet::send(socket, kind, &payload, &[input, rustix::stdio::stdout(), rustix::stdio::stderr()])?)
}

/// The answer to the request: a terminal's master perhaps, or our end.
fn answer(socket: BorrowedFd<'_>, detach: bool) -> std::io::Result<Result<Option<OwnedFd>, End>> {
    let mut buffer = vec![0; packet::LARGEST];
    let Some((bytes, mut fds)) = packet::receive(socket, &mut buffer)? else { return Ok(Err(End::Lost)) };
    Ok(match SupervisorMessage::decode(bytes) {
        Ok(SupervisorMessage::Answer(answer)) => match answer.error {
            Some(error) => Err(End::Refused(Box::new(error))),
            None if detach => Err(End::Exit(0)),
            None => Ok(fds.pop()),
        },
        _ => Err(End::Lost),
    })
}

/// The end, when this packet says it.
fn end_of(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<End> {
    match packet::receive(socket, buffer) {
        Ok(Some((bytes, _))) => match SupervisorMessage::decode(bytes) {
            Ok(SupervisorMessage::Exit(exit)) => Some(exit.into()),
            _ => None,
        },
        Err(Errno::AGAIN) => None,
        Ok(None) | Err(_) => Some(End::Lost),
    }
}

fn wait(socket: &OwnedFd, watch: &Watch) -> End {
    let mut buffer = vec![0; packet::LARGEST];
    loop {
        let wanted = [(true, socket.as_fd(), PollFlags::IN), (true, watch.as_fd(), PollFlags::IN)];
        let Ok([told, signalled]) = ready::wait(wanted) else { return End::Lost };
        while let Some(heard) = signalled.then(|| watch.next()).flatten() {
            match heard {
                Heard::Pass(signal) => tell(socket.as_fd(), &ClientMessage::Signal(signal)),
                Heard::Die(signal) => return End::Signal(signal),
                Heard::Resized => {}
            }
        }
        if let Some(end) = told.then(|| end_of(socket.as_fd(), &mut buffer)).flatten() {
            return end;
        }
    }
}

/// Bytes between our terminal and the command's.
struct Pump {
    socket: OwnedFd,
    master: OwnedFd,
    /// The master is there for reading: the command's side is open.
    master_open: bool,
    manners: Manners,
    stdin_open: bool,
    stdout: Output,
    /// Typed and not taken by the command's terminal yet.
    typed: Vec<u8>,
    /// What the socket said; output that is left is shown first.
    end: Option<End>,
}

impl Pump {
    fn new(socket: OwnedFd, master: OwnedFd, manners: Manners) -> Self {
        Self {
            socket,
            master,
            master_open: true,
            stdin_open: manners.stdin,
            manners,
            stdout: Output::new(rustix::stdio::stdout()),
            typed: Vec::new(),
            end: None,
        }
    }

    fn run(mut self, watch: &Watch) -> End {
        let mut buffer = vec![0; packet::LARGEST];
        self.resize();
        loop {
            if !self.master_open && !self.stdout.is_waiting() {
                if let Some(end) = self.end.take() {
                    return end;
                }
            }
            match self.step(watch, &mut buffer) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(_) => return End::Lost,
            }
        }
    }

    fn step(&mut self, watch: &Watch, buffer: &mut [u8]) -> rustix::io::Result<Option<End>> {
        let mut master = PollFlags::empty();
        master.set(PollFlags::IN, !self.stdout.is_waiting());
        master.set(PollFlags::OUT, !self.typed.is_empty());
        let [stdin, master, told, signalled, writable] = ready::wait([
            (self.stdin_open && self.typed.is_empty(), rustix::stdio::stdin(), PollFlags::IN),
            (self.master_open && !master.is_empty(), self.master.as_fd(), master),
            (self.end.is_none(), self.socket.as_fd(), PollFlags::IN),
            (true, watch.as_fd(), PollFlags::IN),
            (self.stdout.is_waiting(), self.stdout.fd(), PollFlags::OUT),
        ])?;
        if signalled {
            while let Some(heard) = watch.next() {
                match heard {
                    Heard::Resized => self.resize(),
                    Heard::Die(signal) => return Ok(Some(End::Signal(signal))),
                    Heard::Pass(_) => {}
                }
            }
        }
        if writable && self.stdout.write().is_err() {
            return Ok(Some(End::BrokenOutput));
        }
        if stdin && self.read_stdin(buffer) {
            return Ok(Some(End::Detached));
        }
        if told {
            self.end = end_of(self.socket.as_fd(), buffer);
        }
        if master || self.end.is_some() {
            self.write_master();
            self.read_master(buffer);
        }
        Ok(None)
    }

    fn resize(&self) {
        let (rows, cols) = terminal::size();
        if rows > 0 {
            let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
            // The command's terminal keeps its size when it is ending.
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// True when the user typed the detach keys.
    fn read_stdin(&mut self, buffer: &mut [u8]) -> bool {
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer[..PIECE]) {
            Ok(count) if count > 0 => {
                let detached = self.manners.detach_keys.feed(&buffer[..count], &mut self.typed);
                self.write_master();
                detached
            }
            Err(Errno::INTR | Errno::AGAIN) => false,
            _ => {
                self.stdin_open = false;
                false
            }
        }
    }

    fn write_master(&mut self) {
        if self.typed.is_empty() {
            return;
        }
        match rustix::io::write(&self.master, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.typed.clear(),
        }
    }

    /// Takes output when there is room for it; the end of a terminal is EIO.
    fn read_master(&mut self, buffer: &mut [u8]) {
        if self.stdout.is_waiting() || !self.master_open {
            return;
        }
        match rustix::io::read(&self.master, &mut buffer[..PIECE]) {
            Ok(count) if count > 0 => self.stdout.set(&buffer[..count]),
            Err(Errno::INTR) => {}
            // A process the command left behind may hold the terminal; it is not waited for.
            Err(Errno::AGAIN) => self.master_open = self.end.is_none(),
            _ => self.master_open = false,
        }
    }
}
