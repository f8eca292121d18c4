//! A directory to try things in, on the store's file system, gone afterwards.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The directory; removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one in the store's `tmp/` under the name that lets anybody remove it should
    /// we be killed (contracts, "The store"); or, while there is no store yet, in the
    /// nearest directory above it that exists.
    pub fn beside(store: &Path) -> io::Result<Self> {
        let pid = rustix::process::getpid();
        let boot = duckweed_sys::identity::boot_id().unwrap_or_default();
        let boot = boot.get(..8).unwrap_or("00000000");
        let start = duckweed_sys::identity::process_start(pid).unwrap_or(0);
        let owner = format!("{boot}.{}.{start}-probe-{:08x}", pid.as_raw_nonzero(), start ^ 0x5bd1_e995);
        let tmp = store.join("tmp");
        let path = if tmp.is_dir() {
            tmp.join(owner)
        } else {
            let above = store.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
            above.join(format!(".duckweed-{owner}"))
        };
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

/// overlayfs leaves `work/work` without permissions: each directory is opened up first.
fn remove(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(directory)
}
