//! Running from a sealed copy: what enters a container takes no way to our own file along.
//!
//! An image can make the process that is about to become its command execute
//! `/proc/self/exe` (as the interpreter of a script, or of an ELF file), and whoever shares a
//! pid namespace with a process of ours may come to look at /proc/PID/exe. The file behind
//! that belongs to the user, who is the container's root: once nobody executes it any more
//! it could be overwritten, and the next start would run what the container wrote. So
//! `supervise` and `run` execute from a memfd that is sealed ([`duckweed_sys::sealed`]), and so
//! does all that they fork: the container's first process, its init, every exec.
//!
//! Who starts many of them passes the copy along (the extension does); then this is two
//! system calls. Where memfds may not be executed (the sysctl `vm.memfd_noexec` is 2, or a
//! policy forbids it) we carry on unsealed: closed /proc entries (`userns::enter`) and
//! ETXTBSY, which last as long as the container does, are what is left then.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use duckweed_sys::exec::Program;
use duckweed_sys::sealed::{is_sealed, sealed_copy};
use duckweed_sys::spawn::c_string;
use rustix::fs::{Mode, OFlags};

const OWN_FILE: &str = "/proc/self/exe";

/// Comes back in a process that executes a sealed copy, if there can be one here.
pub fn run_sealed() {
    // Without /proc there is no container either, and the start will say so.
    let Ok(file) = rustix::fs::open(OWN_FILE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return;
    };
    match is_sealed(&file) {
        // A kernel that runs memfds and does not know its own seals must not keep us here for ever.
        Ok(false) if !is_memfd() => drop(execute_copy(file)),
        Ok(true) => name_ourselves(),
        _ => {}
    }
}

fn execute_copy(file: OwnedFd) -> io::Result<Infallible> {
    let copy = sealed_copy(file.as_fd())?;
    drop(file);
    let args = std::env::args_os().map(c_string).collect::<io::Result<_>>()?;
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        c_string(name)
    });
    let program = Program::new(args, environment.collect::<io::Result<_>>()?);
    let path: CString = c_string(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    program.exec(&path)
}

fn is_memfd() -> bool {
    rustix::fs::readlink(OWN_FILE, Vec::new()).is_ok_and(|target| target.to_bytes().starts_with(b"/memfd:"))
}

/// The kernel names a process after the file: the number of a descriptor, for ps and top.
fn name_ourselves() {
    let argv0 = std::env::args_os().next().unwrap_or_default();
    let name = argv0.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if let Ok(name) = c_string(OsStr::from_bytes(&name[..name.len().min(15)])) {
        let _ = rustix::thread::set_name(&name);
    }
}
