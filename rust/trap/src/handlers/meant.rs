//! The file that a call is about, however it names it.

use std::os::fd::OwnedFd;

use rustix::fs::Statx;
use rustix::io::Errno;

use crate::call::Call;
use crate::credentials::Credentials;
use crate::view::{At, HERE};
use crate::walk::{Found, Walk};
use crate::world::World;

/// How a call names a file: by a directory's descriptor, a path among its arguments, and AT_ flags. Without a path the
/// descriptor is the file's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Naming {
    directory: i32,
    path: Option<usize>,
    flags: i32,
}

impl Naming {
    /// From the working directory, links followed.
    pub const fn path(index: usize) -> Self {
        Self { directory: HERE, path: Some(index), flags: 0 }
    }

    /// From the working directory, a link itself.
    pub const fn link(index: usize) -> Self {
        Self { directory: HERE, path: Some(index), flags: libc::AT_SYMLINK_NOFOLLOW }
    }

    /// From a directory, as the flags say.
    pub const fn at(directory: i32, path: usize, flags: i32) -> Self {
        Self { directory, path: Some(path), flags }
    }

    /// The first argument is a descriptor.
    pub fn descriptor(call: &Call) -> Self {
        // AT_FDCWD is none.
        Self { directory: call.int(0).max(-1), path: None, flags: 0 }
    }

    /// Whether a link at the end is followed.
    pub fn follows(self) -> bool {
        self.flags & libc::AT_SYMLINK_NOFOLLOW == 0
    }

    /// The path; `None` where a descriptor alone is meant.
    pub fn text(self, call: &Call) -> Result<Option<Vec<u8>>, Errno> {
        let Some(index) = self.path else { return Ok(None) };
        let may_be_empty = self.flags & libc::AT_EMPTY_PATH != 0;
        // NULL means the same as the empty path, since 6.11.
        let path = if may_be_empty && call.long(index) == 0 { Vec::new() } else { call.text(index)? };
        Ok((!path.is_empty() || !may_be_empty).then_some(path))
    }

    /// The place for the kernel to walk to.
    pub fn place(self, world: &World, call: &Call, path: Option<&[u8]>) -> Result<At, Errno> {
        match path {
            None => world.view.at_descriptor(call, self.directory),
            Some(path) => world.view.at(call, self.directory, path, self.follows()),
        }
    }

    /// The file, its way walked with the rights of `who`.
    pub fn find(self, world: &World, call: &Call, who: &Credentials) -> Result<Found, Errno> {
        match self.text(call)? {
            None => world.found_of_descriptor(call, self.directory),
            Some(path) => Walk::new(world, call, who).to_file(self.directory, &path, self.follows()),
        }
    }
}

/// A file that a call is about.
pub(super) struct Meant {
    pub file: OwnedFd,
    pub stat: Statx,
    /// The container's own root asks: nobody has to be asked whether it may.
    pub is_plain: bool,
}

impl Meant {
    pub fn found(self) -> Found {
        Found { file: self.file, stat: self.stat }
    }
}

/// Finds it; `None`: it is not there for root, and the kernel knows best how to say so.
pub(super) fn meant(world: &World, call: &Call, naming: Naming) -> Result<Option<Meant>, Errno> {
    if !world.is_plain_root(call)? {
        let Found { file, stat } = naming.find(world, call, world.caller(call)?)?;
        return Ok(Some(Meant { file, stat, is_plain: false }));
    }
    let path = naming.text(call)?;
    let Ok(at) = naming.place(world, call, path.as_deref()) else { return Ok(None) };
    let Ok(file) = world.view.hold(&at) else { return Ok(None) };
    let stat = world.view.stat_fd(&file)?;
    Ok(Some(Meant { file, stat, is_plain: true }))
}
