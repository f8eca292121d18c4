//! Sealed programs: a copy of an executable that nobody can change, in memory.
//!
//! A process that enters a container can be made to execute or to look at its own
//! program there, and that gives whoever did it a handle to the file (the class of
//! CVE-2019-5736). The file of an unprivileged runtime belongs to the very uid that the
//! container's root has on the host, so permissions do not protect it. A memfd with
//! seals does: the seals hold for every handle to it, however it was come by, and cannot
//! be taken off again (memfd_create(2), fcntl(2) "File Sealing").

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

/// No byte can be changed, and no seal can be taken off.
fn seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

/// Whether `file` is a memfd whose bytes can never change. False for any other file.
///
/// # Errors
/// EBADF, or what a sandbox answers to fcntl(2).
pub fn is_sealed(file: impl AsFd) -> io::Result<bool> {
    match rustix::fs::fcntl_get_seals(file) {
        Ok(found) => Ok(found.contains(seals())),
        // Not a file in memory.
        Err(Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Copies the executable `file` into a sealed memfd, close-on-exec, that may be executed
/// and that only its owner may.
///
/// # Errors
/// EACCES where memfds may not be executed (the sysctl `vm.memfd_noexec` is 2), ENOMEM,
/// or what reading `file` gives.
pub fn sealed_copy(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let copy = memfd()?;
    let mut left = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    let mut at = 0;
    while left > 0 {
        let chunk = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::sendfile(&copy, file, Some(&mut at), chunk) {
            // It has become shorter under our hands: not a program to run.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => left -= count as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // As few people as possible: it lives in nobody's directory, but shows in /proc.
    rustix::fs::fchmod(&copy, 0o500.into())?;
    // Since Linux 6.3 its mode can be sealed too: a container may not make it unexecutable for the next.
    if rustix::fs::fcntl_add_seals(&copy, seals() | SealFlags::EXEC).is_err() {
        rustix::fs::fcntl_add_seals(&copy, seals())?;
    }
    Ok(copy)
}

fn memfd() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 all of them may be executed.
        Err(Errno::INVAL) => Ok(rustix::fs::memfd_create(NAME, flags)?),
        other => Ok(other?),
    }
}

/// What /proc/PID/exe of the copy shows, after `/memfd:`.
const NAME: &str = "duckweed-runtime";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn program() -> File {
        File::open("/bin/true").unwrap()
    }

    #[test]
    fn the_copy_is_the_program_and_runs() {
        let copy = sealed_copy(program().as_fd()).unwrap();
        assert!(is_sealed(&copy).unwrap());
        let (mut now, mut before) = (Vec::new(), Vec::new());
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        File::open(&path).unwrap().read_to_end(&mut now).unwrap();
        program().read_to_end(&mut before).unwrap();
        assert!(!now.is_empty() && now == before);
        let path = format!("/proc/{}/fd/{}", std::process::id(), copy.as_raw_fd());
        assert!(std::process::Command::new(path).status().unwrap().success());
    }

    #[test]
    fn no_handle_to_the_copy_can_change_a_byte_or_take_a_seal_off() {
        let copy = sealed_copy(program().as_fd()).unwrap();
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut again = File::options().read(true).write(true).open(&path).unwrap();
        for refused in [again.write_all(b"x"), again.set_len(0), again.set_len(1 << 30)] {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
        assert_eq!(rustix::fs::fcntl_add_seals(&again, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
        assert!(File::options().write(true).truncate(true).open(&path).is_err());
    }

    #[test]
    fn an_ordinary_file_is_not_sealed() {
        assert!(!is_sealed(program()).unwrap());
        assert!(!is_sealed(tempfile::tempfile().unwrap()).unwrap());
    }
}
