//! The tracer's process: forked by the supervisor, told of commands on its control socket.

use std::os::fd::AsFd;

use duckweed_net::gate::rules::Terms;
use duckweed_net::stack::Addresses;
use duckweed_sys::clone::{self, Fork};
use duckweed_trap::credentials::Credentials;
use duckweed_trap::emulator::{world, Start};
use duckweed_trap::remembered::of_layers;
use duckweed_trap::trace::{Arrival, Inbox, Settings, Tracer};
use duckweed_trap::Mode;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::bundle::Bundle;
use crate::emulation::Emulation;
use crate::message::packet;
use crate::spec::Rootfs;
use crate::start_error::{Code, Doing as _, StartError};

const TELL: u8 = b'T';

/// What the supervisor tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// A command that waits to be seized.
    Arrival { pid: i32, is_privileged: bool },
}

/// Forks the tracer of a container.
///
/// # Errors
/// What of the container's files cannot be found or made.
pub(super) fn start(bundle: &Bundle) -> Result<Emulation, StartError> {
    let (ours, theirs) = packet::pair().doing(Code::Internal, || "make the tracer's socket")?;
    match clone::fork(0).doing(Code::Internal, || "fork the tracer")? {
        Fork::Child => {
            drop(ours);
            let code = match live(bundle, &theirs) {
                Ok(()) => 0,
                Err(error) => {
                    let json = serde_json::to_vec(&error).unwrap_or_default();
                    let _ = packet::send(theirs.as_fd(), TELL, &json, &[]);
                    125
                }
            };
            clone::exit(code)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            let emulation = Emulation::of(pid, pidfd, ours);
            answer(&emulation)?;
            Ok(emulation)
        }
    }
}

/// Tells the tracer something; comes back when it has done it.
pub(super) fn tell(tracing: &Emulation, message: &Message) -> Result<(), StartError> {
    let json = serde_json::to_vec(message).unwrap_or_default();
    tracing.send(TELL, &json)?;
    answer(tracing)
}

fn answer(tracing: &Emulation) -> Result<(), StartError> {
    let bytes = tracing.receive()?;
    match bytes.get(1..) {
        Some(b"ok") => Ok(()),
        Some(json) => Err(serde_json::from_slice(json).unwrap_or_else(|_| gone())),
        None => Err(gone()),
    }
}

fn gone() -> StartError {
    StartError::new(Code::Internal, "reach the tracer", "the container's tracer has ended")
}

fn live(bundle: &Bundle, control: &std::os::fd::OwnedFd) -> Result<(), StartError> {
    let known = bundle.gate.as_ref().and_then(|terms| terms.neighbours.as_ref());
    let keep: Vec<_> = known.map(|known| known.descriptor()).into_iter().chain([control.as_fd()]).collect();
    duckweed_sys::fd::close_all_but(&keep);
    crate::userns::silence_for_emulator()?;
    let mut tracer = tracer_of(bundle)?;
    // Nobody inside may look into us, whoever they find us by.
    crate::userns::stay_hidden()?;
    let _ = rustix::process::setsid();
    let inbox = Inbox::new();
    listen(control, inbox.clone())?;
    tracer.run(&inbox).doing(Code::Internal, || "wait for the container's processes")?;
    tracer.clean();
    tracer.world.owners.sync().doing(Code::Internal, || "keep the owners of files")
}

