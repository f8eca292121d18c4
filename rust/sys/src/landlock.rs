//! Landlock: which files this process and its children may reach at all, landlock(7).
//!
//! A ruleset names what it handles; what is handled and not allowed by a rule is refused from
//! [`Ruleset::restrict`] on, for good.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Rights on files, linux/landlock.h.
pub mod right {
    #![allow(missing_docs)]
    pub const EXECUTE: u64 = 1 << 0;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    pub const REFER: u64 = 1 << 13;
    pub const TRUNCATE: u64 = 1 << 14;
    pub const IOCTL_DEV: u64 = 1 << 15;
    /// All of the first version.
    pub const FIRST: u64 = (1 << 13) - 1;
    /// Those that a rule for a single file may have.
    pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
}

/// A set of rules.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// A ruleset that handles all that this kernel can; `None` without Landlock.
    #[must_use]
    pub fn new() -> Option<Self> {
        let handled = match crate::tracing::landlock_abi().ok()? {
            1 => right::FIRST,
            2 => right::FIRST | right::REFER,
            3 | 4 => right::FIRST | right::REFER | right::TRUNCATE,
            _ => right::FIRST | right::REFER | right::TRUNCATE | right::IOCTL_DEV,
        };
        let attribute: [u64; 1] = [handled];
        // SAFETY: the kernel reads the eight bytes of `attribute`.
        let fd =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attribute.as_ptr(), 8_usize, 0_u32) };
        if fd < 0 {
            return None;
        }
        // SAFETY: the kernel made this descriptor a line ago; nobody else owns it.
        Some(Self { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) }, handled })
    }

    /// Allows rights on what a descriptor is open on, and beneath it.
    ///
    /// # Errors
    /// EINVAL for rights of directories on a file.
    pub fn allow(&self, place: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
        #[repr(C, packed)]
        struct Beneath {
            rights: u64,
            fd: i32,
        }
        const PATH_BENEATH: u32 = 1;
        let rule = Beneath { rights: rights & self.handled, fd: place.as_raw_fd() };
        // SAFETY: the kernel reads one struct landlock_path_beneath_attr, which is packed as `rule` is.
        let done = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.fd.as_raw_fd(),
                PATH_BENEATH,
                &raw const rule,
                0_u32,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Restricts this thread and all it makes. It must have no_new_privs.
    ///
    /// # Errors
    /// EPERM without no_new_privs, E2BIG beneath sixteen others.
    pub fn restrict(&self) -> io::Result<()> {
        // SAFETY: integers only.
        let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0_u32) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
