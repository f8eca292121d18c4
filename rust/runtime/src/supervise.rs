//! The supervisor: the one process that stays with a running container.
//!
//! ```text
//!   engine --channel--+                      +-- pipes or terminal -- init and its children
//!                     +-- duckweed-runtime --+-- pidfd of init, of every exec'd command
//!   clients --socket--+      supervise       +-- container.log, state.json
//! ```
//!
//! It starts the container through [`crate::userns`], then waits in one loop ([`watch`])
//! for output, clients, ends and signals. Idle it holds no more than a few descriptors
//! and a megabyte. Nothing else knows that the container runs: its death is the
//! container's (init dies with its parent), and its end is written down by it alone.
//!
//! Two ways of life. *Managed*: the supervisor owns the container's stdio and its log, leaves
//! the session of whoever started it, and outlives them. *Inherit*: the container has the
//! caller's own descriptors 0, 1 and 2, nothing is copied or logged, and the end of
//! the channel is the end of the container.
//!
//! The start is answered on the channel when execve has succeeded, not before; a failed one
//! is recorded, cleaned up after, and explained there.

mod address;
mod child;
mod clock;
mod connection;
mod ending;
mod events;
mod log;
mod network;
mod removal;
mod requests;
mod session;
mod slot;
mod slots;
mod standby;
mod state;
mod stdio;
mod terms;
mod watch;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use duckweed_sys::signal::Signals;
use rustix::process::Signal;

use crate::bundle::Bundle;
use crate::isolation;
use crate::isolation::{Io, Started};
use crate::message::{packet, Answer, Attach, ClientMessage, Request, SupervisorMessage};
use crate::start_error::{Code, Doing as _, StartError};
use crate::userns;
use child::Child;
use connection::Connection;
use events::Events;
use slots::Slots;
use state::State;
pub(crate) use state::{lives, socket_of};
use stdio::Stdio;
use terms::Terms;
use watch::{Place, Supervisor};

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// The container's directory; `None`: it will be named on the channel.
    pub container: Option<PathBuf>,
    /// The socket inherited from whoever started us.
    pub channel: OwnedFd,
    /// Leave the caller's session and let it go on.
    pub daemonize: bool,
    /// The container has our descriptors 0, 1 and 2.
    pub inherit: bool,
    /// A user namespace to share instead of making one.
    pub userns: Option<OwnedFd>,
}

/// What is there of a container before it is begun.
struct Prepared {
    /// Whether a user namespace to share was joined.
    joined: Result<bool, StartError>,
    /// Its first process, when it was made ahead by [`standby`].
    ahead: Option<userns::Ahead>,
    /// Whether it may first live a while before others can find it.
    is_announced_late: bool,
}

/// Supervises a container from its start to its end; the answer is its exit code.
///
/// # Errors
/// What kept it from starting. It has been said on the channel and written down already.
pub fn main(mut options: Options) -> Result<i32, StartError> {
    if options.daemonize {
        duckweed_sys::daemon::daemonize().doing(Code::Internal, || "leave the session")?;
    } else if !options.inherit {
        // Ctrl-C in the caller's terminal is the client's to forward. Fails only for a group leader.
        let _ = rustix::process::setsid();
    }
    // First thing: a supervisor that waits does it while nobody waits for it.
    let joined =
        options.userns.take().map_or(Ok(false), |namespace| userns::join(namespace.as_fd()).map(|()| true));
    match options.container.take() {
        Some(container) => {
            let prepared = Prepared { joined, ahead: None, is_announced_late: true };
            supervise(&Place::of(&container), options, prepared)
        }
        None => standby::serve(options, joined),
    }
}

/// Starts the container of `place` and stays with it.
fn supervise(place: &Place, mut options: Options, prepared: Prepared) -> Result<i32, StartError> {
    if !options.inherit {
        // Nobody's pipe stays open for us, and a program that replaced our terminal is not written to.
        let _ = silence();
    }
    let channel = options.channel;
    options.channel = channel.try_clone().doing(Code::Internal, || "copy the channel")?;
    match start(place, options, prepared) {
        Ok(supervisor) => {
            drop(channel);
            supervisor.run().doing(Code::Internal, || "wait for events")
        }
        Err(failure) => Err(failure.report(place, channel.as_fd())),
    }
}

