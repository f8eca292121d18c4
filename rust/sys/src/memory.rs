//! Another process's memory, process_vm_readv(2): arguments of its calls, and the room it gave for results.
//!
//! Addresses are that process's business and may be anything: the kernel checks them and says EFAULT.

use std::io;

const PAGE: usize = 4096;

/// Two pieces of `length` bytes at `address`, parted where a page begins: a transfer stops only between pieces.
fn pieces(address: u64, length: usize) -> [libc::iovec; 2] {
    let first = length.min(PAGE - (address as usize % PAGE));
    let piece = |base: u64, length| libc::iovec { iov_base: base as *mut libc::c_void, iov_len: length };
    [piece(address, first), piece(address.wrapping_add(first as u64), length - first)]
}

/// Reads up to `buffer.len()` bytes; fewer when the memory ends earlier.
///
/// # Errors
/// EFAULT for an address that is not there, ESRCH, EPERM.
pub fn read(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = pieces(address, buffer.len());
    // SAFETY: `local` is all of `buffer`, which we hold exclusively; the remote addresses are only the
    // other process's and are checked by the kernel.
    let count = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), 2, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Fills the whole buffer.
///
/// # Errors
/// As [`read`]; EFAULT when the memory ends too early.
pub fn read_exact(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let end = buffer.len().min(done + PAGE);
        let count = read(pid, address.wrapping_add(done as u64), &mut buffer[done..end])?;
        if count == 0 {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        done += count;
    }
    Ok(())
}

/// Writes all of `bytes`.
///
/// # Errors
/// As [`read`].
pub fn write(pid: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let part = &bytes[done..bytes.len().min(done + PAGE)];
        let local = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
        let remote = pieces(address.wrapping_add(done as u64), part.len());
        // SAFETY: the kernel only reads `local`, which is all of `part`; the rest as in `read`.
        let count = unsafe { libc::process_vm_writev(pid, &raw const local, 1, remote.as_ptr(), 2, 0) };
        match usize::try_from(count) {
            Ok(0) => return Err(io::Error::from_raw_os_error(libc::EFAULT)),
            Ok(count) => done += count,
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}

/// Reads bytes up to the first NUL, at most `most` of them.
///
/// # Errors
/// EFAULT; ENAMETOOLONG when there is no NUL within `most` bytes.
pub fn read_string(pid: i32, address: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(128);
    let mut block = [0; 256];
    while text.len() < most {
        let count = read(pid, address.wrapping_add(text.len() as u64), &mut block)?;
        if count == 0 {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        match block[..count].iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&block[..end]);
                return Ok(text);
            }
            None => text.extend_from_slice(&block[..count]),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn own_pid() -> i32 {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    #[test]
    fn strings_and_bytes_cross_over() {
        let text = [vec![b'x'; 5000], vec![0]].concat();
        let address = text.as_ptr() as u64;
        assert_eq!(read_string(own_pid(), address, 8192).unwrap().len(), 5000);
        let error = read_string(own_pid(), address, 4000).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
        let mut room = vec![0_u8; 9000];
        let address = room.as_mut_ptr() as u64;
        write(own_pid(), address, &[7; 9000]).unwrap();
        assert!(std::hint::black_box(&room).iter().all(|byte| *byte == 7));
        assert_eq!(read(own_pid(), 8, &mut [0; 4]).unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }
}
