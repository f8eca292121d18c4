//! Supervisors started ahead: what an engine keeps so that the next run need not wait for one.
//!
//! A supervisor on standby has one container at a time, tells how it ended, and is ready for
//! another (`R` on its channel) when it has cleaned up behind it. So a few of them serve a program that
//! runs any number of containers, and how many is found out by use: a run takes one that is
//! ready; waits for one that is about to be; and starts another only when fewer than `most`
//! runs are starting. Twenty starts at once on two processors are slower than two at a time, ten
//! times over. A command that goes on (`S`) counts no more: any number of containers may live at once.
//!
//! The pool belongs to one Python process. After fork(2) the child's copy is thrown away
//! unused: two processes must not wake the same supervisor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duckweed_sys::packet;
use pyo3::prelude::*;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{getpid, Pid};

use crate::process::{borrow, c_strings, environment, reap_later};
use crate::program::launch;

/// A supervisor that sleeps on its channel.
pub struct Standby {
    /// Ours to reap.
    pub pid: Pid,
    /// Closing it ends the supervisor.
    pub channel: OwnedFd,
}

impl Standby {
    fn start(argv: &[CString], env: &[CString], passed: &[(BorrowedFd<'_>, i32)]) -> io::Result<Self> {
        let (channel, theirs) = packet::pair()?;
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
        let mut fds = vec![(null.as_fd(), 0), (null.as_fd(), 1), (null.as_fd(), 2), (theirs.as_fd(), 3)];
        fds.extend_from_slice(passed);
        Ok(Self { pid: launch(argv, env, &fds)?, channel })
    }

    /// Gives it its container and the container's stdio; false when it is gone.
    pub fn wake(&self, order: &[u8], stdio: [BorrowedFd<'_>; 3]) -> bool {
        packet::send(self.channel.as_fd(), b'B', order, &stdio).is_ok()
    }

    /// Waits up to `patience` for its `R`.
    fn readiness(&self, patience: Duration) -> Readiness {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&self.channel, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(0) => return Readiness::Busy,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Readiness::Gone,
                Ok(_) => {}
            }
            match packet::receive(self.channel.as_fd(), &mut [0; 64]) {
                Ok(Some((b"R", _))) => return Readiness::Ready,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Readiness::Gone,
            }
        }
    }
}

enum Readiness {
    Ready,
    Busy,
    Gone,
}

struct Pool {
    owner: Pid,
    /// Those that have said so.
    ready: Vec<Standby>,
    /// Those that have told how their container ended, or were just started.
    preparing: Vec<Standby>,
    /// The runs whose command may not have started yet, and when they began.
    starting: Vec<(u64, Instant)>,
    next: u64,
}

/// A start that takes longer than this is not waited for any more.
const STUCK: Duration = Duration::from_secs(1);
/// Longer than a supervisor needs to become ready, unless something is wrong with it.
const PATIENCE: Duration = Duration::from_millis(500);

impl Pool {
    fn new() -> Self {
        let (ready, preparing, starting) = (Vec::new(), Vec::new(), Vec::new());
        Self { owner: getpid(), ready, preparing, starting, next: 0 }
    }

    fn starts(&self) -> usize {
        self.starting.iter().filter(|(_, began)| began.elapsed() < STUCK).count()
    }

    fn begin(&mut self) -> Ticket {
        self.next += 1;
        self.starting.push((self.next, Instant::now()));
        Ticket(self.next)
    }

    fn end_start(&mut self, ticket: &Ticket) {
        self.starting.retain(|(number, _)| *number != ticket.0);
    }
}

/// Supervisors that wait for a container, at most `most`; `argv` starts one, with its channel as descriptor 3 and `fds` besides.
#[pyclass(frozen, module = "duckweed._core")]
pub struct Standbys {
    argv: Vec<CString>,
    env: Vec<CString>,
    fds: Vec<(i32, i32)>,
    most: usize,
    pool: Mutex<Pool>,
    changed: Condvar,
}

#[pymethods]
impl Standbys {
    #[new]
    fn new(argv: Vec<std::ffi::OsString>, fds: Vec<(i32, i32)>, most: usize) -> PyResult<Self> {
        let (argv, env) = (c_strings(argv)?, environment()?);
        Ok(Self { argv, env, fds, most, pool: Mutex::new(Pool::new()), changed: Condvar::new() })
    }

