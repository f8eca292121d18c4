//! The machine's own tree as a container's: changes stay apart.
//!
//! One overlay over `/` is refused in a user namespace, since mounts lie under it that are
//! locked to it; one per top-level directory is granted. What still cannot be overlaid
//! is bound read-only. The root itself is a small tmpfs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use duckweed_sys::mount::{set_attributes, Change, RDONLY};
use rustix::fs::{Mode, CWD};
use rustix::io::Errno;

use super::mounts::make;
use super::overlay;
use super::root::{tree, Root};
use crate::start_error::{Code, Doing as _, StartError};

/// Directories of a running system, not of an installed one: the container has its own.
const OWN: [(&str, u32); 5] =
    [("proc", 0o555), ("dev", 0o755), ("sys", 0o555), ("run", 0o755), ("tmp", 0o1777)];
const NOT_SHOWN: [&str; 1] = ["lost+found"];

/// Puts the tree together: a tmpfs, and a mount for each top-level directory.
pub(super) fn mount(upper: &Path, work: &Path, is_kept: bool) -> Result<Root, StartError> {
    let context = || "put the host's tree together";
    let top = make("tmpfs", &["mode=755", "size=1m"], None).doing(Code::Rootfs, context)?;
    for (name, mode) in OWN {
        rustix::fs::mkdirat(&top, name, Mode::from_raw_mode(mode)).doing(Code::Rootfs, context)?;
    }
    let mut below = Vec::new();
    for entry in std::fs::read_dir("/").doing(Code::Rootfs, context)? {
        let entry = entry.doing(Code::Rootfs, context)?;
        let (name, kind) =
            (PathBuf::from(entry.file_name()), entry.file_type().doing(Code::Rootfs, context)?);
        if OWN.iter().any(|(own, _)| Path::new(own) == name)
            || NOT_SHOWN.iter().any(|own| Path::new(own) == name)
        {
            continue;
        }
        if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).doing(Code::Rootfs, context)?;
            rustix::fs::symlinkat(&target, &top, &name).doing(Code::Rootfs, context)?;
        } else if kind.is_dir() {
            rustix::fs::mkdirat(&top, &name, Mode::from_raw_mode(0o755)).doing(Code::Rootfs, context)?;
            below.push((
                name.clone(),
                directory(&entry.path(), &upper.join(&name), &work.join(&name), is_kept)?,
            ));
        }
    }
    Ok(Root { top, below })
}

fn directory(path: &Path, upper: &Path, work: &Path, is_kept: bool) -> Result<OwnedFd, StartError> {
    let context = || format!("show {} of the host", path.display());
    for own in [upper, work] {
        std::fs::create_dir_all(own).doing(Code::Rootfs, context)?;
    }
    // A fresh upperdir would show its own mode and not the directory's.
    if let (Ok(lower), Ok(now)) = (rustix::fs::stat(path), rustix::fs::stat(upper)) {
        if lower.st_mode != now.st_mode {
            let _ = rustix::fs::chmodat(
                CWD,
                upper,
                Mode::from_raw_mode(lower.st_mode & 0o7777),
                rustix::fs::AtFlags::empty(),
            );
        }
    }
    match overlay::mount(&[path.to_owned()], Some(upper), Some(work), is_kept) {
        Ok(mount) => Ok(mount),
        Err(Errno::NOMEM) => Err(StartError::errno(Code::Rootfs, context(), Errno::NOMEM)),
        Err(_) => {
            let mount = tree(path)?;
            set_attributes(mount.as_fd(), true, Change { set: RDONLY, ..Change::default() })
                .doing(Code::Rootfs, context)?;
            Ok(mount)
        }
    }
}
