//! Where named networks live: in namespaces that their members hold open.
//!
//! A network is a network namespace with a bridge in it. To lay a cable from there into
//! a container's namespace one must be root of both, so all members of all networks of a
//! user share one user namespace, and their network namespaces are its. Nothing keeps
//! these namespaces but descriptors in the supervisors: the first member makes them, the
//! next ask any member that lives for a copy, and with the last they are gone. No process
//! sits in them, and a member that is killed takes nothing along.
//!
//! Members find each other by the links in `<run>/networks/`, each to a supervisor's socket. Whoever
//! starts holds a lock on that directory until it listens, so that two first
//! members do not make two networks of one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duckweed_sys::clone::{self, Fork, NEWNET};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};

use super::inside::{own_namespace, BRIDGE};
use super::Membership;
use crate::message::packet;
use crate::start_error::{Code, Doing as _, StartError};

/// An error that had no number.
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
/// How long a member may take to answer: it may be starting a command.
const PATIENCE: Duration = Duration::from_secs(10);

/// The namespaces that a member keeps.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// The user namespace of all members.
    pub user: Arc<OwnedFd>,
    /// Networks by id.
    pub networks: Vec<(String, Arc<OwnedFd>)>,
}

/// The right to look and to make: nobody else does meanwhile.
#[derive(Debug)]
pub(crate) struct Turn {
    directory: PathBuf,
    _lock: OwnedFd,
}

impl Turn {
    /// Waits for it.
    ///
    /// # Errors
    /// `network` when the directory of members cannot be had.
    pub fn take(run: &Path) -> Result<Self, StartError> {
        let directory = run.join("networks");
        let what = || format!("open the list of members `{}`", directory.display());
        std::fs::create_dir_all(&directory).doing(Code::Network, what)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&directory, flags, Mode::empty()).doing(Code::Network, what)?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.doing(Code::Network, what)?,
            }
        }
        Ok(Self { directory, _lock: lock })
    }

    /// The same without waiting: somebody who waits for our answer may have it.
    ///
    /// # Errors
    /// `network`: somebody is starting or joining just now (EAGAIN).
    pub fn try_take(run: &Path) -> Result<Self, StartError> {
        let directory = run.join("networks");
        let what = || "look for the members of networks: somebody else is at it";
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&directory, flags, Mode::empty()).doing(Code::Network, what)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).doing(Code::Network, what)?;
        Ok(Self { directory, _lock: lock })
    }

    /// The namespace of the network `id`, if a living member other than `own` keeps it.
    pub fn find_one(&self, id: &str, own: &str) -> Option<Arc<OwnedFd>> {
        for entry in std::fs::read_dir(&self.directory).ok()?.flatten() {
            if entry.file_name() == *own {
                continue;
            }
            let Ok(kept) = std::fs::read_link(entry.path()).and_then(|socket| ask(&socket)) else { continue };
            if let Some((_, found)) = kept.networks.into_iter().find(|(known, _)| known == id) {
                return Some(found);
            }
        }
        None
    }

    /// The namespaces that some living member keeps, those of the networks `ids` as far as anybody has them.
    pub fn find(&self, ids: &[&str]) -> Option<Kept> {
        let mut found: Option<Kept> = None;
        for entry in std::fs::read_dir(&self.directory).ok()?.flatten() {
            let Ok(socket) = std::fs::read_link(entry.path()) else { continue };
            let Ok(kept) = ask(&socket) else {
                // Nobody is there any more, or nobody who keeps anything.
                let _ = std::fs::remove_file(entry.path());
                continue;
            };
            match &mut found {
                None => found = Some(kept),
                Some(found) => {
                    let unknown =
                        |(id, _): &(String, _)| !found.networks.iter().any(|(known, _)| known == id);
                    let more: Vec<_> = kept.networks.into_iter().filter(unknown).collect();
                    found.networks.extend(more);
                }
            }
            let is_enough = found.as_ref().is_some_and(|found| {
                ids.iter().all(|id| found.networks.iter().any(|(known, _)| known == id))
            });
            if is_enough {
                break;
            }
        }
        found
    }

    /// Others may find this member from now on.
    ///
    /// # Errors
    /// symlink(2)'s.
    pub fn enlist(self, id: &str, socket: &str) -> io::Result<()> {
        let link = self.directory.join(id);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(socket, link)
    }
}

