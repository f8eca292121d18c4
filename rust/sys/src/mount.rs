//! mount_setattr(2), which rustix lacks.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `MOUNT_ATTR_*` of linux/mount.h; the same bits as rustix's `MountAttrFlags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Bits to switch on.
    pub set: u64,
    /// Bits to switch off.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or 0 for no change.
    pub propagation: u64,
}

/// Read-only.
pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// setuid bits and file capabilities do nothing.
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// Device nodes cannot be opened.
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// Nothing can be executed.
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// The field of the access time modes; relatime is 0.
pub const ATIME: u64 = 0x70;
/// Access times are never written.
pub const NOATIME: u64 = 0x10;
/// Access times are always written.
pub const STRICTATIME: u64 = 0x20;
/// No access times for directories.
pub const NODIRATIME: u64 = 0x80;

/// Changes the mount that `fd` is the top of, and all below it when `recursive`.
///
/// # Errors
/// EPERM for a flag that is locked, ENOSYS before Linux 5.12, EINVAL when `fd` is not the top of a mount.
pub fn set_attributes(fd: BorrowedFd<'_>, recursive: bool, change: Change) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant and `attributes` outlives the call, which reads
    // exactly the size it is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
