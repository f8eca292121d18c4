//! The trap isolation's tracer: a container's processes, stopped at the calls that name something.
//!
//! ```text
//! supervisor --fork--> tracer                 seizes what the supervisor starts (PTRACE_SEIZE)
//!     |                  |  wait, decide, resume
//!     +--fork--> command +--> stops: seccomp (RET_TRACE), end of a call, fork, exec, signals
//! ```
//!
//! A command installs the filter ([`filter`]) and executes; its execve is the first call that stops. From
//! then on every process of the tree is ours: children are attached by the kernel, and all die with us
//! (PTRACE_O_EXITKILL). One thread does everything, so that what it looks up stays true until it has answered.
//!
//! Most calls are carried out here and answered ([`Action::Answer`]): the tracee runs nothing, and nothing that
//! it could change meanwhile counts. What only the process itself can do (open, chdir, execve, bind) it does with
//! another argument ([`Action::Run`]), in memory of ours in its address space ([`scratch`]).
//!
//! Owners, ids and capabilities are those of root emulation ([`crate::owners`], [`crate::credentials`]).

mod ancillary;
mod attributes;
mod company;
mod descriptors;
mod directories;
pub mod filter;
mod ids;
mod image;
mod less;
mod names;
mod open;
mod paths;
mod places;
mod proc_files;
mod processes;
mod program;
mod scratch;
mod short;
mod sites;
mod sockets;
mod start;
mod stat;
mod system;
mod tracee;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use duckweed_sys::ptrace::{self, Registers, Resume};
use rustix::fs::{FileType, Mode, CWD};
use rustix::io::Errno;

use crate::call::Call;
use crate::credentials::Credentials;
use crate::owners::{Key, Record};
use crate::table;
use crate::union::{Copied, Follow, Union};
use crate::world::World;
pub use sockets::{Gate, Listing};
pub use start::{Arrival, Inbox};
use tracee::{Process, Tracee};

/// What becomes of a stopped call.
pub enum Action {
    /// The kernel runs it as it is.
    Pass,
    /// It is not run; it returns this.
    Answer(i64),
    /// It is run with other arguments, and looked at afterwards.
    Run(Run),
}

/// An action, or the errno that the call fails with.
pub type Outcome = Result<Action, Errno>;

/// The call succeeded and says no more.
pub const DONE: Outcome = Ok(Action::Answer(0));

/// An argument instead of the caller's.
pub enum Argument {
    /// This number.
    Word(u64),
    /// A pointer to these bytes.
    Bytes(Vec<u8>),
    /// The same, with pointers in it: at the first offset stands the address of the second.
    Block(Vec<u8>, Vec<(usize, usize)>),
}

/// What is done when a call that was run has ended; it may change the result.
pub type After = Box<dyn FnOnce(&mut Tracer, &Call, &mut i64)>;

/// A call to be run in another form.
#[derive(Default)]
pub struct Run {
    /// Another call.
    pub number: Option<i64>,
    /// Other arguments, by their index.
    pub arguments: Vec<(usize, Argument)>,
    /// What follows.
    pub after: Option<After>,
}

impl Run {
    /// The same call with another path.
    pub fn with_path(index: usize, host: &[u8]) -> Self {
        let mut text = host.to_vec();
        text.push(0);
        Self { arguments: vec![(index, Argument::Bytes(text))], ..Self::default() }
    }

    /// And a further argument.
    #[must_use]
    pub fn word(mut self, index: usize, value: u64) -> Self {
        self.arguments.push((index, Argument::Word(value)));
        self
    }

    /// And something to do afterwards.
    ///
    /// # Errors
    /// Never; the result is what a handler answers.
    pub fn then(mut self, after: impl FnOnce(&mut Tracer, &Call, &mut i64) + 'static) -> Outcome {
        self.after = Some(Box::new(after));
        Ok(Action::Run(self))
    }
}

/// What a container is to its tracer.
#[derive(Debug)]
pub struct Settings {
    /// uname(2)'s.
    pub hostname: Vec<u8>,
    /// uname(2)'s.
    pub domainname: Vec<u8>,
    /// Our own ids on the host: they are root's inside.
    pub host_ids: (u32, u32),
    /// What abstract names of sockets begin with outside, when there is a gate.
    pub mark: Vec<u8>,
    /// What the container's root may.
    pub capabilities: u64,
    /// Setuid programs mean nothing.
    pub no_new_privileges: bool,
    /// How much is emulated; `None`: nothing.
    pub emulation: Option<crate::Mode>,
}

/// All capabilities there are.
const ALL: u64 = (1 << 41) - 1;

