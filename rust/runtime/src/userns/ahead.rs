//! The first process of a container that is not known yet.
//!
//! Making namespaces (the network's above all) and the file systems that every container
//! has is a third of a start. A supervisor on standby (`supervise::standby`) does it while
//! nobody waits: it forks the process that will be the container's, which makes what is
//! always the same and sleeps on the start socket. One packet brings the bundle, text and all,
//! and the command's stdio; from there on all is as in [`super::start`], except that
//! some of it is done already.
//!
//! With a [`Kit`] it goes further: it puts together the whole tree of a container like the
//! last ones, pivots into it, and has only the names, the texts and the command left to do.
//! A bundle that turns out to be different is handed back ([`Ending::Misfit`]) before
//! anything of it has run.
//!
//! Only for the usual container: every namespace its own, the user namespace joined
//! before. A bundle that wants other namespaces is refused; its maker knows better.
//!
//! ```text
//! supervisor                             the process
//!                                        namespaces, mounts; with a kit the whole tree
//!   <------- `r` flags, facts, fds ----- overlay and network to keep for the next kit
//!   -------- `B` order, 3 fds --------->
//!   <------- `m` --------------------- : a misfit; or a StartError in JSON; or
//!   <------- the end of file ----------- that close-on-exec makes of a good exec
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use duckweed_sys::clone::{self, Flags, Fork};
use rustix::mount::{mount_change, MountPropagationFlags};
use rustix::process::{Pid, Signal};

use super::child::{become_command, report};
use super::credentials::{die_with_parent, hide_from_container};
use super::kit::{self, Kit};
use super::mounts::{self, Prepared};
use super::plan::Plan;
use super::root::{self, Root};
use super::{finish, overlay, reap, start_socket};
use crate::bundle::Bundle;
use crate::isolation::{Io, Started};
use crate::message::{packet, Order};
use crate::spec::Mount;
use crate::start_error::{Code, Doing as _, StartError};

/// The namespaces of the usual container, but for the user namespace.
const USUAL: Flags =
    clone::NEWNS | clone::NEWPID | clone::NEWIPC | clone::NEWUTS | clone::NEWNET | clone::NEWCGROUP;

/// A process that waits to become a container; dropping it ends it.
#[derive(Debug)]
pub struct Ahead {
    pid: Pid,
    /// `None` when [`Ahead::finish`] has taken it.
    pidfd: Option<OwnedFd>,
    socket: OwnedFd,
}

/// What a process had said when it ended.
#[derive(Debug)]
pub enum Ending {
    /// It was the command by then, and ended with this code.
    Exited(i32),
    /// It could not become the command.
    Failed(StartError),
    /// It was made for another kind of container; nothing has been done for this one.
    Misfit,
}

/// What it made while it waited.
pub(super) struct Warm {
    mounts: Vec<(Mount, Prepared)>,
    /// The root, when it has all its mounts and is `/` already.
    pub root: Option<OwnedFd>,
}

impl Warm {
    /// The mount, if it is one of the usual ones and not taken yet.
    pub fn take(&mut self, mount: &Mount) -> Option<Prepared> {
        let same = |(made, _): &(Mount, Prepared)| made.kind == mount.kind && made.options == mount.options;
        let found = self.mounts.iter().position(same)?;
        Some(self.mounts.swap_remove(found).1)
    }
}

impl Ahead {
    /// Forks it. This process must be single-threaded and in the user namespace to be used.
    ///
    /// # Errors
    /// `namespace` when one is refused.
    pub fn fork(kit: Option<&Kit>) -> Result<Ahead, StartError> {
        let (ours, theirs) = start_socket()?;
        let has_network = kit.is_some_and(|kit| kit.network.is_some());
        let flags = if has_network { USUAL & !clone::NEWNET } else { USUAL };
        match clone::fork(flags).doing(Code::Namespace, || "make namespaces ahead")? {
            Fork::Child => {
                drop(ours);
                wait_and_become(theirs, kit)
            }
            Fork::Parent { pid, pidfd } => Ok(Ahead { pid, pidfd: Some(pidfd), socket: ours }),
        }
    }

    /// Gives it its bundle (the bytes of an [`Order`]) and its descriptors 0, 1 and 2.
    ///
    /// # Errors
    /// It has died.
    pub fn begin(&self, order: &[u8], stdio: [BorrowedFd<'_>; 3]) -> Result<(), StartError> {
        packet::send(self.socket.as_fd(), b'B', order, &stdio)
            .doing(Code::Internal, || "wake the container's process")
    }

    /// Comes back when its execve has succeeded.
    ///
    /// # Errors
    /// As [`super::start`].
    pub fn finish(mut self, bundle: &Bundle) -> Result<Started, StartError> {
        match self.pidfd.take() {
            Some(pidfd) => finish(self.pid, pidfd, &self.socket, Ok(()), bundle),
            None => Err(StartError::new(Code::Internal, "start", "started twice")),
        }
    }

    /// Whether its execve has succeeded: the other end of the socket is closed, but it lives.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        use rustix::event::{poll, PollFd, PollFlags, Timespec};
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        poll(&mut fds, Some(&now)).is_ok_and(|_| fds[0].revents().contains(PollFlags::HUP))
    }

