//! Copies of trees, with owners, modes, times and extended attributes: the root file
//! system where overlay is refused, and the first contents of a volume.
//!
//! Sources are layers and images, hostile: every step is by name beneath an open
//! directory, and no link is followed.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use duckweed_layer::index::{Index, Record, Type};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, CWD,
};
use rustix::io::Errno;

/// overlay's own marks, which mean something to overlay only.
const MARK: &[u8] = b"user.overlay.";
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Fills `path` from layer trees (`.../fs`, topmost first) unless `<path>.ready` is there.
///
/// # Errors
/// The first refusal. A half-filled tree has no mark and is filled anew.
pub(super) fn fill(lower: &[PathBuf], path: &Path) -> io::Result<()> {
    let mark = PathBuf::from(OsString::from_vec([path.as_os_str().as_bytes(), b".ready"].concat()));
    if rustix::fs::access(&mark, rustix::fs::Access::EXISTS).is_ok() {
        return Ok(());
    }
    super::tree::remove(path)?;
    std::fs::create_dir_all(path)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o755))?;
    for layer in lower.iter().rev() {
        let (index, _) = index_of(layer)?;
        let mut copy = Copy { index, base: 0, links: HashMap::new(), top: path };
        let (from, to) = (open_top(layer)?, open_top(path)?);
        copy.directory(from.as_fd(), to.as_fd(), &mut Vec::new())?;
        copy.forget_whiteouts(to.as_fd());
    }
    std::fs::write(&mark, "")
}

/// Copies what is in `sources`, one directory of an image in each of its layers that has it (topmost first), into
/// `target`, if `target` is empty.
///
/// # Errors
/// The first refusal.
pub(crate) fn copy_up(sources: &[PathBuf], target: &Path) -> io::Result<()> {
    let to = open_top(target)?;
    if !names(to.as_fd())?.is_empty() {
        return Ok(());
    }
    for source in sources.iter().rev() {
        let from = open_top(source)?;
        let (index, mut path) = index_of(source)?;
        let base = path.len() + usize::from(!path.is_empty());
        let mut copy = Copy { index, base, links: HashMap::new(), top: target };
        let stat = copy.stated(&path, rustix::fs::fstat(&from)?);
        copy.directory(from.as_fd(), to.as_fd(), &mut path)?;
        copy.facts(from.as_fd(), to.as_fd(), &stat)?;
    }
    Ok(())
}

/// The index of the layer that a directory belongs to, and the directory's path in it.
fn index_of(directory: &Path) -> io::Result<(Option<Index>, Vec<u8>)> {
    for tree in directory.ancestors().filter(|path| path.ends_with("fs")) {
        let Some(layer) = tree.parent().filter(|layer| layer.join("index.json").exists()) else { continue };
        let path = directory.strip_prefix(tree).unwrap_or(Path::new("")).as_os_str().as_bytes().to_vec();
        return Ok((Some(Index::read(layer)?), path));
    }
    Ok((None, Vec::new()))
}

/// Bytes of the files below `path`, each inode once.
///
/// # Errors
/// The first refusal.
pub(crate) fn size(path: &Path) -> io::Result<u64> {
    fn walk(
        directory: BorrowedFd<'_>,
        seen: &mut std::collections::HashSet<(u64, u64)>,
    ) -> Result<u64, Errno> {
        let mut bytes = 0;
        for name in names(directory)? {
            let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                let below = rustix::fs::openat(directory, &name, DIRECTORY, Mode::empty())?;
                bytes += walk(below.as_fd(), seen)?;
            } else if stat.st_nlink < 2 || seen.insert((stat.st_dev, stat.st_ino)) {
                bytes += stat.st_size.unsigned_abs();
            }
        }
        Ok(bytes)
    }
    Ok(walk(open_top(path)?.as_fd(), &mut std::collections::HashSet::new())?)
}

fn open_top(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// One tree being copied.
struct Copy<'a> {
    /// What the tree cannot say of itself; none for a directory that is no layer's.
    index: Option<Index>,
    /// So many bytes of a path in the layer lie above `top`.
    base: usize,
    /// Where an inode with several names was copied to first, beneath `top`.
    links: HashMap<(u64, u64), PathBuf>,
    top: &'a Path,
}

