//! A path walked for somebody as the kernel walks it (path_resolution(7)): each directory on the way is asked.
//!
//! For root the kernel itself may walk, since nothing stops root, unless it called chroot(2). For everybody else the way
//! counts: a path is taken component by component, through links, and the first directory that may not be searched ends
//! it with EACCES. Where the kernel would name another reason first, that one is named here. The way above the directory
//! that a walk begins in is nobody's business: a process may stay where it could no longer get to.
//!
//! Links of /proc to what a process has open are the kernel's to follow: they are no paths.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use crate::call::{c_string, Call};
use crate::credentials::Credentials;
use crate::permission::EXECUTE;
use crate::world::{is_directory, World};

/// MAXSYMLINKS of the kernel.
pub const MOST_LINKS: u32 = 40;
/// The inode of the root of every /proc, PROC_ROOT_INO.
const PROC_ROOT: u64 = 1;

/// A file, and what statx(2) says of it.
#[derive(Debug)]
pub struct Found {
    /// Held by O_PATH.
    pub file: OwnedFd,
    /// Of the moment it was found.
    pub stat: Statx,
}

impl Found {
    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        FileType::from_raw_mode(u32::from(self.stat.stx_mode)) == FileType::Symlink
    }
}

/// The last component of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Last {
    Name(CString),
    Dot,
    DotDot,
    /// There is none: the path was all slashes.
    Root,
}

/// Where a path's last component is looked up.
#[derive(Debug)]
pub struct Spot {
    /// The directory; it may be searched.
    pub above: Found,
    /// What is looked up in it.
    pub last: Last,
    /// Slashes follow: only a directory can be meant.
    pub has_slashes: bool,
}

impl Spot {
    /// The name; `None` for a path that ends in `.`, `..` or `/`.
    pub fn name(&self) -> Option<&CString> {
        match &self.last {
            Last::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// What happens at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A link there is what is meant.
    Itself,
    /// A link there is followed.
    Follow,
    /// The same, for a file that would be made: EISDIR for slashes, also those of a link on the way.
    Create,
    /// As [`End::Create`], where a link is already what is not to be there.
    CreateItself,
}

enum Target {
    Path(Vec<u8>),
    File(Box<Found>),
}

/// One walk: links are counted from its beginning to its end.
#[derive(Debug)]
pub struct Walk<'a> {
    world: &'a World,
    call: &'a Call,
    who: &'a Credentials,
    links: u32,
    /// `..` ends at another root than the container's.
    is_elsewhere: bool,
}

impl<'a> Walk<'a> {
    /// A walk of the call's maker with the rights of `who`.
    pub fn new(world: &'a World, call: &'a Call, who: &'a Credentials) -> Self {
        Self { world, call, who, links: 0, is_elsewhere: world.view.is_elsewhere(call) }
    }

    /// The file that a path means, from a descriptor's directory.
    ///
    /// # Errors
    /// EACCES, EBADF, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR.
    pub fn to_file(&mut self, directory: i32, path: &[u8], follow: bool) -> Result<Found, Errno> {
        let spot = self.to_last(directory, path)?;
        self.end(spot, if follow { End::Follow } else { End::Itself })?.1.ok_or(Errno::NOENT)
    }

    /// Walks all of a path but its last component.
    ///
    /// # Errors
    /// As [`Walk::to_file`].
    pub fn to_last(&mut self, directory: i32, path: &[u8]) -> Result<Spot, Errno> {
        let base = match path.first() {
            None => return Err(Errno::NOENT),
            Some(b'/') => self.root()?,
            Some(_) => self.world.found_of_descriptor(self.call, directory)?,
        };
        self.walk(base, path)
    }

