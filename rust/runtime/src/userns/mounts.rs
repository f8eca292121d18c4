//! `mounts` of the bundle, masked and read-only paths: prepared while the host's tree is
//! still there, attached when `/` is the container's.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use duckweed_sys::mount::{set_attributes, Change, RDONLY};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, CWD};
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree, FsMountFlags,
    FsOpenFlags, MountAttrFlags, OpenTreeFlags,
};

use super::dev::Devices;
use super::idmap::Maps;
use super::options::Options;
use super::overlay;
use super::resolve::{mount_point, open, Kind};
use super::root::{attach, copy};
use crate::spec::Mount;
use crate::start_error::{Code, Doing as _, StartError};

/// A mount on its way.
pub(super) enum Prepared {
    /// A detached mount; what its mount point becomes when missing.
    Tree(OwnedFd, Kind),
    /// A file system that is made in its place, because it needs mapped ids.
    InPlace(Options),
    /// The small /dev.
    Dev(Devices),
    /// A small file of its own, with the mount's text, made on the container's /dev.
    Text(Options),
    /// Nothing here; a place without it does as well.
    Nothing,
}

/// What the choice of a mount depends on.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub bundle_dir: &'a Path,
    pub own_pid: bool,
    pub own_network: bool,
    pub maps: Option<&'a Maps>,
}

/// Takes from the host what `mount` needs of it.
pub(super) fn prepare(mount: &Mount, place: Place<'_>) -> Result<Prepared, StartError> {
    let options = Options::parse(&mount.options);
    let made = match mount.kind.as_str() {
        _ if options.bind.is_some() || mount.kind == "bind" => return bind(mount, &options, place),
        "duckweed-file" => return Ok(Prepared::Text(options)),
        "duckweed-overlay" => return layers(mount, &options),
        "duckweed-dev" => return Devices::open(true).map(Prepared::Dev),
        "tmpfs" if mount.destination == Path::new("/dev") => return Devices::open(false).map(Prepared::Dev),
        "proc" => match filesystem("proc", &options, None) {
            Err(Errno::PERM) if !place.own_pid => host_tree("/proc", &options),
            other => other,
        },
        "sysfs" if place.own_network => match filesystem("sysfs", &options, None) {
            Err(Errno::PERM) => host_tree("/sys", &options),
            other => other,
        },
        "sysfs" => host_tree("/sys", &options),
        "cgroup" | "cgroup2" => match filesystem("cgroup2", &options, None) {
            Ok(tree) => Ok(tree),
            Err(_) => return Ok(Prepared::Nothing),
        },
        _ => return Ok(Prepared::InPlace(options)),
    };
    made.map(|tree| Prepared::Tree(tree, Kind::Dir)).doing(Code::Mount, || story(mount))
}

fn story(mount: &Mount) -> String {
    let what = if mount.kind == "bind" || mount.kind.is_empty() || mount.kind == "none" {
        mount.source.display().to_string()
    } else {
        mount.kind.clone()
    };
    format!("mount {what} on {}", mount.destination.display())
}

fn bind(mount: &Mount, options: &Options, place: Place<'_>) -> Result<Prepared, StartError> {
    let source = place.bundle_dir.join(&mount.source);
    let tree = clone_tree(&source, options.bind == Some(true)).doing(Code::Mount, || story(mount))?;
    let stat = rustix::fs::fstat(&tree).doing(Code::Mount, || story(mount))?;
    let kind = if FileType::from_raw_mode(stat.st_mode).is_dir() { Kind::Dir } else { Kind::File };
    change(tree.as_fd(), options).doing(Code::Mount, || story(mount))?;
    Ok(Prepared::Tree(tree, kind))
}

