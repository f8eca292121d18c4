//! A trapped call: who made it, with what, and what can be answered.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use duckweed_sys::memory;
use duckweed_sys::notify::Notification;
use rustix::io::Errno;

/// The kernel's PATH_MAX.
const LONGEST_PATH: usize = 4096;

/// A call that waits for us. Its memory is read when asked for, and what was read is what counts: a
/// pointer is followed once.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The thread, in our pid namespace.
    pub pid: i32,
    arguments: [u64; 6],
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Verdict {
    /// The kernel runs it.
    GoOn,
    /// It returns this.
    Value(i64),
    /// It returns a new descriptor for this file.
    Descriptor {
        /// The file.
        fd: OwnedFd,
        /// O_CLOEXEC was asked for.
        close_on_exec: bool,
    },
}

/// A verdict, or the errno that the call fails with.
pub type Outcome = Result<Verdict, Errno>;

/// The call succeeded and says no more.
pub const DONE: Outcome = Ok(Verdict::Value(0));
/// See [`Verdict::GoOn`].
pub const GO_ON: Outcome = Ok(Verdict::GoOn);

impl Call {
    /// The call of a notification.
    pub fn new(notification: &Notification) -> Self {
        Self { pid: notification.pid, arguments: notification.arguments }
    }

    /// A call of a thread with these arguments.
    pub fn with(pid: i32, arguments: [u64; 6]) -> Self {
        Self { pid, arguments }
    }

    /// An argument as a pointer or a size.
    pub fn long(&self, index: usize) -> u64 {
        self.arguments[index]
    }

    /// An argument as the kernel reads an `int`.
    pub fn int(&self, index: usize) -> i32 {
        self.arguments[index] as i32
    }

    /// An argument as the kernel reads an `unsigned int`.
    pub fn word(&self, index: usize) -> u32 {
        self.arguments[index] as u32
    }

    /// The string that an argument points at.
    ///
    /// # Errors
    /// EFAULT, ENAMETOOLONG.
    pub fn text(&self, index: usize) -> Result<Vec<u8>, Errno> {
        memory::read_string(self.pid, self.long(index), LONGEST_PATH).map_err(memory_errno)
    }

    /// `length` bytes that an argument points at.
    ///
    /// # Errors
    /// EFAULT.
    pub fn bytes(&self, index: usize, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        memory::read_exact(self.pid, self.long(index), &mut bytes).map_err(memory_errno)?;
        Ok(bytes)
    }

    /// `count` 32-bit numbers that an argument points at.
    ///
    /// # Errors
    /// EFAULT.
    pub fn words(&self, index: usize, count: usize) -> Result<Vec<u32>, Errno> {
        let bytes = self.bytes(index, count * 4)?;
        Ok(bytes
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
            .collect())
    }

    /// Fills `into` with what is at an address.
    ///
    /// # Errors
    /// EFAULT.
    pub fn read_at(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        memory::read_exact(self.pid, address, into).map_err(memory_errno)
    }

    /// Fills the room that an argument points at.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write(&self, index: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.write_at(self.long(index), bytes)
    }

    /// Fills room at an address.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write_at(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        memory::write(self.pid, address, bytes).map_err(memory_errno)
    }
}

/// The errno of an I/O error; EIO for one without.
pub fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(match error.kind() {
        std::io::ErrorKind::WriteZero => Errno::NOSPC,
        _ => Errno::IO,
    })
}

/// Stands for memory that we may not read: that of a process on its way into the container, which is
/// ours and not yet somebody's program. The kernel runs what it calls.
pub const UNREADABLE: Errno = Errno::NOKEY;

fn memory_errno(error: std::io::Error) -> Errno {
    match errno(error) {
        Errno::PERM | Errno::ACCESS => UNREADABLE,
        other => other,
    }
}

/// A C string; no caller can have sent a NUL inside one.
pub fn c_string(bytes: Vec<u8>) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}