impl Place {
    fn of(container: &Path) -> Self {
        let container = std::path::absolute(container).unwrap_or_else(|_| container.to_owned());
        let store = container.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned();
        let id = container.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { container, store, id }
    }
}

/// A start that failed, with what is known of the container.
struct Failure {
    error: StartError,
    bundle: Option<Box<(Bundle, Terms)>>,
    /// Another supervisor has it: its record is not ours to write.
    foreign: bool,
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self { error, bundle: None, foreign: false }
    }
}

impl Failure {
    /// Writes the failure down, removes what shall not stay, and answers on the channel.
    fn report(self, place: &Place, channel: std::os::fd::BorrowedFd<'_>) -> StartError {
        let auto_remove = self.bundle.as_ref().and_then(|known| known.1.auto_remove.clone());
        let mut trees = Vec::new();
        if let (Ok(mut state), false) = (State::starting(auto_remove.is_some()), self.foreign) {
            state.end(self.error.exit_code, &self.error.message);
            match &auto_remove {
                Some(what) => trees = removal::take_away(what, &state, &place.store, &place.id),
                // The answer says it too; a store that cannot be written has no place for more.
                None => drop(state.write(&place.store, &place.container)),
            }
        }
        let (kind, payload) = SupervisorMessage::Answer(Answer::no(self.error.clone())).encode();
        let _ = packet::send(channel, kind, &payload, &[]);
        if let Some(known) = &self.bundle {
            let _ = userns::remove_trees(&known.0, &trees);
        }
        self.error
    }
}

fn start(place: &Place, options: Options, prepared: Prepared) -> Result<Supervisor, Failure> {
    let mut bundle = Bundle::load(&place.container)?;
    let terms = Terms::of(&bundle);
    let lock = match lock(place) {
        Ok(lock) => lock,
        Err(error) => return Err(Failure { error, bundle: None, foreign: true }),
    };
    let mut ready = None;
    let Prepared { joined, ahead, is_announced_late } = prepared;
    let late = if is_announced_late { watch::SHORT_LIFE } else { std::time::Duration::ZERO };
    let networked = joined.and_then(|joined| {
        bundle.joined = joined;
        ready = network::prepare(&mut bundle, place)?;
        Ok(())
    });
    if let Err(error) = networked {
        return Err(Failure { error, bundle: Some(Box::new((bundle, terms))), foreign: false });
    }
    match start_locked(place, (options, ahead, late), &bundle, &terms, (lock, ready)) {
        Ok((supervisor, keep)) => Ok(Supervisor { bundle: keep.then_some(bundle), ..supervisor }),
        Err(error) => Err(Failure { error, bundle: Some(Box::new((bundle, terms))), foreign: false }),
    }
}

/// The part of a start after which a failure is the container's.
fn start_locked(
    place: &Place,
    (options, ahead, late): (Options, Option<userns::Ahead>, std::time::Duration),
    bundle: &Bundle,
    terms: &Terms,
    (lock, ready): (Option<OwnedFd>, Option<network::Ready>),
) -> Result<(Supervisor, bool), StartError> {
    let log = if options.inherit { None } else { terms.open_log()? };
    let mut channel = Connection::new(options.channel).doing(Code::Internal, || "use the channel")?;
    let first = if options.inherit { None } else { waiting_attach(&channel) };
    let (mut started, stdio) = match ahead {
        Some(ahead) => (ahead.finish(bundle)?, Stdio::default()),
        None => start_with_stdio(bundle, terms, options.inherit, first)?,
    };
    let network = match ready {
        Some(ready) => Some(ready.connect(bundle, started.link.take(), place)?),
        None => None,
    };
    let init = Child::new(started.pidfd);
    let emulation = started.emulation;
    // Only now: the mask would be the container's too.
    let signals = [Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw);
    let signals = Signals::block(&signals).doing(Code::Internal, || "watch signals")?;
    if options.inherit {
        // The caller's pipes end with the container, not with us.
        let _ = silence();
    }
    let announced = State::of(started.pid, terms.auto_remove.is_some()).and_then(|mut state| {
        state.ports = network.as_ref().map(network::Connected::ports).unwrap_or_default();
        // Most of those that are waited for are over before anybody could look for them.
        bundle.block.isolation.name().clone_into(&mut state.isolation);
        let is_found = !options.inherit || network.as_ref().is_some_and(network::Connected::is_member);
        let listener = if is_found { Some(announce(place, &mut state)?) } else { None };
        Ok((state, listener))
    });
    let (state, listener) = match announced {
        Ok(announced) => announced,
        Err(error) => {
            init.kill();
            return Err(StartError::io(Code::Internal, "record the start", &error));
        }
    };
    let network = network.map(|network| network.enlist(&place.id, &state.socket));
    if !options.inherit {
        channel.tell(&SupervisorMessage::Answer(Answer::started(state.pid)), None);
    }
    let mut connections = Slots::default();
    let number = connections.insert(channel);
    let mut supervisor = Supervisor {
        place: Place { container: place.container.clone(), store: place.store.clone(), id: place.id.clone() },
        terms: terms.clone(),
        state,
        bundle: None,
        events: Events::new().doing(Code::Internal, || "make an epoll descriptor")?,
        signals,
        init,
        emulation,
        stdio,
        log,
        connections,
        sessions: Slots::default(),
        announce_at: listener.is_none().then(|| std::time::Instant::now() + late),
        listener,
        accepting: false,
        owner: options.inherit.then_some(number),
        ending: None,
        congested: false,
        network,
        joined: bundle.joined,
        lock,
    };
    if let Some(attach) = first {
        supervisor.attach(number, attach);
    }
    Ok((supervisor, options.inherit))
}

