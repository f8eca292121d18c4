//! The outer tar of `docker save` and of OCI archives: a list of its members,
//! found by reading headers and seeking over bodies.

use std::fs::File;
use std::io::BufReader;
use std::os::fd::AsFd;

use crate::tar::{Fault, TarError, TarReader};

/// A member of an outer tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name as written (bytes; no path of it is ever opened).
    pub name: Vec<u8>,
    /// `file`, `dir`, `link`, `symlink`, `char`, `block`, `fifo`, `other`; `sparse` for a
    /// file whose body is not its content.
    pub kind: &'static str,
    /// Size of the body in bytes.
    pub size: u64,
    /// Where the body starts in the file.
    pub offset: u64,
    /// The target of a link as written: older `docker save` links equal layers to each other.
    pub link: Vec<u8>,
}

/// The most members that an image archive may have.
const MEMBER_LIMIT: usize = 100_000;

/// Lists the members of an uncompressed tar from its start. The descriptor's offset is moved.
pub fn archive_index(file: impl AsFd) -> Result<Vec<Member>, TarError> {
    let fail = |error| TarError { offset: 0, fault: Fault::Io(error) };
    let mut file = File::from(file.as_fd().try_clone_to_owned().map_err(fail)?);
    std::io::Seek::rewind(&mut file).map_err(fail)?;
    let mut tar = TarReader::new(BufReader::with_capacity(16 * 1024, file));
    let mut members = Vec::new();
    while let Some(member) = tar.next_member()? {
        if members.len() >= MEMBER_LIMIT {
            return Err(TarError { offset: member.offset, fault: Fault::TooManyMembers });
        }
        members.push(Member {
            kind: if member.sparse.is_some() { "sparse" } else { member.kind.name() },
            size: member.stored,
            offset: member.offset,
            name: member.path,
            link: member.link,
        });
    }
    Ok(members)
}