/// How many milliseconds a child waits for its parent's word.
const PATIENCE: u32 = 40;

/// The tracer of one container.
pub struct Tracer {
    /// Its files.
    pub union: Union,
    /// Owners and ids.
    pub world: World,
    /// What does not change.
    pub settings: Settings,
    tracees: HashMap<i32, Tracee>,
    processes: HashMap<i32, Process>,
    /// Stops of processes whose birth we have not heard of yet.
    early: HashMap<i32, i32>,
    /// Threads that ended before we heard of their birth.
    stillborn: HashSet<i32>,
    /// What the process was that ended last.
    last_dead: Option<Process>,
    /// Files under the number that they had in their layer: inode and device above to those below.
    origins: HashMap<(u64, u32, u32), (u64, u32, u32)>,
    copied: Vec<Copied>,
    listings: HashMap<(i32, i32), directories::Listing>,
    short: short::ShortNames,
    /// The numbers of the terminals that are the container's.
    terminals: HashSet<u32>,
    company: company::Company,
    /// Who gives its sockets addresses; `None`: it has the machine's.
    pub gate: Option<Gate>,
    /// What it sees of sockets in /proc/net, when there is a gate.
    pub listing: Option<Listing>,
    /// What is run when the call that has just ended is not all.
    again: Option<Run>,
    /// The arguments that it was run with.
    ran: [u64; 6],
    sites: Option<sites::Sites>,
    /// The container's first process.
    init: i32,
    is_ending: bool,
    trace_unknown: bool,
}

impl Tracer {
    /// A tracer without tracees.
    pub fn new(union: Union, world: World, settings: Settings) -> Self {
        let short = short::ShortNames::new(settings.host_ids.0, std::process::id());
        Self {
            union,
            world,
            settings,
            tracees: HashMap::new(),
            processes: HashMap::new(),
            early: HashMap::new(),
            stillborn: HashSet::new(),
            last_dead: None,
            origins: HashMap::new(),
            copied: Vec::new(),
            listings: HashMap::new(),
            short,
            terminals: HashSet::new(),
            company: company::Company::default(),
            gate: None,
            listing: None,
            again: None,
            ran: [0; 6],
            sites: None,
            init: 0,
            is_ending: false,
            trace_unknown: std::env::var_os("DUCKWEED_TRACE_UNKNOWN").is_some(),
        }
    }

