//! Writing to the user's stdout and stderr without being held by a slow reader.
//!
//! The descriptors are shared with other programs, so they are not made non-blocking.
//! Instead one message at most waits here; its next piece is written when poll(2) says there
//! is room, and a pipe or terminal with room takes a page without blocking (pipe(7)).

use std::os::fd::BorrowedFd;

use rustix::fs::{fstat, FileType};
use rustix::io::Errno;

/// What a pipe with any room takes at once.
const PAGE: usize = 4096;

/// One of the two, and what waits for it.
#[derive(Debug)]
pub struct Output {
    fd: BorrowedFd<'static>,
    waiting: Vec<u8>,
    written: usize,
    /// A regular file never makes one wait for a reader.
    piece: usize,
}

impl Output {
    /// An output to a descriptor of this process's start.
    #[must_use]
    pub fn new(fd: BorrowedFd<'static>) -> Self {
        let is_file =
            fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        Self { fd, waiting: Vec::new(), written: 0, piece: if is_file { usize::MAX } else { PAGE } }
    }

    /// Whether the last message is not written yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.written < self.waiting.len()
    }

    /// The next message, after the last one was written.
    pub fn set(&mut self, bytes: &[u8]) {
        self.waiting.clear();
        self.waiting.extend_from_slice(bytes);
        self.written = 0;
    }

    /// Writes one piece.
    ///
    /// # Errors
    /// EPIPE and all others that mean nobody will read.
    pub fn write(&mut self) -> rustix::io::Result<()> {
        let rest = &self.waiting[self.written..];
        match rustix::io::write(self.fd, &rest[..rest.len().min(self.piece)]) {
            Ok(count) => self.written += count,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Its descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'static> {
        self.fd
    }
}
