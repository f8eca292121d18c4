//! Getting at a container's files from outside: as root of its user namespace, with its
//! `/` as ours and its mounts in place.
//!
//! A running container is entered: its user and its mount namespace, no other. For one
//! that does not run the same is made anew for the moment: the root file system and what
//! is bound into it (volumes among that), but no /proc, no /dev, no process. The caller
//! holds the container's claim, so that nobody starts it meanwhile.
//!
//! As with exec, a process of the container must not be able to look into ours, which has
//! the caller's descriptors: it is not dumpable before it enters.

use duckweed_sys::clone::{self, Fork, NEWNS, NEWUSER};
use duckweed_sys::mount::{set_attributes, Change, RDONLY};
use rustix::fs::Mode;
use rustix::mount::{mount_change, MountPropagationFlags};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{move_into_thread_name_spaces, ThreadNameSpaceType};
use std::os::fd::AsFd as _;

use super::child::become_root;
use super::credentials::hide_from_container;
use super::idmap::Maps;
use super::mounts::{self, Place, Prepared};
use super::{go, reap, root, start_socket};
use crate::bundle::Bundle;
use crate::start_error::{Code, Doing as _, StartError};

/// Does `job` in the container whose init is `init`, or, without one, in its files alone;
/// answers with the job's exit code.
///
/// # Errors
/// `namespace`: it has ended meanwhile; and whatever keeps the root from being mounted.
pub fn reach(bundle: &Bundle, init: Option<Pid>, job: impl FnOnce() -> i32) -> Result<i32, StartError> {
    match init {
        Some(init) => enter(bundle, init, job),
        None => assemble(bundle, job),
    }
}

fn maps(bundle: &Bundle) -> Result<Option<Maps>, StartError> {
    let linux = &bundle.spec.linux;
    if linux.uid_mappings.is_empty() {
        return Ok(None);
    }
    Maps::new(&linux.uid_mappings, &linux.gid_mappings).map(Some)
}

fn enter(bundle: &Bundle, init: Pid, job: impl FnOnce() -> i32) -> Result<i32, StartError> {
    let maps = maps(bundle)?;
    let pidfd = rustix::process::pidfd_open(init, PidfdFlags::empty())
        .doing(Code::Namespace, || "find the container's init")?;
    hide_from_container()?;
    let mut kinds = ThreadNameSpaceType::MOUNT;
    kinds.set(ThreadNameSpaceType::USER, maps.is_some());
    move_into_thread_name_spaces(pidfd.as_fd(), kinds)
        .doing(Code::Namespace, || "enter the container's namespaces")?;
    become_root(maps.as_ref())?;
    rustix::process::umask(Mode::empty());
    Ok(job())
}

fn assemble(bundle: &Bundle, job: impl FnOnce() -> i32) -> Result<i32, StartError> {
    let maps = maps(bundle)?;
    let (ours, theirs) = start_socket()?;
    let flags = if maps.is_some() { NEWUSER | NEWNS } else { NEWNS };
    match clone::fork(flags).doing(Code::Namespace, || "make a user namespace")? {
        Fork::Child => {
            drop(ours);
            let mut byte = [0];
            let told = maps.as_ref().is_none_or(Maps::is_single)
                || matches!(
                    rustix::net::recv(&theirs, &mut byte, rustix::net::RecvFlags::empty()),
                    Ok((1, _))
                );
            let result = if told { furnish(bundle, maps.as_ref()) } else { Ok(()) };
            match result {
                Ok(()) if told => clone::exit(job()),
                Ok(()) => clone::exit(125),
                Err(error) => {
                    let _ = std::io::Write::write_fmt(
                        &mut std::io::stderr(),
                        format_args!("duckweed: {}\n", error.message),
                    );
                    clone::exit(125)
                }
            }
        }
        Fork::Parent { pid, .. } => {
            drop(theirs);
            let written = match &maps {
                Some(maps) if !maps.is_single() => maps.write_by_helpers(pid).and_then(|()| go(&ours)),
                _ => Ok(()),
            };
            drop(ours);
            let code = reap(pid);
            written.and(code)
        }
    }
}

/// The container's root with its binds, and we in it.
fn furnish(bundle: &Bundle, maps: Option<&Maps>) -> Result<(), StartError> {
    rustix::process::umask(Mode::empty());
    if let Some(maps) = maps.filter(|maps| maps.is_single()) {
        maps.write_own()?;
    }
    become_root(maps)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(Code::Mount, || "make the mounts private")?;
    let place = Place { bundle_dir: bundle.dir(), own_pid: false, own_network: false, maps };
    let binds: Vec<_> = bundle.spec.mounts.iter().filter(|mount| mount.kind == "bind").collect();
    let prepared: Vec<Prepared> =
        binds.iter().map(|mount| mounts::prepare(mount, place)).collect::<Result<_, _>>()?;
    let made = root::mount(&bundle.rootfs(), true)?;
    root::pivot(&made)?;
    for (mount, prepared) in binds.iter().zip(prepared) {
        mounts::place(mount, prepared, made.top.as_fd(), place, &bundle.spec.mounts)?;
    }
    if bundle.spec.root.readonly {
        set_attributes(made.top.as_fd(), false, Change { set: RDONLY, ..Change::default() })
            .doing(Code::Rootfs, || "make the root read-only")?;
    }
    Ok(())
}
