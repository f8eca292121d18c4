//! What one ephemeral container hands on to the next: an overlay and a network that nobody has touched.
//!
//! Most short containers write no file and open no socket, and yet an overlay (two directories, a
//! dozen operations of the file system below) and a network namespace (more than all other
//! namespaces together, and as much again to take down) are made and thrown away for each. A
//! supervisor that runs one container after another (`supervise::standby`) keeps the two and gives
//! them to the next, under conditions that leave nothing to be found of the one before:
//!
//! - *Who may use them at all* ([`Kit::fits`]): a container of the same layers with the usual mounts,
//!   no bind mount, the default seccomp profile, no more than Docker's default capabilities, no sysctl.
//!   Such a container cannot configure its network (`/proc/sys` is read-only and CAP_NET_ADMIN is
//!   missing) and has no socket through which a descriptor could outlive it.
//! - *When* : init is dead and reaped, so every process of its pid namespace is.
//! - *The overlay* stays when the upper directory is empty and its inode is as it was before the
//!   container began: times, mode, owner, extended attributes ([`untouched`]). Creating, removing or
//!   changing anything in the container's tree changes the one or the other.
//! - *The network* stays when it has no socket and no packet ever crossed its one interface
//!   ([`is_unused`]): without a packet there is no connection that lingers, no neighbour, no counter.
//!
//! Everything else is the container's own and new: mount, pid, ipc, uts and cgroup namespaces, /proc,
//! /dev with its terminals, shared memory and queues, /sys. And one supervisor has one container at a time: no two
//! that run at once ever share more than the user namespace.
//!
//! The kit also says what the next container will probably look like, so its whole tree is put
//! together before anybody asks (`userns::ahead`). One that looks different does not get it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RawDir};

use super::credentials::{CapabilityMasks, DOCKERS_DEFAULT};
use crate::bundle::Bundle;
use crate::spec::{Mount, RootEmulation, Rootfs, SeccompProfile};

/// A layer's tree as it was when the overlay was made of it.
type Layer = (PathBuf, u64, u64);

/// See the module.
#[derive(Debug)]
pub struct Kit {
    /// A container as the next one is expected to be.
    pub(super) recipe: Bundle,
    /// Holds `upper` and `work`.
    directory: PathBuf,
    layers: Vec<Layer>,
    /// Mounted nowhere: copies of it are.
    pub(super) overlay: Option<OwnedFd>,
    untouched: Vec<u8>,
    pub(super) network: Option<OwnedFd>,
}

impl Kit {
    /// A kit for containers like `recipe`, with `upper` and `work` in `directory`, which are new; `None` when they do not
    /// qualify.
    #[must_use]
    pub fn new(recipe: Bundle, directory: &Path, network: Option<OwnedFd>) -> Option<Kit> {
        let Some(Rootfs::Overlay { lower, upper: Some(_), work: Some(_) }) = &recipe.block.rootfs else {
            return None;
        };
        if !is_usual(&recipe) {
            return None;
        }
        // Looked at before anything is mounted: a layer replaced since then does not fit later.
        let layers = lower.iter().map(|path| layer(path)).collect::<io::Result<_>>().ok()?;
        let directory = directory.to_owned();
        Some(Kit { recipe, directory, layers, overlay: None, untouched: Vec::new(), network })
    }

    pub(super) fn lower(&self) -> Vec<PathBuf> {
        self.layers.iter().map(|(path, ..)| path.clone()).collect()
    }