    /// Kills it and everything in its pid namespace.
    pub fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // ESRCH is the aim.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// What came of it, once its descriptor says that it has ended; what it made for `kit` is there by then.
    pub fn ending(mut self, kit: Option<&mut Kit>) -> Ending {
        self.pidfd = None;
        let code = reap(self.pid);
        let mut buffer = [0; 16 * 1024];
        let mut kit = kit;
        while let Ok(Some((bytes, fds))) = packet::receive(self.socket.as_fd(), &mut buffer) {
            match bytes.split_first() {
                Some((b'r', ready)) => {
                    if let Some(kit) = kit.as_deref_mut() {
                        take_ready(kit, ready, fds);
                    }
                }
                Some((b'm', _)) => return Ending::Misfit,
                _ => {
                    if let Ok(error) = serde_json::from_slice(bytes) {
                        return Ending::Failed(error);
                    }
                }
            }
        }
        match code {
            Ok(code) => Ending::Exited(code),
            Err(error) => Ending::Failed(error),
        }
    }
}

impl AsFd for Ahead {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().map_or(self.socket.as_fd(), AsFd::as_fd)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.kill();
        if self.pidfd.is_some() {
            let _ = reap(self.pid);
        }
    }
}

const HAS_OVERLAY: u8 = 1;
const HAS_NETWORK: u8 = 2;

fn take_ready(kit: &mut Kit, ready: &[u8], fds: Vec<OwnedFd>) {
    let Some((flags, facts)) = ready.split_first() else { return };
    let mut fds = fds.into_iter();
    let overlay = (flags & HAS_OVERLAY != 0).then(|| fds.next()).flatten();
    let network = (flags & HAS_NETWORK != 0).then(|| fds.next()).flatten();
    kit.keep(overlay.map(|overlay| (overlay, facts.to_vec())), network);
}

