//! Trees on disk: how overlayfs spells a whiteout and an opaque directory, and
//! how to take a tree away.
//!
//! Extraction knows the tar spelling, the copy fallback and the runtime read
//! this one. Everything works by directory descriptor and single components,
//! and never follows a symbolic link.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

/// The xattr that makes a directory hide what is beneath it (overlay mounted with `userxattr`).
pub const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// Flags for a directory that is to be read and worked in.
pub const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is under a name, without following it; `None` if nothing is.
pub fn stat_at(directory: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The type of a file.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether this is overlay's whiteout: a character device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes a whiteout. The kernel allows this one device to everybody (since 5.8).
pub fn make_whiteout(directory: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Makes an open directory opaque.
pub fn make_opaque(directory: impl AsFd) -> Result<(), Errno> {
    fs::fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

/// Whether an open directory is opaque.
pub fn is_opaque(directory: impl AsFd) -> bool {
    let mut value = [0u8; 4];
    matches!(fs::fgetxattr(directory, OPAQUE_XATTR, &mut value), Ok(1) if value[0] == b'y')
}

/// How deep removal goes before it carries a deeper directory up: one open
/// descriptor a level, and a container may have nested without end.
const DEPTH_LIMIT: u32 = 128;

/// Removes `name` in `directory` and all beneath it. Directories that forbid it
/// are opened up first (they are ours). A name that is not there is no error.
/// On an error the rest is still removed; the first error is returned.
pub fn remove_tree(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let mut removal = Removal { top: directory, carried: Vec::new(), count: 0, error: None };
    removal.remove(directory, name, 0);
    // One after another: nested in each other they would be as deep as before.
    while let Some(carried) = removal.carried.pop() {
        removal.remove(directory, carried.as_bytes(), 0);
    }
    match removal.error {
        Some(errno) => Err(errno.into()),
        None => Ok(()),
    }
}

struct Removal<'fd> {
    top: BorrowedFd<'fd>,
    /// Names in `top` of directories that lay too deep.
    carried: Vec<String>,
    count: u64,
    error: Option<Errno>,
}

impl Removal<'_> {
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &[u8], depth: u32) {
        match fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // EPERM is POSIX's answer for a directory, EISDIR Linux's.
            Err(Errno::ISDIR | Errno::PERM) => {
                if let Err(errno) = self.remove_directory(parent, name, depth) {
                    self.error.get_or_insert(errno);
                }
            }
            Err(errno) => {
                self.error.get_or_insert(errno);
            }
        }
    }

    fn remove_directory(&mut self, parent: BorrowedFd<'_>, name: &[u8], depth: u32) -> Result<(), Errno> {
        let directory = open_for_removal(parent, name)?;
        if depth >= DEPTH_LIMIT {
            return self.carry_up(parent, name);
        }
        // A directory that changes while it is read may hide names from one pass (NFS does).
        for _ in 0..8 {
            self.remove_children(&directory, depth)?;
            match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::NOTEMPTY) if self.error.is_none() => {}
                Err(Errno::NOTEMPTY) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::NOTEMPTY)
    }

    fn remove_children(&mut self, directory: &OwnedFd, depth: u32) -> Result<(), Errno> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.remove(directory.as_fd(), name, depth + 1);
            }
        }
        Ok(())
    }

    /// Moves a directory that lies too deep to the top, to be removed from there.
    fn carry_up(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        loop {
            self.count += 1;
            let carried = format!(".removing-{}-{}", std::process::id(), self.count);
            if stat_at(self.top, carried.as_bytes())?.is_some() {
                continue;
            }
            fs::renameat(parent, name, self.top, &carried)?;
            self.carried.push(carried);
            return Ok(());
        }
    }
}

/// Opens a directory so that it can be read and emptied, changing its mode when that is what it takes.
fn open_for_removal(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let directory = match fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            open_up(parent, name)?;
            fs::openat(parent, name, DIRECTORY, Mode::empty())?
        }
        result => result?,
    };
    let mode = fs::fstat(&directory)?.st_mode;
    if mode & 0o700 != 0o700 {
        // Not ours: the removal itself will say so.
        let _ = fs::fchmod(&directory, Mode::RWXU);
    }
    Ok(directory)
}

/// Sets 0700 on a directory that cannot even be opened. fchmod refuses O_PATH
/// descriptors and fchmodat follows links, so it goes through the descriptor's
/// name in /proc; without /proc the name itself, known to be no link, must do.
fn open_up(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let handle = fs::openat(parent, name, DIRECTORY | OFlags::PATH, Mode::empty())?;
    match fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU) {
        Err(Errno::NOENT) => fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, set_permissions, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn top() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let file = File::open(directory.path()).unwrap();
        (directory, file)
    }

    #[test]
    fn unwritable_directories_are_removed() {
        let (directory, top) = top();
        let mut path = directory.path().to_owned();
        let mut made = Vec::new();
        for name in ["a", "b", "c"] {
            path.push(name);
            create_dir(&path).unwrap();
            File::create(path.join("file")).unwrap();
            made.push(path.clone());
        }
        for path in made.iter().rev() {
            set_permissions(path, Permissions::from_mode(0o0)).unwrap();
        }
        remove_tree(top.as_fd(), b"a").unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn removal_does_not_follow_links() {
        let (directory, top) = top();
        create_dir(directory.path().join("kept")).unwrap();
        File::create(directory.path().join("kept/file")).unwrap();
        create_dir(directory.path().join("gone")).unwrap();
        std::os::unix::fs::symlink("../kept", directory.path().join("gone/link")).unwrap();
        std::os::unix::fs::symlink("kept", directory.path().join("link")).unwrap();
        remove_tree(top.as_fd(), b"gone").unwrap();
        remove_tree(top.as_fd(), b"link").unwrap();
        assert!(directory.path().join("kept/file").exists());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn trees_deeper_than_a_path_can_name_are_removed() {
        let (directory, top) = top();
        fs::mkdirat(&top, "deep", Mode::RWXU).unwrap();
        let mut at = fs::openat(&top, "deep", DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            at = fs::openat(&at, "deep", DIRECTORY, Mode::empty()).unwrap();
        }
        remove_tree(top.as_fd(), b"deep").unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let (_directory, top) = top();
        remove_tree(top.as_fd(), b"nothing").unwrap();
    }
}