    /// Looks the last component up, through links as the end wants it. `None`: no such name in the directory that is
    /// left over.
    ///
    /// # Errors
    /// As [`Walk::to_file`]; EISDIR.
    pub fn end(&mut self, mut spot: Spot, end: End) -> Result<(Spot, Option<Found>), Errno> {
        let creates = matches!(end, End::Create | End::CreateItself);
        let mut wants_directory = false;
        loop {
            if creates && spot.has_slashes && spot.name().is_some() {
                return Err(Errno::ISDIR);
            }
            wants_directory |= spot.has_slashes;
            let found = match &spot.last {
                Last::Name(name) => match self.look(&spot.above, name) {
                    Err(Errno::NOENT) => return Ok((spot, None)),
                    other => other?,
                },
                Last::DotDot => self.up(&spot.above)?,
                Last::Dot | Last::Root => copy(&spot.above)?,
            };
            let found = match spot.name() {
                Some(name)
                    if found.is_link() && (wants_directory || matches!(end, End::Follow | End::Create)) =>
                {
                    match self.target(&spot.above, name, &found)? {
                        Target::File(found) => *found,
                        Target::Path(path) => {
                            let base = if path.starts_with(b"/") { self.root()? } else { spot.above };
                            spot = self.walk(base, &path)?;
                            continue;
                        }
                    }
                }
                _ => found,
            };
            if wants_directory && !is_directory(&found.stat) {
                return Err(Errno::NOTDIR);
            }
            return Ok((spot, Some(found)));
        }
    }

    /// The kernel's link_path_walk.
    fn walk(&mut self, mut here: Found, path: &[u8]) -> Result<Spot, Errno> {
        let mut rest = without_slashes(path).to_vec();
        if rest.is_empty() {
            return Ok(Spot { above: here, last: Last::Root, has_slashes: false });
        }
        loop {
            if !is_directory(&here.stat) {
                return Err(Errno::NOTDIR);
            }
            self.world.require(self.who, &here, EXECUTE)?;
            let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let after = without_slashes(&rest[end..]).to_vec();
            let has_slashes = end < rest.len();
            rest.truncate(end);
            if after.is_empty() {
                let last = match &rest[..] {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name(c_string(rest)?),
                };
                return Ok(Spot { above: here, last, has_slashes });
            }
            match &rest[..] {
                b"." => {}
                b".." => here = self.up(&here)?,
                _ => {
                    let name = c_string(rest)?;
                    let next = self.look(&here, &name)?;
                    if next.is_link() {
                        match self.target(&here, &name, &next)? {
                            Target::File(found) => here = *found,
                            Target::Path(path) => {
                                if path.starts_with(b"/") {
                                    here = self.root()?;
                                }
                                rest = [without_slashes(&path), b"/", &after].concat();
                                rest.drain(..rest.len() - without_slashes(&rest).len());
                                continue;
                            }
                        }
                    } else {
                        here = next;
                    }
                }
            }
            rest = after;
        }
    }

    fn root(&self) -> Result<Found, Errno> {
        self.world.found(self.world.view.root_of(self.call)?)
    }

    fn up(&self, here: &Found) -> Result<Found, Errno> {
        if self.is_elsewhere {
            let root = self.root()?;
            if (root.stat.stx_ino, root.stat.stx_mnt_id) == (here.stat.stx_ino, here.stat.stx_mnt_id) {
                return Ok(root);
            }
        }
        self.look(here, c"..")
    }

    fn look(&self, here: &Found, name: &std::ffi::CStr) -> Result<Found, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.world.found(rustix::fs::openat(&here.file, name, flags, Mode::empty())?)
    }

    fn target(&mut self, here: &Found, name: &std::ffi::CStr, link: &Found) -> Result<Target, Errno> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        if self.world.view.is_proc(&here.stat) {
            if here.stat.stx_ino != PROC_ROOT {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&here.file, name, flags, Mode::empty())?;
                return Ok(Target::File(Box::new(self.world.found(file)?)));
            }
            // These two are about who reads them.
            let own = match name.to_bytes() {
                b"self" => Some(false),
                b"thread-self" => Some(true),
                _ => None,
            };
            if let Some(is_thread) = own {
                let text = self.world.view.inner_pid(self.call, is_thread).ok_or(Errno::SRCH)?;
                return Ok(Target::Path(text.into_bytes()));
            }
        }
        let text = rustix::fs::readlinkat(&link.file, c"", Vec::with_capacity(256))?;
        match text.as_bytes() {
            b"" => Err(Errno::NOENT),
            path => Ok(Target::Path(path.to_vec())),
        }
    }
}

fn without_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    &path[start..]
}

fn copy(found: &Found) -> Result<Found, Errno> {
    let file = rustix::io::fcntl_dupfd_cloexec(found.file.as_fd(), 0)?;
    Ok(Found { file, stat: found.stat })
}
