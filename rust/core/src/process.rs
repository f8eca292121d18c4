//! Starting the runtime from Python, and waiting for an ephemeral container.
//!
//! `spawn` and `run_inherit` are the only ways a process of ours is born from
//! Python. The container's stdio goes to the pipes made here and to nothing else;
//! Python waits with the GIL released and looks for signals ten times a second.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use duckweed_sys::spawn::c_string;
use pyo3::prelude::*;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{waitpid, Pid, WaitOptions};

use crate::message;
use crate::program::launch;
use crate::standby::{Standby, Standbys, Ticket};

/// How often a wait comes back to Python so that Ctrl-C works.
pub const SIGNAL_CHECK: Duration = Duration::from_millis(100);
/// Runtimes that told how their containers ended and are removing them; each run reaps those that are through.
static ENDING: std::sync::Mutex<Vec<Pid>> = std::sync::Mutex::new(Vec::new());
const CHUNK: usize = 64 * 1024;

pub fn c_strings(words: Vec<std::ffi::OsString>) -> PyResult<Vec<CString>> {
    words.into_iter().map(|word| c_string(word).map_err(PyErr::from)).collect()
}

pub fn environment() -> PyResult<Vec<CString>> {
    let mut all = Vec::new();
    for (mut name, value) in std::env::vars_os() {
        name.push("=");
        name.push(value);
        all.push(c_string(name)?);
    }
    Ok(all)
}

/// Remembers a child that is about to end, and reaps those that have.
pub fn reap_later(pid: Pid) {
    let mut ending = ENDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ending.push(pid);
    ending.retain(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None)));
}

/// Waits for the runtimes that have told how their containers ended and are still removing them.
#[pyfunction]
pub fn settle(py: Python<'_>) {
    py.detach(|| {
        let mut ending = ENDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for pid in ending.drain(..) {
            while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(rustix::io::Errno::INTR)) {}
        }
    });
}

/// Borrows a descriptor that Python owns for the length of one call.
pub fn borrow<'a>(number: i32) -> PyResult<BorrowedFd<'a>> {
    Ok(duckweed_sys::fd::borrow(number)?)
}

/// Starts a program: `fds` are `(source, target)`; all others are closed by its exec. Returns the pid; the caller reaps it.
///
/// Raises OSError with posix_spawn's errno.
#[pyfunction]
pub fn spawn(py: Python<'_>, argv: Vec<std::ffi::OsString>, fds: Vec<(i32, i32)>) -> PyResult<i32> {
    let (argv, env) = (c_strings(argv)?, environment()?);
    let fds = fds
        .into_iter()
        .map(|(source, target)| Ok((borrow(source)?, target)))
        .collect::<PyResult<Vec<_>>>()?;
    let pid = py.detach(|| launch(&argv, &env, &fds))?;
    Ok(pid.as_raw_nonzero().get())
}

/// The end of an ephemeral container.
#[pyclass(frozen, get_all, module = "duckweed._core")]
pub struct RunResult {
    /// The command's exit code (128+n for a signal), or the runtime's 125, 126, 127.
    pub exit_code: i32,
    /// Empty, or a StartError as JSON.
    pub error: String,
    /// What the command wrote, when it was captured.
    pub stdout: Py<pyo3::types::PyBytes>,
    /// As stdout.
    pub stderr: Py<pyo3::types::PyBytes>,
    /// Whether the time limit ended it.
    pub timed_out: bool,
}

/// A pool, and an order's container, record and config.
type Ordered<'py> = (PyRef<'py, Standbys>, Vec<u8>, Vec<u8>, Vec<u8>);