fn tracer_of(bundle: &Bundle) -> Result<Tracer, StartError> {
    let layout = Layout::new(bundle)?;
    let open = |path: &std::path::Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .doing(Code::Rootfs, || format!("open {}", path.display()))
    };
    let emulation = bundle.block.root_emulation.mode();
    let (lower, is_one_file_system) = match bundle.rootfs() {
        Rootfs::Overlay { lower, upper, .. } => {
            let found = of_layers(&lower).doing(Code::Rootfs, || "read the owners of the image's files")?;
            let device = upper.and_then(|upper| crate::emulation::device_of(&open(&upper).ok()?).ok());
            let is_one = found.iter().all(|(lower, _)| Some(*lower) == device);
            // Without emulation all is root's, whatever layers say.
            let found = if emulation.is_some() { found } else { Vec::new() };
            (found.into_iter().map(|(_, file)| file).collect(), is_one)
        }
        _ => (Vec::new(), false),
    };
    let process = &bundle.spec.process;
    let names = process.capabilities.as_ref().map(|lists| lists.permitted.clone()).unwrap_or_default();
    let capabilities = crate::userns::capability_mask(&names);
    let no_new_privileges = process.no_new_privileges && bundle.block.refuses_setuid;
    let world = world(Start {
        mode: emulation.unwrap_or(Mode::Owners),
        proc: open(std::path::Path::new("/proc"))?,
        directory: open(bundle.dir())?,
        upper: None,
        lower,
        first: Vec::new(),
        is_one_file_system,
        root: Credentials::new(0, 0, Vec::new(), capabilities, no_new_privileges),
    })
    .doing(Code::Rootfs, || "read the owners of the container's files")?;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let settings = Settings {
        hostname: match bundle.spec.hostname.is_empty() {
            true => rustix::system::uname().nodename().to_bytes().to_vec(),
            false => bundle.spec.hostname.clone().into_bytes(),
        },
        domainname: bundle.spec.domainname.clone().into_bytes(),
        host_ids: own,
        mark: mark(),
        capabilities,
        no_new_privileges,
        emulation,
    };
    let mut tracer = Tracer::new(layout.union, world, settings);
    if bundle.block.has_gate() {
        // Whoever has not said where its sockets may go lets them go nowhere.
        let alone = || Terms::alone(Addresses::default(), std::process::id());
        let (gate, listing) = crate::gate::of_tracer(bundle.gate.clone().unwrap_or_else(alone));
        (tracer.gate, tracer.listing) = (Some(gate), Some(listing));
    }
    for (point, is_directory) in layout.points {
        // A read-only root has the points that it has.
        let _ = tracer.make_mount_point(point, is_directory);
    }
    if std::env::var_os("DUCKWEED_SITES").is_none_or(|wish| wish != "off") {
        tracer.use_sites();
    }
    Ok(tracer)
}

/// Nobody else's, most likely.
fn mark() -> Vec<u8> {
    let mut number = [0; 4];
    let _ = rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty());
    format!("dw{:08x}:", u32::from_ne_bytes(number)).into_bytes()
}

/// Hears the supervisor in a thread of its own.
fn listen(control: &std::os::fd::OwnedFd, inbox: Inbox) -> Result<(), StartError> {
    let socket = control.as_fd().try_clone_to_owned().doing(Code::Internal, || "copy the socket")?;
    packet::send(socket.as_fd(), TELL, b"ok", &[]).doing(Code::Internal, || "answer the supervisor")?;
    let hear = move || {
        let mut buffer = [0; 4096];
        while let Ok(Some((bytes, _))) = packet::receive(socket.as_fd(), &mut buffer) {
            let Some(Ok(Message::Arrival { pid, is_privileged })) =
                bytes.get(1..).map(serde_json::from_slice)
            else {
                continue;
            };
            let Ok(socket) = socket.as_fd().try_clone_to_owned() else { return };
            let reply = move |errno: i32| {
                let text = match errno {
                    0 => b"ok".to_vec(),
                    _ => serde_json::to_vec(&StartError::errno(
                        Code::Internal,
                        "trace the command",
                        rustix::io::Errno::from_raw_os_error(errno),
                    ))
                    .unwrap_or_default(),
                };
                let _ = packet::send(socket.as_fd(), TELL, &text, &[]);
            };
            inbox.put(Arrival { pid, is_privileged, reply: Box::new(reply) });
        }
        inbox.close();
    };
    std::thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(hear)
        .doing(Code::Internal, || "start a thread")
        .map(drop)
}
