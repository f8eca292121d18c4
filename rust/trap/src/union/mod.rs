//! The container's files without a mount: a union of trees, put together path by path.
//!
//! The kernel's overlay is not to be had without a user namespace, so the tracer does its work: lower
//! layers that nobody changes, an upper tree that takes what the container writes, and other trees (binds,
//! /proc, /dev) at their mount points. On disk the upper tree is what overlay with `userxattr` would have
//! made: a whiteout is a 0:0 character device, an opaque directory has `user.overlay.opaque`, so that
//! commit, diff and export read it as they read any other.
//!
//! Every change of the container's files goes through the tracer, one at a time. So what was once looked up
//! stays true until the tracer itself changes it, and is remembered ([`Stack`]).

mod anatomy;
mod change;
mod listing;
mod stack;
mod walk;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, CWD};
use rustix::io::Errno;

pub use anatomy::{Anatomy, Changed};
pub use change::Copied;
pub use listing::Item;
pub use stack::{Kind, Stack, Tree};
pub use walk::{Asker, Follow, Spot};

/// What statx(2) is asked for.
pub const WANTED: StatxFlags =
    StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::from_bits_retain(0x1000));

/// What lies at a mount point.
#[derive(Debug)]
pub enum Source {
    /// Layers, and a tree that takes the changes.
    Union(Box<Stack>),
    /// A tree, or a single file, of the host's.
    Tree(Vec<u8>),
    /// The host's /proc, as far as it is about the container's own processes.
    Proc,
}

/// A mount point.
#[derive(Debug)]
pub struct Mount {
    /// Where: absolute, without a slash at its end; the root is empty.
    pub at: Vec<u8>,
    /// What.
    pub source: Source,
    /// Nothing is written there.
    pub is_read_only: bool,
    /// As mount(8) would name its file system.
    pub kind: &'static str,
}

/// All that a container sees.
#[derive(Debug, Default)]
pub struct Union {
    /// By the order in which they were mounted; the root first.
    pub mounts: Vec<Mount>,
    /// Paths that show nothing: an empty directory or file instead.
    pub masked: Vec<Vec<u8>>,
    /// Paths beneath which nothing is written.
    pub protected: Vec<Vec<u8>>,
    /// An empty directory of the host's.
    pub empty: Vec<u8>,
    /// Where copies are made before they are renamed into the upper tree.
    pub work: Vec<u8>,
    /// For names in `work`.
    pub serial: u64,
    /// What has become of directories since somebody last looked.
    pub changed: Vec<Changed>,
}

impl Union {
    /// The innermost mount that a path is in.
    pub fn mount_of(&self, path: &[u8]) -> usize {
        let path = if path == b"/" { &b""[..] } else { path };
        let mut best = 0;
        for (index, mount) in self.mounts.iter().enumerate() {
            if is_beneath(path, &mount.at) && mount.at.len() >= self.mounts[best].at.len() {
                best = index;
            }
        }
        best
    }

    /// The mount whose point is exactly this path.
    fn mounted_at(&self, path: &[u8]) -> Option<usize> {
        self.mounts.iter().rposition(|mount| mount.at == path)
    }

    /// Whether a path may not be written to, whatever its mode says.
    pub fn is_read_only(&self, path: &[u8]) -> bool {
        let beneath = |above: &Vec<u8>| is_beneath(path, above);
        self.mounts[self.mount_of(path)].is_read_only
            || self.protected.iter().any(beneath)
            || self.masked.iter().any(beneath)
    }

    /// The container's name of a file of the host's; `None` when it has none.
    pub fn reverse(&self, host: &[u8]) -> Option<Vec<u8>> {
        let mut best: Option<(usize, Vec<u8>)> = None;
        let mut consider = |root: &[u8], at: &[u8]| {
            let Some(rest) = host.strip_prefix(root) else { return };
            if !(rest.is_empty() || rest[0] == b'/')
                || best.as_ref().is_some_and(|(length, _)| root.len() < *length)
            {
                return;
            }
            let mut path = [at, rest].concat();
            if path.is_empty() {
                path.push(b'/');
            }
            best = Some((root.len() + 1, path));
        };
        for mount in &self.mounts {
            match &mount.source {
                Source::Union(stack) => {
                    stack.lower.iter().chain(&stack.upper).for_each(|tree| consider(&tree.root, &mount.at));
                }
                Source::Tree(root) => consider(root, &mount.at),
                Source::Proc => consider(b"/proc", &mount.at),
            }
        }
        best.map(|(_, path)| path)
    }

    /// Forgets what was looked up: somebody else has changed the trees.
    pub fn forget_all(&mut self) {
        for mount in &mut self.mounts {
            if let Source::Union(stack) = &mut mount.source {
                stack.forget_all();
            }
        }
        self.changed.push(Changed::Everything);
    }

    /// A new name in the work directory.
    pub fn scratch(&mut self) -> Vec<u8> {
        self.serial += 1;
        [&self.work[..], b"/", self.serial.to_string().as_bytes()].concat()
    }
}

/// Whether a path is another or beneath it.
fn is_beneath(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// What statx(2) says of a host path, not followed.
pub fn lstat(path: &[u8]) -> Result<Statx, Errno> {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, WANTED)
}

/// The type of a file.
pub fn type_of(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

/// Whether it is overlay's sign that a name is gone.
pub fn is_whiteout(stat: &Statx) -> bool {
    type_of(stat) == FileType::CharacterDevice && (stat.stx_rdev_major, stat.stx_rdev_minor) == (0, 0)
}

/// The directory of an absolute path.
pub fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => b"/",
        Some(at) => &path[..at],
    }
}

/// `directory` and `name` as one path.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let directory = if directory == b"/" { &b""[..] } else { directory };
    [directory, b"/", name].concat()
}
