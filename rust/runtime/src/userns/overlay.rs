//! Overlay: the image's layers and the container's changes as one detached mount.
//!
//! Two ways to the same mount. fsconfig(2) takes one layer at a time, `lowerdir+`, and no
//! more has to be said. Kernels before 6.8 do not know that key (5.14 of RHEL 9, 5.15 of
//! Ubuntu 22.04, 6.1 of Debian 12): there mount(2) takes all layers in one string, which may
//! not be longer than a page. 128 layers fit because none is named by its path: each is
//! held open, and the number of its descriptor, seen from /proc/self/fd, is its name. A
//! number needs no escape for `:`, `,` and `\` either.
//!
//! `userxattr`: without privilege overlay's own marks are `user.overlay.*` (Linux 5.11).

use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree, unmount,
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags,
};

/// The longest string fsconfig(2) takes.
const LONGEST_VALUE: usize = 255;
const OWN_FDS: &str = "/proc/self/fd";

/// What is to be mounted.
#[derive(Clone, Copy)]
struct Layers<'a> {
    /// Topmost first.
    lower: &'a [PathBuf],
    /// `upperdir` and `workdir`.
    changes: Option<(&'a Path, &'a Path)>,
    is_volatile: bool,
}

/// An overlay as a detached mount.
pub(super) fn mount(
    lower: &[PathBuf],
    upper: Option<&Path>,
    work: Option<&Path>,
    is_kept: bool,
) -> Result<OwnedFd, Errno> {
    let layers = Layers { lower, changes: upper.zip(work), is_volatile: !is_kept };
    match mount_once(layers) {
        // A start before this one was volatile too, and overlay left a mark that says: do not trust this.
        // What it warns of is a crash of the machine, and whoever asks for volatile does not care.
        Err(Errno::INVAL) if !is_kept && work.is_some_and(forget_volatile) => mount_once(layers),
        other => other,
    }
}

fn forget_volatile(work: &Path) -> bool {
    super::tree::remove(&work.join("work/incompat")).is_ok()
}

/// The first way, and the second where the kernel turns out to be too old for it.
fn mount_once(layers: Layers<'_>) -> Result<OwnedFd, Errno> {
    match by_context(layers) {
        // EINVAL has many reasons; which kernel this is matters only now.
        Err(Errno::INVAL) if !appends_layers() => by_options(layers),
        other => other,
    }
}

/// Whether the kernel knows `lowerdir+`. Before 6.5 overlay had the kernel's makeshift
/// for file systems of the old kind, which takes any key at first and complains at the end.
fn appends_layers() -> bool {
    let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return true };
    let is_makeshift = fsconfig_set_string(context.as_fd(), "duckweed", "unheard of").is_ok();
    !is_makeshift && fsconfig_set_string(context.as_fd(), "lowerdir+", "/") != Err(Errno::INVAL)
}

/// By fsopen(2) and fsconfig(2).
fn by_context(layers: Layers<'_>) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    let mut kept = Vec::new();
    for path in layers.lower {
        set_path(context.as_fd(), "lowerdir+", path, &mut kept)?;
    }
    if let Some((upper, work)) = layers.changes {
        set_path(context.as_fd(), "upperdir", upper, &mut kept)?;
        set_path(context.as_fd(), "workdir", work, &mut kept)?;
        if layers.is_volatile {
            // Since Linux 5.10; without it all is as safe and slower.
            let _ = fsconfig_set_flag(context.as_fd(), "volatile");
        }
    }
    fsconfig_set_flag(context.as_fd(), "userxattr")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Sets a path; one too long for fsconfig(2), or with a character that overlay reads as
/// syntax, goes by a descriptor.
fn set_path(context: BorrowedFd<'_>, key: &str, path: &Path, kept: &mut Vec<OwnedFd>) -> Result<(), Errno> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= LONGEST_VALUE && !bytes.iter().any(|byte| b":,\\".contains(byte)) {
        return fsconfig_set_string(context, key, path);
    }
    let fd = hold(path)?;
    let name = format!("{OWN_FDS}/{}", fd.as_raw_fd());
    kept.push(fd);
    fsconfig_set_string(context, key, name)
}

/// By mount(2), over the topmost layer, from where it is taken away again as a detached mount.
///
/// The mounts of this process must be its own and private. One layer alone needs an upperdir.
fn by_options(layers: Layers<'_>) -> Result<OwnedFd, Errno> {
    let topmost = layers.lower.first().ok_or(Errno::INVAL)?;
    let before = hold(Path::new("."))?;
    let held: Vec<OwnedFd> = layers.lower.iter().map(|path| hold(path)).collect::<Result<_, _>>()?;
    let changes = layers.changes.map(|(upper, work)| Ok((hold(upper)?, hold(work)?))).transpose()?;
    let options = options(&held, changes.as_ref(), layers.is_volatile);
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::process::chdir(OWN_FDS)?;
    let target = held[0].as_raw_fd().to_string();
    let mounted = rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), &*options);
    rustix::process::fchdir(&before)?;
    mounted?;
    // By its path: the descriptor still means the directory below.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let detached = open_tree(CWD, topmost, flags);
    unmount(topmost.as_path(), UnmountFlags::DETACH)?;
    detached
}

