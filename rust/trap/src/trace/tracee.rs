//! What is known of one thread, and of one process.

use std::cell::Cell;
use std::rc::Rc;

use duckweed_sys::ptrace::{Registers, Resume};

use super::After;
use crate::call::Call;

/// A thread.
pub(super) struct Tracee {
    /// Its thread group.
    pub process: i32,
    /// Its address space.
    pub memory: Rc<Memory>,
    /// The call that it runs for us.
    pub pending: Option<Pending>,
    /// The program that it is about to become.
    pub next: Option<super::program::Next>,
    /// Its new program is being put in place.
    pub start: Option<super::image::Start>,
}

impl Tracee {
    /// A thread that leads a process and has no memory of ours.
    pub fn new(pid: i32) -> Self {
        Self { process: pid, memory: Rc::new(Memory::default()), pending: None, next: None, start: None }
    }

    /// Its call, when one has ended and the next that is run for it has not begun.
    pub fn between_calls(&mut self) -> Option<&mut Pending> {
        self.pending.as_mut().filter(|pending| pending.is_between)
    }

    /// Whether its program is being put in place.
    pub fn is_starting(&self) -> bool {
        self.start.is_some()
    }
}

/// A call that was changed, and what it was.
pub(super) struct Pending {
    pub before: Registers,
    pub call: Call,
    pub after: Option<After>,
    pub slot: Option<u32>,
    /// It is not the first that is run in the place of the caller's.
    pub is_further: bool,
    /// The one before has ended and this has not begun.
    pub is_between: bool,
    /// The filter stops it, so that it need not be stopped before.
    pub stops: bool,
    /// Signals that came meanwhile: handlers would see registers of ours.
    pub signals: Vec<i32>,
}

impl Pending {
    pub fn new(before: Registers, call: Call, after: Option<After>, slot: Option<u32>) -> Self {
        Self {
            before,
            call,
            after,
            slot,
            is_further: false,
            is_between: false,
            stops: false,
            signals: Vec::new(),
        }
    }

    /// How a further call is reached.
    pub fn to_begin(&self) -> Resume {
        if self.stops {
            Resume::Continue
        } else {
            Resume::ToExit
        }
    }
}

/// A process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    /// How many threads it has.
    pub threads: u32,
    /// The program's path inside.
    pub program: Option<Vec<u8>>,
    /// Where its root is, chroot(2).
    pub root: Vec<u8>,
    /// What it wants, prctl(2).
    pub is_dumpable: bool,
}

impl Process {
    pub fn first() -> Self {
        Self { threads: 1, program: None, root: b"/".to_vec(), is_dumpable: true }
    }

    pub fn fork(&self) -> Self {
        Self { threads: 1, ..self.clone() }
    }
}

/// An address space: where our memory in it is, and which parts are in use.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// 0: there is none.
    pub scratch: Cell<u64>,
    used: Cell<u32>,
    /// Its patched call sites.
    pub sites: super::sites::Patched,
}

/// How many pieces the memory has.
const SLOTS: u32 = 7;

impl Memory {
    /// The same memory in a new address space, nothing of it in use.
    pub fn fork(&self) -> Self {
        Self { scratch: self.scratch.clone(), used: Cell::new(0), sites: self.sites.clone() }
    }

    pub fn at(address: u64, sites: super::sites::Patched) -> Self {
        Self { scratch: Cell::new(address), used: Cell::new(0), sites }
    }

    /// A piece that nobody uses.
    pub fn take(&self) -> Option<u32> {
        if self.scratch.get() == 0 {
            return None;
        }
        let slot = (0..SLOTS).find(|slot| self.used.get() & 1 << slot == 0)?;
        self.used.set(self.used.get() | 1 << slot);
        Some(slot)
    }

    pub fn give_back(&self, slot: u32) {
        self.used.set(self.used.get() & !(1 << slot));
    }
}
