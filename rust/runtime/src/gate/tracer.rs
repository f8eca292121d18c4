//! The gate of a tracer: [`duckweed_net::gate::rewrite`]'s steps as the tracer's actions.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use duckweed_net::gate::rewrite::{self, Answer, Ended, Kernel, Rewriter, Step, CALLS};
use duckweed_net::gate::rules::Terms;
use duckweed_net::gate::{listing, Memory, Rules, Stopped};
use duckweed_trap::call::Call;
use duckweed_trap::trace::{Action, Argument, Gate, Listing, Run, Tracer};
use rustix::io::Errno;

use crate::seccomp::policy::{find, Machine};

/// The gate with these terms, and what it makes of lists of sockets.
pub(crate) fn of_tracer(terms: Terms) -> (Gate, Listing) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").unwrap_or_default();
    let this = Rc::new(RefCell::new(Rewriter::new(Rules::new(terms), text.trim() == "1")));
    let answers: HashMap<i64, Answer> =
        CALLS.iter().filter_map(|(name, answer)| Some((number(name)?, *answer))).collect();
    let own = Rc::clone(&this);
    let listing = move |tracer: &Tracer, name: &str, text: &str| match listing::kind_of(name) {
        Some(kind) => listing::translate(own.borrow().rules(), kind, text, &open_sockets(tracer)),
        None => String::new(),
    };
    let gate = move |tracer: &Tracer, number: i64, call: &Call| {
        let Some(answer) = answers.get(&number) else { return Ok(None) };
        let mut front = this.borrow_mut();
        if front.is_crowded() {
            front.forget(&open_sockets(tracer));
        }
        let step = answer(&mut front, &Asker(call))?;
        Ok(match step {
            Step::GoOn => None,
            Step::Value(value) => Some(Action::Answer(value)),
            Step::Run(run) => Some(Action::Run(prepared(&this, run))),
        })
    };
    (Rc::new(gate), Rc::new(listing))
}

fn number(name: &str) -> Option<i64> {
    Machine::NATIVE.number(find(name)?).and_then(|number| i64::try_from(number).ok())
}

fn call_of(kernel: Kernel) -> Option<i64> {
    number(match kernel {
        Kernel::Bind => "bind",
        Kernel::Listen => "listen",
        Kernel::Getsockname => "getsockname",
        Kernel::Setsockopt => "setsockopt",
    })
}

fn prepared(front: &Rc<RefCell<Rewriter>>, run: rewrite::Run) -> Run {
    let argument = |argument| match argument {
        rewrite::Argument::Word(word) => Argument::Word(word),
        rewrite::Argument::Bytes(bytes) => Argument::Bytes(bytes),
        rewrite::Argument::Block(bytes, pointers) => Argument::Block(bytes, pointers),
    };
    let arguments = run.arguments.into_iter().map(|(index, value)| (index, argument(value))).collect();
    let prepared = Run { number: run.call.and_then(call_of), arguments, after: None };
    let Some(then) = run.then else { return prepared };
    let front = Rc::clone(front);
    let after = move |tracer: &mut Tracer, call: &Call, result: &mut i64| {
        let ended = Ended { result: *result, arguments: tracer.ran() };
        let step = then(&mut front.borrow_mut(), &Asker(call), ended);
        match step {
            Ok(Step::GoOn) => {}
            Ok(Step::Value(value)) => *result = value,
            Ok(Step::Run(run)) => tracer.go_on_with(self::prepared(&front, run)),
            Err(errno) => *result = -i64::from(errno.raw_os_error()),
        }
    };
    Run { after: Some(Box::new(after)), ..prepared }
}

/// A stopped caller.
struct Asker<'a>(&'a Call);

impl Memory for Asker<'_> {
    fn argument(&self, index: usize) -> u64 {
        self.0.long(index)
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.0.read_at(address, into)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write_at(address, bytes)
    }
}

impl Stopped for Asker<'_> {
    fn socket(&self, number: i32) -> Option<u64> {
        let mut buffer = [0; 64];
        let link = format!("/proc/{}/fd/{number}", self.0.pid);
        let length = rustix::fs::readlinkat_raw(rustix::fs::CWD, link, &mut buffer[..]).ok()?;
        inode(&buffer[..length])
    }
}

/// The number in `socket:[12345]`.
fn inode(name: &[u8]) -> Option<u64> {
    let digits = name.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The sockets that anybody in the container has.
fn open_sockets(tracer: &Tracer) -> HashSet<u64> {
    let mut found = HashSet::new();
    for pid in tracer.processes() {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten() {
            let Ok(link) = std::fs::read_link(entry.path()) else { continue };
            found.extend(inode(std::os::unix::ffi::OsStrExt::as_bytes(link.as_os_str())));
        }
    }
    found
}
