//! Starting a program from a process that may be large and threaded.
//!
//! A Python process can be hundreds of megabytes and run many threads: fork(2)
//! copies its page tables (16 ms for 300 MB where this takes under 1 ms) and
//! allows almost nothing in the child. posix_spawn(3) shares the memory until
//! the exec and does the little we need, in libc, safely.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::process::Pid;

/// What [`spawn`] needs to know.
#[derive(Debug)]
pub struct Command<'a> {
    /// The program and its arguments; `argv[0]` is a path, never searched for.
    pub argv: &'a [CString],
    /// Executed in place of `argv[0]`, which stays its name: an open executable. Needs /proc.
    pub program: Option<BorrowedFd<'a>>,
    /// The whole environment as `NAME=value`.
    pub env: &'a [CString],
    /// `(source, target)`: the descriptors the program gets. All others must be
    /// close-on-exec, as every descriptor of ours is.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
}

/// Starts a program and returns its pid; the caller reaps it.
///
/// The program starts with an empty signal mask and default dispositions: what
/// an embedding program did to its own must not reach a container.
///
/// # Errors
/// Any errno of posix_spawn(3): ENOENT, EACCES, ENOEXEC, EAGAIN, ENOMEM; EINVAL for an empty argv.
pub fn spawn(command: &Command<'_>) -> io::Result<Pid> {
    let Some(name) = command.argv.first() else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let moved = out_of_the_way(command.fds)?;
    // It is closed by the exec, so its number must not be one that the program gets something else at.
    let program = command.program.map(|fd| above_targets(fd, command.fds)).transpose()?;
    let path = match &program {
        Some(fd) => &c_string(format!("/proc/self/fd/{}", fd.as_raw_fd()))?,
        None => name,
    };
    let mut actions = Actions::new()?;
    for (index, (source, target)) in command.fds.iter().enumerate() {
        let source = moved[index].as_ref().map_or(source.as_raw_fd(), AsRawFd::as_raw_fd);
        actions.dup2(source, *target)?;
    }
    let attributes = Attributes::new()?;
    let argv = pointers(command.argv);
    let env = pointers(command.env);
    let mut pid: libc::pid_t = 0;
    // SAFETY: every pointer is to memory owned by this frame (argv and env end with NULL, see
    // `pointers`), initialised by the libc calls in `Actions::new` and `Attributes::new`.
    let status = unsafe {
        libc::posix_spawn(
            &mut pid,
            path.as_ptr(),
            &actions.0,
            &attributes.0,
            argv.as_ptr().cast(),
            env.as_ptr().cast(),
        )
    };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(status));
    }
    Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))
}

/// A C string of any bytes without NUL.
///
/// # Errors
/// EINVAL when there is a NUL inside.
pub fn c_string(text: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Copies every source that a dup2 to some target could overwrite first, and
/// every source that is its own target (old libcs leave those close-on-exec).
fn out_of_the_way(fds: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<Vec<Option<OwnedFd>>> {
    let highest = highest_target(fds);
    let mut moved = Vec::with_capacity(fds.len());
    for (source, _) in fds {
        moved.push(if source.as_raw_fd() <= highest {
            Some(rustix::io::fcntl_dupfd_cloexec(source.as_fd(), highest + 1)?)
        } else {
            None
        });
    }
    Ok(moved)
}

fn above_targets(fd: BorrowedFd<'_>, fds: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, highest_target(fds) + 1)?)
}

fn highest_target(fds: &[(BorrowedFd<'_>, RawFd)]) -> RawFd {
    fds.iter().map(|(_, target)| *target).max().unwrap_or(-1)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(status))
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = std::mem::MaybeUninit::uninit();
        // SAFETY: the call initialises the object it is given; we look at it only when it said 0.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised on the line above.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn dup2(&mut self, source: RawFd, target: RawFd) -> io::Result<()> {
        // SAFETY: self.0 is initialised (only `new` makes one); the integers are copied.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, source, target) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed once, here.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// Empty signal mask, all dispositions at their default.
    fn new() -> io::Result<Self> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: the call initialises the object it is given; we look at it only when it said 0.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised on the line above.
        let mut this = Self(unsafe { attributes.assume_init() });
        let mut none = std::mem::MaybeUninit::uninit();
        let mut all = std::mem::MaybeUninit::uninit();
        // SAFETY: both calls write a whole sigset_t into memory of this frame and cannot fail on it;
        // the sets are read only after that, and the attribute object is initialised.
        unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigfillset(all.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&mut this.0, none.as_ptr()))?;
            check(libc::posix_spawnattr_setsigdefault(&mut this.0, all.as_ptr()))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
            check(libc::posix_spawnattr_setflags(&mut this.0, flags as libc::c_short))?;
        }
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed once, here.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn strings(words: &[&str]) -> Vec<CString> {
        words.iter().map(|w| c_string(w).unwrap()).collect()
    }

    fn run(words: &[&str], fds: &[(BorrowedFd<'_>, RawFd)]) -> i32 {
        let argv = strings(words);
        let pid = spawn(&Command { argv: &argv, program: None, env: &[], fds }).unwrap();
        let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        status.unwrap().1.exit_status().unwrap()
    }

    #[test]
    fn swapped_descriptors_arrive_where_they_were_sent() {
        let (read_a, write_a) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (read_b, write_b) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (a, b) = (write_a.as_raw_fd(), write_b.as_raw_fd());
        let script = format!("echo to-a >&{b}; echo to-b >&{a}");
        assert_eq!(run(&["/bin/bash", "-c", &script], &[(write_a.as_fd(), b), (write_b.as_fd(), a)]), 0);
        drop((write_a, write_b));
        let mut text = String::new();
        std::fs::File::from(read_a).read_to_string(&mut text).unwrap();
        std::fs::File::from(read_b).read_to_string(&mut text).unwrap();
        assert_eq!(text, "to-a\nto-b\n");
    }

    #[test]
    fn a_descriptor_sent_to_its_own_number_survives_the_exec() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let number = write.as_raw_fd();
        assert_eq!(
            run(&["/bin/bash", "-c", &format!("echo here >&{number}")], &[(write.as_fd(), number)]),
            0
        );
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "here\n");
    }

    #[test]
    fn an_open_program_runs_under_the_name_it_is_given_even_when_its_number_is_a_target() {
        let shell = std::fs::File::open("/bin/bash").unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let argv = strings(&["/no/such/name", "-c", "echo $0 >&9"]);
        let program = rustix::io::fcntl_dupfd_cloexec(&shell, 9).unwrap();
        let fds = [(write.as_fd(), program.as_raw_fd()), (write.as_fd(), 9)];
        let pid =
            spawn(&Command { argv: &argv, program: Some(program.as_fd()), env: &[], fds: &fds }).unwrap();
        drop(write);
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "/no/such/name\n");
    }

    #[test]
    fn a_missing_program_is_enoent() {
        let argv = strings(&["/no/such/program"]);
        let error = spawn(&Command { argv: &argv, program: None, env: &[], fds: &[] }).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
