//! A short-lived user namespace for one job on files: whoever is root there may touch
//! what belongs to any of the mapped ids.

use std::io;
use std::path::PathBuf;

use duckweed_sys::clone::{self, Fork, NEWUSER};

use super::child::become_root;
use super::idmap::Maps;
use super::{go, reap, start_socket, tree};
use crate::bundle::Bundle;
use crate::start_error::{Code, Doing as _, StartError};

/// Runs `job` as root of a new user namespace with `maps`; answers with its exit code.
///
/// # Errors
/// `namespace` or `idmap` when there is no such namespace to be had.
pub(crate) fn inside(maps: &Maps, job: impl FnOnce() -> i32) -> Result<i32, StartError> {
    let (ours, theirs) = start_socket()?;
    match clone::fork(NEWUSER).doing(Code::Namespace, || "make a user namespace")? {
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
    let linux = &bundle.spec.linux;
    let maps = Maps::new(&linux.uid_mappings, &linux.gid_mappings).map_err(io::Error::other)?;
    inside(&maps, || i32::from(left.iter().filter(|path| tree::remove(path).is_err()).count() > 0))
        .map_err(io::Error::other)?;
    // Removed by now, or the reason why not.
    left.iter().try_for_each(|path| tree::remove(path))
}