/// Directories of layers seen merged: what a build shows of another stage.
fn layers(mount: &Mount, options: &Options) -> Result<Prepared, StartError> {
    let context = || format!("mount layers on {}", mount.destination.display());
    let tree = match (mount.lower.as_slice(), &mount.upper) {
        // Overlay wants two layers, or one and a place for changes.
        ([only], None) => clone_tree(only, false),
        (lower, upper) => overlay::mount(lower, upper.as_deref(), mount.work.as_deref(), false),
    };
    let tree = tree.doing(Code::Mount, context)?;
    change(tree.as_fd(), options).doing(Code::Mount, context)?;
    Ok(Prepared::Tree(tree, Kind::Dir))
}

/// The host's mounts at `path`. A part of a tree with locked mounts below can only be
/// taken whole (EINVAL), so a plain bind becomes a recursive one there.
fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let whole = flags | OpenTreeFlags::AT_RECURSIVE;
    match open_tree(CWD, path, if recursive { whole } else { flags }) {
        Err(Errno::INVAL) if !recursive => open_tree(CWD, path, whole),
        other => other,
    }
}

/// The host's /proc or /sys as it is, without a way to write there.
fn host_tree(path: &str, options: &Options) -> Result<OwnedFd, Errno> {
    let tree = clone_tree(Path::new(path), true)?;
    let set = if path == "/sys" { options.set | RDONLY } else { options.set };
    change(tree.as_fd(), &Options { set, ..options.clone() })
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(tree)
}

/// Applies the attributes to a bind and all below it: read-only means all of it.
fn change(tree: BorrowedFd<'_>, options: &Options) -> std::io::Result<()> {
    // What is already off costs nothing; what is locked on must not be asked for.
    let clear = if options.set & duckweed_sys::mount::ATIME != 0 { duckweed_sys::mount::ATIME } else { 0 };
    if options.set == 0 {
        return Ok(());
    }
    set_attributes(tree, true, Change { set: options.set, clear, propagation: 0 })
}

/// A new file system as a detached mount.
fn filesystem(kind: &str, options: &Options, maps: Option<&Maps>) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", kind)?;
    for (key, value) in &options.parameters {
        match value {
            Some(value)
                if key == "gid"
                    && !value.parse().is_ok_and(|id| maps.is_none_or(|maps| maps.has_gid(id))) => {}
            Some(value)
                if key == "uid"
                    && !value.parse().is_ok_and(|id| maps.is_none_or(|maps| maps.has_uid(id))) => {}
            Some(value) => fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(context.as_fd(), key.as_str())?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(options.set as u32);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes a file system by words, for the parts of /dev.
pub(super) fn make(kind: &str, words: &[&str], maps: Option<&Maps>) -> Result<OwnedFd, Errno> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    filesystem(kind, &Options::parse(&words), maps)
}

/// Puts what was prepared where it belongs.
pub(super) fn place(
    mount: &Mount,
    prepared: Prepared,
    root: BorrowedFd<'_>,
    place: Place<'_>,
    others: &[Mount],
) -> Result<(), StartError> {
    let (tree, kind) = match prepared {
        Prepared::Nothing => return Ok(()),
        Prepared::Dev(devices) => return devices.place(mount, root, place.maps, others),
        Prepared::Tree(tree, kind) => (tree, kind),
        Prepared::Text(options) => return place_text(mount, &options, root),
        Prepared::InPlace(options) => {
            let tree = filesystem(&mount.kind, &options, place.maps).doing(Code::Mount, || story(mount))?;
            (tree, Kind::Dir)
        }
    };
    let point = mount_point(root, &mount.destination, kind)
        .doing(Code::Mount, || format!("make the mount point {}", mount.destination.display()))?;
    attach(tree.as_fd(), point.as_fd(), Path::new("")).doing(Code::Mount, || story(mount))
}

/// Writes the mount's text to a file on /dev's tmpfs and mounts that; its name there is taken away again.
fn place_text(mount: &Mount, options: &Options, root: BorrowedFd<'_>) -> Result<(), StartError> {
    const NAME: &str = ".duckweed-file";
    let context = || story(mount);
    let dev = open(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY).doing(Code::Mount, context)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(&dev, NAME, flags, Mode::from_raw_mode(0o644)).doing(Code::Mount, context)?;
    let mut file = File::from(file);
    file.write_all(&contents(mount, options).doing(Code::Mount, context)?).doing(Code::Mount, context)?;
    let number = |key, base| options.value(key).and_then(|text| u32::from_str_radix(text, base).ok());
    let mut mode = number("mode", 8);
    if let (Some(uid), Some(gid)) = (number("uid", 10), number("gid", 10)) {
        match rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // One id stands for all: whoever it is given to reads it as somebody else.
            Err(Errno::INVAL) => mode = mode.map(|mode| mode | (((mode >> 6) & 0o7) * 0o11)),
            result => result
                .doing(Code::Mount, || format!("give {} to {uid}:{gid}", mount.destination.display()))?,
        }
    }
    if let Some(mode) = mode {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).doing(Code::Mount, context)?;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(&dev, NAME, flags).doing(Code::Mount, context)?;
    change(tree.as_fd(), options).doing(Code::Mount, context)?;
    let point = mount_point(root, &mount.destination, Kind::File)
        .doing(Code::Mount, || format!("make the mount point {}", mount.destination.display()))?;
    attach(tree.as_fd(), point.as_fd(), Path::new("")).doing(Code::Mount, context)?;
    // Only now: what has no name any more cannot be mounted (ENOENT).
    rustix::fs::unlinkat(&dev, NAME, AtFlags::empty()).doing(Code::Mount, context)
}

