//! Resource limits by the names the OCI runtime specification uses, getrlimit(2).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// The resource called `name` (`RLIMIT_NOFILE` ...); `None` for an unknown one.
pub fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        _ => return None,
    })
}

/// Soft and hard value of a limit of another process.
///
/// # Errors
/// ESRCH; EPERM for a process of another user without CAP_SYS_RESOURCE over it.
pub fn of_process(pid: i32, resource: Resource) -> io::Result<(u64, u64)> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new limit is given; the kernel writes one struct, which is `old`.
    let result = unsafe { libc::prlimit64(pid, resource as _, std::ptr::null(), &raw mut old) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((old.rlim_cur, old.rlim_max))
}

/// Sets both values of a limit of another process.
///
/// # Errors
/// As [`of_process`]; EPERM for a hard value above the present one.
pub fn set_of_process(pid: i32, resource: Resource, (soft, hard): (u64, u64)) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one struct, which is `new`, and writes nothing.
    let result = unsafe { libc::prlimit64(pid, resource as _, &raw const new, std::ptr::null_mut()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The soft limit on descriptors that this process was given; 0 as long as it has not raised it.
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// Lets this process have as many descriptors as it may. What it starts shall call [`restore_descriptors`]: programs
/// that use select(2) count on the usual limit.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Some(current) = limit.current.filter(|current| limit.maximum.is_none_or(|most| *current < most)) {
        if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok() {
            GIVEN.store(current, Ordering::Relaxed);
        }
    }
}

/// Goes back to the limit of before [`raise_descriptors`], if it was called; in a child.
pub fn restore_descriptors() {
    let given = GIVEN.load(Ordering::Relaxed);
    if given > 0 {
        let maximum = getrlimit(Resource::Nofile).maximum;
        // Lowering is always allowed.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(given), maximum });
    }
}
