//! What this backend needs of the kernel, and how to say that it is missing.
//!
//! Overlay for users came with Linux 5.11, mount_setattr(2) with 5.12: a kernel without
//! them is one for another backend. But a container around this one may also refuse a
//! system call to us by its filter, on any kernel. Either way a bare ENOSYS in the middle
//! of a mount helps nobody. Nothing here costs a start that succeeds: we look when one failed.

use std::os::fd::AsFd;
use std::path::Path;

use duckweed_sys::mount::{set_attributes, Change};
use rustix::fs::{Mode, OFlags, ResolveFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{fsopen, move_mount, open_tree, FsOpenFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::{getpid, pidfd_open, PidfdFlags};
use rustix::thread::CapabilitySet;

use crate::start_error::StartError;

/// A system call, made so that it changes nothing.
struct Needed {
    name: &'static str,
    /// The Linux that has it first.
    since: &'static str,
    /// Without the capability to mount, EPERM says nothing about it.
    is_for_mounters: bool,
    attempt: fn() -> Result<(), Errno>,
}

const NEEDED: [Needed; 6] = [
    Needed {
        name: "open_tree",
        since: "5.2",
        is_for_mounters: false,
        attempt: || open_tree(CWD, "", OpenTreeFlags::OPEN_TREE_CLOEXEC).map(drop),
    },
    Needed {
        name: "move_mount",
        since: "5.2",
        is_for_mounters: true,
        attempt: || move_mount(CWD, "", CWD, "", MoveMountFlags::empty()),
    },
    Needed {
        name: "fsopen",
        since: "5.2",
        is_for_mounters: true,
        attempt: || fsopen("", FsOpenFlags::FSOPEN_CLOEXEC).map(drop),
    },
    Needed {
        name: "pidfd_open",
        since: "5.3",
        is_for_mounters: false,
        attempt: || pidfd_open(getpid(), PidfdFlags::empty()).map(drop),
    },
    Needed { name: "openat2", since: "5.6", is_for_mounters: false, attempt: try_openat2 },
    Needed { name: "mount_setattr", since: "5.12", is_for_mounters: true, attempt: try_mount_setattr },
];

fn try_openat2() -> Result<(), Errno> {
    rustix::fs::openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())
        .map(drop)
}

fn try_mount_setattr() -> Result<(), Errno> {
    let root = rustix::fs::open(Path::new("/"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // No change at all.
    set_attributes(root.as_fd(), false, Change::default())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// The same error, with the system calls that are missing here if that may be its reason.
pub(super) fn explain(error: StartError) -> StartError {
    if ![Errno::NOSYS, Errno::PERM].iter().any(|errno| errno.raw_os_error() == error.errno) {
        return error;
    }
    let may_mount = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let (mut lacking, mut refused) = (Vec::new(), Vec::new());
    for call in &NEEDED {
        match (call.attempt)() {
            Err(Errno::NOSYS) => lacking.push(format!("{} (Linux {})", call.name, call.since)),
            Err(Errno::PERM) if may_mount || !call.is_for_mounters => refused.push(call.name),
            _ => {}
        }
    }
    let why = match (lacking.is_empty(), refused.is_empty()) {
        (true, true) => return error,
        (false, _) => format!(
            "Linux {} as it is here has no {}",
            rustix::system::uname().release().to_string_lossy(),
            lacking.join(", ")
        ),
        (true, false) => format!("a filter around this process refuses {}", refused.join(", ")),
    };
    StartError { message: format!("{}: {why} ({})", error.context, error.errno_name), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start_error::Code;
    use duckweed_sys::seccomp::{install, Instruction};
    use duckweed_sys::trial::{attempt, Ending};

    /// What is said of a mount that failed with `errno` where the kernel answers `answer` to `call`.
    fn told(call: i64, answer: Errno, errno: Errno) -> String {
        let step = |code, jt, jf, k| Instruction { code, jt, jf, k };
        let filter = [
            step(0x20, 0, 0, 0),                                                   // load the number
            step(0x15, 0, 1, u32::try_from(call).unwrap()),                        // if it is `call`
            step(0x06, 0, 0, 0x0005_0000 | answer.raw_os_error().cast_unsigned()), // errno
            step(0x06, 0, 0, 0x7fff_0000),                                         // allow
        ];
        let ending = attempt(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            install(&filter, 0).unwrap();
            explain(StartError::errno(Code::Mount, "mount proc on /proc", errno)).message.into_bytes()
        });
        let Ending::Answered(answer) = ending.unwrap() else { panic!("killed") };
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn a_missing_system_call_is_named_with_the_kernel_that_has_it() {
        for (call, name) in [
            (libc::SYS_mount_setattr, "no mount_setattr (Linux 5.12) (ENOSYS)"),
            (libc::SYS_fsopen, "no fsopen (Linux 5.2) (ENOSYS)"),
            (libc::SYS_move_mount, "no move_mount (Linux 5.2) (ENOSYS)"),
            (libc::SYS_open_tree, "no open_tree (Linux 5.2) (ENOSYS)"),
            (libc::SYS_openat2, "no openat2 (Linux 5.6) (ENOSYS)"),
            (libc::SYS_pidfd_open, "no pidfd_open (Linux 5.3) (ENOSYS)"),
        ] {
            let line = told(call, Errno::NOSYS, Errno::NOSYS);
            assert!(line.starts_with("mount proc on /proc: Linux ") && line.ends_with(name), "{line}");
        }
    }

    #[test]
    fn a_refused_system_call_is_named_and_an_innocent_kernel_is_not_blamed() {
        assert_eq!(
            told(libc::SYS_openat2, Errno::PERM, Errno::PERM),
            "mount proc on /proc: a filter around this process refuses openat2 (EPERM)"
        );
        let plain = "mount proc on /proc: operation not permitted (EPERM)";
        assert_eq!(told(libc::SYS_getpriority, Errno::PERM, Errno::PERM), plain);
        let busy = "mount proc on /proc: device or resource busy (EBUSY)";
        assert_eq!(told(libc::SYS_openat2, Errno::NOSYS, Errno::BUSY), busy);
    }
}
