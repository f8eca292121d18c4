//! `duckweed-runtime within`: one job on files, done as root of a fresh user namespace.
//!
//! `remove PATH...` removes trees of foreign ids; `own LAYERDIR` gives the files of an
//! extracted layer the owners its index.json names; `copy-up SRC... DST` fills a volume
//! from the topmost layer's directory and those below it; `size PATH` prints the bytes below a path;
//! `archive REQUEST` writes the tar that the JSON describes to stdout, and `changes REQUEST` the
//! changes alone, each as `A`, `C` or `D`, the path and a NUL (`-` for REQUEST: it comes on stdin).

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use duckweed_layer::index::{Index, Record, Type};
use duckweed_layer::{Facts, NoFacts, Request, Source};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};

use crate::memory::Memory;
use crate::start_error::{Code, StartError};
use crate::userns::idmap::{parse, Maps};
use crate::userns::{copy, inside, remove};

/// Runs a verb; answers with the exit code. Maps are `CONTAINER:HOST:SIZE[,...]`.
///
/// # Errors
/// `spec` for arguments that make no sense, `namespace` and `idmap` when there is no such namespace.
pub fn run(uid_map: &str, gid_map: &str, verb: &[OsString]) -> Result<i32, StartError> {
    let map =
        |text: &str| parse(text).map_err(|message| StartError::new(Code::Spec, "read the id map", message));
    let maps = Maps::new(&map(uid_map)?, &map(gid_map)?)?;
    let job: Box<dyn Fn() -> io::Result<()>> =
        match (verb.first().and_then(|verb| verb.to_str()), &verb[1.min(verb.len())..]) {
            (Some("remove"), paths) if !paths.is_empty() => {
                let paths = paths.to_vec();
                Box::new(move || {
                    // All that can go goes; the first refusal is told.
                    let refused: Vec<_> =
                        paths.iter().filter_map(|path| remove(Path::new(path)).err()).collect();
                    refused.into_iter().next().map_or(Ok(()), Err)
                })
            }
            (Some("own"), [layer]) => {
                let layer = layer.clone();
                Box::new(move || own(Path::new(&layer)))
            }
            (Some("copy-up"), [sources @ .., target]) if !sources.is_empty() => {
                let sources = sources.iter().map(PathBuf::from).collect::<Vec<_>>();
                let target = PathBuf::from(target);
                Box::new(move || copy::copy_up(&sources, &target))
            }
            (Some("size"), [path]) => {
                let path = path.clone();
                Box::new(move || {
                    let bytes = copy::size(Path::new(&path))?;
                    writeln!(io::stdout(), "{bytes}")
                })
            }
            (Some("archive"), [request]) => {
                let request = request.clone();
                Box::new(move || archive(&read_request(&request)?))
            }
            (Some("changes"), [request]) => {
                let request = request.clone();
                Box::new(move || changes(&read_request(&request)?))
            }
            _ => {
                let message =
                    "within: expected remove PATH..., own LAYERDIR, copy-up SRC... DST, size PATH, \
                               archive REQUEST or changes REQUEST";
                return Err(StartError::new(Code::Spec, "read the arguments", message));
            }
        };
    // What an archive is made of is told by its own errors, and its request is no thing to read.
    let is_told = matches!(verb.first().and_then(|verb| verb.to_str()), Some("archive" | "changes"));
    let words = verb.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    inside(&maps, || match job() {
        Ok(()) => 0,
        Err(error) if is_told => {
            let _ = writeln!(io::stderr(), "duckweed: {error}");
            1
        }
        Err(error) => {
            let error = StartError::io(Code::Internal, words.clone(), &error);
            let _ = writeln!(io::stderr(), "duckweed: {error}");
            1
        }
    })
}

fn read_request(word: &OsStr) -> io::Result<Request> {
    let text = match word.to_str() {
        Some("-") => io::read_to_string(io::stdin())?,
        Some(text) => text.to_owned(),
        None => return Err(io::ErrorKind::InvalidInput.into()),
    };
    Request::parse(&text).map_err(io::Error::other)
}

fn facts(request: &Request) -> io::Result<Box<dyn Facts>> {
    Ok(match &request.memory {
        Some(container) => {
            let is_upper = matches!(request.source, Source::Upper { .. } | Source::Merged { .. });
            Box::new(Memory::open(container, is_upper)?)
        }
        None => Box::new(NoFacts),
    })
}

fn archive(request: &Request) -> io::Result<()> {
    let out = io::BufWriter::with_capacity(
        256 * 1024,
        std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?),
    );
    request.write(out, &*facts(request)?, None).map(drop).map_err(io::Error::other)
}

fn changes(request: &Request) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (kind, path) in request.changes(&*facts(request)?).map_err(io::Error::other)? {
        write!(out, "{kind}")?;
        out.write_all(&path)?;
        out.write_all(&[0])?;
    }
    out.flush()
}

/// Applies the index of a layer to its tree: owners, then modes (chown clears setuid), then
/// file capabilities (chown clears them too), times last. The tree is hostile: each
/// path is opened beneath it and no link is followed.
///
/// # Errors
/// The first refusal, with the path in it.
pub fn own(layer: &Path) -> io::Result<()> {
    let index = Index::read(layer)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(layer.join("fs"), flags, Mode::empty())?;
    for (path, record) in index.entries.iter().filter(|(_, record)| record.kind != Type::Whiteout) {
        own_entry(top.as_fd(), path, record).map_err(|errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{}: {error}", duckweed_layer::path::display(path)))
        })?;
    }
    Ok(())
}

fn own_entry(
    top: std::os::fd::BorrowedFd<'_>,
    path: &[u8],
    record: &Record,
) -> Result<(), rustix::io::Errno> {
    let (directory, name) = duckweed_layer::path::split(path);
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = if directory.is_empty() { b".".as_slice() } else { directory };
    let parent = rustix::fs::openat2(top, directory, flags, Mode::empty(), beneath)?;
    let name = CString::new(if name.is_empty() { b".".as_slice() } else { name })
        .map_err(|_| rustix::io::Errno::INVAL)?;
    let (uid, gid) = (Uid::from_raw(record.uid), Gid::from_raw(record.gid));
    rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if record.kind == Type::Symlink {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, &name, flags, Mode::empty())?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(record.mode & 0o7777))?;
    for (name, value) in &record.xattrs {
        // What even root inside may not set stays in the index.
        let _ = rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty());
    }
    let time = rustix::fs::Timespec { tv_sec: record.mtime.0, tv_nsec: i64::from(record.mtime.1) };
    rustix::fs::futimens(&file, &rustix::fs::Timestamps { last_access: time, last_modification: time })
}
