//! The emulator: a process of the supervisor's that answers a container's trapped calls.
//!
//! ```text
//! supervisor --fork--> emulator            in the container's user and mount namespace, with all of its
//!     |   control          |               capabilities; not in its pid namespace: nobody inside sees it
//!     +---- listener ----->+-- a thread for each listener: receive, handle, answer
//! ```
//!
//! Every command that enters the container by itself (the first one, each exec) has a filter and
//! a listener of its own; all share one [`World`], behind one lock. The supervisor hands listeners over on
//! the control socket and closes that when the container has ended. If the emulator dies, the
//! container's calls fail with ENOSYS, and the supervisor ends it.
//!
//! Other parts can answer calls of their own in the same filter and loop: [`Answers`] maps call
//! numbers to handlers, and a kernel allows one listener in a chain of filters.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use duckweed_sys::notify::{self, Notification};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::call::{Call, Outcome, Verdict, UNREADABLE};
use crate::credentials::{capability, Credentials, Known};
use crate::handlers;
use crate::owners::log::only_writer;
use crate::owners::{Key, Lower, Owners, Record};
use crate::view::View;
use crate::world::World;
use crate::Mode;

/// Answers one kind of call.
pub type Answer = Box<dyn Fn(&Call) -> Outcome + Send + Sync>;

/// Who answers which call.
#[derive(Default)]
pub struct Answers {
    by_number: Vec<Option<Answer>>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers = self.by_number.iter().enumerate().filter(|(_, answer)| answer.is_some());
        out.debug_list().entries(numbers.map(|(number, _)| number)).finish()
    }
}

impl Answers {
    /// Has `answer` answer the calls with this number. The filter must trap them.
    pub fn add(&mut self, number: i64, answer: Answer) {
        let Ok(place) = usize::try_from(number) else { return };
        if self.by_number.len() <= place {
            self.by_number.resize_with(place + 1, || None);
        }
        self.by_number[place] = Some(answer);
    }

    /// The same for a call that somebody answers already: `first` is asked first, and what it lets go on is theirs.
    pub fn add_before(&mut self, number: i64, first: Answer) {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let answer = match self.by_number.get_mut(place).and_then(Option::take) {
            Some(then) => Box::new(move |call: &Call| match first(call) {
                Ok(Verdict::GoOn) => then(call),
                other => other,
            }),
            None => first,
        };
        self.add(number, answer);
    }

    /// Root emulation's answers.
    pub fn emulate(&mut self, mode: Mode, world: &Arc<Mutex<World>>) {
        for row in handlers::rows(mode) {
            let (world, handler) = (Arc::clone(world), row.handler);
            self.add(
                row.number,
                Box::new(move |call| {
                    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
                    handler(&mut world, call)
                }),
            );
        }
    }

    fn decide(&self, notification: &Notification) -> Outcome {
        let place = usize::try_from(notification.number).unwrap_or(usize::MAX);
        match self.by_number.get(place) {
            Some(Some(answer)) => answer(&Call::new(notification)),
            _ => Err(Errno::NOSYS),
        }
    }
}

/// What the emulation begins with. Everything is opened outside of the container.
#[derive(Debug)]
pub struct Start {
    /// How much is emulated.
    pub mode: Mode,
    /// A /proc of the emulator's own pid namespace.
    pub proc: OwnedFd,
    /// The container's directory, where the log of owners lies.
    pub directory: OwnedFd,
    /// Overlay's upperdir.
    pub upper: Option<OwnedFd>,
    /// What the layers say.
    pub lower: Vec<Lower>,
    /// What a new container's log begins with: a whole copy's owners.
    pub first: Vec<(Key, Record)>,
    /// Whether layers and changes lie on one file system.
    pub is_one_file_system: bool,
    /// The container's root.
    pub root: Credentials,
}

/// Makes the world. The process must have entered the container's namespaces.
///
/// # Errors
/// The log of owners cannot be read.
pub fn world(start: Start) -> io::Result<World> {
    let lock = only_writer(&start.directory)?;
    let mut owners = Owners::open(start.directory)?;
    let names_are_known = start.first.is_empty();
    if owners.is_empty() {
        start.first.into_iter().try_for_each(|(key, record)| owners.set(key, key.inode, record))?;
    }
    // Whoever may mount can show a directory under another name.
    if !names_are_known || start.root.sets.bounding & capability::SYS_ADMIN != 0 {
        owners.names.give_up();
    }
    owners.learn_lower(start.lower, start.is_one_file_system);
    let view = View::new(start.proc, start.upper)?;
    Ok(World { view, owners, known: Known::new(start.root), lock })
}

/// Answers the calls of one listener until nobody is left who could make one.
///
/// The first call comes from the process that made the listener; `arrives` is told its pid before that call is answered.
pub fn serve(listener: &OwnedFd, answers: &Answers, arrives: impl FnOnce(i32)) {
    let _ = notify::wake_in_place(listener);
    let mut arrives = Some(arrives);
    loop {
        match notify::receive(listener) {
            Ok(notification) => {
                if let Some(arrives) = arrives.take() {
                    arrives(notification.pid);
                }
                answer(listener, answers, &notification);
            }
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            // The caller was killed before it was heard; or all are gone.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && has_callers(listener) => {}
            Err(_) => return,
        }
    }
}

/// Whether anybody is left whose calls this listener hears.
fn has_callers(listener: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::HUP)
}

fn answer(listener: &OwnedFd, answers: &Answers, notification: &Notification) {
    let id = notification.id;
    // An answer that does not arrive has nobody left to hear it.
    let _ = match answers.decide(notification) {
        Ok(Verdict::GoOn) | Err(UNREADABLE) => notify::go_on(listener.as_fd(), id),
        Ok(Verdict::Value(value)) => notify::answer(listener.as_fd(), id, value),
        Ok(Verdict::Descriptor { fd, close_on_exec }) => {
            notify::answer_with_fd(listener.as_fd(), id, fd, close_on_exec).or_else(|error| {
                notify::refuse(listener.as_fd(), id, error.raw_os_error().unwrap_or(libc::EIO))
            })
        }
        Err(errno) => notify::refuse(listener.as_fd(), id, errno.raw_os_error()),
    };
}
