//! The container's `/`: a detached mount by kind, then the pivot into it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{move_mount, open_tree, unmount, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::overlay;
use crate::spec::Rootfs;
use crate::start_error::{Code, Doing as _, StartError};

/// A root on its way: a detached mount, and others for directories at its top.
pub(super) struct Root {
    pub top: OwnedFd,
    pub below: Vec<(PathBuf, OwnedFd)>,
}

/// Makes the root. Ids must be mapped by now.
///
/// `is_kept`: the changes outlive the container. When they do not, overlay may leave out
/// every sync of the file system below (`volatile`): the one at the end alone makes a
/// short container wait for the disk.
pub(super) fn mount(rootfs: &Rootfs, is_kept: bool) -> Result<Root, StartError> {
    let top = match rootfs {
        Rootfs::Host { upper, work } => return super::host::mount(upper, work, is_kept),
        Rootfs::Copy { lower, path } => {
            super::copy::fill(lower, path)
                .doing(Code::Rootfs, || format!("copy the layers to {}", path.display()))?;
            tree(path)
        }
        Rootfs::Overlay { lower, upper: None, .. } if lower.len() == 1 => tree(&lower[0]),
        Rootfs::Overlay { lower, upper, work } => {
            overlay::mount(lower, upper.as_deref(), work.as_deref(), is_kept)
                .doing(Code::Rootfs, || format!("mount an overlay of {} layers", lower.len()))
        }
        Rootfs::Dir { path } => tree(path),
    };
    Ok(Root { top: top?, below: Vec::new() })
}

/// A copy of the mounts at `path`.
pub(super) fn tree(path: &Path) -> Result<OwnedFd, StartError> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).doing(Code::Rootfs, || format!("open {}", path.display()))
}

/// Another mount of what `mount` is the top of, without the mounts on it.
pub(super) fn copy(mount: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount, "", flags)
}

/// Makes the detached mount `root` our `/` and lets go of everything that was there.
///
/// The mount is put over `/`, where every process has a place to put it, and
/// `pivot_root(".", ".")` then swaps the two, pivot_root(2).
pub(super) fn pivot(root: &Root) -> Result<(), StartError> {
    let top = root.top.as_fd();
    attach(top, CWD, Path::new("/")).doing(Code::Rootfs, || "mount the root")?;
    for (name, mount) in &root.below {
        attach(mount.as_fd(), top, name).doing(Code::Rootfs, || format!("mount /{}", name.display()))?;
    }
    rustix::process::fchdir(top).doing(Code::Rootfs, || "enter the root")?;
    rustix::process::pivot_root(".", ".").doing(Code::Rootfs, || "pivot into the root")?;
    unmount(".", UnmountFlags::DETACH).doing(Code::Rootfs, || "let go of the host's tree")?;
    rustix::process::chdir("/").doing(Code::Rootfs, || "enter the root")
}

/// Puts a detached mount on `dir`/`path`.
pub(super) fn attach(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.as_os_str().is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    move_mount(mount, "", dir, path, flags)
}
