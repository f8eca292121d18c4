//! A supervisor that waits to be given its container, and then the next.
//!
//! A program that starts one ephemeral container after another would wait each time for
//! this executable to be mapped and initialised, and for the files of a container to be made and removed.
//! Instead it keeps a few supervisors ahead: executed, in the shared user namespace already,
//! asleep on their channels. One packet wakes one: `B`, an [`Order`], with the
//! descriptors that become 0, 1 and 2. The client hears `X` (or `J` with what kept it
//! from starting) when the container has ended, `S` when its command goes on for a while, and `R` when the supervisor is ready again.
//! When the channel closes, nobody needs it any more.
//!
//! ```text
//! ready (R) --order--> slot renamed to containers/ID, process woken --ends--> slot renamed back, X
//!    ^                        | lives longer than SHORT_LIFE                          |
//!    |                        v                                                       |
//!    |                 an ordinary --inherit supervisor, to its end, and exit         |
//!    +----- next process forked, with a kit where the last container left one --------+
//! ```
//!
//! Most containers that are waited for end at once. As long as one may, nothing but its
//! directory says that it exists: no config.json, no state.json, no socket. [`Kit`] says
//! what is handed on from one to the next, and why that is safe.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use duckweed_sys::signal::Signals;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use super::slot::Slot;
use super::state::State;
use super::watch::{Place, SHORT_LIFE};
use super::{Options, Prepared};
use crate::bundle::Bundle;
use crate::message::{packet, Answer, Exit, Order, SupervisorMessage};
use crate::spec::Rootfs;
use crate::start_error::{Code, Doing as _, StartError};
use crate::userns::{self, Ahead, Ending, Kit};

/// How long everything is kept ready for nobody: an overlay holds on to files that may have been removed, and a process
/// and its namespaces to memory.
const IDLE: Duration = Duration::from_secs(10);
/// When it is looked whether a command that has not ended has begun: most have ended by then.
const LOOK: Duration = Duration::from_millis(30);
/// A machine that needs this long for a start is too busy to hide that there is one.
const LONGEST_START: Duration = Duration::from_secs(2);
/// So many containers in a row that were not what was expected, and nothing is expected any more.
const MOST_MISFITS: u32 = 3;

/// What waiting for a container came to.
enum Waited {
    /// The bytes of an [`Order`], and its descriptors.
    Order(Vec<u8>, Vec<OwnedFd>),
    /// Nobody wanted anything for a while.
    InVain,
    /// Nobody needs us any more.
    Dismissed,
}

/// How watching a container for a moment ended.
enum Moment {
    Over,
    StillRunning,
}

/// See the module.
pub struct Standby {
    channel: OwnedFd,
    signals: Signals,
    /// Who we are, in names of `tmp/`.
    owner: State,
    slot: Option<Slot>,
    /// Never without a slot.
    kit: Option<Kit>,
    /// The layers of the last container.
    last: Vec<PathBuf>,
    misfits: u32,
}

/// Serves until the channel closes or a container lives long; the answer is this process's exit code.
///
/// # Errors
/// A packet that is not the one expected, and what a long-lived container's supervisor says.
pub(super) fn serve(options: Options, joined: Result<bool, StartError>) -> Result<i32, StartError> {
    // The container's `/` takes its mode from a directory that we make.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let signals = [Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw);
    let mut standby = Standby {
        channel: options.channel.try_clone().doing(Code::Internal, || "copy the channel")?,
        signals: Signals::block(&signals).doing(Code::Internal, || "watch signals")?,
        owner: State::starting(true).doing(Code::Internal, || "find out who we are")?,
        slot: None,
        kit: None,
        last: Vec::new(),
        misfits: 0,
    };
    let may_fork = joined == Ok(true);
    let mut is_idle = false;
    loop {
        // Without one it starts as any other does, and says why it cannot.
        let ahead = if may_fork && !is_idle { Ahead::fork(standby.kit.as_ref()).ok() } else { None };
        let _ = packet::send(standby.channel.as_fd(), b'R', b"", &[]);
        let (payload, stdio) = match standby.wait(is_idle)? {
            Waited::Order(payload, stdio) => (payload, stdio),
            nothing => {
                // First the process, which may be making an overlay in the slot.
                drop(ahead);
                standby.forget();
                if matches!(nothing, Waited::Dismissed) {
                    return Ok(0);
                }
                is_idle = true;
                continue;
            }
        };
        is_idle = false;
        let order = Order::decode(&payload).ok_or_else(wrong)?;
        let place = Place::of(order.container);
        if let Err(error) = standby.publish(&place, order.record) {
            standby.tell(&SupervisorMessage::Answer(Answer::no(error)));
            continue;
        }
        let ahead = ahead.filter(|_| standby.kit.as_ref().is_none_or(Kit::has_its_layers));
        if ahead.is_none() {
            standby.kit = None; // made of other layers, or by a process that is gone
        }
        let begun = standby.begin(ahead, &payload, &stdio);
        let ended = match begun {
            Some(ahead) if is_emulated(order.config) => Err(Some(ahead)),
            Some(ahead) => standby.see_through(ahead, &payload, &stdio),
            None => Err(None),
        };
        match ended {
            Ok(ending) => standby.end(&place, stdio, ending, order.config),
            Err(ahead) => {
                let prepared = Prepared { joined, ahead, is_announced_late: false };
                return standby.stay_with(options, &place, stdio, prepared, order.config);
            }
        }
    }
}