/// Runs `argv` (a `supervise --inherit`) with its channel as descriptor `channel_fd` and waits for its end.
///
/// `fds` are more descriptors for it, `(source, target)`; with `standbys`, a pool, a supervisor of that runs the container
/// instead: its path, the bytes of container.json and those of config.json. `stdin` is bytes to feed, or None for /dev/null; with `capture` stdout and stderr are collected, else they are the caller's.
/// After `timeout_s` seconds the container is killed. Raises OSError when the runtime cannot be started, and whatever a signal handler raises
/// (the container is killed first).
#[pyfunction]
#[pyo3(signature = (argv, *, channel_fd=3, stdin=None, capture=true, timeout_s=None, fds=Vec::new(), standbys=None))]
#[allow(clippy::too_many_arguments)]
pub fn run_inherit(
    py: Python<'_>,
    argv: Vec<std::ffi::OsString>,
    channel_fd: i32,
    stdin: Option<Vec<u8>>,
    capture: bool,
    timeout_s: Option<f64>,
    fds: Vec<(i32, i32)>,
    standbys: Option<Ordered<'_>>,
) -> PyResult<RunResult> {
    let argv = c_strings(argv)?;
    let passed = fds
        .into_iter()
        .map(|(source, target)| Ok((borrow(source)?, target)))
        .collect::<PyResult<Vec<_>>>()?;
    let env = environment()?;
    let deadline = match timeout_s {
        None => None,
        Some(s) if s.is_finite() && s >= 0.0 => {
            Instant::now().checked_add(Duration::from_secs_f64(s.min(1e9)))
        }
        Some(_) => {
            return Err(pyo3::exceptions::PyValueError::new_err(
                "timeout must be a number of seconds, not negative",
            ))
        }
    };
    let order = standbys.as_ref().map(|(_, container, record, config)| order(container, record, config));
    let ahead = standbys.as_ref().zip(order.as_deref()).map(|((pool, ..), order)| (&**pool, order));
    let pool = ahead.map(|(pool, _)| pool);
    let launch = Launch { argv: &argv, env: &env, channel_fd, passed: &passed, ahead };
    let mut run = py.detach(|| Run::start(&launch, stdin, capture))?;
    run.deadline = deadline;
    let mut raised = None;
    while py.detach(|| run.step(pool))? {
        if raised.is_none() {
            if let Err(error) = py.check_signals() {
                run.kill();
                raised = Some(error);
            }
        }
    }
    let status = py.detach(|| run.end(pool))?;
    if let Some(error) = raised {
        return Err(error);
    }
    let (exit_code, error) = run.outcome(status);
    Ok(RunResult {
        exit_code,
        error,
        stdout: pyo3::types::PyBytes::new(py, &run.stdout.bytes).unbind(),
        stderr: pyo3::types::PyBytes::new(py, &run.stderr.bytes).unbind(),
        timed_out: run.timed_out,
    })
}

/// One end of a pipe being read to its end.
#[derive(Default)]
struct Capture {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Capture {
    fn read_some(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        let old = self.bytes.len();
        self.bytes.resize(old + CHUNK, 0);
        let got = match rustix::io::read(pipe, &mut self.bytes[old..]) {
            Ok(got) => got,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {
                self.bytes.truncate(old);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.bytes.truncate(old + got);
        if got == 0 {
            self.pipe = None;
        }
        Ok(())
    }
}

/// The payload of a `B` message (docs/contracts.md §6).
fn order(container: &[u8], record: &[u8], config: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8 + container.len() + record.len() + config.len());
    for piece in [container, record] {
        payload.extend((piece.len() as u32).to_le_bytes());
        payload.extend(piece);
    }
    payload.extend(config);
    payload
}

struct Run {
    pid: Pid,
    ticket: Option<Ticket>,
    channel: Option<OwnedFd>,
    /// The channel of a supervisor that has answered.
    answered: Option<OwnedFd>,
    answer: Option<Vec<u8>>,
    stdin: Option<(OwnedFd, Vec<u8>, usize)>,
    stdout: Capture,
    stderr: Capture,
    deadline: Option<Instant>,
    timed_out: bool,
}

/// How a supervisor comes to run a container.
struct Launch<'a> {
    argv: &'a [CString],
    env: &'a [CString],
    channel_fd: i32,
    passed: &'a [(BorrowedFd<'a>, i32)],
    /// Supervisors that may wait already, and the order for one of them.
    ahead: Option<(&'a Standbys, &'a [u8])>,
}