impl Copy<'_> {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        for name in names(from)? {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.entry(from, to, &name, path)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return gone(to, name);
        }
        let stat = self.stated(path, stat);
        if kind.is_dir() {
            return self.subdirectory(from, to, name, &stat, path);
        }
        gone(to, name)?;
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                return rustix::fs::linkat(CWD, self.top.join(first), to, name, AtFlags::empty());
            }
            self.links.insert(key, PathBuf::from(std::ffi::OsStr::from_bytes(&path[self.base..])));
        }
        match kind {
            FileType::RegularFile => self.file(from, to, name, &stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
                own(to, name, &stat);
                rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
            }
            FileType::Fifo | FileType::Socket => {
                rustix::fs::mknodat(to, name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode & 0o7777), 0)?;
                own(to, name, &stat);
                Ok(())
            }
            // A device node: a user namespace can neither make nor open one.
            _ => Ok(()),
        }
    }

    fn subdirectory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        path: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let source = rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?;
        if self.is_opaque(source.as_fd(), path) {
            gone(to, name)?;
        }
        match rustix::fs::mkdirat(to, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if !FileType::from_raw_mode(there.st_mode).is_dir() {
                    gone(to, name)?;
                    rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                }
            }
            other => other?,
        }
        let target = rustix::fs::openat(to, name, DIRECTORY, Mode::empty())?;
        self.directory(source.as_fd(), target.as_fd(), path)?;
        self.facts(source.as_fd(), target.as_fd(), stat)
    }

    fn is_opaque(&self, directory: BorrowedFd<'_>, path: &[u8]) -> bool {
        let mut value = [0_u8; 1];
        matches!(rustix::fs::fgetxattr(directory, "user.overlay.opaque", &mut value), Ok(1) if value == *b"y")
            || self.record(path).is_some_and(|record| record.opaque)
    }

    fn record(&self, path: &[u8]) -> Option<&Record> {
        self.index.as_ref().and_then(|index| index.entries.get(path))
    }

    /// The facts of an entry with the owner and mode that the layer gave it: on disk it may belong to
    /// whoever keeps the store, and be open to all. What is not in an index is root's.
    fn stated(&self, path: &[u8], mut stat: Stat) -> Stat {
        if self.index.is_none() {
            return stat;
        }
        (stat.st_uid, stat.st_gid) = self.record(path).map_or((0, 0), |record| (record.uid, record.gid));
        if let Some(record) = self.record(path) {
            stat.st_mode = stat.st_mode & !0o7777 | record.mode & 0o7777;
        }
        stat
    }

    fn file(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
        contents(source.as_fd(), target.as_fd())?;
        self.facts(source.as_fd(), target.as_fd(), stat)
    }

    /// Owner, mode (after the owner, which clears setuid), attributes, times last.
    fn facts(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
        let _ = rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        attributes(from, to);
        rustix::fs::futimens(to, &times(stat))
    }

    /// Whiteouts that could not be made as devices are in the index only.
    fn forget_whiteouts(&self, top: BorrowedFd<'_>) {
        for (path, record) in self.index.iter().flat_map(|index| &index.entries) {
            if record.kind != Type::Whiteout {
                continue;
            }
            let (directory, name) = duckweed_layer::path::split(path);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let beneath = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
            let parent = match directory.is_empty() {
                true => rustix::fs::openat(top, ".", flags, Mode::empty()),
                false => rustix::fs::openat2(top, directory, flags, Mode::empty(), beneath),
            };
            if let (Ok(parent), Ok(name)) = (parent, CString::new(name)) {
                let _ = gone(parent.as_fd(), &name);
            }
        }
    }
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

/// A single mapped id cannot give anything away; that is no reason to stop.
fn own(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let _ = rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
}

fn gone(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    super::tree::remove_at(directory, name, None).or_else(|errno| {
        if errno == Errno::NOENT {
            Ok(())
        } else {
            Err(errno)
        }
    })
}

/// A reflink where the file system has them, else a copy inside the kernel, else by hand.
fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(errno),
        }
    }
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = rustix::io::read(from, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(to, rest)?..];
        }
    }
}

