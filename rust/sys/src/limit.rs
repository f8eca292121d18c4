//! Resource limits by the names the OCI runtime specification uses, getrlimit(2).

use std::io;

use rustix::process::Resource;

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
