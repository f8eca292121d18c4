//! The last steps before a program of someone else runs: signals, descriptors, execve(2).

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;

/// Default dispositions for all signals and an empty mask, as a fresh login would have.
/// Rust ignores SIGPIPE and a supervisor blocks what it reads from a signalfd; neither
/// must reach a container.
pub fn reset_signals() {
    // SAFETY: `action` is a plain struct for which all zeroes mean SIG_DFL, no flags, no mask; signal
    // numbers that the kernel refuses (9, 19, libc's own) only fail. The mask is in this frame.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        for signal in 1..=64 {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Makes every descriptor from `first` on close-on-exec (close_range(2), Linux 5.11), one by one where
/// that is missing or refused.
///
/// # Errors
/// None that the kernel is known to give.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: three integers; nothing is closed now, so no owned descriptor of ours dangles.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint)
    };
    if result < 0 {
        one_by_one(first);
    }
    Ok(())
}

/// The most descriptors a process may have unless an administrator raised it (`fs.nr_open`).
const MOST_DESCRIPTORS: u64 = 1 << 20;

fn one_by_one(first: u32) {
    // The hard limit: the soft one may have been lowered below what is open.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let most = most.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS) as libc::c_int;
    for number in first as libc::c_int..most {
        // SAFETY: integers only; EBADF for a number that is not open.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Argument and environment strings with the tables execve(2) wants, made once.
#[derive(Debug)]
pub struct Program {
    _strings: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
}

impl Program {
    /// Takes the strings.
    pub fn new(args: Vec<CString>, env: Vec<CString>) -> Self {
        let table = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
        };
        let (argv, envp) = (table(&args), table(&env));
        // A CString's bytes are on the heap: moving the CString does not move them.
        Self { _strings: args.into_iter().chain(env).collect(), argv, envp }
    }

    /// Becomes the program at `path`; comes back only with the reason why not.
    ///
    /// # Errors
    /// Any errno of execve(2).
    pub fn exec(&self, path: &CStr) -> io::Result<Infallible> {
        // SAFETY: both tables end with NULL and point at strings that self owns (made in `new`, never changed).
        unsafe { libc::execve(path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::trial::{attempt, Ending};

    #[test]
    fn both_ways_mark_what_is_inherited_and_leave_what_is_below() {
        for way in [|| close_on_exec_from(20).unwrap(), || one_by_one(20)] {
            let ending = attempt(|| {
                let file = std::fs::File::open("/").unwrap();
                let open = |least| rustix::io::fcntl_dupfd_cloexec(&file, least).unwrap();
                let (below, above) = (open(10), open(30));
                for fd in [&below, &above] {
                    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
                }
                way();
                [&below, &above].map(|fd| u8::from(!rustix::io::fcntl_getfd(fd).unwrap().is_empty())).to_vec()
            });
            assert_eq!(ending.unwrap(), Ending::Answered(vec![0, 1]));
        }
    }
}
