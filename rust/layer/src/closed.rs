//! Directories that not even their owner may enter, where nobody has a capability to enter them all the same.
//!
//! In a user namespace the reader of a container's tree is root. In the trap isolation it is an ordinary user, and a directory
//! of mode 000 shuts its own owner out. Such directories are opened up before the tree is read; an archive has the
//! mode that they had, and they have it again when it is done.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, CWD};
use rustix::io::Errno;

use crate::{beneath, path, tree};

/// What reading a directory takes.
const ENTER: u32 = 0o500;

/// The closed directories of one tree, open for as long as this lives.
#[derive(Default)]
pub struct Closed {
    modes: HashMap<Vec<u8>, u32>,
    opened: Vec<(OwnedFd, u32)>,
}

impl Closed {
    /// Opens up what is closed beneath `root`; root itself needs none of that.
    ///
    /// # Errors
    /// The path, and what reading its directory gives.
    pub fn open_up(root: &OwnedFd) -> Result<Self, (Vec<u8>, Errno)> {
        let mut closed = Self::default();
        if !rustix::process::geteuid().is_root() {
            closed.enter(root, b"")?;
        }
        Ok(closed)
    }

    /// The mode that a directory has, for all that it is open now.
    pub fn mode(&self, path: &[u8]) -> Option<u32> {
        self.modes.get(path).copied()
    }

    fn enter(&mut self, directory: &OwnedFd, at: &[u8]) -> Result<(), (Vec<u8>, Errno)> {
        let names = beneath::sorted_names(directory).map_err(|errno| (at.to_vec(), errno))?;
        for (name, kind) in names {
            if kind != FileType::Directory {
                continue;
            }
            let path = path::join(at, &name);
            match self.open(directory, &name, &path) {
                Ok(inner) => self.enter(&inner, &path)?,
                // It is another thing by now, or not ours to open: whoever reads it will say.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::PERM) => {}
                Err(errno) => return Err((path, errno)),
            }
        }
        Ok(())
    }

    fn open(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, Errno> {
        let opened = fs::openat(directory, name, tree::DIRECTORY, Mode::empty());
        if let Ok(inner) = &opened {
            if fs::fstat(inner)?.st_mode & ENTER == ENTER {
                return opened;
            }
        } else if !matches!(opened, Err(Errno::ACCESS)) {
            return opened;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = fs::openat(directory, name, flags, Mode::empty())?;
        let mode = fs::fstat(&held)?.st_mode & 0o7777;
        change_mode(&held, mode | 0o700)?;
        self.modes.insert(path.to_vec(), mode);
        self.opened.push((held, mode));
        fs::openat(directory, name, tree::DIRECTORY, Mode::empty())
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        for (held, mode) in self.opened.iter().rev() {
            let _ = change_mode(held, *mode);
        }
    }
}

/// chmod(2) of what is open as a path alone.
fn change_mode(held: &OwnedFd, mode: u32) -> Result<(), Errno> {
    let link = format!("/proc/self/fd/{}", held.as_raw_fd());
    fs::chmodat(CWD, link, Mode::from_raw_mode(mode), AtFlags::empty())
}
