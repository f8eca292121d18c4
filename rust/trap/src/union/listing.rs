//! What a directory holds, all its trees taken together.

use std::collections::HashSet;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::stack::Kind;
use super::{is_whiteout, join, lstat, Source, Spot, Union};

/// A name in a directory.
#[derive(Debug, Clone)]
pub struct Item {
    /// The name.
    pub name: Vec<u8>,
    /// Its inode where it lies.
    pub inode: u64,
    /// `DT_*`.
    pub kind: u8,
}

/// All names of one host directory but `.` and `..`.
pub(super) fn read(directory: &[u8]) -> Result<Vec<Item>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::empty())?;
    let mut items = Vec::new();
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            items.push(Item { name: name.to_vec(), inode: entry.ino(), kind: number_of(entry.file_type()) });
        }
    }
    Ok(items)
}

fn number_of(kind: FileType) -> u8 {
    match kind {
        FileType::Fifo => libc::DT_FIFO,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::Directory => libc::DT_DIR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::RegularFile => libc::DT_REG,
        FileType::Symlink => libc::DT_LNK,
        FileType::Socket => libc::DT_SOCK,
        FileType::Unknown => libc::DT_UNKNOWN,
    }
}

impl Union {
    /// Whether the kernel's own listing of `spot.host` is the whole truth.
    pub fn is_listed_by_kernel(&mut self, spot: &Spot) -> bool {
        if self.masked.iter().any(|masked| masked == &spot.path) {
            return true;
        }
        match &self.mounts[spot.mount].source {
            // Who reads it by itself must come to the same answer.
            Source::Union(_) => self.anatomy(spot).is_some_and(|anatomy| anatomy.is_listed),
            Source::Tree(_) => true,
            Source::Proc => !is_top_of_proc(&spot.path, &self.mounts[spot.mount].at),
        }
    }

    /// What a directory shows, without `.` and `..`. Of /proc, everything: the caller knows the processes.
    ///
    /// # Errors
    /// Those of opening and reading it.
    pub fn list(&mut self, spot: &Spot) -> Result<Vec<Item>, Errno> {
        let mount = &mut self.mounts[spot.mount];
        let Source::Union(stack) = &mut mount.source else { return read(&spot.host) };
        let inside = if spot.path == b"/" { &b""[..] } else { &spot.path[mount.at.len()..] };
        let id = stack.descend(inside);
        let node = stack.node(id);
        if node.kind != Kind::Directory {
            return Err(Errno::NOTDIR);
        }
        let upper = stack.upper.as_ref().filter(|_| node.is_upper);
        let trees: Vec<_> = upper
            .into_iter()
            .chain(node.lower.iter().map(|index| &stack.lower[usize::from(*index)]))
            .collect();
        let mut seen = HashSet::new();
        let mut items = Vec::new();
        for tree in trees {
            let host = [&tree.root[..], inside].concat();
            for item in read(&host)? {
                if seen.contains(&item.name) {
                    continue;
                }
                let is_gone = tree.hidden.contains(&join(inside, &item.name))
                    || item.kind == libc::DT_CHR
                        && lstat(&join(&host, &item.name)).is_ok_and(|stat| is_whiteout(&stat));
                seen.insert(item.name.clone());
                if !is_gone {
                    items.push(item);
                }
            }
            let prefix = join(inside, b"");
            for hidden in tree.hidden.iter().filter_map(|path| path.strip_prefix(&prefix[..])) {
                if !hidden.contains(&b'/') {
                    seen.insert(hidden.to_vec());
                }
            }
        }
        Ok(items)
    }
}

/// Whether a path is /proc itself.
fn is_top_of_proc(path: &[u8], at: &[u8]) -> bool {
    path == at
}
