//! ptrace(2) as a tracer uses it that seizes its tracees: never a signal of its own making.
//!
//! All calls are for a tracee that is stopped, and fail with ESRCH when it has died meanwhile; whoever
//! calls takes that as the news it is. They must come from the thread that seized.

use std::io;

/// A tracee's registers.
#[cfg(target_arch = "x86_64")]
pub type Registers = libc::user_regs_struct;

/// What a tracer is told of, and that its tracees die with it.
const OPTIONS: i32 = libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEVFORK;

/// How a tracee goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// To its next event.
    Continue,
    /// To the end of the call that it is in.
    ToExit,
    /// It stays stopped, and only a signal wakes it.
    Listen,
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Becomes the tracer of a running process.
///
/// # Errors
/// EPERM where the place forbids it.
pub fn seize(pid: i32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0_usize, OPTIONS as usize) }).map(drop)
}

/// Lets a tracee go on, with a signal delivered (0: none).
///
/// # Errors
/// ESRCH.
pub fn resume(pid: i32, how: Resume, signal: i32) -> io::Result<()> {
    let request = match how {
        Resume::Continue => libc::PTRACE_CONT,
        Resume::ToExit => libc::PTRACE_SYSCALL,
        Resume::Listen => libc::PTRACE_LISTEN,
    };
    // SAFETY: integers only.
    check(unsafe { libc::ptrace(request, pid, 0_usize, signal as usize) }).map(drop)
}

/// What came with an event: the new process's number, the number a thread had before execve.
///
/// # Errors
/// ESRCH.
pub fn event_message(pid: i32) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one unsigned long.
    check(unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0_usize, &raw mut message) })?;
    Ok(message)
}

/// A stopped tracee's registers.
///
/// # Errors
/// ESRCH.
#[cfg(target_arch = "x86_64")]
pub fn registers(pid: i32) -> io::Result<Registers> {
    // SAFETY: a struct of plain integers, for which zero is a value.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one user_regs_struct.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0_usize, &raw mut registers) })?;
    Ok(registers)
}

/// Gives a stopped tracee other registers.
///
/// # Errors
/// ESRCH.
#[cfg(target_arch = "x86_64")]
pub fn set_registers(pid: i32, registers: &Registers) -> io::Result<()> {
    // SAFETY: the kernel reads one user_regs_struct.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0_usize, std::ptr::from_ref(registers)) })
        .map(drop)
}

/// A word of the tracee's memory, readable or not.
///
/// # Errors
/// ESRCH, EIO for an address that is not there.
pub fn peek(pid: i32, address: u64) -> io::Result<u64> {
    let mut word: libc::c_long = 0;
    // The raw call: the wrapper of the C library returns the word, and errno beside it.
    // SAFETY: the kernel writes one long.
    check(unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_PEEKDATA, pid, address, &raw mut word) })?;
    Ok(word as u64)
}

/// Writes a word into the tracee's memory, writable or not.
///
/// # Errors
/// As [`peek`].
pub fn poke(pid: i32, address: u64, word: u64) -> io::Result<()> {
    // SAFETY: the tracee's memory is the tracee's; none of ours is touched.
    check(unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_POKEDATA, pid, address, word) }).map(drop)
}

/// Waits for any tracee: its number and its status as waitpid(2) has them.
///
/// # Errors
/// ECHILD when there is none, EINTR.
pub fn wait() -> io::Result<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    let pid = check(i64::from(unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) }))?;
    Ok((pid as i32, status))
}

/// As [`wait`], of what there is already.
///
/// # Errors
/// ECHILD.
pub fn news() -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    let pid = check(i64::from(unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) }))?;
    Ok((pid != 0).then_some((pid as i32, status)))
}

/// Waits for one tracee; as [`wait`].
///
/// # Errors
/// As [`wait`].
pub fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    check(i64::from(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }))?;
    Ok(status)
}

/// Lets a process that is not our ancestor trace us, where Yama wants to be asked.
pub fn allow_tracer(pid: i32) {
    // SAFETY: integers only. EINVAL without Yama: nobody needs to be asked.
    let _ = unsafe { libc::prctl(libc::PR_SET_PTRACER, pid as usize, 0, 0, 0) };
}

/// Has `signal` interrupt a waiting thread and do nothing else; it is not blocked.
pub fn interrupt_by(signal: i32) {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing; without SA_RESTART the call it interrupts answers EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

/// Has SIGALRM come again and again after this time; zero ends it.
pub fn tick(every: std::time::Duration) {
    let time =
        libc::timeval { tv_sec: every.as_secs() as libc::time_t, tv_usec: every.subsec_micros().into() };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the kernel reads one itimerval and writes nothing.
    let _ = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

/// Sends a signal to one thread.
pub fn signal_thread(process: i32, thread: i32, signal: i32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) }).map(drop)
}

/// This thread's number.
pub fn own_thread() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}
