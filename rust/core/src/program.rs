//! The runtime as a program that cannot be changed: one sealed copy per Python process.
//!
//! Whatever enters a container runs from a sealed copy of the runtime
//! ([`duckweed_sys::sealed`] says why). The runtime makes one itself when it must, at the
//! price of a second exec; from here it is executed out of a copy that is made once and
//! kept. Its descriptor is close-on-exec and survives fork(2). Python programs close
//! and reuse numbers as they like, so at each use the number is looked at anew: what is
//! not our copy any more is forgotten, never closed and never executed.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, TryLockError};

use duckweed_sys::spawn::{spawn, Command};
use rustix::fs::{Mode, OFlags, Stat};
use rustix::process::Pid;

/// The name of the runtime's file, and the verb that leads into containers.
const RUNTIME: (&[u8], &[u8]) = (b"duckweed-runtime", b"supervise");

/// What identifies the content of a file on disk: device, inode, size, and when it was written.
type Identity = (u64, u64, i64, i64, u64);

struct Kept {
    path: CString,
    /// The file's, when it was copied.
    original: Identity,
    /// `None` where copies cannot be executed.
    copy: Option<SealedCopy>,
}

/// A descriptor that was ours when we last looked.
#[derive(Clone, Copy)]
struct SealedCopy {
    number: RawFd,
    device: u64,
    inode: u64,
    mode: u32,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// Starts a program as [`spawn`] does; the runtime's supervisors from the sealed copy.
///
/// # Errors
/// As [`spawn`].
pub fn launch(argv: &[CString], env: &[CString], fds: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<Pid> {
    if let Some(program) = supervisor(argv).and_then(sealed) {
        let sealed = Command { argv, program: Some(program.as_fd()), env, fds };
        if let Ok(pid) = spawn(&sealed) {
            return Ok(pid);
        }
        // No /proc, or a policy against executing it: the file itself says what is wrong, or knows better.
    }
    spawn(&Command { argv, program: None, env, fds })
}

/// The runtime's path when `argv` starts a supervisor.
fn supervisor(argv: &[CString]) -> Option<&CStr> {
    let (path, verb) = (argv.first()?, argv.get(1)?);
    let name = Path::new(OsStr::from_bytes(path.to_bytes())).file_name()?;
    (name.as_bytes() == RUNTIME.0 && verb.to_bytes() == RUNTIME.1).then_some(path)
}

/// A descriptor of the copy for the caller alone.
///
/// `None` when there is none to be had, or when another thread is making it (or was, when
/// this process was forked off): the runtime then makes its own.
fn sealed(path: &CStr) -> Option<OwnedFd> {
    let mut kept = match KEPT.try_lock() {
        Ok(kept) => kept,
        Err(TryLockError::Poisoned(broken)) => broken.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    let original = identity(&rustix::fs::stat(path).ok()?);
    if let Some(known) = kept.as_ref().filter(|known| *known.path == *path && known.original == original) {
        match known.copy.map(SealedCopy::duplicate) {
            None => return None,
            Some(Some((ours, true))) => return Some(ours),
            Some(_) => {}
        }
    }
    if let Some(old) = kept.take().and_then(|known| known.copy) {
        if old.duplicate().is_some() {
            drop(duckweed_sys::fd::adopt(old.number));
        }
    }
    let copy = SealedCopy::make(path).ok();
    *kept = Some(Kept { path: path.to_owned(), original, copy });
    copy?.duplicate().map(|(ours, _)| ours)
}

impl SealedCopy {
    fn make(path: &CStr) -> io::Result<SealedCopy> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let copy = duckweed_sys::sealed::sealed_copy(file.as_fd())?;
        let stat = rustix::fs::fstat(&copy)?;
        Ok(SealedCopy {
            device: stat.st_dev,
            inode: stat.st_ino,
            mode: stat.st_mode,
            number: copy.into_raw_fd(),
        })
    }

    /// A duplicate, which nobody else can close or reuse, if the number still means our copy;
    /// and whether its mode is as it was, the one thing about it that its owner can change
    /// (before Linux 6.3 to where it cannot be executed).
    fn duplicate(self) -> Option<(OwnedFd, bool)> {
        let number = duckweed_sys::fd::borrow(self.number).ok()?;
        let own = rustix::io::fcntl_dupfd_cloexec(number, 3).ok()?;
        let stat = rustix::fs::fstat(&own).ok()?;
        let is_ours = (stat.st_dev, stat.st_ino) == (self.device, self.inode);
        is_ours.then_some((own, stat.st_mode == self.mode))
    }
}

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
}
