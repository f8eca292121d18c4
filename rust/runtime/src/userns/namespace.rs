//! User namespaces apart from a container's start.
//!
//! A short-lived one for a job on files: whoever is root there may touch what belongs to
//! any of the mapped ids. And a lasting one, held by nothing but a descriptor, for a
//! program that starts containers by the thousand: newuidmap and newgidmap cost a
//! millisecond and more, and then they run once instead of at every start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use duckweed_sys::clone::{self, Fork, NEWUSER};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};

use super::child::become_root;
use super::idmap::Maps;
use super::{go, reap, start_socket, tree};
use crate::bundle::Bundle;
use crate::message::packet;
use crate::start_error::{Code, Doing as _, StartError};

/// Runs `job` as root of a new user namespace with `maps`; answers with its exit code.
///
/// # Errors
/// `namespace` or `idmap` when there is no such namespace to be had.
pub(crate) fn inside(maps: &Maps, job: impl FnOnce() -> i32) -> Result<i32, StartError> {
    let (ours, theirs) = start_socket()?;
    let forked = match clone::fork(NEWUSER) {
        // One id stands for all of them in any case; where no namespace is to be had (the trap isolation) it is our own.
        Err(_) if maps.is_single() => return without(job),
        other => other.doing(Code::Namespace, || "make a user namespace")?,
    };
    match forked {
        Fork::Child => {
            drop(ours);
            let mut byte = [0];
            let told = maps.is_single()
                || matches!(
                    rustix::net::recv(&theirs, &mut byte, rustix::net::RecvFlags::empty()),
                    Ok((1, _))
                );
            let mapped = if maps.is_single() { maps.write_own() } else { Ok(()) };
            match mapped.and_then(|()| become_root(Some(maps))) {
                Ok(()) if told => clone::exit(job()),
                _ => clone::exit(125),
            }
        }
        Fork::Parent { pid, .. } => {
            drop(theirs);
            let maps =
                if maps.is_single() { Ok(()) } else { maps.write_by_helpers(pid).and_then(|()| go(&ours)) };
            drop(ours);
            let code = reap(pid);
            maps.and(code)
        }
    }
}

/// Runs `job` as whom we are, in a process of its own.
fn without(job: impl FnOnce() -> i32) -> Result<i32, StartError> {
    match clone::fork(0).doing(Code::Internal, || "fork")? {
        Fork::Child => clone::exit(job()),
        Fork::Parent { pid, .. } => reap(pid),
    }
}

/// Makes a user namespace with `maps` and answers with the descriptor that keeps it.
///
/// # Errors
/// As [`inside`].
pub fn make(uid_map: &str, gid_map: &str) -> Result<OwnedFd, StartError> {
    let map = |text: &str| {
        super::idmap::parse(text).map_err(|message| StartError::new(Code::Spec, "read the id map", message))
    };
    make_with(&Maps::new(&map(uid_map)?, &map(gid_map)?)?)
}

/// As [`make`], with the maps of a bundle.
///
/// # Errors
/// As [`inside`].
pub(crate) fn make_for(bundle: &Bundle) -> Result<OwnedFd, StartError> {
    let linux = &bundle.spec.linux;
    make_with(&Maps::new(&linux.uid_mappings, &linux.gid_mappings)?)
}

fn make_with(maps: &Maps) -> Result<OwnedFd, StartError> {
    let (ours, theirs) = start_socket()?;
    let code = inside(maps, || {
        let own = rustix::fs::open("/proc/self/ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let sent = own.is_ok_and(|own| packet::send(theirs.as_fd(), b'n', b"", &[own.as_fd()]).is_ok());
        i32::from(!sent)
    })?;
    let refused =
        || StartError::new(Code::Namespace, "keep the user namespace", "it could not be handed over");
    if code != 0 {
        return Err(refused());
    }
    let mut buffer = [0; 8];
    let (_, fds) = packet::receive(ours.as_fd(), &mut buffer)
        .doing(Code::Internal, || "receive the user namespace")?
        .ok_or_else(refused)?;
    fds.into_iter().next().ok_or_else(refused)
}

/// Moves this single-threaded process into a user namespace that [`make`] made, as its root.
///
/// # Errors
/// `namespace`: the descriptor is not a user namespace of ours.
pub fn join(namespace: BorrowedFd<'_>) -> Result<(), StartError> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))
        .doing(Code::Namespace, || "join the shared user namespace")?;
    super::credentials::hide_from_container()
}

/// Removes trees that may hold files of subordinate ids or unreadable directories. What
/// is ours goes at once; a namespace is made only for what is left.
///
/// # Errors
/// The first refusal, when something is left.
pub fn remove_trees(bundle: &Bundle, paths: &[PathBuf]) -> io::Result<()> {
    let left: Vec<&PathBuf> = paths.iter().filter(|path| tree::remove(path).is_err()).collect();
    if left.is_empty() {
        return Ok(());
    }
    if bundle.joined {
        // Root in there as it is: what could not be removed cannot be.
        return left.iter().try_for_each(|path| tree::remove(path));
    }
    let linux = &bundle.spec.linux;
    let maps = Maps::new(&linux.uid_mappings, &linux.gid_mappings).map_err(io::Error::other)?;
    inside(&maps, || i32::from(left.iter().filter(|path| tree::remove(path).is_err()).count() > 0))
        .map_err(io::Error::other)?;
    // Removed by now, or the reason why not.
    left.iter().try_for_each(|path| tree::remove(path))
}