    /// Traces until nobody is left.
    ///
    /// # Errors
    /// What waitpid(2) says but ECHILD.
    pub fn run(&mut self, inbox: &Inbox) -> io::Result<()> {
        loop {
            for arrival in inbox.take() {
                self.receive(arrival);
            }
            let news = if self.early.is_empty() { ptrace::wait() } else { self.wait_beside_early() };
            match news {
                Ok((pid, status)) => self.stopped(pid, status),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => self.company.look(),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    if !inbox.wait() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits while there are children whose parents have not told of them. A parent that was killed will not: after a
    /// while without news such a child is taken in without it.
    fn wait_beside_early(&mut self) -> io::Result<(i32, i32)> {
        for _ in 0..PATIENCE {
            if let Some(news) = ptrace::news()? {
                return Ok(news);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        for (child, status) in std::mem::take(&mut self.early) {
            self.adopt(child);
            self.stopped(child, status);
        }
        ptrace::wait()
    }

    fn adopt(&mut self, child: i32) {
        let process = self.world.view.read_proc(&format!("{child}/status")).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
            line.trim().parse::<i32>().ok()
        });
        let process = process.unwrap_or(child);
        match self.processes.get_mut(&process) {
            Some(process) => process.threads += 1,
            None => {
                let like = self.last_dead.as_ref().map_or_else(Process::first, Process::fork);
                self.processes.insert(process, like);
            }
        }
        self.tracees.insert(child, Tracee { process, ..Tracee::new(child) });
        if self.is_ending {
            self.give_up_on(child);
        }
    }

    /// Makes sure that a mount point is there, and that its mount is at its canonical path.
    ///
    /// # Errors
    /// EROFS, and what else making a directory can meet.
    pub fn make_mount_point(&mut self, mount: usize, is_directory: bool) -> Result<(), Errno> {
        let path = self.union.mounts[mount].at.clone();
        let mut here = Vec::new();
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        for (index, name) in names.iter().enumerate() {
            let is_last = index + 1 == names.len();
            let above = if here.is_empty() { b"/".to_vec() } else { here.clone() };
            let mut next = crate::union::join(&above, name);
            let inside = self.union.mount_of(&above);
            let mut spot = self.union.at_mount(inside, &next)?;
            if !is_last {
                spot = self.union.walk(&paths::Nobody, b"/", b"/", &next, Follow::Yes)?;
                next.clone_from(&spot.path);
            }
            if !spot.exists() {
                let (to, hides) = self.make_room(&spot)?;
                let made = match is_directory || !is_last {
                    true => rustix::fs::mkdir(&to[..], Mode::from_raw_mode(0o755)),
                    false => rustix::fs::mknodat(
                        CWD,
                        &to[..],
                        FileType::RegularFile,
                        Mode::from_raw_mode(0o644),
                        0,
                    ),
                };
                self.union.made(&spot, &to, hides).and(made)?;
            }
            here = next;
        }
        self.union.mounts[mount].at = here;
        Ok(())
    }

    fn receive(&mut self, arrival: Arrival) {
        let answer = self.take_in(&arrival);
        arrival.answer(answer.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO)));
    }

    fn take_in(&mut self, arrival: &Arrival) -> io::Result<()> {
        if arrival.pid == 0 {
            self.union.forget_all();
            self.tell_sites();
            return Ok(());
        }
        ptrace::seize(arrival.pid)?;
        if self.init == 0 {
            self.init = arrival.pid;
        }
        self.tracees.insert(arrival.pid, Tracee::new(arrival.pid));
        self.processes.insert(arrival.pid, Process::first());
        let capabilities = if arrival.is_privileged { ALL } else { self.settings.capabilities };
        let mut who = Credentials::new(0, 0, Vec::new(), capabilities, false);
        who.no_new_privileges = self.settings.no_new_privileges;
        self.world.become_one(arrival.pid, who).map_err(io::Error::from)
    }

    /// Whatever waitpid(2) tells.
    fn stopped(&mut self, pid: i32, status: i32) {
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            self.gone(pid);
            return;
        }
        if !self.tracees.contains_key(&pid) {
            // Whoever had the number before is not meant.
            self.stillborn.remove(&pid);
            self.early.insert(pid, status);
            return;
        }
        let signal = libc::WSTOPSIG(status);
        let result = match status >> 16 {
            0 if signal == libc::SIGTRAP | 0x80 => self.call_ended(pid),
            0 => self.signalled(pid, signal),
            libc::PTRACE_EVENT_SECCOMP => self.call(pid),
            libc::PTRACE_EVENT_FORK => self.born(pid, false),
            libc::PTRACE_EVENT_VFORK => self.born(pid, true),
            libc::PTRACE_EVENT_CLONE => self.cloned(pid),
            libc::PTRACE_EVENT_EXEC => self.executed(pid),
            libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => ptrace::resume(pid, Resume::Continue, 0),
            libc::PTRACE_EVENT_STOP => ptrace::resume(pid, Resume::Listen, 0),
            _ => ptrace::resume(pid, Resume::Continue, 0),
        };
        // ESRCH: it was killed meanwhile, and waitpid(2) will say so.
        if let Err(error) = result {
            if error.raw_os_error() != Some(libc::ESRCH) {
                self.give_up_on(pid);
            }
        }
    }

    /// What cannot be answered rightly does not go on.
    fn give_up_on(&self, pid: i32) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    fn signalled(&mut self, pid: i32, signal: i32) -> io::Result<()> {
        if signal == libc::SIGTRAP && self.tracees[&pid].is_starting() {
            return self.image_ready(pid);
        }
        if let Some(pending) = self.tracees.get_mut(&pid).and_then(|tracee| tracee.between_calls()) {
            // Its registers are not the program's.
            pending.signals.push(signal);
            return ptrace::resume(pid, pending.to_begin(), 0);
        }
        if self.is_fault_of_handler(pid, signal)? {
            return Ok(());
        }
        ptrace::resume(pid, Resume::Continue, signal)
    }

    fn gone(&mut self, pid: i32) {
        self.early.remove(&pid);
        self.company.release(pid);
        let Some(tracee) = self.tracees.remove(&pid) else {
            self.stillborn.insert(pid);
            return;
        };
        let process = tracee.process;
        if let Some(entry) = self.processes.get_mut(&process) {
            entry.threads -= 1;
            if entry.threads == 0 {
                self.last_dead = self.processes.remove(&process);
                self.listings.retain(|key, _| key.0 != process);
            }
        }
        if pid == self.init {
            self.is_ending = true;
            for pid in self.tracees.keys() {
                self.give_up_on(*pid);
            }
        }
    }

