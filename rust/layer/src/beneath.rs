//! Directories by path beneath an open root, when somebody may be changing the tree meanwhile.
//!
//! No component may be a link: what is walked was seen as directories, and a
//! link that stands there now was put there to lead us out.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, Mode, ResolveFlags};
use rustix::io::Errno;

use crate::tree::DIRECTORY;

/// Opens the directory `path` (a normal path; empty is the root itself) to be read and worked in.
///
/// # Errors
/// `ELOOP`, `ENOTDIR` for a component that is no directory, and what open(2) says.
pub fn open_directory(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    if path.is_empty() {
        return fs::openat(root, ".", DIRECTORY, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
    match fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve) {
        // Old seccomp profiles refuse openat2(2); EAGAIN is a rename on the way.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
        result => return result,
    }
    let mut here = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    for name in path.split(|&byte| byte == b'/') {
        if name == b".." {
            return Err(Errno::XDEV);
        }
        here = fs::openat(&here, name, DIRECTORY, Mode::empty())?;
    }
    Ok(here)
}

/// The names in an open directory with their types, sorted by bytes. A file system that does not tell types is asked for each.
///
/// # Errors
/// What getdents64(2) says.
pub fn sorted_names(directory: impl AsFd) -> Result<Vec<(Vec<u8>, fs::FileType)>, Errno> {
    let directory = directory.as_fd();
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            fs::FileType::Unknown => match crate::tree::stat_at(directory, name)? {
                Some(stat) => crate::tree::file_type(&stat),
                None => continue,
            },
            kind => kind,
        };
        names.push((name.to_vec(), kind));
    }
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_on_the_way_are_refused() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", place.path().join("link")).unwrap();
        let root = std::fs::File::open(place.path()).unwrap();
        assert!(open_directory(&root, b"a/b").is_ok() && open_directory(&root, b"").is_ok());
        for path in [&b"link"[..], b"link/b", b"..", b"a/../.."] {
            assert!(open_directory(&root, path).is_err(), "{}", path.escape_ascii());
        }
        assert_eq!(sorted_names(&root).unwrap().len(), 2);
    }
}
