//! What a caller's memory says: addresses and messages, as both fronts read them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::socket_address::{encode, parse, LONGEST};

/// The largest datagram.
const LARGEST: usize = 65_507;
/// iovec's of one message, UIO_MAXIOV; messages of one sendmmsg, the same.
pub(super) const MOST_PARTS: u64 = 1024;
/// MSG_FASTOPEN.
pub(super) const FAST_OPEN: u32 = 0x2000_0000;
/// SOL_UDP, UDP_SEGMENT: a payload to be cut up (linux/udp.h).
const UDP_SEGMENT: (i32, i32) = (17, 103);

/// A call, and the memory of who made it.
pub trait Memory {
    /// An argument, as it was in the register.
    fn argument(&self, index: usize) -> u64;
    /// Fills `into` from the caller's memory.
    ///
    /// # Errors
    /// EFAULT.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno>;
    /// Writes to the caller's memory.
    ///
    /// # Errors
    /// EFAULT.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno>;
}

/// One whose descriptors can be copied.
pub trait Caller: Memory {
    /// A copy of one of its descriptors.
    ///
    /// # Errors
    /// EBADF.
    fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno>;
}

/// One that can only be had to make other calls.
pub trait Stopped: Memory {
    /// The inode of the socket behind one of its descriptors; `None`: there is no socket.
    fn socket(&self, number: i32) -> Option<u64>;
}

pub(super) fn at_most(length: usize) -> Result<usize, Errno> {
    if length > LARGEST {
        return Err(Errno::MSGSIZE);
    }
    Ok(length)
}

pub(super) fn address_bytes(caller: &(impl Memory + ?Sized), at: u64, length: u64) -> Result<Vec<u8>, Errno> {
    // 128 is sizeof(struct sockaddr_storage), the most the kernel takes.
    if length > 128 {
        return Err(Errno::INVAL);
    }
    let mut bytes = vec![0; (length as usize).min(LONGEST)];
    caller.read(at, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn address(caller: &(impl Memory + ?Sized), at: u64, length: u64) -> Result<SocketAddr, Errno> {
    let bytes = address_bytes(caller, at, length)?;
    parse(&bytes).ok_or(if bytes.len() < 16 { Errno::INVAL } else { Errno::AFNOSUPPORT })
}

pub(super) fn is_unspecified(caller: &(impl Memory + ?Sized), at: u64, length: u64) -> Result<bool, Errno> {
    Ok(address_bytes(caller, at, length)?.get(..2) == Some(&[0, 0]))
}

/// Fills the address that the caller has room for, and says how long it is.
pub(super) fn tell(caller: &(impl Memory + ?Sized), address: SocketAddr) -> Result<(), Errno> {
    let bytes = encode(address);
    let mut room = [0; 4];
    caller.read(caller.argument(2), &mut room)?;
    let room = i32::from_ne_bytes(room);
    let room = usize::try_from(room).map_err(|_| Errno::INVAL)?;
    caller.write(caller.argument(1), &bytes[..room.min(bytes.len())])?;
    caller.write(caller.argument(2), &u32::try_from(bytes.len()).unwrap_or(0).to_ne_bytes())
}

/// `struct msghdr`, as a 64-bit program has it.
pub(super) struct Message {
    pub name: u64,
    pub name_length: u32,
    pub parts: u64,
    pub count: u64,
    pub control: u64,
    pub control_length: u64,
}

impl Message {
    pub const LENGTH: u64 = 56;
    /// `struct mmsghdr`.
    pub const LENGTH_OF_SEVERAL: u64 = 64;

    pub fn read(caller: &(impl Memory + ?Sized), at: u64) -> Result<Self, Errno> {
        let mut bytes = [0; Self::LENGTH as usize];
        caller.read(at, &mut bytes)?;
        let long = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(long)
        };
        Ok(Self {
            name: long(0),
            name_length: long(8) as u32,
            parts: long(16),
            count: long(24),
            control: long(32),
            control_length: long(40),
        })
    }

    pub fn payload(&self, caller: &(impl Memory + ?Sized)) -> Result<Vec<u8>, Errno> {
        if self.count > MOST_PARTS {
            return Err(Errno::MSGSIZE);
        }
        let mut table = vec![0; self.count as usize * 16];
        caller.read(self.parts, &mut table)?;
        let mut payload = Vec::new();
        for part in table.chunks_exact(16) {
            let (mut base, mut length) = ([0; 8], [0; 8]);
            base.copy_from_slice(&part[..8]);
            length.copy_from_slice(&part[8..]);
            let length = usize::try_from(u64::from_ne_bytes(length)).unwrap_or(usize::MAX);
            let from = payload.len();
            payload.resize(from + at_most(length)?, 0);
            at_most(payload.len())?;
            caller.read(u64::from_ne_bytes(base), &mut payload[from..])?;
        }
        Ok(payload)
    }

    /// The length that the payload is to be cut into. Other control data says where from, and that is ours to say.
    pub fn segment(&self, caller: &(impl Memory + ?Sized)) -> Result<Option<usize>, Errno> {
        let mut bytes = vec![0; self.control_length.min(512) as usize];
        if self.control == 0 {
            return Ok(None);
        }
        caller.read(self.control, &mut bytes)?;
        let mut rest = &bytes[..];
        while let Some(header) = rest.get(..16) {
            let word =
                |at: usize| i32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let length = usize::try_from(word(0)).unwrap_or(0);
            if length < 16 || length > rest.len() {
                break;
            }
            if (word(8), word(12)) == UDP_SEGMENT {
                return Ok(rest.get(16..18).map(|size| usize::from(u16::from_ne_bytes([size[0], size[1]]))));
            }
            rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
        }
        Ok(None)
    }
}
