//! Chunks: pieces of the unpacked stream, made once and read by several threads.
//!
//! A chunk's buffer begins with room for what an inflater may reach back to, so
//! that it can be decoded into in place. The last reader to let go of a chunk
//! gives its buffer back: memory is bounded by the queues, and no page is
//! touched for the first time twice.

use std::sync::{Arc, Mutex};

use crate::compression::BUFFER_SIZE;
use crate::deflate::HISTORY;

/// Bytes in a chunk, give or take a match of DEFLATE.
pub const CHUNK_SIZE: usize = 256 * 1024;

/// Buffers that nobody uses at the moment.
#[derive(Clone, Default)]
pub struct Spares(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spares {
    /// A used buffer of `length` bytes, or a new one. What is in it is of no meaning.
    pub fn take(&self, length: usize) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        let mut buffer = spare.unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    /// Keeps a buffer for the next one who takes.
    pub fn give(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(buffer);
    }
}

/// A piece of the unpacked stream.
pub struct Chunk {
    buffer: Vec<u8>,
    end: usize,
    spares: Spares,
}

impl Chunk {
    /// An empty one.
    pub fn new(spares: &Spares) -> Chunk {
        let buffer = spares.take(BUFFER_SIZE);
        Chunk { buffer, end: HISTORY, spares: spares.clone() }
    }

    /// The whole buffer, for a decoder: the bytes begin at [`HISTORY`].
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Says where in the buffer the bytes end.
    pub fn set_end(&mut self, end: usize) {
        self.end = end.clamp(HISTORY, self.buffer.len());
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[HISTORY..self.end]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.spares.give(std::mem::take(&mut self.buffer));
    }
}
