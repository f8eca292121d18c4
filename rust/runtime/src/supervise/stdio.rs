//! The container's stdio as its supervisor holds it: our ends of its pipes, or the master of its terminal.
//!
//! Output is read here and handed on; input waits here until the container reads it.
//! All descriptors are non-blocking: our ends have open file descriptions of their own,
//! so the container's ends stay as it expects them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::pty::OpenptFlags;

use super::events::{Events, Interest, Source};
use super::log::Stream;

/// The container's ends: what it gets as descriptors 0, 1 and 2.
#[derive(Debug)]
pub struct Theirs {
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
}

/// Our ends.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Its stdin, or the writing side of its terminal.
    pub input: Input,
    /// Its stdout, or the reading side of its terminal.
    pub stdout: Output,
    /// Its stderr; a terminal has none.
    pub stderr: Output,
    /// The other end of its terminal: held so that a moment without any process on it is not its end.
    slave: Option<OwnedFd>,
}

impl Stdio {
    /// Pipes for a container; its stdin is /dev/null unless `with_input`.
    ///
    /// # Errors
    /// EMFILE, ENFILE of pipe2(2).
    pub fn pipes(with_input: bool) -> io::Result<(Self, Theirs)> {
        let (input, stdin) = if with_input {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            (Input::new(ours)?, theirs)
        } else {
            (Input::default(), null()?)
        };
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let ours = Self {
            input,
            stdout: Output::new(stdout, Stream::Stdout)?,
            stderr: Output::new(stderr, Stream::Stderr)?,
            slave: None,
        };
        Ok((ours, Theirs { stdin, stdout: their_stdout, stderr: their_stderr }))
    }

    /// The terminal behind `master`.
    ///
    /// # Errors
    /// EMFILE of fcntl(2).
    pub fn terminal(master: OwnedFd) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).ok();
        Ok(Self {
            input: Input::new(rustix::io::fcntl_dupfd_cloexec(&master, 3)?)?,
            stdout: Output::new(master, Stream::Stdout)?,
            stderr: Output::default(),
            slave,
        })
    }

    /// Whether the container has a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.slave.is_some()
    }

    /// Sets the terminal's size. One that is not new is set by way of another, so that a program
    /// redraws for a client that attached just now.
    pub fn resize(&self, rows: u16, cols: u16) {
        let (Some(slave), true) = (&self.slave, rows > 0 && cols > 0) else { return };
        let size =
            |rows, cols| rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        let same =
            rustix::termios::tcgetwinsize(slave).is_ok_and(|old| old.ws_row == rows && old.ws_col == cols);
        // A terminal whose size cannot be set keeps the old one: nothing depends on it.
        if same {
            let _ =
                rustix::termios::tcsetwinsize(slave, size(rows.saturating_add(1), cols.saturating_add(1)));
        }
        let _ = rustix::termios::tcsetwinsize(slave, size(rows, cols));
    }

    /// Init has ended: from now on the last reader's end is the end.
    pub fn let_go(&mut self) {
        self.slave = None;
    }
}

/// A /dev/null for reading and writing.
///
/// # Errors
/// What open(2) says.
pub fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// What waits to be read by the container.
#[derive(Debug, Default)]
pub struct Input {
    fd: Option<OwnedFd>,
    waiting: VecDeque<(u32, Vec<u8>)>,
    /// How much of the first piece was written already.
    written: usize,
    waiting_bytes: usize,
    /// Close when everything that waits is written.
    ending: bool,
    watched: Interest,
}