    fn cloned(&mut self, pid: i32) -> io::Result<()> {
        let registers = ptrace::registers(pid)?;
        let flags = registers.rdi as i32;
        let is_clone = registers.orig_rax as i64 == libc::SYS_clone;
        if is_clone && flags & libc::CLONE_THREAD != 0 {
            let process = self.tracees[&pid].process;
            return self.welcome(pid, Some(process), true);
        }
        self.born(pid, is_clone && flags & libc::CLONE_VM != 0)
    }

    fn born(&mut self, pid: i32, shares_memory: bool) -> io::Result<()> {
        self.welcome(pid, None, shares_memory)
    }

    /// A new process (`of`: thread of one), forked by `pid`.
    fn welcome(&mut self, pid: i32, of: Option<i32>, shares_memory: bool) -> io::Result<()> {
        let child = ptrace::event_message(pid)? as i32;
        if self.stillborn.remove(&child) || self.tracees.contains_key(&child) {
            return ptrace::resume(pid, Resume::Continue, 0);
        }
        self.company.born(pid, child);
        let parent = &self.tracees[&pid];
        let parent_process = parent.process;
        let memory = if shares_memory { Rc::clone(&parent.memory) } else { Rc::new(parent.memory.fork()) };
        let tracee = Tracee { memory, process: of.unwrap_or(child), ..Tracee::new(child) };
        match of {
            Some(process) => {
                if let Some(process) = self.processes.get_mut(&process) {
                    process.threads += 1;
                }
            }
            None => {
                let process = self.processes.get(&parent_process).map_or_else(Process::first, Process::fork);
                self.processes.insert(child, process);
            }
        }
        self.tracees.insert(child, tracee);
        if let Some(status) = self.early.remove(&child) {
            self.stopped(child, status);
        }
        if self.is_ending {
            self.give_up_on(child);
        }
        ptrace::resume(pid, Resume::Continue, 0)
    }

    /// A call that the filter stopped.
    fn call(&mut self, pid: i32) -> io::Result<()> {
        self.company.notice(pid);
        let registers = ptrace::registers(pid)?;
        if self.tracees[&pid].is_starting() {
            return ptrace::resume(pid, Resume::Continue, 0);
        }
        let pending = self.tracees.get_mut(&pid).and_then(|tracee| tracee.pending.as_mut());
        if let Some(pending) = pending.filter(|pending| pending.is_further) {
            pending.is_between = false;
            return ptrace::resume(pid, Resume::ToExit, 0);
        }
        let call = Call::with(
            pid,
            [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9],
        );
        let number = registers.orig_rax as i64;
        let outcome = self.decide(number, &call);
        self.settle();
        self.follow_up(number, &call, &registers);
        match outcome {
            Ok(Action::Pass) => ptrace::resume(pid, Resume::Continue, 0),
            Ok(Action::Answer(value)) => answer(pid, registers, value),
            Err(errno) => answer(pid, registers, -i64::from(errno.raw_os_error())),
            Ok(Action::Run(run)) => match self.prepare(pid, &registers, &run) {
                Ok((changed, slot)) => {
                    let tracee = self.tracees.get_mut(&pid).ok_or_else(gone)?;
                    tracee.pending = Some(tracee::Pending::new(registers, call, run.after, slot));
                    ptrace::set_registers(pid, &changed)?;
                    ptrace::resume(pid, Resume::ToExit, 0)
                }
                Err(errno) => answer(pid, registers, -i64::from(errno.raw_os_error())),
            },
        }
    }

    fn decide(&mut self, number: i64, call: &Call) -> Outcome {
        let Ok(short) = usize::try_from(number) else { return Err(Errno::NOSYS) };
        less::refuse(self.settings.emulation, number, call)?;
        match paths::handler(short) {
            Some(handler) => handler(self, call),
            None => {
                if self.trace_unknown {
                    eprintln!(
                        "duckweed: {} ({number}) is not modelled; answered ENOSYS",
                        table::name(number)
                    );
                }
                Err(Errno::NOSYS)
            }
        }
    }

    /// Owners of files that were copied up go with them.
    fn settle(&mut self) {
        let copied = std::mem::take(&mut self.copied);
        for Copied { was, now } in copied {
            let Ok(is) = crate::union::lstat(&now) else { continue };
            self.origins.insert(stat::identity(&is), stat::origin(&self.origins, &was));
            if crate::union::type_of(&is) != FileType::Directory {
                self.mark_sites(&[is.stx_ino, was.stx_ino]);
            }
            self.forget_site(&is);
            if let Some(record) = self.world.owners.find_lower(0, &was).cloned() {
                let key = Key::of(0, &is);
                let _ = self.world.owners.set(key, key.inode, record);
            }
        }
    }

