//! A container's directory that is used for one container after another.
//!
//! Between two containers it lies in the store's `tmp/` under this supervisor's name, where it is
//! nobody's and, when we are killed, anybody's to remove. A rename makes it the
//! directory of a container, container.json and all, and another takes it back: to make
//! and remove six files for each container would cost the file system below as much as making its namespaces
//! costs the kernel.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::state::State;

/// See the module.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
}

impl Slot {
    /// Makes one in the `tmp/` of `store`, with empty `upper` and `work`.
    ///
    /// # Errors
    /// What mkdir(2) says; nothing is left then.
    pub fn make(owner: &State, store: &Path) -> io::Result<Self> {
        let slot = Self { path: owner.temporary(store, "slot")? };
        let make = |path: &Path, mode| std::fs::DirBuilder::new().mode(mode).create(path);
        make(&slot.path, 0o700)?;
        let inside = ["upper", "work"].iter().try_for_each(|name| make(&slot.path.join(name), 0o755));
        match inside {
            Ok(()) => Ok(slot),
            Err(error) => {
                slot.remove();
                Err(error)
            }
        }
    }

    /// Where it is between two containers.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it the directory of a container with this container.json.
    ///
    /// # Errors
    /// What writing and rename(2) say; it is where it was then.
    pub fn put(&self, container: &Path, record: &[u8]) -> io::Result<()> {
        std::fs::write(self.path.join("container.json"), record)?;
        std::fs::rename(&self.path, container)
    }

    /// Takes it back; false when somebody has removed it.
    pub fn take_back(&self, container: &Path) -> bool {
        std::fs::rename(container, &self.path).is_ok()
    }

    /// Removes it from `tmp/`. What cannot be removed lies there for whoever cleans up next.
    pub fn remove(self) {
        let _ = crate::userns::remove(&self.path);
    }
}