    /// Ends those that wait.
    fn close(&self) {
        let mut pool = self.lock();
        let ours = pool.owner == getpid();
        let pool = &mut *pool;
        for standby in pool.ready.drain(..).chain(pool.preparing.drain(..)) {
            drop(standby.channel);
            if ours {
                reap_later(standby.pid);
            }
        }
    }
}

/// One run: what it counts as in the pool while it lasts.
pub struct Ticket(u64);

impl Standbys {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.owner != getpid() {
            *pool = Pool::new();
        }
        pool
    }

    /// Begins a run: with a supervisor that is ready, or with `None` when the caller shall start one.
    pub fn take(&self) -> (Ticket, Option<Standby>) {
        let mut pool = self.lock();
        loop {
            if let Some(standby) = pool.ready.pop() {
                match standby.readiness(Duration::ZERO) {
                    // Silence is what one that is ready has to say.
                    Readiness::Busy | Readiness::Ready => return (pool.begin(), Some(standby)),
                    Readiness::Gone => reap_later(standby.pid),
                }
                continue;
            }
            if !pool.preparing.is_empty() {
                let standby = pool.preparing.remove(0);
                let ticket = pool.begin();
                drop(pool);
                match standby.readiness(PATIENCE) {
                    Readiness::Ready => return (ticket, Some(standby)),
                    Readiness::Gone => reap_later(standby.pid),
                    Readiness::Busy => {
                        drop(standby.channel);
                        reap_later(standby.pid);
                    }
                }
                pool = self.lock();
                pool.end_start(&ticket);
                continue;
            }
            if pool.starts() < self.most {
                return (pool.begin(), None);
            }
            let (back, _) = self.changed.wait_timeout(pool, STUCK).unwrap_or_else(PoisonError::into_inner);
            pool = back;
        }
    }

    /// The command of a run is under way.
    pub fn has_started(&self, ticket: &Ticket) {
        self.lock().end_start(ticket);
        self.changed.notify_one();
    }

    /// Ends a run. A supervisor that has told how its container ended comes back here.
    pub fn give_back(&self, ticket: &Ticket, standby: Option<Standby>) {
        let mut pool = self.lock();
        pool.end_start(ticket);
        if let Some(standby) = standby {
            if pool.ready.len() + pool.preparing.len() < self.most {
                pool.preparing.push(standby);
            } else {
                drop(standby.channel);
                reap_later(standby.pid);
            }
        }
        drop(pool);
        self.changed.notify_one();
    }

    /// Starts one more when there is none for the next run, for who runs one after another. That it cannot be is the next run's to say.
    pub fn refill(&self) {
        let pool = self.lock();
        if !(pool.ready.is_empty() && pool.preparing.is_empty()) || pool.starting.len() > 1 {
            return;
        }
        drop(pool);
        let passed: Result<Vec<_>, _> =
            self.fds.iter().map(|(source, target)| borrow(*source).map(|fd| (fd, *target))).collect();
        if let Some(standby) = passed.ok().and_then(|fds| Standby::start(&self.argv, &self.env, &fds).ok()) {
            self.lock().preparing.push(standby);
        }
    }

    /// Starts one for a run.
    pub fn start(&self) -> io::Result<Standby> {
        let passed =
            self.fds.iter().map(|(source, target)| Ok((duckweed_sys::fd::borrow(*source)?, *target)));
        Standby::start(&self.argv, &self.env, &passed.collect::<io::Result<Vec<_>>>()?)
    }
}

impl Drop for Standbys {
    fn drop(&mut self) {
        self.close();
    }
}