    pub(super) fn changes(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("upper"), self.directory.join("work"))
    }

    pub(super) fn facts(&self) -> io::Result<Vec<u8>> {
        untouched(&self.directory)
    }

    /// Keeps what the process that was forked with this kit has made for it.
    pub(super) fn keep(&mut self, overlay: Option<(OwnedFd, Vec<u8>)>, network: Option<OwnedFd>) {
        if let Some((overlay, untouched)) = overlay {
            self.overlay = Some(overlay);
            self.untouched = untouched;
        }
        if network.is_some() {
            self.network = network;
        }
    }

    /// Whether the container that had it, dead by now, left the overlay as it was.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.overlay.is_some() && self.facts().is_ok_and(|facts| facts == self.untouched)
    }

    /// The same expectation and network with other directories, which are new.
    #[must_use]
    pub fn renewed(self, directory: &Path) -> Option<Kit> {
        Kit::new(self.recipe, directory, self.network)
    }

    /// Whether the layers are the ones that the overlay was made of; to be asked when the store has a reference to
    /// them that keeps them.
    #[must_use]
    pub fn has_its_layers(&self) -> bool {
        self.layers.iter().all(|known| layer(&known.0).is_ok_and(|now| now == *known))
    }

    /// Whether `bundle` may have it.
    pub(super) fn fits(&self, bundle: &Bundle) -> bool {
        let Some(Rootfs::Overlay { lower, upper: Some(_), work: Some(_) }) = &bundle.block.rootfs else {
            return false;
        };
        let (linux, ours) = (&bundle.spec.linux, &self.recipe.spec.linux);
        is_usual(bundle)
            && lower.len() == self.layers.len()
            && lower.iter().zip(&self.layers).all(|(path, (known, ..))| path == known)
            && without_texts(bundle).eq(without_texts(&self.recipe))
            && linux.masked_paths == ours.masked_paths
            && linux.readonly_paths == ours.readonly_paths
            && linux.uid_mappings == ours.uid_mappings
            && linux.gid_mappings == ours.gid_mappings
    }
}

fn layer(path: &Path) -> io::Result<Layer> {
    let facts = std::fs::symlink_metadata(path)?;
    Ok((path.to_owned(), facts.dev(), facts.ino()))
}

pub(super) fn without_texts(bundle: &Bundle) -> impl Iterator<Item = &Mount> {
    bundle.spec.mounts.iter().filter(|mount| mount.kind != "duckweed-file")
}

/// A container that can neither configure its network nor reach anything that outlives it.
fn is_usual(bundle: &Bundle) -> bool {
    let (spec, block) = (&bundle.spec, &bundle.block);
    let masks = CapabilityMasks::new(spec.process.capabilities.as_ref());
    let closed = |path: &str| spec.linux.readonly_paths.iter().any(|closed| closed == Path::new(path));
    block.seccomp == Some(SeccompProfile::Default)
        && block.root_emulation == RootEmulation::Off
        && spec.linux.seccomp.is_none()
        && spec.linux.sysctl.is_empty()
        && spec.process.oom_score_adj.is_none()
        && (masks.bounding | masks.permitted | masks.ambient) & !DOCKERS_DEFAULT == 0
        && closed("/proc/sys")
        && without_texts(bundle)
            .map(|mount| (mount.kind.as_str(), mount.options.iter().any(|word| word == "ro")))
            .eq([("proc", false), ("duckweed-dev", false), ("sysfs", true)])
}

/// What the upper directory and overlay's own scratch directory look like, to compare: everything that an inode and
/// its names can say, so that times of a coarse clock are not alone in saying it.
fn untouched(directory: &Path) -> io::Result<Vec<u8>> {
    let mut facts = Vec::with_capacity(256);
    for name in ["upper", "work/work"] {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::open(directory.join(name), flags, Mode::empty())?;
        let mut room = [std::mem::MaybeUninit::uninit(); 1024];
        let mut entries = RawDir::new(&open, &mut room);
        while let Some(entry) = entries.next() {
            facts.extend(entry?.file_name().to_bytes_with_nul());
        }
        let stat = rustix::fs::fstat(&open)?;
        for number in [
            stat.st_ino,
            u64::from(stat.st_mode),
            u64::from(stat.st_uid),
            u64::from(stat.st_gid),
            stat.st_mtime.cast_unsigned(),
            stat.st_mtime_nsec,
            stat.st_ctime.cast_unsigned(),
            stat.st_ctime_nsec,
        ] {
            facts.extend(number.to_ne_bytes());
        }
        let mut names = [0; 256];
        let length = rustix::fs::flistxattr(&open, &mut names)?;
        facts.extend(&names[..length]);
    }
    Ok(facts)
}

/// Whether the network namespace we are in is as good as new: no socket in it, and its loopback interface,
/// the only one, has carried nothing.
pub(super) fn is_unused() -> bool {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).ok();
    let no_socket = read("sockstat").is_some_and(|text| text.lines().next() == Some("sockets: used 0"));
    let Some(interfaces) = read("dev") else { return false };
    let mut interfaces = interfaces.lines().skip(2);
    let is_silent = interfaces.next().is_some_and(|line| {
        line.trim_start()
            .strip_prefix("lo:")
            .is_some_and(|counters| counters.split_ascii_whitespace().all(|count| count == "0"))
    });
    no_socket && is_silent && interfaces.next().is_none()
}
