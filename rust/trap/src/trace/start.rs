//! How processes come to the tracer: messages of the supervisor, taken in by a thread that waits for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use duckweed_sys::ptrace;

use super::{lock, Queue};

/// A process that shall be traced; number 0: what was looked up is to be forgotten.
pub struct Arrival {
    /// Its number on the host.
    pub pid: i32,
    /// With all capabilities.
    pub is_privileged: bool,
    /// Told 0, or why not.
    pub reply: Box<dyn FnOnce(i32) + Send>,
}

impl Arrival {
    pub(super) fn answer(self, errno: i32) {
        (self.reply)(errno);
    }
}

/// The tracer's waiting room.
#[derive(Clone)]
pub struct Inbox {
    queue: Arc<Mutex<Queue>>,
    changed: Arc<Condvar>,
    is_closed: Arc<AtomicBool>,
    tracer: i32,
}

/// What wakes the tracer from waitpid(2).
const WAKE: i32 = libc::SIGUSR1;

impl Inbox {
    /// Made by the tracer's own thread.
    pub fn new() -> Self {
        ptrace::interrupt_by(WAKE);
        ptrace::interrupt_by(libc::SIGALRM);
        Self {
            queue: Arc::default(),
            changed: Arc::default(),
            is_closed: Arc::default(),
            tracer: ptrace::own_thread(),
        }
    }

    /// Brings an arrival to the tracer; comes back when it has been taken.
    pub fn put(&self, arrival: Arrival) {
        lock(&self.queue).push_back(arrival);
        self.changed.notify_all();
        self.wake();
    }

    /// Nobody comes any more.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// A signal that comes just before the wait is lost, so it is sent until it has had its effect.
    fn wake(&self) {
        loop {
            let _ = ptrace::signal_thread(std::process::id() as i32, self.tracer, WAKE);
            std::thread::sleep(Duration::from_micros(300));
            if lock(&self.queue).is_empty() {
                return;
            }
        }
    }

    pub(super) fn take(&self) -> Queue {
        std::mem::take(&mut *lock(&self.queue))
    }

    /// Waits for an arrival; false when there will be none.
    pub(super) fn wait(&self) -> bool {
        let queue = lock(&self.queue);
        let timeout = Duration::from_millis(50);
        let waited = self.changed.wait_timeout_while(queue, timeout, |queue| {
            queue.is_empty() && !self.is_closed.load(Ordering::SeqCst)
        });
        waited.map_or(true, |(queue, _)| !queue.is_empty() || !self.is_closed.load(Ordering::SeqCst))
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Inbox").field("tracer", &self.tracer).finish_non_exhaustive()
    }
}
