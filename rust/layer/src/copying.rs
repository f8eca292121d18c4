//! `cp`: one path out of a tree as a tar, and such a tar to a path of another,
//! by Docker's rules (docs.docker.com, "docker container cp").
//!
//! The tar between the two calls what is copied `.`, whatever it is; what it is
//! called where it arrives depends on what is there:
//!
//! | source | destination | result |
//! |---|---|---|
//! | file | is not there | that file; an error if it was written as a directory (`x/`) |
//! | file | a file | replaced |
//! | file, directory | a directory | in it, under the source's name; of `SRC/.` the contents |
//! | directory | is not there | that directory |
//! | directory | a file | an error |
//!
//! Both sides run where the root is the right one: on the machine, or as root of
//! a container with its `/` as ours.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::compression::PlainReader;
use crate::error::WriteError;
use crate::facts::Owners;
use crate::items::{self, Item};
use crate::layer_tar::{LayerTar, Written};
use crate::tar::Kind;
use crate::unpack::{unpack, Links, NewOwner, Peeked, Target, UnpackError, Unpacked};
use crate::{path, tree};

const LINK_LIMIT: u32 = 40;

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyFault {
    /// There is no such file, or no such directory to put it in.
    #[error("no such file or directory")]
    NotThere,
    /// It was written `x/`, and is no directory or is not there.
    #[error("no such directory")]
    NoDirectory,
    /// A directory cannot become a file.
    #[error("cannot copy directory")]
    OntoFile,
    /// The path could not be looked at.
    #[error("{}", crate::error::errno_text(*.0))]
    Path(Errno),
    /// The stream is damaged, or no tar.
    #[error("cannot read the archive: {}", crate::error::describe(.0))]
    Stream(std::io::Error),
    /// Reading the source.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Making the copy.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

fn lost(errno: Errno) -> CopyFault {
    match errno {
        Errno::NOENT | Errno::NOTDIR => CopyFault::NotThere,
        errno => CopyFault::Path(errno),
    }
}

/// A path as it was typed, taken apart.
struct Typed {
    /// Without slashes and dots at its end.
    path: Vec<u8>,
    /// `x/` or `x/.`: it must be a directory, and a link at its end is followed.
    is_directory: bool,
}

impl Typed {
    fn new(text: &[u8]) -> Typed {
        let mut path = text;
        let mut is_directory = false;
        loop {
            if let Some(rest) = path.strip_suffix(b"/") {
                path = rest;
            } else if path == b"." || path.ends_with(b"/.") {
                path = &path[..path.len() - 1];
            } else {
                break;
            }
            is_directory = true;
        }
        Typed { path: path.to_vec(), is_directory: is_directory || path.ends_with(b"..") }
    }
}

/// Opens beneath the root, links followed in it.
fn open(root: &OwnedFd, at: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if at.is_empty() { b".".as_slice() } else { at };
    match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(Errno::AGAIN) => fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve),
        other => other,
    }
}