impl Launch<'_> {
    /// Wakes a supervisor that waits, or starts one; and starts one for the next run while this one is under way.
    fn go(&self, stdio: [BorrowedFd<'_>; 3]) -> io::Result<(Standby, Option<Ticket>)> {
        let Some((standbys, order)) = self.ahead else { return Ok((self.spawn(stdio)?, None)) };
        let (ticket, waiting) = standbys.take();
        let woken = waiting.filter(|standby| standby.wake(order, stdio));
        let launched = match woken {
            Some(standby) => Ok(standby),
            None => standbys.start().and_then(|standby| {
                let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
                standby.wake(order, stdio).then_some(standby).ok_or_else(gone)
            }),
        };
        match launched {
            Ok(standby) => {
                standbys.refill();
                Ok((standby, Some(ticket)))
            }
            Err(error) => {
                standbys.give_back(&ticket, None);
                Err(error)
            }
        }
    }

    fn spawn(&self, [stdin, stdout, stderr]: [BorrowedFd<'_>; 3]) -> io::Result<Standby> {
        let (ours, theirs) = duckweed_sys::packet::pair()?;
        let mut fds = vec![(stdin, 0), (stdout, 1), (stderr, 2), (theirs.as_fd(), self.channel_fd)];
        fds.extend_from_slice(self.passed);
        Ok(Standby { pid: launch(self.argv, self.env, &fds)?, channel: ours })
    }
}

impl Run {
    fn start(launch: &Launch<'_>, stdin: Option<Vec<u8>>, capture: bool) -> io::Result<Self> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (out, err) = if capture { (Some(pipe()?), Some(pipe()?)) } else { (None, None) };
        let (input, feed) = match stdin {
            Some(bytes) => {
                let (read, write) = pipe()?;
                rustix::io::ioctl_fionbio(&write, true)?;
                (read, Some((write, bytes, 0)))
            }
            None => (
                rustix::fs::open(
                    "/dev/null",
                    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )?,
                None,
            ),
        };
        let stdout = out.as_ref().map_or(rustix::stdio::stdout(), |(_, write)| write.as_fd());
        let stderr = err.as_ref().map_or(rustix::stdio::stderr(), |(_, write)| write.as_fd());
        let (standby, ticket) = launch.go([input.as_fd(), stdout, stderr])?;
        let read_end = |pair: Option<(OwnedFd, OwnedFd)>| Capture {
            pipe: pair.map(|(read, _)| read),
            bytes: Vec::new(),
        };
        Ok(Self {
            pid: standby.pid,
            ticket,
            channel: Some(standby.channel),
            answered: None,
            answer: None,
            stdin: feed,
            stdout: read_end(out),
            stderr: read_end(err),
            deadline: None,
            timed_out: false,
        })
    }

    /// Closing the channel is how the runtime learns that nobody wants the container any more.
    fn kill(&mut self) {
        self.channel = None;
        self.stdin = None;
    }

    /// Waits for one event, at most [`SIGNAL_CHECK`]; false when everything has ended.
    fn step(&mut self, standbys: Option<&Standbys>) -> io::Result<bool> {
        let mut polled = Vec::with_capacity(4);
        let input = PollFlags::IN;
        if let Some(fd) = &self.channel {
            polled.push((0, PollFd::new(fd, input)));
        }
        if let Some(fd) = &self.stdout.pipe {
            polled.push((1, PollFd::new(fd, input)));
        }
        if let Some(fd) = &self.stderr.pipe {
            polled.push((2, PollFd::new(fd, input)));
        }
        if polled.is_empty() {
            return Ok(false);
        }
        if let Some((fd, _, _)) = &self.stdin {
            polled.push((3, PollFd::new(fd, PollFlags::OUT)));
        }
        let wait = self
            .deadline
            .map_or(SIGNAL_CHECK, |at| at.saturating_duration_since(Instant::now()).min(SIGNAL_CHECK));
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let (which, mut fds): (Vec<u8>, Vec<PollFd<'_>>) = polled.into_iter().unzip();
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<u8> = fds
            .iter()
            .zip(which)
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, which)| which)
            .collect();
        for which in ready {
            match which {
                0 => self.read_channel(standbys),
                1 => self.stdout.read_some()?,
                2 => self.stderr.read_some()?,
                _ => self.feed(),
            }
        }
        if self.deadline.is_some_and(|at| Instant::now() >= at)
            && self.channel.is_some()
            && self.answer.is_none()
        {
            self.timed_out = true;
            self.kill();
        }
        Ok(true)
    }

    fn read_channel(&mut self, standbys: Option<&Standbys>) {
        let Some(channel) = &self.channel else { return };
        match message::receive(channel.as_fd()) {
            Ok(Some((b'X', payload, _))) => self.answer = Some(payload),
            Ok(Some((b'J', payload, _))) if !payload.starts_with(b"{\"ok\":true") => {
                self.answer = Some(payload)
            }
            Ok(Some((b'S', ..))) => {
                if let (Some(standbys), Some(ticket)) = (standbys, &self.ticket) {
                    standbys.has_started(ticket);
                }
                return;
            }
            Ok(Some(_)) => return,
            Ok(None) | Err(_) => self.channel = None,
        }
        self.answered = self.channel.take();
    }

    fn feed(&mut self) {
        let Some((fd, bytes, at)) = &mut self.stdin else { return };
        match rustix::io::write(&*fd, &bytes[*at..]) {
            Ok(n) => *at += n,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return,
            Err(_) => *at = bytes.len(), // EPIPE: the command did not want the rest
        }
        if *at == bytes.len() {
            self.stdin = None;
        }
    }

    /// The runtime's own exit status, 0 when it has said all that matters and is only cleaning up: the container's directory
    /// has left the store's view before X was sent, and deleting it takes as long as starting did.
    fn end(&mut self, standbys: Option<&Standbys>) -> io::Result<i32> {
        if let (Some(standbys), Some(ticket)) = (standbys, self.ticket.take()) {
            let returned = self.answered.take().filter(|_| self.answer.is_some());
            let is_back = returned.is_some();
            standbys.give_back(&ticket, returned.map(|channel| Standby { pid: self.pid, channel }));
            if is_back {
                return Ok(0);
            }
        }
        self.answered = None;
        if self.answer.is_some() && !self.timed_out {
            reap_later(self.pid);
            return Ok(0);
        }
        self.reap()
    }

    fn reap(&mut self) -> io::Result<i32> {
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(status) => return Ok(status.and_then(|(_, status)| status.exit_status()).unwrap_or(137)),
                Err(rustix::io::Errno::INTR) => {}
                // Somebody else's waitpid(-1) took it; the channel's answer is what counts.
                Err(rustix::io::Errno::CHILD) => return Ok(125),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The exit code and the error text, from the runtime's answer, or from its own exit status when it died without one.
    fn outcome(&self, status: i32) -> (i32, String) {
        let answer =
            self.answer.as_ref().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok());
        match answer {
            Some(json) if json.get("exit_code").is_some() => {
                (json["exit_code"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(125), String::new())
            }
            Some(json) => {
                let error = &json["error"];
                let code = error["exit_code"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(125);
                (code, error.to_string())
            }
            None => (if self.timed_out { 137 } else { status }, String::new()),
        }
    }
}

/// Field 22 of /proc/PID/stat: when the process started, in clock ticks since boot; None when there is none.
#[pyfunction]
pub fn process_start(pid: i32) -> Option<u64> {
    duckweed_sys::identity::process_start(Pid::from_raw(pid)?)
}

/// The kernel's id of this boot.
#[pyfunction]
pub fn boot_id() -> PyResult<String> {
    Ok(duckweed_sys::identity::boot_id()?)
}
