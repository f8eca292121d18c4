//! From a bundle to what its container sees: the trees, and where each is mounted.
//!
//! What the kernel would mount is here a directory or a file of ours, in the container's work directory: /dev,
//! tmpfs mounts, small files. They are made anew at each start, as mounts would be.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use duckweed_layer::index::{Index, Type};
use duckweed_trap::union::{Mount as At, Source, Stack, Tree, Union};
use rustix::fs::Mode;

use crate::bundle::Bundle;
use crate::spec::{Mount, Rootfs};
use crate::start_error::{Code, Doing as _, StartError};

/// The devices that every container has.
pub(super) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The union of a bundle, and the mount points that must be there.
pub(super) struct Layout {
    pub union: Union,
    pub points: Vec<(usize, bool)>,
}

/// Where the backend keeps what it makes for a container.
pub(super) fn work_of(bundle: &Bundle) -> PathBuf {
    match bundle.rootfs() {
        Rootfs::Overlay { work: Some(work), .. } | Rootfs::Host { work, .. } => work.join("trap"),
        _ => bundle.dir().join("trap"),
    }
}

fn canonical(path: &Path) -> Result<Vec<u8>, StartError> {
    let path = std::fs::canonicalize(path).doing(Code::Rootfs, || format!("find {}", path.display()))?;
    Ok(path.as_os_str().as_bytes().to_vec())
}

fn tree(path: &Path) -> Result<Tree, StartError> {
    let root = canonical(path)?;
    let mut tree = Tree { root: if root == b"/" { Vec::new() } else { root }, ..Tree::default() };
    // Where mknod(2) was refused when the layer was made, its index alone knows what is gone.
    if let Some(index) = path
        .parent()
        .filter(|above| above.join("index.json").exists())
        .and_then(|above| Index::read(above).ok())
    {
        for (inside, record) in &index.entries {
            let inside: Vec<u8> = [b"/", &inside[..]].concat();
            if record.kind == Type::Whiteout {
                tree.hidden.insert(inside);
            } else if record.opaque {
                tree.opaque.insert(inside);
            }
        }
    }
    Ok(tree)
}

fn stack(lower: &[PathBuf], upper: Option<&PathBuf>, is_volatile: bool) -> Result<Stack, StartError> {
    let lower = lower.iter().map(|path| tree(path)).collect::<Result<Vec<_>, _>>()?;
    let upper = upper.map(|path| canonical(path).map(|root| Tree { root, ..Tree::default() })).transpose()?;
    Ok(Stack::new(lower, upper, is_volatile))
}

fn directory(path: &Path, mode: u32) -> Result<(), StartError> {
    std::fs::create_dir_all(path).doing(Code::Mount, || format!("make {}", path.display()))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
        .doing(Code::Mount, || format!("make {}", path.display()))
}

impl Layout {
    /// Makes it, on disk too.
    ///
    /// # Errors
    /// `rootfs`, `mount`: what is missing or cannot be made.
    pub fn new(bundle: &Bundle) -> Result<Self, StartError> {
        let work = work_of(bundle);
        if work.exists() {
            let _ = crate::userns::remove(&work);
        }
        directory(&work.join("copies"), 0o700)?;
        directory(&work.join("empty"), 0o555)?;
        let source = match bundle.rootfs() {
            Rootfs::Overlay { lower, upper, .. } => {
                Source::Union(Box::new(stack(&lower, upper.as_ref(), false)?))
            }
            Rootfs::Host { upper, .. } => {
                Source::Union(Box::new(stack(&[PathBuf::from("/")], Some(&upper), true)?))
            }
            Rootfs::Dir { path } => Source::Tree(canonical(&path)?),
            Rootfs::Copy { path, .. } => {
                let context = || format!("use {}", path.display());
                let message = "a whole copy is not used by the trap isolation: it has its own union";
                return Err(StartError::new(Code::Rootfs, context(), message));
            }
        };
        let root = At { at: Vec::new(), source, is_read_only: bundle.spec.root.readonly, kind: "overlay" };
        let mut this = Self { union: Union { mounts: vec![root], ..Union::default() }, points: Vec::new() };
        this.union.work = canonical(&work.join("copies"))?;
        this.union.empty = canonical(&work.join("empty"))?;
        for (number, mount) in bundle.spec.mounts.iter().enumerate() {
            this.add(mount, &work.join(format!("mount-{number}")))?;
        }
        let bytes =
            |paths: &[PathBuf]| paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
        this.union.masked = bytes(&bundle.spec.linux.masked_paths);
        this.union.protected = bytes(&bundle.spec.linux.readonly_paths);
        Ok(this)
    }

