//! Paths inside the container, named by people and images who do not know the host.
//!
//! All of this runs after the pivot: `/` is the container's and no link can lead out.
//! openat2(2) adds that no magic link of /proc is followed either, since one of our own
//! descriptors may still be a tree of the host.

use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What a missing mount point becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    File,
}

/// The longest chain of links followed when making a path; the kernel's own limit.
const LINK_LIMIT: u32 = 40;

/// Opens `path` inside `root`, following links there.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
        // Linux before 5.6: the pivot alone keeps us inside.
        Err(Errno::NOSYS) => {
            let absolute = Path::new("/").join(path);
            rustix::fs::open(&absolute, flags | OFlags::CLOEXEC, Mode::empty())
        }
        // A rename raced with "..": the kernel asks to try again.
        Err(Errno::AGAIN) => rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve),
        other => other,
    }
}

/// Opens a mount point, making it and the directories above it when missing.
pub(super) fn mount_point(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> Result<OwnedFd, Errno> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => make(root, path, kind, LINK_LIMIT),
        other => other,
    }
}

/// Makes what is missing of `path`. A dangling link is followed: what it names is made,
/// as Docker does for /etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf.
fn make(root: BorrowedFd<'_>, path: &Path, kind: Kind, links_left: u32) -> Result<OwnedFd, Errno> {
    let names: Vec<_> =
        path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir)).collect();
    let mut reached = PathBuf::from("/");
    for (index, name) in names.iter().enumerate() {
        let next = reached.join(name);
        if open(root, &next, OFlags::PATH).is_ok() {
            reached = next;
            continue;
        }
        let parent = open(root, &reached, OFlags::PATH | OFlags::DIRECTORY)?;
        let is_last = index + 1 == names.len();
        let made = match kind {
            Kind::File if is_last => {
                rustix::fs::mknodat(&parent, *name, FileType::RegularFile, 0o644.into(), 0)
            }
            _ => rustix::fs::mkdirat(&parent, *name, 0o755.into()),
        };
        match made {
            Ok(()) => reached = next,
            Err(Errno::EXIST) if links_left > 0 => {
                let target = rustix::fs::readlinkat(&parent, *name, Vec::new())?;
                let rest: PathBuf = names[index + 1..].iter().collect();
                let target = reached.join(OsString::from_vec(target.into_bytes()));
                return make(root, &target.join(rest), kind, links_left - 1);
            }
            Err(errno) => return Err(errno),
        }
    }
    open(root, &reached, OFlags::PATH)
}
