//! The way in: the source's bytes in buffers, each handed on to be hashed and
//! kept once the decoder is through with it.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::Arc;

use crate::chunk::{Spares, CHUNK_SIZE};
use crate::error::ExtractError;
use crate::pipeline::Piece;

/// A source, read in large pieces and looked at on the way.
pub struct Intake<R> {
    source: R,
    cancel: Option<Arc<AtomicBool>>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    size: u64,
    spares: Spares,
    /// Where used buffers go. Without it the bytes are not looked at here.
    outlet: Option<SyncSender<Piece>>,
}

impl<R: Read> Intake<R> {
    /// Stands at the first byte of `source`; `cancel` is looked at before every read.
    pub fn new(source: R, cancel: Option<Arc<AtomicBool>>) -> Intake<R> {
        let spares = Spares::default();
        let buffer = spares.take(CHUNK_SIZE);
        Intake { source, cancel, buffer, start: 0, end: 0, size: 0, spares, outlet: None }
    }

    /// The first bytes, `wanted` or all there are; they stay to be read.
    pub fn peek(&mut self, wanted: usize) -> Result<&[u8], ExtractError> {
        while self.end < wanted {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ExtractError::Source(error)),
            }
        }
        self.size = self.end as u64;
        Ok(&self.buffer[..self.end])
    }

    /// Sends all bytes, those that were peeked at included, to `outlet` after use.
    pub fn hand_on(&mut self, outlet: SyncSender<Piece>) {
        self.outlet = Some(outlet);
    }

    /// Bytes read so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads what is left, so that all of it is handed on.
    pub fn drain(&mut self) -> Result<(), ExtractError> {
        self.start = self.end;
        loop {
            self.refill()?;
            if self.end == 0 {
                return Ok(());
            }
            self.start = self.end;
        }
    }

    fn refill(&mut self) -> Result<(), ExtractError> {
        if let Some(outlet) = self.outlet.as_ref().filter(|_| self.end > 0) {
            let used = std::mem::replace(&mut self.buffer, self.spares.take(CHUNK_SIZE));
            let piece = Piece::Packed(used, self.end, self.spares.clone());
            (self.start, self.end) = (0, 0);
            // Whoever hashes and keeps has failed, and says why.
            outlet.send(piece).map_err(|_| ExtractError::Cancelled)?;
        }
        (self.start, self.end) = (0, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read_source(&mut buffer);
        self.buffer = buffer;
        self.end = result?;
        Ok(())
    }

    fn read_source(&mut self, buffer: &mut [u8]) -> Result<usize, ExtractError> {
        loop {
            if self.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(ExtractError::Cancelled);
            }
            match self.source.read(buffer) {
                Ok(n) => {
                    self.size += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ExtractError::Source(error)),
            }
        }
    }
}

/// An error of ours passes through a decoder wrapped in an `io::Error`; `pipeline` unwraps it.
impl<R: Read> Read for Intake<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && self.outlet.is_none() {
            return self.read_source(buffer).map_err(io::Error::other);
        }
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for Intake<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill().map_err(io::Error::other)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
    }
}