impl Input {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: Some(fd), ..Self::default() })
    }

    /// Takes bytes from a connection.
    pub fn add(&mut self, connection: u32, bytes: &[u8]) {
        self.waiting_bytes += bytes.len();
        self.waiting.push_back((connection, bytes.to_vec()));
    }

    /// No more will come.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// How much waits.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Writes what the container has room for; calls `taken` with every whole piece's connection and size.
    ///
    /// A container that closed its stdin takes everything: nobody will read it.
    pub fn write(&mut self, events: &Events, mut taken: impl FnMut(u32, usize)) {
        while let Some((connection, bytes)) = self.waiting.front() {
            let (connection, size) = (*connection, bytes.len());
            let rest = &bytes[self.written..];
            let count = match self.fd.as_ref().map(|fd| rustix::io::write(fd, rest)) {
                Some(Ok(count)) => count,
                Some(Err(Errno::AGAIN)) => break,
                Some(Err(Errno::INTR)) => 0,
                Some(Err(_)) => {
                    self.close(events);
                    size - self.written
                }
                None => rest.len(),
            };
            self.written += count;
            if self.written == size {
                taken(connection, size);
                self.waiting_bytes -= size;
                self.waiting.pop_front();
                self.written = 0;
            }
        }
        if self.ending && self.waiting.is_empty() {
            self.close(events);
        }
        self.watch(events);
    }

    fn watch(&mut self, events: &Events) {
        let Some(fd) = &self.fd else { return };
        let wanted = if self.waiting.is_empty() { Interest::NONE } else { Interest::WRITE };
        if events.change(fd, Source::Input, self.watched, wanted).is_ok() {
            self.watched = wanted;
        }
    }

    fn close(&mut self, events: &Events) {
        if let Some(fd) = self.fd.take() {
            // Closing would do the same, if nobody else held the description: a terminal's is shared.
            let _ = events.change(&fd, Source::Input, self.watched, Interest::NONE);
        }
        self.watched = Interest::NONE;
    }
}

/// One stream out of the container.
#[derive(Debug, Default)]
pub struct Output {
    fd: Option<OwnedFd>,
    is_stderr: bool,
    watched: Interest,
}

/// What a read of an output gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// Bytes.
    Bytes(&'a [u8]),
    /// Nothing yet.
    Nothing,
    /// It has ended.
    End,
}

impl Output {
    fn new(fd: OwnedFd, stream: Stream) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: Some(fd), is_stderr: stream == Stream::Stderr, watched: Interest::NONE })
    }

    /// Reads once.
    pub fn read<'a>(&mut self, events: &Events, buffer: &'a mut [u8]) -> Read<'a> {
        let Some(fd) = &self.fd else { return Read::End };
        match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *buffer)) {
            Ok(count) if count > 0 => Read::Bytes(&buffer[..count]),
            Err(Errno::AGAIN) => Read::Nothing,
            // 0 is a pipe's end, EIO a terminal's.
            _ => {
                self.watch(events, false);
                self.fd = None;
                Read::End
            }
        }
    }

    /// Starts or stops waiting for output.
    pub fn watch(&mut self, events: &Events, wanted: bool) {
        let Some(fd) = &self.fd else { return };
        let wanted = if wanted { Interest::READ } else { Interest::NONE };
        let source = if self.is_stderr { Source::Stderr } else { Source::Stdout };
        if events.change(fd, source, self.watched, wanted).is_ok() {
            self.watched = wanted;
        }
    }

    /// Whether more may come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.fd.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_waits_for_a_slow_reader_and_ends_after_the_last_byte() {
        let events = Events::new().unwrap();
        let (mut ours, theirs) = Stdio::pipes(true).unwrap();
        let bytes = vec![b'x'; 200_000];
        ours.input.add(3, &bytes);
        ours.input.end();
        let mut told = Vec::new();
        let (mut read, mut buffer) = (0, vec![0; 50_000]);
        loop {
            ours.input.write(&events, |connection, count| told.push((connection, count)));
            match rustix::io::read(&theirs.stdin, &mut buffer[..]).unwrap() {
                0 => break,
                count => read += count,
            }
        }
        assert_eq!((read, told), (200_000, vec![(3, 200_000)]));
    }

    #[test]
    fn a_container_that_closed_its_stdin_takes_everything() {
        let events = Events::new().unwrap();
        let (mut ours, theirs) = Stdio::pipes(true).unwrap();
        drop(theirs);
        ours.input.add(1, b"nobody reads this");
        let mut told = 0;
        ours.input.write(&events, |_, count| told += count);
        assert_eq!((told, ours.input.waiting_bytes()), (17, 0));
    }

    #[test]
    fn output_is_nothing_before_it_is_something_before_it_ends() {
        let events = Events::new().unwrap();
        let (mut ours, theirs) = Stdio::pipes(false).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(ours.stdout.read(&events, &mut buffer), Read::Nothing);
        rustix::io::write(&theirs.stdout, b"out").unwrap();
        assert_eq!(ours.stdout.read(&events, &mut buffer), Read::Bytes(b"out"));
        drop(theirs);
        assert_eq!(ours.stdout.read(&events, &mut buffer), Read::End);
        assert!(!ours.stdout.is_open());
    }
}
