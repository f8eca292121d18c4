//! The tar format, read from hostile bytes.
//!
//! [`header`] turns one 512-byte block into numbers and names, [`pax`] and
//! [`sparse`] read the two sub-languages, and [`stream`] strings them together
//! into members. The first three are pure functions; the last needs a `BufRead`
//! and nothing else. None of them panics, whatever the bytes.
//!
//! Dialects: v7, ustar (POSIX.1-1988), star, GNU (long names, old sparse files)
//! and PAX (POSIX.1-2001) with GNU's sparse 0.0, 0.1 and 1.0. Where readers in
//! the world disagree about a crooked archive, this one sides with Go's
//! archive/tar: it is what Docker and containerd use, so a layer means here
//! what it meant where its diff id was made.
//!
//! - links, devices, directories and fifos have no body, whatever their size says;
//! - the PAX size wins over the header's; GNU long names win over PAX paths;
//! - a second `x` header replaces the first; global headers change nothing;
//! - two zero blocks end the archive, and so does the end of the file at a
//!   block where a header could stand.
//!
//! Sources: POSIX.1-2017 pax (ustar and pax interchange formats), tar(5) of
//! libarchive, "Standard Archive Format" and "Sparse Formats" of the GNU tar manual.

pub mod builder;
pub mod header;
pub mod pax;
pub mod sparse;
pub mod stream;

pub use builder::TarBuilder;
pub use header::Kind;
pub use sparse::Segment;
pub use stream::{Source, TarReader};

/// Size of a header, and the unit that bodies are padded to.
pub const BLOCK: usize = 512;

/// The most that one extension header may hold; Go's limit too. It bounds
/// names, xattrs and sparse maps at once.
pub const EXTENSION_LIMIT: u64 = 1 << 20;

/// Seconds and nanoseconds since the epoch; the nanoseconds count forward also before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// One member of an archive, all extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name as written; not checked in any way but that it has no NUL.
    pub path: Vec<u8>,
    /// The target of a hard or symbolic link, as written.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Size of the file in bytes, holes included; 0 for what has no body.
    pub size: u64,
    /// Bytes of body in the archive that hold the file's data.
    pub stored: u64,
    /// Where the body starts in the archive.
    pub offset: u64,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Time,
    /// Major and minor number of a device; (0, 0) for others.
    pub device: (u32, u32),
    /// Extended attributes: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The data stretches of a sparse file, in order; `None` for an ordinary one.
    pub sparse: Option<Vec<Segment>>,
}

/// What is wrong with an archive, and where.
#[derive(Debug, thiserror::Error)]
#[error("{fault} (at byte {offset} of the tar)")]
pub struct TarError {
    /// Offset of the block in question.
    pub offset: u64,
    /// What is wrong.
    #[source]
    pub fault: Fault,
}

/// What can be wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The bytes beneath could not be read.
    #[error("{}", crate::error::describe(.0))]
    Io(#[from] std::io::Error),
    /// The archive ends inside a header or a body.
    #[error("the tar is cut short")]
    Truncated,
    /// The header's checksum does not fit its bytes: not a tar, or damaged.
    #[error("bad header checksum")]
    Checksum,
    /// A numeric field holds no number, or one out of its range.
    #[error("bad {0} in a header")]
    Number(&'static str),
    /// A name with a NUL in it, or an empty one.
    #[error("bad {0} in a header")]
    Name(&'static str),
    /// A PAX record is malformed.
    #[error("bad PAX record: {0}")]
    Pax(&'static str),
    /// An extension header larger than [`EXTENSION_LIMIT`].
    #[error("an extension header is larger than 1 MiB")]
    ExtensionTooLarge,
    /// An extension header with no member after it.
    #[error("an extension header has no member after it")]
    Orphan,
    /// A sparse map is malformed.
    #[error("bad sparse map: {0}")]
    Sparse(&'static str),
    /// One zero block, then more members: written over, or damaged.
    #[error("a lone zero block, then more data")]
    LoneZeroBlock,
    /// More members than an image archive may have.
    #[error("more than 100,000 members")]
    TooManyMembers,
    /// A piece of an archive that was split over several volumes.
    #[error("multi-volume archives are not supported")]
    MultiVolume,
}
