//! Root emulation's place in a container's life: who hands what to whom.
//!
//! The socket gate's answers come from the same process ([`crate::gate`]): a kernel allows one listener.
//!
//! The machinery is [`duckweed_trap`]'s. Here a command on its way into the container installs the
//! filter and sends its listener over the start socket ([`Arrival`]); the supervisor, which reads that
//! ([`Heard`]), forks the emulator for the first command and passes it those of later ones
//! ([`Emulation`]). The command's execve is trapped already: it runs when somebody answers.
//!
//! The emulator takes everything of the host's that it needs before it moves into the container's
//! namespaces, and closes everything else. Like every process of ours it is not dumpable, so
//! nobody inside can look into it; and it is not in their pid namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use duckweed_sys::clone::{self, Fork};
use duckweed_trap::credentials::Credentials;
use duckweed_trap::emulator::{serve, world, Answers, Start};
use duckweed_trap::remembered::{of_copy, of_layers};
use duckweed_trap::world::World;
use duckweed_trap::Mode;
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::gate::Gate;
use crate::message::packet;
use crate::spec::Rootfs;
use crate::start_error::{Code, Doing as _, StartError};
use crate::userns::plan::Filter;
use crate::userns::user::Identity;

/// The kind of the start socket's message, and of the control socket's.
const LISTENER: u8 = b'L';
const WAIT_KILLABLE: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

/// What the arriving command tells of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Introduction {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// A directory that was made for it.
    home: Option<String>,
}

impl Introduction {
    /// Makes the process who it is.
    fn introduce(self, world: &mut World, pid: i32, root: &Credentials) {
        let bounding = root.sets.bounding;
        let mut arriving = Credentials::new(self.uid, self.gid, self.groups, bounding, false);
        arriving.no_new_privileges = root.no_new_privileges;
        let _ = world.become_one(pid, arriving);
        if let Some(home) = self.home {
            let _ = world.give_directory(home.as_bytes(), self.uid, self.gid);
        }
    }
}

/// A command on its way into the container, with what the emulator needs of it.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The user and mount namespaces; none for a later command.
    namespaces: Vec<OwnedFd>,
}