/// Whether somebody must answer the container's system calls from its start. One that only mentions the word is
/// served as well, at the price of this supervisor.
fn is_emulated(config: &[u8]) -> bool {
    const WORDS: [&[u8]; 2] = [b"root_emulation", b"socket_gate"];
    WORDS.iter().any(|word| config.windows(word.len()).any(|bytes| bytes == *word))
}

fn wrong() -> StartError {
    StartError::new(Code::Internal, "wait for a container", "the packet names none")
}

impl Standby {
    /// Sleeps until there is a container; not for ever, unless it `is_idle` already.
    fn wait(&self, is_idle: bool) -> Result<Waited, StartError> {
        loop {
            let patience = (!is_idle).then_some(IDLE);
            let (told, signalled) = ready(self.channel.as_fd(), self.signals.as_fd(), patience);
            if told {
                let mut buffer = vec![0; packet::LARGEST];
                let received = packet::receive(self.channel.as_fd(), &mut buffer)
                    .doing(Code::Internal, || "wait for a container")?;
                let Some((bytes, fds)) = received else { break };
                let payload = bytes.strip_prefix(b"B").ok_or_else(wrong)?.to_vec();
                return Ok(Waited::Order(payload, fds));
            }
            if signalled && self.is_asked_to_end() {
                break;
            }
            if !signalled {
                return Ok(Waited::InVain);
            }
        }
        Ok(Waited::Dismissed)
    }

    fn forget(&mut self) {
        self.kit = None;
        if let Some(slot) = self.slot.take() {
            slot.remove();
        }
    }

    /// SIGHUP is only a terminal that went.
    fn is_asked_to_end(&self) -> bool {
        std::iter::from_fn(|| self.signals.next()).any(|signal| signal != Signal::HUP.as_raw())
    }