/// Attributes that can be carried over are; the others need privilege or another file system.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let mut list = vec![0; 16 * 1024];
    let Ok(length) = rustix::fs::flistxattr(from, &mut list) else { return };
    let mut value = vec![0; 64 * 1024];
    for name in
        list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && !name.starts_with(MARK))
    {
        if let Ok(length) = rustix::fs::fgetxattr(from, name, &mut value) {
            let _ = rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn upper_layers_win_whiteouts_hide_and_opaque_directories_begin_anew() {
        let place = tempfile::tempdir().unwrap();
        let (low, high, root) =
            (place.path().join("low"), place.path().join("high"), place.path().join("root"));
        fs::create_dir_all(low.join("dir")).unwrap();
        fs::create_dir_all(high.join("fs/dir")).unwrap();
        for name in ["same", "gone", "dir/hidden"] {
            fs::write(low.join(name), "low").unwrap();
        }
        fs::hard_link(low.join("same"), low.join("link")).unwrap();
        fs::write(high.join("fs/same"), "high").unwrap();
        let json = br#"{"version":1,"entries":{
            "gone":{"uid":0,"gid":0,"mode":0,"mtime":[0,0],"type":"whiteout"},
            "dir":{"uid":0,"gid":0,"mode":493,"mtime":[0,0],"type":"dir","opaque":true}}}"#;
        fs::write(high.join("index.json"), json).unwrap();
        fill(&[high.join("fs"), low.clone()], &root).unwrap();
        assert_eq!(fs::read_to_string(root.join("same")).unwrap(), "high");
        assert_eq!(fs::read_to_string(root.join("link")).unwrap(), "low");
        assert!(
            !root.join("gone").exists() && !root.join("dir/hidden").exists() && root.join("dir").is_dir()
        );
        assert!(place.path().join("root.ready").exists());
        fs::write(root.join("mine"), "").unwrap();
        fill(&[low], &root).unwrap();
        assert!(root.join("mine").exists());
    }

    #[test]
    fn modes_and_owners_come_from_the_index_and_links_stay_beneath_the_volume() {
        let place = tempfile::tempdir().unwrap();
        let (layer, volume, root) =
            (place.path().join("layer"), place.path().join("volume"), place.path().join("root"));
        let data = layer.join("fs/srv/data");
        fs::create_dir_all(&data).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(data.join("a"), "text").unwrap();
        fs::hard_link(data.join("a"), data.join("b")).unwrap();
        let json = br#"{"version":1,"entries":{
            "srv/data/a":{"uid":0,"gid":0,"mode":2496,"mtime":[0,0],"type":"file"},
            "srv/data/b":{"uid":0,"gid":0,"mode":2496,"mtime":[0,0],"type":"file"},
            "srv/data":{"uid":0,"gid":0,"mode":448,"mtime":[0,0],"type":"dir"}}}"#;
        fs::write(layer.join("index.json"), json).unwrap();
        copy_up(&[data], &volume).unwrap();
        fill(&[layer.join("fs")], &root).unwrap();
        for top in [volume, root.join("srv/data")] {
            let (a, b) = (fs::metadata(top.join("a")).unwrap(), fs::metadata(top.join("b")).unwrap());
            assert_eq!((a.mode() & 0o7777, a.ino()), (0o4700, b.ino()));
            assert_eq!(fs::metadata(top).unwrap().mode() & 0o7777, 0o700);
        }
    }

    #[test]
    fn a_volume_is_filled_once_with_modes_times_and_links() {
        let place = tempfile::tempdir().unwrap();
        let (source, target) = (place.path().join("source"), place.path().join("target"));
        fs::create_dir_all(source.join("dir")).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(source.join("dir/a"), "text").unwrap();
        fs::hard_link(source.join("dir/a"), source.join("b")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", source.join("link")).unwrap();
        rustix::fs::chmod(source.join("b"), Mode::from_raw_mode(0o4751)).unwrap();
        copy_up(std::slice::from_ref(&source), &target).unwrap();
        let (a, b) = (fs::metadata(target.join("dir/a")).unwrap(), fs::metadata(target.join("b")).unwrap());
        assert_eq!(
            (a.ino(), b.mode() & 0o7777, fs::read(target.join("b")).unwrap()),
            (b.ino(), 0o4751, b"text".to_vec())
        );
        assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::metadata(source.join("b")).unwrap().mtime_nsec(), b.mtime_nsec());
        fs::write(source.join("late"), "").unwrap();
        copy_up(std::slice::from_ref(&source), &target).unwrap();
        assert!(!target.join("late").exists());
        assert_eq!(size(&source).unwrap(), 4 + "/etc/passwd".len() as u64);
    }
}