fn options(lower: &[OwnedFd], changes: Option<&(OwnedFd, OwnedFd)>, is_volatile: bool) -> String {
    let mut text = String::from("userxattr,lowerdir=");
    for (index, fd) in lower.iter().enumerate() {
        let _ = write!(text, "{}{}", if index == 0 { "" } else { ":" }, fd.as_raw_fd());
    }
    if let Some((upper, work)) = changes {
        let _ = write!(text, ",upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd());
        text.push_str(if is_volatile { ",volatile" } else { "" });
    }
    text
}

fn hold(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::userns::idmap::{parse, Maps};
    use duckweed_sys::trial::{attempt, Ending};
    use duckweed_sys::unshare::{unshare, UnshareFlags};
    use std::fs;

    /// 128 layers, each with a file of its own and another version of `etc/top`.
    fn layers(place: &Path) -> Vec<PathBuf> {
        let layers: Vec<PathBuf> = (0..128).map(|number| place.join(format!("a:b,c\\d {number}"))).collect();
        for (number, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer.join("etc")).unwrap();
            fs::write(layer.join(format!("etc/{number}")), "").unwrap();
            fs::write(layer.join("etc/top"), number.to_string()).unwrap();
        }
        for name in ["upper", "work"] {
            fs::create_dir(place.join(name)).unwrap();
        }
        layers
    }

    /// As root of a user and mount namespace of its own; `None` when this host refuses them.
    fn inside(job: impl FnOnce() -> Result<String, Errno>) -> Option<String> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let map = |id: u32| parse(&format!("0:{id}:1")).unwrap();
        let maps = Maps::new(&map(uid), &map(gid)).unwrap();
        let ending = attempt(|| {
            if unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).is_err() || maps.write_own().is_err() {
                return b"refused".to_vec();
            }
            let private =
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            job().unwrap_or_else(|errno| format!("error {errno}")).into_bytes()
        });
        match ending.unwrap() {
            Ending::Answered(answer) => {
                let answer = String::from_utf8(answer).unwrap();
                assert!(!answer.starts_with("error"), "{answer}");
                (answer != "refused").then_some(answer)
            }
            Ending::Killed(signal) => panic!("killed by {signal}"),
        }
    }

    /// How many files, which version of `etc/top`, and what writing says.
    fn look(tree: &OwnedFd) -> Result<String, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries = rustix::fs::Dir::new(rustix::fs::openat(tree, "etc", flags, Mode::empty())?)?.count();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let top = fs::File::from(rustix::fs::openat(tree, "etc/top", flags, Mode::empty())?);
        let create = OFlags::CREATE | OFlags::WRONLY;
        let written = rustix::fs::openat(tree, "etc/new", create, Mode::RWXU);
        let top = std::io::read_to_string(top).unwrap();
        let answer =
            written.err().map_or("written", |errno| if errno == Errno::ROFS { "read-only" } else { "?" });
        Ok(format!("{entries} {top} {answer}"))
    }

    #[test]
    fn both_ways_mount_128_layers_with_changes_and_without() {
        let way: [fn(Layers<'_>) -> Result<OwnedFd, Errno>; 2] = [by_context, by_options];
        let names = ["by_context", "by_options"];
        for (way, name) in way.into_iter().zip(names) {
            let place = tempfile::tempdir().unwrap();
            let lower = layers(place.path());
            let (upper, work) = (place.path().join("upper"), place.path().join("work"));
            // An old kernel has only the second way.
            if name == "by_context" && inside(|| Ok(appends_layers().to_string())).as_deref() == Some("false")
            {
                continue;
            }
            for is_volatile in [false, true] {
                let layers = Layers { lower: &lower, changes: Some((&upper, &work)), is_volatile };
                let Some(seen) = inside(|| look(&way(layers)?)) else { return };
                // `.`, `..`, `top`, 128 files, and the new one the second time.
                assert_eq!(seen, format!("{} 0 written", 131 + usize::from(is_volatile)), "{name}");
            }
            assert!(upper.join("etc/new").exists() && !lower[0].join("etc/new").exists(), "{name}");
            let layers = Layers { lower: &lower, changes: None, is_volatile: true };
            assert_eq!(inside(|| look(&way(layers)?)).unwrap(), "131 0 read-only", "{name}");
        }
    }

    #[test]
    fn the_second_way_leaves_the_directory_and_the_mounts_as_they_were() {
        let place = tempfile::tempdir().unwrap();
        let lower = layers(place.path());
        let answer = inside(|| {
            let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
            rustix::process::chdir(place.path())?;
            let before = mounts();
            // Relative, as a bundle's may be.
            let relative: Vec<PathBuf> = lower.iter().map(|path| path.file_name().unwrap().into()).collect();
            let changes = Some((Path::new("upper"), Path::new("work")));
            let tree = by_options(Layers { lower: &relative, changes, is_volatile: false })?;
            assert_eq!(before, mounts());
            assert!(Path::new("upper").exists());
            look(&tree)
        });
        assert_eq!(answer.unwrap_or("131 0 written".into()), "131 0 written");
    }

    #[test]
    fn the_options_of_500_layers_fit_a_page() {
        let null = hold(Path::new("/")).unwrap();
        let high = |number| rustix::io::fcntl_dupfd_cloexec(&null, number).unwrap();
        let lower: Vec<OwnedFd> = (0..500).map(|_| high(100)).collect();
        let changes = (high(100), high(100));
        assert!(options(&lower, Some(&changes), true).len() < 4096);
    }
}
