//! From a layer's memory of owners, by path, to the emulation's, by inode: when a container starts.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use duckweed_layer::index::{Index, Record as Indexed, Type};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use crate::owners::names::last_component;
use crate::owners::{Device, Key, Lower, Record};
use crate::world::is_directory;

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// What the indexes of layers (`fs/` trees) say, by inode, each file with the device it lies on.
///
/// # Errors
/// An index that is none; a layer that is not there.
pub fn of_layers(lower: &[PathBuf]) -> io::Result<Vec<((u32, u32), Lower)>> {
    let mut found = Vec::new();
    for tree in lower {
        let Some(layer) = tree.parent() else { continue };
        let index = Index::read(layer)?;
        let top = open(tree)?;
        for (path, record) in index.entries.iter().filter(|(_, record)| record.kind != Type::Whiteout) {
            let path: &[u8] = if path.is_empty() { b"." } else { path };
            if path.starts_with(b"dev/") && record.dev.is_some() {
                // Every container has a /dev of its own above it.
                continue;
            }
            let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::NLINK | StatxFlags::TYPE;
            let Ok(stat) = rustix::fs::statx(&top, path, AtFlags::SYMLINK_NOFOLLOW, wanted) else { continue };
            let key = Key::of(0, &stat);
            let links = if is_directory(&stat) { 1 } else { stat.stx_nlink };
            let name = last_component(path).unwrap_or_default().to_vec();
            let file = Lower { inode: key.inode, birth: key.birth, name, links, record: remembered(record) };
            found.push(((stat.stx_dev_major, stat.stx_dev_minor), file));
        }
    }
    Ok(found)
}

/// What the indexes of layers say of a whole copy that was made of them: each record of the topmost layer
/// that has the path, for the copy's own file.
///
/// # Errors
/// As [`of_layers`].
pub fn of_copy(lower: &[PathBuf], copy: &Path) -> io::Result<Vec<(Key, Record)>> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let (mut above, mut found) = (Vec::<OwnedFd>::new(), Vec::new());
    let copy = open(copy)?;
    for tree in lower {
        let Some(layer) = tree.parent() else { continue };
        for (path, record) in Index::read(layer)?.entries.iter().filter(|(_, one)| one.kind != Type::Whiteout)
        {
            let path: &[u8] = if path.is_empty() { b"." } else { path };
            let stat_in = |top: &OwnedFd| rustix::fs::statx(top, path, AtFlags::SYMLINK_NOFOLLOW, wanted);
            if above.iter().any(|top| stat_in(top).is_ok()) {
                continue;
            }
            if let Ok(stat) = stat_in(&copy) {
                found.push((Key::of(0, &stat), remembered(record)));
            }
        }
        above.push(open(tree)?);
    }
    Ok(found)
}

/// A layer's record as the emulation keeps it.
fn remembered(record: &Indexed) -> Record {
    let device = record.dev.filter(|_| matches!(record.kind, Type::Char | Type::Block));
    Record {
        uid: record.uid,
        gid: record.gid,
        device: device.map(|(major, minor)| Device { is_block: record.kind == Type::Block, major, minor }),
        xattrs: record.xattrs.clone(),
    }
}