fn open_directory(root: &OwnedFd, at: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, at, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// A path's directory, its name there (none for a root), and what it is, if it is there.
type Resolved = (Vec<u8>, Vec<u8>, Option<Stat>);

/// Finds what a path means in the end. `NOENT` only when the directory is missing.
fn resolve(root: &OwnedFd, typed: &[u8], follow: bool) -> Result<Resolved, Errno> {
    let mut wanted = typed.to_vec();
    for _ in 0..LINK_LIMIT {
        let (parent, name) = path::split(&wanted);
        if name.is_empty() || name == b".." || name == b"." {
            let stat = fs::fstat(open(root, &wanted, OFlags::PATH)?)?;
            return Ok((wanted.clone(), Vec::new(), Some(stat)));
        }
        let directory = open(root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
        let stat = tree::stat_at(&directory, name)?;
        let is_link = stat.is_some_and(|stat| tree::file_type(&stat) == FileType::Symlink);
        if !(is_link && follow) {
            return Ok((parent.to_vec(), name.to_vec(), stat));
        }
        let target = fs::readlinkat(&directory, name, Vec::new())?.into_bytes();
        let base = if target.starts_with(b"/") { b"".as_slice() } else { parent };
        wanted = path::join(base, target.strip_prefix(b"/").unwrap_or(&target));
        while wanted.ends_with(b"/") {
            wanted.pop();
        }
    }
    Err(Errno::LOOP)
}

/// Writes what stands at a path of `root` as a tar, called `name` in it. `follow`: a link at the end is followed.
///
/// # Errors
/// `NotThere`, or whatever keeps it from being read.
pub fn send(
    root: &OwnedFd,
    typed: &[u8],
    follow: bool,
    name: &str,
    out: impl Write,
) -> Result<Written, CopyFault> {
    let wanted = Typed::new(typed);
    let found = resolve(root, &wanted.path, follow || wanted.is_directory).map_err(lost)?;
    let (parent, last, Some(stat)) = found else { return Err(CopyFault::NotThere) };
    let is_directory = tree::file_type(&stat) == FileType::Directory;
    if wanted.is_directory && !is_directory {
        return Err(CopyFault::NoDirectory);
    }
    let (top, from) = match is_directory {
        true => (open_directory(root, &path::join(&parent, &last)).map_err(lost)?, String::new()),
        false => (open_directory(root, &parent).map_err(lost)?, path::encode(&last)),
    };
    let mut tar = LayerTar::new(out, None, None);
    let item = Item { from: Some(from), to: name.to_owned(), walk: true, ..Item::default() };
    items::add_all(&mut tar, Some(&top), &[item], Owners::Disk)?;
    Ok(tar.finish()?)
}

/// What arrives.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The source's own name.
    pub name: Vec<u8>,
    /// It was written `SRC/.`.
    pub is_contents: bool,
    /// Who owns it here.
    pub owner: NewOwner,
    /// How links in the tree are met.
    pub links: Links,
}

/// Puts what [`send`] wrote (plain or packed) to a path of `root`.
///
/// # Errors
/// Docker's rules, or whatever keeps it from being made.
pub fn receive(
    root: Arc<OwnedFd>,
    typed: &[u8],
    arrival: &Arrival,
    source: impl Read,
) -> Result<Unpacked, CopyFault> {
    let mut source = Peeked::new(source);
    let Some(kind) = source.first_kind().map_err(CopyFault::Stream)? else {
        return Err(CopyFault::Stream(std::io::ErrorKind::UnexpectedEof.into()));
    };
    let (directory, name) = destination(&root, typed, arrival, kind == Kind::Directory)?;
    Ok(unpack(source, &target(root, directory, name, arrival)?)?)
}

/// Unpacks any tar (plain or packed) into a directory that is there.
///
/// # Errors
/// `NotThere`, `NoDirectory`, or whatever is in the way.
pub fn receive_archive(
    root: Arc<OwnedFd>,
    typed: &[u8],
    arrival: &Arrival,
    source: impl Read,
) -> Result<Unpacked, CopyFault> {
    let (parent, last, stat) = resolve(&root, &Typed::new(typed).path, true).map_err(lost)?;
    match stat.map(|stat| tree::file_type(&stat)) {
        None => return Err(CopyFault::NotThere),
        Some(FileType::Directory) => {}
        Some(_) => return Err(CopyFault::NoDirectory),
    }
    let plain = PlainReader::new(std::io::BufReader::with_capacity(256 * 1024, source));
    let source = Peeked::new(plain.map_err(CopyFault::Stream)?);
    let directory = if last.is_empty() { parent } else { path::join(&parent, &last) };
    Ok(unpack(source, &target(root, directory, None, arrival)?)?)
}

/// On the machine nothing is followed any more once the directory is open.
fn target(
    root: Arc<OwnedFd>,
    directory: Vec<u8>,
    name: Option<Vec<u8>>,
    arrival: &Arrival,
) -> Result<Target, CopyFault> {
    let (owner, links) = (arrival.owner, arrival.links);
    if links == Links::Inside {
        let directory = path::normalize(&directory).unwrap_or(directory);
        return Ok(Target { root, directory, name, links, owner });
    }
    let top = open_directory(&root, &directory).map_err(lost)?;
    Ok(Target { root: Arc::new(top), directory: Vec::new(), name, links, owner })
}

/// The directory that takes it, and its name there; `None`: it is poured into the directory.
fn destination(
    root: &OwnedFd,
    typed: &[u8],
    arrival: &Arrival,
    is_directory: bool,
) -> Result<(Vec<u8>, Option<Vec<u8>>), CopyFault> {
    let wanted = Typed::new(typed);
    let (parent, last, stat) = resolve(root, &wanted.path, true).map_err(|errno| match lost(errno) {
        CopyFault::NotThere if wanted.is_directory => CopyFault::NoDirectory,
        other => other,
    })?;
    match stat.map(|stat| tree::file_type(&stat)) {
        Some(FileType::Directory) => {
            let here = if last.is_empty() { parent } else { path::join(&parent, &last) };
            let is_poured = is_directory && (arrival.is_contents || arrival.name.is_empty());
            Ok((here, (!is_poured).then(|| arrival.name.clone())))
        }
        Some(_) if is_directory => Err(CopyFault::OntoFile),
        Some(_) if wanted.is_directory => Err(CopyFault::NoDirectory),
        None if wanted.is_directory && !is_directory => Err(CopyFault::NoDirectory),
        _ => Ok((parent, Some(last))),
    }
}

/// The root of this process.
///
/// # Errors
/// What open(2) says.
pub fn own_root() -> Result<Arc<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open("/", flags, Mode::empty()).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn root(path: &Path) -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open(path).unwrap().into())
    }

    fn copy(place: &Path, from: &str, to: &str, links: Links) -> Result<Unpacked, CopyFault> {
        let mut tar = Vec::new();
        send(&root(place), from.as_bytes(), false, ".", &mut tar)?;
        let is_contents = from.ends_with("/.");
        let name = from.trim_end_matches("/.").trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let arrival = Arrival { name: name.into(), is_contents, owner: NewOwner::Maker, links };
        receive(root(place), to.as_bytes(), &arrival, &tar[..])
    }

    fn grow(place: &Path) {
        for directory in ["src/dir/sub", "dst/there"] {
            std::fs::create_dir_all(place.join(directory)).unwrap();
        }
        for file in ["src/file", "src/dir/a", "src/dir/sub/b", "dst/file"] {
            std::fs::write(place.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink("file", place.join("src/link")).unwrap();
        std::os::unix::fs::symlink("/src/dir", place.join("src/dirlink")).unwrap();
        std::os::unix::fs::symlink("there", place.join("dst/link")).unwrap();
    }

    #[test]
    fn dockers_table_of_destinations_holds() {
        // Source, destination, and a path that is there afterwards; "!" and the beginning of the complaint.
        let table = [
            ("src/file", "dst/new", "dst/new"),
            ("src/file", "dst/new/", "!no such directory"),
            ("src/file", "dst/no/new", "!no such file"),
            ("src/file", "dst/file", "dst/file"),
            ("src/file", "dst/file/", "!no such directory"),
            ("src/file", "dst/there", "dst/there/file"),
            ("src/file", "dst/there/", "dst/there/file"),
            ("src/file", "dst/link", "dst/there/file"),
            ("src/dir", "dst/new", "dst/new/sub/b"),
            ("src/dir/", "dst/new/", "dst/new/sub/b"),
            ("src/dir/.", "dst/new", "dst/new/sub/b"),
            ("src/dir", "dst/file", "!cannot copy directory"),
            ("src/dir", "dst/there", "dst/there/dir/sub/b"),
            ("src/dir/.", "dst/there", "dst/there/sub/b"),
            ("src/dir/.", "/", "sub/b"),
            ("src/dir", "dst/link/", "dst/there/dir/a"),
            ("src/link", "dst/there", "dst/there/link"),
            ("src/dirlink/", "dst/new", "dst/new/a"),
            ("src/no", "dst/new", "!no such file"),
            ("src/file/", "dst/new", "!no such directory"),
        ];
        for links in [Links::Inside, Links::Refused] {
            for (from, to, expected) in table {
                let place = tempfile::tempdir().unwrap();
                grow(place.path());
                let result = copy(place.path(), from, to, links);
                match expected.strip_prefix('!') {
                    Some(words) => {
                        let error = result.unwrap_err().to_string();
                        assert!(error.starts_with(words), "{from} {to}: {error}");
                    }
                    None => {
                        result.unwrap_or_else(|error| panic!("{from} {to}: {error}"));
                        assert!(place.path().join(expected).symlink_metadata().is_ok(), "{from} {to}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_copied_link_is_a_link_unless_it_is_followed() {
        let place = tempfile::tempdir().unwrap();
        grow(place.path());
        copy(place.path(), "src/link", "dst/there", Links::Refused).unwrap();
        assert!(place.path().join("dst/there/link").is_symlink());
        let mut tar = Vec::new();
        send(&root(place.path()), b"src/link", true, ".", &mut tar).unwrap();
        let arrival = Arrival {
            name: b"x".to_vec(),
            is_contents: false,
            owner: NewOwner::Maker,
            links: Links::Refused,
        };
        receive(root(place.path()), b"dst/there", &arrival, &tar[..]).unwrap();
        assert_eq!(std::fs::read(place.path().join("dst/there/x")).unwrap(), b"src/file");
    }

    #[test]
    fn on_the_machine_no_link_is_followed_and_in_a_container_none_leads_out() {
        let place = tempfile::tempdir().unwrap();
        grow(place.path());
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("src/dir/trap")).unwrap();
        std::fs::write(place.path().join("src/dir/trap/x"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), place.path().join("dst/there/trap")).unwrap();
        let error = copy(place.path(), "src/dir/.", "dst/there", Links::Refused).unwrap_err();
        assert!(error.to_string().contains("trap"), "{error}");
        // Inside a root the same link leads to a place in it, which is not there.
        assert!(copy(place.path(), "src/dir/.", "dst/there", Links::Inside).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_and_directories_do_not_replace_each_other() {
        let place = tempfile::tempdir().unwrap();
        grow(place.path());
        std::fs::create_dir(place.path().join("dst/there/a")).unwrap();
        assert!(copy(place.path(), "src/dir/.", "dst/there", Links::Refused).is_err());
        std::fs::remove_dir(place.path().join("dst/there/a")).unwrap();
        std::fs::write(place.path().join("dst/there/sub"), "").unwrap();
        assert!(copy(place.path(), "src/dir/.", "dst/there", Links::Refused).is_err());
    }
}
