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
        Rootfs::Overlay { lower, upper, work } => overlay(lower, upper.as_deref(), work.as_deref(), is_kept)
            .doing(Code::Rootfs, || format!("mount an overlay of {} layers", lower.len())),
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

/// An overlay as a detached mount. `userxattr`: without privilege overlay's own marks are
/// `user.overlay.*`.
pub(super) fn overlay(
    lower: &[PathBuf],
    upper: Option<&Path>,
    work: Option<&Path>,
    is_kept: bool,
) -> Result<OwnedFd, Errno> {
    match overlay_once(lower, upper, work, is_kept) {
        // A start before this one was volatile too, and overlay left a mark that says: do not trust this.
        // What it warns of is a crash of the machine, and whoever asks for volatile does not care.
        Err(Errno::INVAL) if !is_kept && work.is_some_and(forget_volatile) => {
            overlay_once(lower, upper, work, is_kept)
        }
        other => other,
    }
}

fn forget_volatile(work: &Path) -> bool {
    super::tree::remove(&work.join("work/incompat")).is_ok()
}

fn overlay_once(
    lower: &[PathBuf],
    upper: Option<&Path>,
    work: Option<&Path>,
    is_kept: bool,
) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    let mut kept = Vec::new();
    for path in lower {
        set_path(context.as_fd(), "lowerdir+", path, &mut kept)?;
    }
    if let (Some(upper), Some(work)) = (upper, work) {
        set_path(context.as_fd(), "upperdir", upper, &mut kept)?;
        set_path(context.as_fd(), "workdir", work, &mut kept)?;
        if !is_kept {
            // Since Linux 5.10; without it all is as safe and slower.
            let _ = fsconfig_set_flag(context.as_fd(), "volatile");
        }
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