impl Arrival {
    /// The container's first command. Its own namespaces are found in the host's /proc.
    pub fn first(plan: &crate::userns::Plan<'_>) -> Result<Self, StartError> {
        if !plan.asks() {
            return Ok(Self::later());
        }
        let open = |name: &str| {
            rustix::fs::open(
                Path::new("/proc/self/ns").join(name),
                OFlags::RDONLY | OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .doing(Code::Namespace, || format!("hold the {name} namespace"))
        };
        Ok(Self { namespaces: vec![open("user")?, open("mnt")?] })
    }

    /// A further command.
    pub fn later() -> Self {
        Self { namespaces: Vec::new() }
    }

    /// Installs the filter and hands its listener to the supervisor.
    pub fn announce(&self, filter: &Filter, identity: &Identity, socket: &OwnedFd) -> Result<(), StartError> {
        let introduction = Introduction {
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups.clone(),
            home: identity.made_home.clone(),
        };
        let json = serde_json::to_vec(&introduction).unwrap_or_default();
        let killable = duckweed_sys::seccomp::flag(WAIT_KILLABLE);
        // Before 5.19 a signal could interrupt a call that is being answered; it is then made again.
        let install = |flags| duckweed_sys::seccomp::install_with_listener(&filter.program, flags);
        let listener = install(filter.flags | killable)
            .or_else(|_| install(filter.flags))
            .doing(Code::Seccomp, || "install the system call filter with a listener")?;
        let mut fds = vec![listener.as_fd()];
        fds.extend(self.namespaces.iter().map(AsFd::as_fd));
        // The gate catches sendmsg, and nobody has this listener yet.
        packet::send_marked(socket.as_fd(), LISTENER, &json, &fds, filter.word)
            .doing(Code::Seccomp, || "hand over the listener")
    }
}

/// An [`Arrival`] as the supervisor hears of it.
#[derive(Debug)]
pub(crate) struct Heard {
    introduction: Vec<u8>,
    listener: OwnedFd,
    namespaces: Vec<OwnedFd>,
}

impl Heard {
    /// Reads a message of the start socket; `None`, and the descriptors left alone, for any other.
    pub fn parse(message: &[u8], fds: &mut Vec<OwnedFd>) -> Option<Self> {
        let introduction = message.strip_prefix(&[LISTENER])?.to_vec();
        if fds.is_empty() {
            return None;
        }
        let mut fds = std::mem::take(fds).into_iter();
        Some(Self { introduction, listener: fds.next()?, namespaces: fds.collect() })
    }
}

/// A container's emulator, as the supervisor knows it. Dropping it lets it end.
#[derive(Debug)]
pub struct Emulation {
    pid: Pid,
    pidfd: OwnedFd,
    control: Option<OwnedFd>,
}

impl AsFd for Emulation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Emulation {
    /// Forks the emulator for a container's first command.
    ///
    /// # Errors
    /// What cannot be opened for it, on the host's side.
    pub(crate) fn start(bundle: &Bundle, heard: Heard) -> Result<Self, StartError> {
        let (ours, theirs) = packet::pair().doing(Code::Internal, || "make the emulator's socket")?;
        let start = match bundle.block.root_emulation.mode() {
            Some(mode) => {
                let what = || "read the owners of the container's files";
                Some(start_of(bundle, mode).doing(Code::Rootfs, what)?)
            }
            None => None,
        };
        let gate =
            bundle.gate.clone().map(Gate::new).transpose().doing(Code::Network, || "make the socket gate")?;
        let namespaces = if bundle.joined { &heard.namespaces[1..] } else { &heard.namespaces[..] };
        match clone::fork(0).doing(Code::Internal, || "fork the emulator")? {
            Fork::Child => emulate(start, gate, namespaces, &theirs),
            Fork::Parent { pid, pidfd } => {
                let this = Self { pid, pidfd, control: Some(ours) };
                this.take_in(&heard)?;
                Ok(this)
            }
        }
    }

    /// A tracer that was forked elsewhere: it answers for the kernel, too.
    pub(crate) fn of(pid: Pid, pidfd: OwnedFd, control: OwnedFd) -> Self {
        Self { pid, pidfd, control: Some(control) }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a message.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn send(&self, kind: u8, payload: &[u8]) -> Result<(), StartError> {
        let Some(control) = &self.control else { return Ok(()) };
        packet::send(control.as_fd(), kind, payload, &[]).doing(Code::Internal, || "reach the tracer")
    }

    /// Waits for its answer.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn receive(&self) -> Result<Vec<u8>, StartError> {
        let mut buffer = vec![0; 16 * 1024];
        let Some(control) = &self.control else { return Ok(Vec::new()) };
        let heard =
            packet::receive(control.as_fd(), &mut buffer).doing(Code::Internal, || "hear the tracer")?;
        Ok(heard.map(|(bytes, _)| bytes.to_vec()).unwrap_or_default())
    }

    /// Passes on a further command's listener.
    ///
    /// # Errors
    /// The emulator is gone.
    pub(crate) fn take_in(&self, heard: &Heard) -> Result<(), StartError> {
        let Some(control) = &self.control else { return Ok(()) };
        packet::send(control.as_fd(), LISTENER, &heard.introduction, &[heard.listener.as_fd()])
            .doing(Code::Internal, || "reach the emulator")
    }
}

impl Drop for Emulation {
    /// The owners are on disk when it has ended. It is given that time; it is not waited for if it hangs.
    fn drop(&mut self) {
        use rustix::event::{poll, PollFd, PollFlags, Timespec};
        self.control = None;
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&patience));
        if !matches!(ended, Ok(1)) {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
        let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
    }
}

