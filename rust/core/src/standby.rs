//! Supervisors started ahead: what an engine keeps so that the next run need not wait for one.
//!
//! The pool belongs to one Python process. After fork(2) the child's copy is thrown away
//! unused: two processes must not wake the same supervisor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use duckweed_sys::packet;
use pyo3::prelude::*;
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
    pub fn wake(&self, container: &str, stdio: [BorrowedFd<'_>; 3]) -> bool {
        let request = serde_json::json!({"op": "start", "container": container}).to_string();
        packet::send(self.channel.as_fd(), b'J', request.as_bytes(), &stdio).is_ok()
    }
}

struct Pool {
    owner: Pid,
    waiting: Vec<Standby>,
}

/// Supervisors that wait for a container, at most `most`; `argv` starts one, with its channel as descriptor 3 and `fds` besides.
#[pyclass(frozen, module = "duckweed._core")]
pub struct Standbys {
    argv: Vec<CString>,
    env: Vec<CString>,
    fds: Vec<(i32, i32)>,
    most: usize,
    pool: Mutex<Pool>,
}

#[pymethods]
impl Standbys {
    #[new]
    fn new(argv: Vec<std::ffi::OsString>, fds: Vec<(i32, i32)>, most: usize) -> PyResult<Self> {
        let pool = Mutex::new(Pool { owner: getpid(), waiting: Vec::new() });
        Ok(Self { argv: c_strings(argv)?, env: environment()?, fds, most, pool })
    }

    /// Ends those that wait.
    fn close(&self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        self.let_go(&mut pool);
    }
}

impl Standbys {
    /// One that waits, if there is one.
    pub fn take(&self) -> Option<Standby> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.owner != getpid() {
            pool.waiting.clear();
            pool.owner = getpid();
        }
        pool.waiting.pop()
    }

    /// Starts one more when there is room. That it cannot be is the next run's to say.
    pub fn refill(&self) {
        let room = self.pool.lock().unwrap_or_else(PoisonError::into_inner).waiting.len() < self.most;
        if !room {
            return;
        }
        let passed: Result<Vec<_>, _> =
            self.fds.iter().map(|(source, target)| borrow(*source).map(|fd| (fd, *target))).collect();
        if let Some(standby) = passed.ok().and_then(|fds| Standby::start(&self.argv, &self.env, &fds).ok()) {
            self.pool.lock().unwrap_or_else(PoisonError::into_inner).waiting.push(standby);
        }
    }

    fn let_go(&self, pool: &mut Pool) {
        let ours = pool.owner == getpid();
        for standby in pool.waiting.drain(..) {
            drop(standby.channel);
            if ours {
                reap_later(standby.pid);
            }
        }
    }
}

impl Drop for Standbys {
    fn drop(&mut self) {
        self.close();
    }
}