/// The text's bytes; with the option `hex` it is in hexadecimal digits, for what is no text.
fn contents(mount: &Mount, options: &Options) -> Result<Vec<u8>, Errno> {
    if !options.has("hex") {
        return Ok(mount.text.as_bytes().to_vec());
    }
    let digits: Option<Vec<u8>> =
        mount.text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or(Errno::INVAL)?;
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Hides `linux.maskedPaths`: an empty read-only directory, or /dev/null, over each.
///
/// One empty file system serves all directories, as copies of one mount: a new one costs
/// five times as much.
pub(super) fn mask(paths: &[impl AsRef<Path>], root: BorrowedFd<'_>) -> Result<(), StartError> {
    let (mut empty, mut null): (Option<OwnedFd>, Option<OwnedFd>) = (None, None);
    for path in paths.iter().map(AsRef::as_ref) {
        let Ok(point) = open(root, path, OFlags::PATH) else { continue };
        let context = || format!("mask {}", path.display());
        let stat = rustix::fs::fstat(&point).doing(Code::Mount, context)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        let cover = match (is_dir, &empty, &null) {
            (true, Some(first), _) | (false, _, Some(first)) => copy(first.as_fd()),
            (true, None, _) => make("tmpfs", &["ro", "nosuid", "nodev", "noexec", "nr_inodes=2"], None),
            (false, ..) => clone_tree(Path::new("/dev/null"), false),
        };
        let cover = cover.doing(Code::Mount, context)?;
        attach(cover.as_fd(), point.as_fd(), Path::new("")).doing(Code::Mount, context)?;
        *(if is_dir { &mut empty } else { &mut null }) = Some(cover);
    }
    Ok(())
}

/// Makes `linux.readonlyPaths` mounts of their own that cannot be written to.
pub(super) fn protect(paths: &[impl AsRef<Path>], root: BorrowedFd<'_>) -> Result<(), StartError> {
    for path in paths.iter().map(AsRef::as_ref) {
        let Ok(point) = open(root, path, OFlags::PATH) else { continue };
        let context = || format!("make {} read-only", path.display());
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(&point, "", flags).doing(Code::Mount, context)?;
        let change = Change { set: RDONLY, ..Change::default() };
        set_attributes(tree.as_fd(), true, change).doing(Code::Mount, context)?;
        attach(tree.as_fd(), point.as_fd(), Path::new("")).doing(Code::Mount, context)?;
    }
    Ok(())
}