/// Everything that only the host's side can open.
fn start_of(bundle: &Bundle, mode: Mode) -> std::io::Result<Start> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty())
    };
    let (upper, lower, first) = match bundle.rootfs() {
        Rootfs::Overlay { lower, upper, .. } => (upper, of_layers(&lower)?, Vec::new()),
        Rootfs::Copy { lower, path } => (None, Vec::new(), of_copy(&lower, &path)?),
        _ => (None, Vec::new(), Vec::new()),
    };
    let upper = upper.map(|path| open(&path)).transpose()?;
    let is_one_file_system = match &upper {
        Some(upper) => lower.iter().all(|(device, _)| Ok(*device) == device_of(upper)),
        None => true,
    };
    let process = &bundle.spec.process;
    let names = process.capabilities.as_ref().map(|lists| lists.permitted.clone()).unwrap_or_default();
    let capabilities = crate::userns::capability_mask(&names);
    Ok(Start {
        mode,
        proc: open(Path::new("/proc"))?,
        directory: open(bundle.dir())?,
        upper,
        lower: lower.into_iter().map(|(_, file)| file).collect(),
        first,
        is_one_file_system,
        root: Credentials::new(
            0,
            0,
            Vec::new(),
            capabilities,
            process.no_new_privileges && bundle.block.refuses_setuid,
        ),
    })
}

pub(crate) fn device_of(file: &OwnedFd) -> Result<(u32, u32), rustix::io::Errno> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// The emulator's life.
fn emulate(start: Option<Start>, gate: Option<Gate>, namespaces: &[OwnedFd], control: &OwnedFd) -> ! {
    let mut keep = vec![control.as_fd()];
    if let Some(start) = &start {
        keep.extend([start.proc.as_fd(), start.directory.as_fd()]);
        keep.extend(start.upper.as_ref().map(AsFd::as_fd));
    }
    keep.extend(gate.iter().flat_map(Gate::descriptors));
    keep.extend(namespaces.iter().map(AsFd::as_fd));
    duckweed_sys::fd::close_all_but(&keep);
    clone::exit(match enter(namespaces).map(|()| answer(start, gate, control)) {
        Ok(Ok(())) => 0,
        _ => 125,
    })
}

fn enter(namespaces: &[OwnedFd]) -> Result<(), StartError> {
    crate::userns::silence_for_emulator()?;
    for namespace in namespaces {
        let kind = match namespaces.len() {
            2 if std::ptr::eq(namespace, &namespaces[0]) => LinkNameSpaceType::User,
            _ => LinkNameSpaceType::Mount,
        };
        move_into_link_name_space(namespace.as_fd(), Some(kind))
            .doing(Code::Namespace, || "enter the container's namespaces")?;
    }
    crate::userns::stay_hidden()
}

fn answer(start: Option<Start>, gate: Option<Gate>, control: &OwnedFd) -> std::io::Result<()> {
    let who = start.as_ref().map(|start| (start.mode, start.root.clone()));
    let world = start.map(world).transpose()?.map(|world| Arc::new(Mutex::new(world)));
    let mut answers = Answers::default();
    if let (Some((mode, _)), Some(world)) = (&who, &world) {
        answers.emulate(*mode, world);
    }
    if let Some(gate) = gate {
        gate.answer(&mut answers);
    }
    let answers = Arc::new(answers);
    let mut buffer = vec![0; 16 * 1024];
    while let Some((bytes, fds)) = packet::receive(control.as_fd(), &mut buffer)? {
        let Some(listener) = fds.into_iter().next() else { continue };
        let Ok(arriving) = serde_json::from_slice::<Introduction>(bytes.get(1..).unwrap_or_default()) else {
            continue;
        };
        let (world, answers, who) = (world.clone(), Arc::clone(&answers), who.clone());
        std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
            serve(&listener, &answers, |pid| {
                if let (Some((Mode::Full, root)), Some(world)) = (who, world) {
                    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
                    arriving.introduce(&mut world, pid, &root);
                }
            });
        })?;
    }
    match world {
        Some(world) => world.lock().unwrap_or_else(PoisonError::into_inner).owners.sync(),
        None => Ok(()),
    }
}
