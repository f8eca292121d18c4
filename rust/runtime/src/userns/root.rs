//! The container's `/`: a detached mount by kind, then the pivot into it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::spec::Rootfs;
use crate::start_error::{Code, Doing as _, StartError};

/// The longest string fsconfig(2) takes.
const LONGEST_VALUE: usize = 255;

/// Makes the root as a detached mount.
pub(super) fn mount(rootfs: &Rootfs) -> Result<OwnedFd, StartError> {
    match rootfs {
        Rootfs::Overlay { lower, upper: None, .. } if lower.len() == 1 => tree(&lower[0]),
        Rootfs::Overlay { lower, upper, work } => overlay(lower, upper.as_deref(), work.as_deref())
            .doing(Code::Rootfs, || format!("mount an overlay of {} layers", lower.len())),
        Rootfs::Dir { path } | Rootfs::Copy { path, .. } => tree(path),
        Rootfs::Host { .. } => Err(StartError::new(Code::Rootfs, "mount the root", "the host root is not there yet")),
    }
}

/// A copy of the mounts at `path`.
fn tree(path: &Path) -> Result<OwnedFd, StartError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).doing(Code::Rootfs, || format!("open {}", path.display()))
}

/// An overlay as a detached mount. `userxattr`: without privilege overlay's own marks are
/// `user.overlay.*`.
pub(super) fn overlay(lower: &[PathBuf], upper: Option<&Path>, work: Option<&Path>) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    let mut kept = Vec::new();
    for path in lower {
        set_path(context.as_fd(), "lowerdir+", path, &mut kept)?;
    }
    if let (Some(upper), Some(work)) = (upper, work) {
        set_path(context.as_fd(), "upperdir", upper, &mut kept)?;
        set_path(context.as_fd(), "workdir", work, &mut kept)?;
    }
    fsconfig_set_flag(context.as_fd(), "userxattr")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Sets a path; one too long for fsconfig(2), or with a character that overlay reads as
/// syntax, goes by a descriptor.
fn set_path(context: BorrowedFd<'_>, key: &str, path: &Path, kept: &mut Vec<OwnedFd>) -> Result<(), Errno> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= LONGEST_VALUE && !bytes.iter().any(|byte| b":,\\".contains(byte)) {
        return fsconfig_set_string(context, key, path);
    }
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    kept.push(fd);
    fsconfig_set_string(context, key, name)
}

/// Makes the detached mount `root` our `/` and lets go of everything that was there.
///
/// The mount is put over `/`, where every process has a place to put it, and
/// `pivot_root(".", ".")` then swaps the two, pivot_root(2).
pub(super) fn pivot(root: BorrowedFd<'_>) -> Result<(), StartError> {
    attach(root, CWD, Path::new("/")).doing(Code::Rootfs, || "mount the root")?;
    rustix::process::fchdir(root).doing(Code::Rootfs, || "enter the root")?;
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