    /// Remembers whose a file of the host's is.
    fn remember(&mut self, host: &[u8], path: &[u8], record: Record) -> Result<(), Errno> {
        let stat = crate::union::lstat(host)?;
        let file_system = self.file_system(path, &stat);
        if record.says_nothing() && self.world.owners.find(file_system, &stat).is_none() {
            return Ok(());
        }
        let key = Key::of(file_system, &stat);
        self.world.owners.set(key, key.inode, record).map_err(crate::call::errno)
    }

    /// The call that a tracee ran for us has ended.
    fn call_ended(&mut self, pid: i32) -> io::Result<()> {
        let Some(tracee) = self.tracees.get_mut(&pid) else { return Err(gone()) };
        if let Some(pending) = tracee.between_calls() {
            pending.is_between = false;
            return ptrace::resume(pid, Resume::ToExit, 0);
        }
        let Some(mut pending) = tracee.pending.take() else {
            return ptrace::resume(pid, Resume::Continue, 0);
        };
        let now = ptrace::registers(pid)?;
        let mut result = now.rax as i64;
        if let Some(after) = pending.after.take() {
            self.ran = [now.rdi, now.rsi, now.rdx, now.r10, now.r8, now.r9];
            after(self, &pending.call, &mut result);
            self.settle();
            self.tell_sites();
        }
        if let (Some(slot), Some(tracee)) = (pending.slot.take(), self.tracees.get(&pid)) {
            tracee.memory.give_back(slot);
        }
        if let Some(run) = self.again.take() {
            match self.run_again(pid, &mut pending, run, now.rip)? {
                Ok(()) => return self.keep(pid, pending),
                Err(errno) => result = -i64::from(errno.raw_os_error()),
            }
        }
        for signal in &pending.signals {
            let process = self.tracees.get(&pid).map_or(pid, |tracee| tracee.process);
            let _ = ptrace::signal_thread(process, pid, *signal);
        }
        let mut registers = pending.before;
        registers.rax = result as u64;
        registers.rip = now.rip;
        registers.rcx = now.rcx;
        registers.r11 = now.r11;
        registers.eflags = now.eflags;
        // A call that a signal interrupted begins anew, as it was written.
        ptrace::set_registers(pid, &registers)?;
        ptrace::resume(pid, Resume::Continue, 0)
    }

    /// Has a tracee make one more call before its own is over: it goes back to the instruction that made it.
    fn run_again(
        &mut self,
        pid: i32,
        pending: &mut tracee::Pending,
        run: Run,
        after_call: u64,
    ) -> io::Result<Result<(), Errno>> {
        let (changed, slot) = match self.prepare(pid, &pending.before, &run) {
            Ok(prepared) => prepared,
            Err(errno) => return Ok(Err(errno)),
        };
        /// The length of `syscall`.
        const INSTRUCTION: u64 = 2;
        (pending.after, pending.slot) = (run.after, slot);
        (pending.is_further, pending.is_between) = (true, true);
        let number = changed.orig_rax;
        pending.stops = sockets::stops_always(number as i64);
        // No call ends here, so none is begun anew.
        let changed = Registers { rax: number, orig_rax: u64::MAX, rip: after_call - INSTRUCTION, ..changed };
        ptrace::set_registers(pid, &changed)?;
        Ok(Ok(()))
    }

    fn keep(&mut self, pid: i32, pending: tracee::Pending) -> io::Result<()> {
        let how = pending.to_begin();
        self.tracees.get_mut(&pid).ok_or_else(gone)?.pending = Some(pending);
        ptrace::resume(pid, how, 0)
    }

    /// To be called by what follows a call: this is run next, and the caller's call ends with it.
    pub fn go_on_with(&mut self, run: Run) {
        self.again = Some(run);
    }

    /// For what follows a call: the arguments that it was run with.
    #[must_use]
    pub fn ran(&self) -> [u64; 6] {
        self.ran
    }

    /// The processes of the container.
    pub fn processes(&self) -> impl Iterator<Item = i32> + '_ {
        self.processes.keys().copied()
    }
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

/// Ends a call before it begins.
fn answer(pid: i32, mut registers: ptrace::Registers, value: i64) -> io::Result<()> {
    registers.orig_rax = u64::MAX;
    registers.rax = value as u64;
    ptrace::set_registers(pid, &registers)?;
    ptrace::resume(pid, Resume::Continue, 0)
}

/// A lock that nobody poisons.
fn lock<T>(mutex: &Arc<Mutex<T>>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What arrived and waits.
type Queue = VecDeque<Arrival>;
