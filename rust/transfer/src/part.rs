//! A part: a blob on its way, as a file that grows.
//!
//! The download writes at the end, a [`Follower`] reads behind it out of the page
//! cache, and a later process finds what is there and asks only for the rest. A
//! part never shrinks and never changes what it has: who started to read it can
//! read on over any number of broken connections.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::TransferError;

const BUFFER: usize = 256 * 1024;
/// How often a waiting follower looks whether it is to give up.
const TICK: Duration = Duration::from_millis(100);

/// A blob on its way to a file.
pub struct Part {
    file: File,
    digest: String,
    size: u64,
    resumed: u64,
    received: AtomicU64,
    hashing: Mutex<Hashing>,
    end: Mutex<Option<Result<(), String>>>,
    grown: Condvar,
}

/// How far the digest has been taken.
struct Hashing {
    state: Sha256,
    hashed: u64,
}

impl Part {
    /// Opens the file at `path`, or makes it; what it holds already counts as received. `digest` is
    /// `sha256:` and 64 hex digits, `size` the blob's bytes.
    pub fn open(path: &Path, digest: &str, size: u64) -> Result<Part, TransferError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(TransferError::Disk)?;
        let length = file.metadata().map_err(TransferError::Disk)?.len();
        let resumed = if length > size {
            // Not a beginning of this blob.
            file.set_len(0).map_err(TransferError::Disk)?;
            0
        } else {
            length
        };
        Ok(Part {
            file,
            digest: digest.to_owned(),
            size,
            resumed,
            received: AtomicU64::new(resumed),
            hashing: Mutex::new(Hashing { state: Sha256::new(), hashed: 0 }),
            end: Mutex::new(None),
            grown: Condvar::new(),
        })
    }

    /// Bytes that are there.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// Bytes that were there when the part was opened.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// The blob's size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether all bytes came and have the digest.
    pub fn is_whole(&self) -> bool {
        matches!(*self.lock_end(), Some(Ok(())))
    }

    /// Tells followers that no more will come, and why.
    pub fn fail(&self, reason: &str) {
        self.set_end(Err(reason.to_owned()));
    }

    /// Reads from the beginning, waiting for what is still to come.
    pub fn follow(self: &Arc<Part>, cancel: Option<Arc<AtomicBool>>) -> Follower {
        Follower { part: Arc::clone(self), position: 0, cancel }
    }

    fn lock_end(&self) -> MutexGuard<'_, Option<Result<(), String>>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_end(&self, end: Result<(), String>) {
        self.lock_end().get_or_insert(end);
        self.grown.notify_all();
    }

    fn lock_hashing(&self) -> MutexGuard<'_, Hashing> {
        self.hashing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the digest of what is there and was not hashed yet.
    pub(crate) fn catch_up(&self) -> Result<(), TransferError> {
        let mut hashing = self.lock_hashing();
        let end = self.received();
        let mut buffer = vec![0; BUFFER];
        while hashing.hashed < end {
            let want = buffer.len().min(usize::try_from(end - hashing.hashed).unwrap_or(usize::MAX));
            let n = self.file.read_at(&mut buffer[..want], hashing.hashed).map_err(TransferError::Disk)?;
            if n == 0 {
                return Err(TransferError::Disk(io::ErrorKind::UnexpectedEof.into()));
            }
            hashing.state.update(&buffer[..n]);
            hashing.hashed += n as u64;
        }
        Ok(())
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<(), TransferError> {
        let at = self.received();
        self.file.write_all_at(bytes, at).map_err(TransferError::Disk)?;
        let mut hashing = self.lock_hashing();
        hashing.state.update(bytes);
        hashing.hashed = at + bytes.len() as u64;
        self.received.store(hashing.hashed, Ordering::Release);
        // The lock makes sure that no follower goes to sleep between its look and this call.
        drop(self.lock_end());
        self.grown.notify_all();
        Ok(())
    }

    /// Checks the digest of the whole.
    pub(crate) fn finish(&self) -> Result<(), TransferError> {
        let found = format!("sha256:{}", hex(&self.lock_hashing().state.clone().finalize()));
        if found != self.digest {
            let expected = self.digest.clone();
            return Err(TransferError::Digest { expected, found, resumed: self.resumed > 0 });
        }
        self.set_end(Ok(()));
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| DIGITS[usize::from(nibble)] as char).collect()
}

/// Reads a part from its beginning to its end, waiting for what has not come yet.
pub struct Follower {
    part: Arc<Part>,
    position: u64,
    cancel: Option<Arc<AtomicBool>>,
}

impl Follower {
    /// Waits until there is something behind the position; whether there will be.
    fn wait(&self) -> io::Result<bool> {
        let part = &self.part;
        let mut end = part.lock_end();
        loop {
            if part.received() > self.position {
                return Ok(true);
            }
            match &*end {
                Some(Ok(())) => return Ok(false),
                Some(Err(reason)) => return Err(io::Error::other(reason.clone())),
                // Its digest is still being checked; what was read is checked by the reader too.
                None if self.position == part.size => return Ok(false),
                None => {}
            }
            if self.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(io::Error::other("cancelled"));
            }
            end = part.grown.wait_timeout(end, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.wait()? {
            return Ok(0);
        }
        let there = self.part.received() - self.position;
        let want = buffer.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        let n = self.part.file.read_at(&mut buffer[..want], self.position)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += n as u64;
        Ok(n)
    }
}
