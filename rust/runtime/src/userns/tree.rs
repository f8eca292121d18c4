//! Removing a tree that others have filled: nothing in it is followed, and directories
//! without permissions (overlay leaves one of mode 000 in its workdir) are opened up.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, CWD};
use rustix::io::Errno;

/// Removes `path` and all below it; a missing one is removed already.
///
/// # Errors
/// The first refusal, after removing whatever else could be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
        Ok(_) => {}
    }
    let name = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
    remove_at(CWD, &name, None).map_err(io::Error::from)
}

pub(super) fn remove_at(parent: BorrowedFd<'_>, name: &CStr, kind: Option<FileType>) -> Result<(), Errno> {
    if kind.is_some_and(|kind| !kind.is_dir() && kind != FileType::Unknown) {
        return rustix::fs::unlinkat(parent, name, AtFlags::empty());
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(Errno::NOTDIR) => return rustix::fs::unlinkat(parent, name, AtFlags::empty()),
        other => return other,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(parent, name, flags, Mode::empty());
    let directory = match open() {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    let mut failure = empty(directory.as_fd());
    if failure == Err(Errno::ACCESS) {
        rustix::fs::fchmod(&directory, Mode::RWXU)?;
        failure = empty(directory.as_fd());
    }
    failure?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Names are collected first: removing while reading may skip some.
fn empty(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            entries.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    let mut failure = Ok(());
    for (name, kind) in entries {
        if let Err(errno) = remove_at(directory, &name, Some(kind)) {
            failure = failure.and(Err(errno));
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_closed_directory_goes_and_a_link_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (tree, outside) = (place.path().join("tree"), place.path().join("outside"));
        fs::create_dir_all(tree.join("work/work")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        fs::write(tree.join("work/work/file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        rustix::fs::chmod(tree.join("work/work"), Mode::empty()).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove(&tree).unwrap();
    }
}
