//! What the kernel holds a container to, whatever becomes of the translation.
//!
//! Landlock: the layers and what is bound read-only can be read and executed, the container's own trees and what is bound
//! writable can be changed, the usual devices used, /proc and /sys read. Nothing else of the host's files is
//! reachable for the processes themselves, whether or not the tracer was led astray; nor can they trace or look into any
//! process outside (a Landlock domain is a boundary to ptrace, too). The tracer itself is not restricted: it
//! carries out what it has walked.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use duckweed_sys::landlock::{right, Ruleset};
use rustix::fs::{FileType, Mode, OFlags};

use super::layout::{work_of, DEVICES};
use crate::bundle::Bundle;
use crate::spec::Rootfs;
use crate::start_error::{Code, Doing as _, StartError};

const READ: u64 = right::READ_FILE | right::READ_DIR | right::EXECUTE;
const ALL: u64 = u64::MAX;
const DEVICE: u64 =
    right::READ_FILE | right::READ_DIR | right::WRITE_FILE | right::IOCTL_DEV | right::TRUNCATE;

/// Sets it for this process and all that come of it; a kernel without Landlock has none (`doctor` says so).
pub(super) fn set(bundle: &Bundle) -> Result<(), StartError> {
    let Some(rules) = Ruleset::new() else { return Ok(()) };
    for (path, rights) in places(bundle) {
        allow(&rules, &path, rights)?;
    }
    rules.restrict().doing(Code::Seccomp, || "restrict the container with Landlock")
}

fn places(bundle: &Bundle) -> Vec<(PathBuf, u64)> {
    let mut places = vec![(work_of(bundle), ALL)];
    let writable = |path: Option<&PathBuf>| path.map(|path| (path.clone(), ALL));
    match bundle.rootfs() {
        Rootfs::Overlay { lower, upper, .. } => {
            places.extend(lower.into_iter().map(|path| (path, READ)));
            places.extend(writable(upper.as_ref()));
        }
        Rootfs::Host { upper, .. } => places.extend([(PathBuf::from("/"), READ), (upper, ALL)]),
        Rootfs::Dir { path } | Rootfs::Copy { path, .. } => places.push((path, ALL)),
    }
    for mount in &bundle.spec.mounts {
        let is_read_only = mount.options.iter().any(|option| option == "ro");
        match mount.kind.as_str() {
            "bind" | "none" | "" => {
                places.push((mount.source.clone(), if is_read_only { READ } else { ALL }));
            }
            "duckweed-overlay" => {
                places.extend(mount.lower.iter().map(|path| (path.clone(), READ)));
                places.extend(writable(mount.upper.as_ref()));
            }
            _ => {}
        }
    }
    let devices = DEVICES.iter().chain(&["ptmx", "pts"]).map(|name| (Path::new("/dev").join(name), DEVICE));
    places.extend(devices);
    places.push(("/proc".into(), READ | right::WRITE_FILE));
    places.push(("/sys".into(), READ));
    places
}

fn allow(rules: &Ruleset, path: &Path, rights: u64) -> Result<(), StartError> {
    let context = || format!("allow {}", path.display());
    let place = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        // What is not there cannot be reached.
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other.doing(Code::Seccomp, context)?,
    };
    let stat = rustix::fs::fstat(&place).doing(Code::Seccomp, context)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let rights = if is_directory { rights } else { rights & right::OF_FILES };
    rules.allow(place.as_fd(), rights).doing(Code::Seccomp, context)
}
