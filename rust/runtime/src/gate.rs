//! The socket gate in the process that answers a container's trapped calls.
//!
//! [`duckweed_net::gate`] decides; here it gets at the caller: memory as every
//! trapped call's is read, descriptors by pidfd_getfd(2). The process that answers is in the
//! container's user namespace and still in the host's network, so a socket that it makes is the host's, with
//! no right there that the user has not. In the trap isolation there is a tracer instead ([`of_tracer`]), which knows a socket
//! by its inode and has its tracees make the calls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use duckweed_net::gate::front::CALLS;
use duckweed_net::gate::rules::Terms;
use duckweed_net::gate::{Caller, Front, Memory, Reply, Rules};
use duckweed_trap::call::{Call, Outcome, Verdict, UNREADABLE};
use duckweed_trap::emulator::Answers;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

#[cfg(target_arch = "x86_64")]
pub(crate) use tracer::of_tracer;

use crate::seccomp::policy::{find, Machine};

#[cfg(target_arch = "x86_64")]
mod tracer;

/// PIDFD_THREAD (6.9): a thread that is not its process's first.
const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(OFlags::EXCL.bits());

/// A container's gate before it has anybody to answer.
#[derive(Debug)]
pub(crate) struct Gate {
    terms: Terms,
    /// The host's /proc, where threads have their processes.
    proc: OwnedFd,
}

impl Gate {
    /// On the host's side.
    pub fn new(terms: Terms) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { terms, proc: rustix::fs::open("/proc", flags, Mode::empty())? })
    }

    /// What must stay open.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let known = self.terms.neighbours.as_ref().map(|known| known.descriptor());
        known.into_iter().chain([self.proc.as_fd()])
    }

    /// Has the gate answer the calls that are its business, before whoever answers them already.
    pub fn answer(self, answers: &mut Answers) {
        let front = Arc::new(Mutex::new(Front::new(Rules::new(self.terms))));
        let proc = Arc::new(self.proc);
        for (name, answer) in CALLS {
            let number = find(name).and_then(|row| Machine::NATIVE.number(row));
            let Some(number) = number.and_then(|number| i64::try_from(number).ok()) else { continue };
            let (front, proc) = (Arc::clone(&front), Arc::clone(&proc));
            let first = move |call: &Call| {
                let caller = Asker { call, proc: proc.as_fd() };
                let mut front = front.lock().unwrap_or_else(PoisonError::into_inner);
                verdict(answer(&mut front, &caller))
            };
            answers.add_before(number, Box::new(first));
        }
    }
}

fn verdict(outcome: Result<Reply, Errno>) -> Outcome {
    match outcome {
        Ok(Reply::GoOn) => Ok(Verdict::GoOn),
        Ok(Reply::Value(value)) => Ok(Verdict::Value(value)),
        Ok(Reply::Socket { socket, close_on_exec }) => Ok(Verdict::Descriptor { fd: socket, close_on_exec }),
        // Nobody whom we cannot look into has a call of his run as he wrote it.
        Err(UNREADABLE) => Err(Errno::ACCESS),
        Err(errno) => Err(errno),
    }
}

struct Asker<'a> {
    call: &'a Call,
    proc: BorrowedFd<'a>,
}

impl Memory for Asker<'_> {
    fn argument(&self, index: usize) -> u64 {
        self.call.long(index)
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.call.read_at(address, into)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.call.write_at(address, bytes)
    }
}

impl Caller for Asker<'_> {
    fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        let thread = Pid::from_raw(self.call.pid).ok_or(Errno::SRCH)?;
        // A process's first thread needs no flag; before 6.9 the others need their process's number.
        let pidfd = rustix::process::pidfd_open(thread, PidfdFlags::empty())
            .or_else(|_| rustix::process::pidfd_open(thread, THREAD))
            .or_else(|_| {
                rustix::process::pidfd_open(self.process().ok_or(Errno::SRCH)?, PidfdFlags::empty())
            })?;
        rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())
    }
}

impl Asker<'_> {
    fn process(&self) -> Option<Pid> {
        let path = format!("{}/status", self.call.pid);
        let file =
            rustix::fs::openat(self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let text = std::io::read_to_string(std::fs::File::from(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        Pid::from_raw(line.trim().parse().ok()?)
    }
}