    fn put(&mut self, at: &Path, source: Source, is_read_only: bool, kind: &'static str) {
        let at = at.as_os_str().as_bytes();
        let at = at.strip_suffix(b"/").unwrap_or(at).to_vec();
        self.union.mounts.push(At { at, source, is_read_only, kind });
    }

    /// The mount that was put last needs a place of its own.
    fn point(&mut self, is_directory: bool) {
        self.points.push((self.union.mounts.len() - 1, is_directory));
    }

    fn add(&mut self, mount: &Mount, place: &Path) -> Result<(), StartError> {
        let at = &mount.destination;
        let is_read_only = mount.options.iter().any(|option| option == "ro");
        let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
        match mount.kind.as_str() {
            "proc" => {
                self.put(at, Source::Proc, false, "proc");
                self.point(true);
            }
            "sysfs" => {
                self.put(at, Source::Tree(b"/sys".to_vec()), true, "sysfs");
                self.point(true);
            }
            "tmpfs" => {
                let mode =
                    option("mode=").and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o1777);
                directory(place, mode)?;
                self.put(at, Source::Tree(canonical(place)?), is_read_only, "tmpfs");
                self.point(true);
            }
            "duckweed-dev" => self.devices(at, place)?,
            "duckweed-file" => {
                let text = match option("hex") {
                    Some(_) => unhex(&mount.text),
                    None => mount.text.clone().into_bytes(),
                };
                std::fs::write(place, text).doing(Code::Mount, || format!("make {}", at.display()))?;
                let mode =
                    option("mode=").and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o644);
                rustix::fs::chmod(place, Mode::from_raw_mode(mode)).doing(Code::Mount, || "make a file")?;
                self.put(at, Source::Tree(canonical(place)?), is_read_only, "tmpfs");
                self.point(false);
            }
            "duckweed-overlay" => {
                let stack = stack(&mount.lower, mount.upper.as_ref(), false)?;
                let is_read_only = is_read_only || mount.upper.is_none();
                self.put(at, Source::Union(Box::new(stack)), is_read_only, "overlay");
                self.point(true);
            }
            "bind" | "none" | "" => {
                let source = canonical(&mount.source).map_err(|error| StartError {
                    code: Code::Mount,
                    context: format!("bind {}", at.display()).into(),
                    ..error
                })?;
                let is_directory = Path::new(std::ffi::OsStr::from_bytes(&source)).is_dir();
                let source = if source == b"/" { Vec::new() } else { source };
                self.put(at, Source::Tree(source), is_read_only, "bind");
                self.point(is_directory);
            }
            // A message queue or a cgroup of its own needs a namespace.
            _ => {
                directory(place, 0o755)?;
                self.put(at, Source::Tree(canonical(place)?), is_read_only, "tmpfs");
                self.point(true);
            }
        }
        Ok(())
    }

    /// The small /dev: the machine's own devices at their names.
    fn devices(&mut self, at: &Path, place: &Path) -> Result<(), StartError> {
        let context = || format!("make {}", at.display());
        directory(place, 0o755)?;
        for (name, mode) in [("shm", 0o1777), ("mqueue", 0o1777), ("pts", 0o755)] {
            directory(&place.join(name), mode)?;
        }
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ];
        for (name, target) in links {
            std::os::unix::fs::symlink(target, place.join(name)).doing(Code::Mount, context)?;
        }
        for name in DEVICES.iter().chain(&["ptmx"]) {
            std::fs::write(place.join(name), b"").doing(Code::Mount, context)?;
        }
        self.put(at, Source::Tree(canonical(place)?), false, "tmpfs");
        self.point(true);
        for name in DEVICES.iter().chain(&["ptmx", "pts"]) {
            let host = Path::new("/dev").join(name);
            if host.exists() {
                self.put(
                    &at.join(name),
                    Source::Tree(host.as_os_str().as_bytes().to_vec()),
                    false,
                    "devtmpfs",
                );
            }
        }
        Ok(())
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