    /// Makes the container appear in the store: from here on it keeps its layers there.
    fn publish(&mut self, place: &Place, record: &[u8]) -> Result<(), StartError> {
        let context = || format!("make {}", place.container.display());
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => Slot::make(&self.owner, &place.store).doing(Code::Internal, context)?,
        };
        let slot = self.slot.insert(slot);
        slot.put(&place.container, record).doing(Code::Internal, context)
    }

    /// Wakes the process that was made ahead, or one made now.
    fn begin(&self, ahead: Option<Ahead>, order: &[u8], stdio: &[OwnedFd]) -> Option<Ahead> {
        let stdio: [BorrowedFd<'_>; 3] = stdio.iter().map(AsFd::as_fd).collect::<Vec<_>>().try_into().ok()?;
        let wake = |ahead: Ahead| ahead.begin(order, stdio).ok().map(|()| ahead);
        // One that was killed while it waited is no reason to fail.
        ahead.and_then(wake).or_else(|| Ahead::fork(None).ok().and_then(wake))
    }

    /// Waits for a container that ends soon; the process itself when it does not.
    fn see_through(
        &mut self,
        ahead: Ahead,
        order: &[u8],
        stdio: &[OwnedFd],
    ) -> Result<Ending, Option<Ahead>> {
        match self.watch(&ahead) {
            Moment::StillRunning => return Err(Some(ahead)),
            Moment::Over => {}
        }
        let ending = ahead.ending(self.kit.as_mut());
        if !matches!(ending, Ending::Misfit) {
            return Ok(ending);
        }
        self.misfits += 1;
        self.kit = None;
        let Some(ahead) = self.begin(None, order, stdio) else { return Err(None) };
        match self.watch(&ahead) {
            Moment::StillRunning => Err(Some(ahead)),
            Moment::Over => Ok(ahead.ending(None)),
        }
    }

    fn watch(&self, ahead: &Ahead) -> Moment {
        let input = PollFlags::IN;
        let (mut is_wanted, mut until) = (true, Instant::now() + LONGEST_START);
        let mut has_begun = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = if has_begun { left } else { left.min(LOOK) };
            // One that was killed ends for certain: it is waited for without a limit.
            let patience = is_wanted.then(|| timespec(left));
            let mut fds = [PollFd::new(ahead, input), PollFd::new(&self.signals, input)].to_vec();
            if is_wanted {
                fds.push(PollFd::new(&self.channel, input));
            }
            match poll(&mut fds, patience.as_ref()) {
                Ok(0) if Instant::now() >= until => return Moment::StillRunning,
                Ok(0) => {
                    if !has_begun && ahead.has_begun() {
                        (has_begun, until) = (true, Instant::now() + SHORT_LIFE);
                        let _ = packet::send(self.channel.as_fd(), b'S', b"", &[]);
                    }
                    continue;
                }
                Ok(_) => {}
                Err(_) => continue,
            }
            if !fds[0].revents().is_empty() {
                return Moment::Over;
            }
            let is_signalled = !fds[1].revents().is_empty();
            let is_told = fds.get(2).is_some_and(|channel| !channel.revents().is_empty());
            // There is nothing to be told while a container runs: it is the end of the channel.
            if is_told || is_signalled && self.is_asked_to_end() {
                ahead.kill();
                is_wanted = false;
            }
        }
    }

    /// The container is dead: takes its directory out of the store's view, tells, and gets ready for the next.
    fn end(&mut self, place: &Place, stdio: Vec<OwnedFd>, ending: Ending, config: &[u8]) {
        drop(stdio);
        let is_back = self.slot.as_ref().is_some_and(|slot| slot.take_back(&place.container));
        let is_failure = !matches!(ending, Ending::Exited(_));
        self.tell(&match ending {
            Ending::Exited(exit_code) => SupervisorMessage::Exit(Exit { exit_code, error: String::new() }),
            Ending::Failed(error) => SupervisorMessage::Answer(Answer::no(error)),
            Ending::Misfit => SupervisorMessage::Answer(Answer::no(wrong())),
        });
        if is_back && !is_failure && self.kit.as_ref().is_some_and(Kit::is_untouched) {
            self.misfits = 0;
            return;
        }
        let kit = self.kit.take();
        if let Some(slot) = self.slot.take().filter(|_| is_back) {
            slot.remove();
        }
        let expected = if kit.is_none() { self.expect(config) } else { None };
        // A full disk is the next container's to tell.
        self.slot = Slot::make(&self.owner, &place.store).ok();
        let Some(slot) = &self.slot else { return };
        self.kit = match kit {
            Some(kit) => kit.renewed(slot.path()),
            None => expected.and_then(|recipe| Kit::new(recipe, slot.path(), None)),
        };
    }

    /// What the next container will be like: as this one, when the one before had the same layers.
    fn expect(&mut self, config: &[u8]) -> Option<Bundle> {
        if self.misfits >= MOST_MISFITS {
            return None;
        }
        let mut bundle = Bundle::parse(config, Path::new("/")).ok()?;
        bundle.joined = true;
        let Some(Rootfs::Overlay { lower, .. }) = &bundle.block.rootfs else { return None };
        let is_repeated = *lower == self.last;
        self.last.clone_from(lower);
        is_repeated.then_some(bundle)
    }

    fn tell(&self, message: &SupervisorMessage<'_>) {
        let (kind, payload) = message.encode();
        // Nobody there: the channel says so next.
        let _ = packet::send(self.channel.as_fd(), kind, &payload, &[]);
    }

    /// Becomes the ordinary supervisor of a container that lives on; whatever it leaves is removed with it.
    fn stay_with(
        self,
        options: Options,
        place: &Place,
        stdio: Vec<OwnedFd>,
        prepared: Prepared,
        config: &[u8],
    ) -> Result<i32, StartError> {
        let _ = packet::send(self.channel.as_fd(), b'S', b"", &[]);
        let path = place.container.join("config.json");
        let written = std::fs::write(&path, config).doing(Code::Spec, || format!("write {}", path.display()));
        if prepared.ahead.is_none() {
            userns::take_stdio(stdio).ok_or_else(wrong)??;
        }
        drop((self.signals, self.kit, self.channel));
        if let Err(error) = written {
            drop(prepared);
            let failure = super::Failure::from(error);
            let _ = userns::remove(&place.container);
            return Err(failure.report(place, options.channel.as_fd()));
        }
        super::supervise(place, options, prepared)
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Which of two descriptors can be read; neither when the time is up.
fn ready(first: BorrowedFd<'_>, second: BorrowedFd<'_>, patience: Option<Duration>) -> (bool, bool) {
    let patience = patience.map(timespec);
    let mut fds = [PollFd::new(&first, PollFlags::IN), PollFd::new(&second, PollFlags::IN)];
    loop {
        match poll(&mut fds, patience.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return (!fds[0].revents().is_empty(), !fds[1].revents().is_empty()),
        }
    }
}