fn wait_and_become(socket: OwnedFd, kit: Option<&Kit>) -> ! {
    // What fails here fails again, and is told, when there is somebody to tell.
    let (warm, kit) = match kit {
        None => (warm_up().ok(), None),
        // Half a tree is no place to go back from.
        Some(kit) => (assemble(kit, &socket).ok(), Some(kit)),
    };
    let error = match woken(&socket) {
        Ok(None) => clone::exit(0),
        Ok(Some(bundle)) => {
            if kit.is_some_and(|kit| warm.is_none() || !kit.fits(&bundle)) {
                let _ = packet::send(socket.as_fd(), b'm', b"", &[]);
                clone::exit(0);
            }
            match plan(&bundle) {
                Ok(plan) => become_command(plan, warm, socket),
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    report(&socket, &error);
    clone::exit(error.exit_code)
}

fn plan(bundle: &Bundle) -> Result<Plan<'_>, StartError> {
    let plan = Plan::new(bundle, Io::Inherit)?;
    if plan.namespaces.flags != USUAL {
        let message = "a container with other namespaces than the usual ones cannot be started ahead";
        return Err(StartError::new(Code::Spec, "read linux.namespaces", message));
    }
    Ok(plan)
}

/// What every container has, and where it will be put.
fn warm_up() -> Result<Warm, StartError> {
    alone()?;
    duckweed_sys::interface::loopback_up().doing(Code::Namespace, || "bring up the loopback interface")?;
    let place = mounts::Place { bundle_dir: Path::new("/"), own_pid: true, own_network: true, maps: None };
    let made =
        usual_mounts().into_iter().map(|mount| mounts::prepare(&mount, place).map(|made| (mount, made)));
    Ok(Warm { mounts: made.collect::<Result<_, _>>()?, root: None })
}

fn alone() -> Result<(), StartError> {
    die_with_parent()?;
    hide_from_container()?;
    rustix::process::umask(rustix::fs::Mode::empty());
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(Code::Mount, || "make the mounts private")
}

/// The whole tree of a container like the kit's recipe, with its overlay and its network where they are as good as new.
fn assemble(kit: &Kit, socket: &OwnedFd) -> Result<Warm, StartError> {
    alone()?;
    let network = network(kit)?;
    let fresh = match kit.overlay {
        Some(_) => None,
        None => Some(new_overlay(kit)?),
    };
    let pristine = fresh.as_ref().map(|(overlay, _)| overlay).or(kit.overlay.as_ref());
    let top = pristine.map(|overlay| root::copy(overlay.as_fd())).transpose();
    // Before Linux 6.15 a detached mount has no copies: such a kernel makes a new one each time.
    let top = top.doing(Code::Rootfs, || "copy the overlay")?;
    let top = top.ok_or_else(|| StartError::new(Code::Rootfs, "copy the overlay", "there is none"))?;
    let plan = plan(&kit.recipe)?;
    let place = mounts::Place {
        bundle_dir: Path::new("/"),
        own_pid: true,
        own_network: true,
        maps: plan.maps.as_ref(),
    };
    let list: Vec<&Mount> = kit::without_texts(&kit.recipe).collect();
    let prepared = list.iter().map(|mount| mounts::prepare(mount, place)).collect::<Result<Vec<_>, _>>()?;
    let made = Root { top, below: Vec::new() };
    root::pivot(&made)?;
    for (mount, prepared) in list.iter().zip(prepared) {
        mounts::place(mount, prepared, made.top.as_fd(), place, &kit.recipe.spec.mounts)?;
    }
    let linux = &kit.recipe.spec.linux;
    mounts::mask(&linux.masked_paths, made.top.as_fd())?;
    mounts::protect(&linux.readonly_paths, made.top.as_fd())?;
    tell_ready(socket, fresh.as_ref(), network.as_ref())?;
    Ok(Warm { mounts: Vec::new(), root: Some(made.top) })
}

/// Goes into the kit's network; makes one, and answers with it, when that is not as good as new.
fn network(kit: &Kit) -> Result<Option<OwnedFd>, StartError> {
    use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};
    if let Some(network) = &kit.network {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .doing(Code::Namespace, || "join the network namespace")?;
        if kit::is_unused() {
            return Ok(None);
        }
        duckweed_sys::unshare::unshare(duckweed_sys::unshare::UnshareFlags::NEWNET)
            .doing(Code::Namespace, || "make a network namespace")?;
    }
    duckweed_sys::interface::loopback_up().doing(Code::Namespace, || "bring up the loopback interface")?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/proc/thread-self/ns/net", flags, rustix::fs::Mode::empty())
        .doing(Code::Namespace, || "keep the network namespace")
        .map(Some)
}

fn new_overlay(kit: &Kit) -> Result<(OwnedFd, Vec<u8>), StartError> {
    let (upper, work) = kit.changes();
    let context = || "mount an overlay ahead";
    let overlay =
        overlay::mount(&kit.lower(), Some(&upper), Some(&work), false).doing(Code::Rootfs, context)?;
    let facts = kit.facts().doing(Code::Rootfs, context)?;
    Ok((overlay, facts))
}

fn tell_ready(
    socket: &OwnedFd,
    overlay: Option<&(OwnedFd, Vec<u8>)>,
    network: Option<&OwnedFd>,
) -> Result<(), StartError> {
    let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
    let mut payload = vec![0];
    if let Some((overlay, facts)) = overlay {
        payload[0] |= HAS_OVERLAY;
        payload.extend(facts);
        fds.push(overlay.as_fd());
    }
    if let Some(network) = network {
        payload[0] |= HAS_NETWORK;
        fds.push(network.as_fd());
    }
    if fds.is_empty() {
        return Ok(());
    }
    packet::send(socket.as_fd(), b'r', &payload, &fds).doing(Code::Internal, || "hand the kit over")
}

/// The mounts that depend on nothing, as the engine writes them.
fn usual_mounts() -> [Mount; 3] {
    let mount = |kind: &str, options: &[&str]| Mount {
        destination: Path::new("/").join(kind),
        kind: kind.into(),
        source: kind.into(),
        options: options.iter().map(ToString::to_string).collect(),
        ..Mount::default()
    };
    [
        mount("proc", &["nosuid", "noexec", "nodev"]),
        mount("duckweed-dev", &[]),
        mount("sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ]
}

/// Sleeps until there is a bundle; `None` when nobody needs this process any more.
fn woken(socket: &OwnedFd) -> Result<Option<Bundle>, StartError> {
    let mut buffer = vec![0; packet::LARGEST];
    let received =
        packet::receive(socket.as_fd(), &mut buffer).doing(Code::Internal, || "wait for a bundle")?;
    let Some((bytes, fds)) = received else { return Ok(None) };
    let wrong = || StartError::new(Code::Internal, "wait for a bundle", "the packet brings none");
    take_stdio(fds).ok_or_else(wrong)??;
    let order = bytes.strip_prefix(b"B").and_then(Order::decode).ok_or_else(wrong)?;
    let mut bundle = Bundle::parse(order.config, order.container)?;
    bundle.joined = true;
    Ok(Some(bundle))
}

/// Puts three descriptors on 0, 1 and 2; `None` when they are not three.
pub(crate) fn take_stdio(fds: Vec<OwnedFd>) -> Option<Result<(), StartError>> {
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).ok()?;
    let put = || {
        rustix::stdio::dup2_stdin(&stdin)?;
        rustix::stdio::dup2_stdout(&stdout)?;
        rustix::stdio::dup2_stderr(&stderr)
    };
    Some(put().doing(Code::Internal, || "take stdin, stdout and stderr"))
}
