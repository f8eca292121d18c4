//! Copying one entry from tree to tree, with all that the tree holds of it.
//!
//! Sources are trees that this crate extracted; the destination is a new
//! directory of ours. Nothing is followed on either side.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::tree;

/// Copies one entry that is not a directory, with its mode, time and `user.*`
/// xattrs. `to_name` must not exist.
pub fn copy_entry(
    from: BorrowedFd<'_>,
    from_name: &[u8],
    stat: &Stat,
    to: BorrowedFd<'_>,
    to_name: &[u8],
) -> Result<(), Errno> {
    match tree::file_type(stat) {
        FileType::RegularFile => return copy_file(from, from_name, stat, to, to_name),
        FileType::Symlink => {
            let target = fs::readlinkat(from, from_name, Vec::new())?;
            fs::symlinkat(target.as_c_str(), to, to_name)?;
        }
        FileType::Fifo => {
            fs::mknodat(to, to_name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode), 0)?;
            fs::chmodat(to, to_name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
        }
        // Extraction makes no others, and a container's sockets die with it.
        _ => return Err(Errno::OPNOTSUPP),
    }
    fs::utimensat(to, to_name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_file(
    from: BorrowedFd<'_>,
    from_name: &[u8],
    stat: &Stat,
    to: BorrowedFd<'_>,
    to_name: &[u8],
) -> Result<(), Errno> {
    let source = open_readable(from, from_name, stat)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = fs::openat(to, to_name, flags, Mode::RUSR | Mode::WUSR)?;
    copy_content(&source, &target, stat)?;
    copy_xattrs(&source, &target);
    fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    fs::futimens(&target, &times(stat))
}

/// Opens a file of ours even if its mode keeps us out (`/etc/shadow` with 0000):
/// the mode is opened up for that moment.
pub(crate) fn open_readable(directory: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<OwnedFd, Errno> {
    let mode = stat.st_mode & 0o7777;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {}
        result => return result,
    }
    let handle = fs::openat(directory, name, flags | OFlags::PATH, Mode::empty())?;
    let by_handle = format!("/proc/self/fd/{}", handle.as_raw_fd());
    fs::chmod(&by_handle, Mode::from_raw_mode(mode) | Mode::RUSR)?;
    let opened = fs::openat(directory, name, flags, Mode::empty());
    fs::chmod(&by_handle, Mode::from_raw_mode(mode))?;
    opened
}

/// A reflink where the file system has them, else the data stretches only.
fn copy_content(source: &OwnedFd, target: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    if fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let size = stat.st_size as u64;
    let mut at = 0;
    while at < size {
        let (start, end) = next_data(source, at, size)?;
        copy_range(source, target, start, end)?;
        at = end;
    }
    fs::ftruncate(target, size)
}

/// The next stretch of data from `at`; `(size, size)` if only a hole follows.
pub(crate) fn next_data(source: &OwnedFd, at: u64, size: u64) -> Result<(u64, u64), Errno> {
    let start = match fs::seek(source, fs::SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok((size, size)),
        // No holes are known here.
        Err(Errno::INVAL) => return Ok((at, size)),
        Err(errno) => return Err(errno),
    };
    let end = fs::seek(source, fs::SeekFrom::Hole(start)).unwrap_or(size);
    Ok((start.min(size), end.clamp(start, size)))
}

fn copy_range(source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let length = usize::try_from(end - from).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
            // Shorter than it was: the hole that ftruncate leaves is as good.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(source, target, from, end)
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &OwnedFd, target: &OwnedFd, mut at: u64, end: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; 128 * 1024];
    while at < end {
        let want = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(source, &mut buffer[..want], at))?;
        if n == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < n {
            let place = at + written as u64;
            written += rustix::io::retry_on_intr(|| rustix::io::pwrite(target, &buffer[written..n], place))?;
        }
        at += n as u64;
    }
    Ok(())
}

/// Copies `user.*` xattrs, overlayfs's own excepted. They are niceties: what cannot be read or set is left out.
pub(crate) fn copy_xattrs(source: impl AsFd, target: impl AsFd) {
    let mut names = vec![0u8; 64 * 1024];
    let Ok(length) = fs::flistxattr(source.as_fd(), &mut names[..]) else { return };
    for name in names[..length].split(|&byte| byte == 0) {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 * 1024];
        if let Ok(length) = fs::fgetxattr(source.as_fd(), name, &mut value[..]) {
            let _ = fs::fsetxattr(target.as_fd(), name, &value[..length], XattrFlags::empty());
        }
    }
}

/// The time of the last change, as both times.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}