/// A member is gone.
pub(crate) fn strike_off(run: &Path, id: &str) {
    let _ = std::fs::remove_file(run.join("networks").join(id));
}

/// Asks a member for what it keeps.
fn ask(socket: &Path) -> io::Result<Kept> {
    let refused = || io::Error::from(io::ErrorKind::InvalidData);
    let connection = packet::connect(socket)?;
    rustix::net::sockopt::set_socket_timeout(
        &connection,
        rustix::net::sockopt::Timeout::Recv,
        Some(PATIENCE),
    )?;
    packet::send(connection.as_fd(), b'J', br#"{"op":"namespaces"}"#, &[])?;
    let mut buffer = vec![0; packet::LARGEST];
    let (bytes, fds) = packet::receive(connection.as_fd(), &mut buffer)?.ok_or_else(refused)?;
    let answer: serde_json::Value = serde_json::from_slice(bytes.get(1..).ok_or_else(refused)?)?;
    let ids = answer["networks"].as_array().ok_or_else(refused)?;
    let mut fds = fds.into_iter().map(Arc::new);
    let user = fds.next().ok_or_else(refused)?;
    let networks = ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).zip(fds).collect();
    Ok(Kept { user, networks })
}

/// Makes a network's namespace with its bridge. We are root of the members' user namespace.
///
/// # Errors
/// `network`: the kernel has no bridge, or no namespace left.
pub(crate) fn make(network: &Membership) -> Result<OwnedFd, StartError> {
    let what = || format!("make the network {}", network.name);
    let (ours, theirs) = packet::pair().doing(Code::Network, what)?;
    match clone::fork(NEWNET).doing(Code::Network, what)? {
        Fork::Child => {
            drop(ours);
            let furnished = furnish(network);
            let sent = match &furnished {
                Ok(namespace) => packet::send(theirs.as_fd(), b'n', b"", &[namespace.as_fd()]),
                Err(error) => packet::send(theirs.as_fd(), b'e', error.to_string().as_bytes(), &[]),
            };
            clone::exit(i32::from(sent.is_err()))
        }
        Fork::Parent { pid, .. } => {
            drop(theirs);
            let mut buffer = [0; 512];
            let heard = packet::receive(ours.as_fd(), &mut buffer);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            match heard.doing(Code::Network, what)? {
                Some((_, fds)) if !fds.is_empty() => fds.into_iter().next(),
                Some((bytes, _)) => {
                    let why = String::from_utf8_lossy(bytes.get(1..).unwrap_or_default()).into_owned();
                    let message = format!("cannot make the network {}: {why}", network.name);
                    return Err(StartError::new(Code::Network, what(), message));
                }
                None => None,
            }
            .ok_or_else(|| StartError::new(Code::Network, what(), "its maker died"))
        }
    }
}

/// Runs `work` in the network namespace of the container whose first process is `pid`. We are root of its user namespace.
///
/// # Errors
/// `network`: what `work` could not do.
pub(crate) fn within(
    pid: i32,
    what: &str,
    work: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> Result<(), StartError> {
    let context = || what.to_owned();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = format!("/proc/{pid}/ns/net");
    let namespace = rustix::fs::open(path, flags, Mode::empty()).doing(Code::Network, context)?;
    match clone::fork(0).doing(Code::Network, context)? {
        Fork::Child => {
            let kind = Some(LinkNameSpaceType::Network);
            let done = move_into_link_name_space(namespace.as_fd(), kind)
                .map_err(io::Error::from)
                .and_then(|()| work(namespace.as_fd()));
            // An errno fits into an exit code.
            clone::exit(done.err().map_or(0, |error| error.raw_os_error().unwrap_or(EIO)))
        }
        Fork::Parent { pid, .. } => {
            let waited = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            match waited.doing(Code::Network, context)?.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                code => {
                    let errno = rustix::io::Errno::from_raw_os_error(code.unwrap_or(EIO));
                    Err(StartError::errno(Code::Network, what.to_owned(), errno))
                }
            }
        }
    }
}

fn furnish(network: &Membership) -> io::Result<OwnedFd> {
    let mut netlink = duckweed_net::rtnetlink::Netlink::new()?;
    let mtu = if network.mtu == 0 { 1500 } else { network.mtu };
    netlink.add_bridge("br0", BRIDGE, mtu, [2, 0x42, 0, 0, 0, 1]);
    netlink.commit()?;
    own_namespace()
}
