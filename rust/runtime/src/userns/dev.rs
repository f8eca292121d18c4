//! The small /dev: a tmpfs with the six harmless devices bound from the host (a user
//! namespace may not mknod them), terminals, shared memory and message queues.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, CWD};
use rustix::mount::{open_tree, OpenTreeFlags};

use super::idmap::Maps;
use super::mounts::make;
use super::resolve::{mount_point, Kind};
use super::root::attach;
use crate::spec::Mount;
use crate::start_error::{Code, Doing as _, StartError};

const NAMES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
const PTS: [&str; 6] = ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "nosuid", "noexec"];
const SHM: [&str; 5] = ["mode=1777", "size=65536k", "nosuid", "nodev", "noexec"];
const MQUEUE: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// The host's devices, held before its tree goes.
pub(super) struct Devices {
    nodes: Vec<(&'static str, OwnedFd)>,
    is_whole: bool,
}

impl Devices {
    /// Takes the devices; a host that lacks one (a pod without /dev/tty) has a container that lacks it.
    /// `is_whole`: pts, shm and mqueue come too, unless the bundle mounts them itself.
    pub fn open(is_whole: bool) -> Result<Self, StartError> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mut nodes = Vec::with_capacity(NAMES.len());
        for name in NAMES {
            if let Ok(node) = open_tree(CWD, Path::new("/dev").join(name), flags) {
                nodes.push((name, node));
            }
        }
        Ok(Self { nodes, is_whole })
    }

    pub fn place(
        self,
        mount: &Mount,
        root: BorrowedFd<'_>,
        maps: Option<&Maps>,
        others: &[Mount],
    ) -> Result<(), StartError> {
        let at = |name: &str| format!("mount {}/{name}", mount.destination.display());
        let dev = make("tmpfs", &["mode=755", "size=65536k", "nosuid", "strictatime"], maps)
            .doing(Code::Mount, || at(""))?;
        let parts: [(&str, &str, &[&str]); 3] =
            [("pts", "devpts", &PTS), ("shm", "tmpfs", &SHM), ("mqueue", "mqueue", &MQUEUE)];
        self.furnish(dev.as_fd()).doing(Code::Mount, || at(""))?;
        let point = mount_point(root, &mount.destination, Kind::Dir).doing(Code::Mount, || at(""))?;
        attach(dev.as_fd(), point.as_fd(), Path::new("")).doing(Code::Mount, || at(""))?;
        for (name, node) in &self.nodes {
            attach(node.as_fd(), dev.as_fd(), Path::new(name)).doing(Code::Mount, || at(name))?;
        }
        for (name, kind, words) in parts {
            let theirs = others.iter().any(|other| other.destination == mount.destination.join(name));
            if self.is_whole && !theirs {
                let tree = make(kind, words, maps).doing(Code::Mount, || at(name))?;
                attach(tree.as_fd(), dev.as_fd(), Path::new(name)).doing(Code::Mount, || at(name))?;
            }
        }
        Ok(())
    }

    /// Mount points and links, while nobody else sees the directory.
    fn furnish(&self, dev: BorrowedFd<'_>) -> Result<(), rustix::io::Errno> {
        for (name, _) in &self.nodes {
            rustix::fs::mknodat(dev, *name, FileType::RegularFile, Mode::from_raw_mode(0o666), 0)?;
        }
        for name in ["pts", "shm", "mqueue"] {
            rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
        }
        for (name, target) in LINKS {
            rustix::fs::symlinkat(target, dev, name)?;
        }
        Ok(())
    }
}
