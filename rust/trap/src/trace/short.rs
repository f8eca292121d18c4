//! Short names for directories: an address has room for 107 bytes of path, and the host's paths are longer than the container's.
//!
//! They are links in a directory of the tracer's in /tmp, which is locked for as long as the tracer lives. So
//! whoever finds one that nobody locks knows that its tracer was killed, and takes it away.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, CWD};
use rustix::io::Errno;

use crate::union::join;

/// How often a directory is made anew that somebody took away before it was locked.
const MOST_TRIES: usize = 8;
const PLACE: &str = "/tmp";

/// One tracer's.
#[derive(Debug)]
pub(super) struct ShortNames {
    /// The beginning of the names of all such directories of this user's, in [`PLACE`].
    prefix: Vec<u8>,
    own: Vec<u8>,
    held: Option<OwnedFd>,
    links: HashMap<Vec<u8>, Vec<u8>>,
}

impl ShortNames {
    pub fn new(uid: u32, tracer: u32) -> Self {
        let prefix = format!(".duckweed-{uid}-").into_bytes();
        let own = [PLACE.as_bytes(), b"/", &prefix, tracer.to_string().as_bytes()].concat();
        Self { prefix, own, held: None, links: HashMap::new() }
    }

    /// A short path of a directory.
    ///
    /// # Errors
    /// As mkdir(2) and symlink(2).
    pub fn of(&mut self, directory: &[u8]) -> Result<Vec<u8>, Errno> {
        if let Some(link) = self.links.get(directory) {
            return Ok(link.clone());
        }
        if self.held.is_none() {
            self.held = Some(self.make()?);
        }
        let link = join(&self.own, self.links.len().to_string().as_bytes());
        rustix::fs::symlink(directory, &link[..])?;
        self.links.insert(directory.to_vec(), link.clone());
        Ok(link)
    }

    /// The path that a short one stands for.
    pub fn lengthen(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut parts = path.strip_prefix(&join(&self.own, b"")[..])?.splitn(2, |byte| *byte == b'/');
        let link = join(&self.own, parts.next()?);
        let name = parts.next()?;
        let (directory, _) = self.links.iter().find(|(_, short)| **short == link)?;
        Some(join(directory, name))
    }

    fn make(&self) -> Result<OwnedFd, Errno> {
        for _ in 0..MOST_TRIES {
            match rustix::fs::mkdir(&self.own[..], Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) => {
                    // Of a tracer that had our number.
                    self.sweep();
                    continue;
                }
                other => other?,
            }
            let Ok(held) = lock(CWD, &self.own) else { continue };
            if rustix::fs::fstat(&held)?.st_nlink > 0 {
                return Ok(held);
            }
        }
        Err(Errno::EXIST)
    }

    /// Takes the names away, and those of tracers that could not do it themselves.
    pub fn clean(&mut self) {
        self.links.clear();
        self.held = None;
        self.sweep();
    }

    fn sweep(&self) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(place) = rustix::fs::open(PLACE, flags, Mode::empty()) else { return };
        let Ok(entries) = Dir::read_from(&place) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if name.starts_with(&self.prefix) {
                if let Ok(held) = lock(&place, name) {
                    remove(&place, name, &held);
                }
            }
        }
    }
}

/// Opens and locks a directory of ours that nobody has locked.
fn lock(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(at, name, flags, Mode::empty())?;
    if rustix::fs::fstat(&held)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM);
    }
    rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive)?;
    Ok(held)
}

fn remove(place: &OwnedFd, name: &[u8], held: &OwnedFd) {
    let Ok(links) = Dir::read_from(held) else { return };
    for link in links.flatten() {
        if !matches!(link.file_name().to_bytes(), b"." | b"..") {
            let _ = rustix::fs::unlinkat(held, link.file_name(), AtFlags::empty());
        }
    }
    let _ = rustix::fs::unlinkat(place, name, AtFlags::REMOVEDIR);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_tracer_left_is_taken_away_and_what_a_living_one_has_is_not() {
        let uid = 4_000_000 + std::process::id();
        let mut living = ShortNames::new(uid, 1);
        let short = living.of(b"/usr/lib").unwrap();
        assert_eq!(living.of(b"/usr/lib").unwrap(), short);
        assert_eq!(living.lengthen(&join(&short, b"s")).unwrap(), b"/usr/lib/s");
        let left = format!("/tmp/.duckweed-{uid}-2");
        std::fs::create_dir(&left).unwrap();
        std::os::unix::fs::symlink("/usr", format!("{left}/0")).unwrap();
        ShortNames::new(uid, 3).clean();
        assert!(!std::path::Path::new(&left).exists());
        assert!(rustix::fs::lstat(&short[..]).is_ok());
        let mut same = ShortNames::new(uid, 1);
        assert_eq!(same.of(b"/usr"), Err(Errno::EXIST));
        living.clean();
        assert!(rustix::fs::lstat(&short[..]).is_err());
    }
}
