//! seccomp(2): giving the calling thread a filter.
//!
//! The programs are made in `runtime::seccomp`; here is only the door to the kernel.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Class, size, mode or operation.
    pub code: u16,
    /// How many instructions to skip when the comparison holds.
    pub jt: u8,
    /// How many to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The bit of a flag by the name the OCI runtime specification uses; 0 when unknown.
pub fn flag(name: &str) -> u32 {
    let bit = match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
        "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        _ => 0,
    };
    bit as u32
}

/// Puts a filter on the calling thread, for good. Allocates nothing: may run between
/// fork and exec. `flags` is a sum of [`flag`]s, without `NEW_LISTENER`.
///
/// # Errors
/// EACCES without no_new_privs and without CAP_SYS_ADMIN in the user namespace; EINVAL
/// for a program the kernel refuses.
pub fn install(program: &[Instruction], flags: u32) -> io::Result<()> {
    set_filter(program, flags).map(drop)
}

/// As [`install`], and returns the descriptor on which `Notify` answers arrive
/// (seccomp_unotify(2)). It is close-on-exec.
///
/// # Errors
/// As [`install`]; EBUSY when a filter above has a listener already; EINVAL before 5.0.
pub fn install_with_listener(program: &[Instruction], flags: u32) -> io::Result<OwnedFd> {
    let fd = set_filter(program, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32)?;
    // SAFETY: with NEW_LISTENER the call returns a descriptor it has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn set_filter(program: &[Instruction], flags: u32) -> io::Result<i64> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let description =
        libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `description` points at `len` instructions laid out as sock_filter (repr(C), same
    // fields); the kernel copies them during the call and writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const description)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