fn start_with_stdio(
    bundle: &Bundle,
    terms: &Terms,
    inherit: bool,
    first: Option<Attach>,
) -> Result<(Started, Stdio), StartError> {
    if inherit {
        return Ok((isolation::start(bundle, Io::Inherit)?, Stdio::default()));
    }
    if let Some(size) = terms.terminal {
        let (rows, cols) =
            first.map(|attach| (attach.rows, attach.cols)).filter(|size| size.0 > 0).unwrap_or(size);
        let mut started = isolation::start(bundle, Io::Terminal { rows, cols })?;
        let master = started.console.take();
        let master = master
            .ok_or_else(|| StartError::new(Code::Internal, "console", "the container gave no terminal"))?;
        let stdio = Stdio::terminal(master).doing(Code::Internal, || "use the terminal")?;
        return Ok((started, stdio));
    }
    let with_input = terms.stdin != crate::spec::Stdin::Null;
    let (ours, theirs) = Stdio::pipes(with_input).doing(Code::Internal, || "make pipes")?;
    let io = Io::Fds { stdin: theirs.stdin, stdout: theirs.stdout, stderr: theirs.stderr };
    Ok((isolation::start(bundle, io)?, ours))
}

/// Listens, and then says in state.json that the container runs and where.
fn announce(place: &Place, state: &mut State) -> std::io::Result<OwnedFd> {
    let runtime_directory = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let path = address::socket_path(runtime_directory.as_deref(), &place.store, &place.id)?;
    let listener = packet::listen(&path)?;
    state.socket = path.to_string_lossy().into_owned();
    state.write(&place.store, &place.container)?;
    Ok(listener)
}

/// The attach request that a creator put into the channel before it started us.
fn waiting_attach(channel: &Connection) -> Option<Attach> {
    let mut buffer = [0; 1024];
    let (bytes, _) = packet::receive(channel.socket(), &mut buffer).ok()??;
    match ClientMessage::decode(bytes) {
        Ok(ClientMessage::Request(Request::Attach(attach))) => Some(attach),
        _ => None,
    }
}

/// Two starts at once: the second is refused. Where locks do not work (some network file systems) it is up to the callers.
fn lock(place: &Place) -> Result<Option<OwnedFd>, StartError> {
    use rustix::fs::{flock, FlockOperation, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = place.container.join("config.json");
    let file = rustix::fs::open(&path, flags, Mode::empty()).doing(Code::Spec, || "open config.json")?;
    match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(StartError::new(Code::Internal, "start", "the container is running already"))
        }
        Err(_) => Ok(None),
    }
}

/// Makes a container's record say that it runs, supervised by this process.
#[cfg(test)]
pub(crate) fn pretend_to_live(store: &Path, container: &Path) {
    State::starting(false).unwrap().write(store, container).unwrap();
}

/// Puts /dev/null in the place of descriptors 0, 1 and 2.
pub(crate) fn silence() -> std::io::Result<()> {
    let null = stdio::null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
