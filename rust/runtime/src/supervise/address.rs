//! Where a supervisor listens: a socket only its user can reach.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The socket's path for a container: in `$XDG_RUNTIME_DIR/duckweed` when that is ours alone, else in the store's `run/`.
///
/// # Errors
/// When neither directory can be made.
pub fn socket_path(runtime_directory: Option<&Path>, store: &Path, id: &str) -> io::Result<PathBuf> {
    let name = format!("{id}.sock");
    if let Some(base) = runtime_directory.filter(|base| base.is_absolute() && is_ours(base)) {
        let directory = base.join("duckweed");
        if make_private(&directory).is_ok() {
            return Ok(directory.join(name));
        }
    }
    let directory = store.join("run");
    make_private(&directory)?;
    Ok(directory.join(name))
}

fn make_private(directory: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if is_ours(directory) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket directory is not ours alone (mode 0700)"))
}

/// A directory (not a link to one) of ours that nobody else may enter.
fn is_ours(directory: &Path) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(directory)
        .is_ok_and(|found| found.is_dir() && found.uid() == ours && found.mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_runtime_directory_open_to_others_is_not_used() {
        let (runtime, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let wanted = |base: &Path| base.join("c.sock");
        std::fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let path = socket_path(Some(runtime.path()), store.path(), "c").unwrap();
        assert_eq!(path, wanted(&runtime.path().join("duckweed")));
        std::fs::set_permissions(runtime.path().join("duckweed"), PermissionsExt::from_mode(0o755)).unwrap();
        let path = socket_path(Some(runtime.path()), store.path(), "c").unwrap();
        assert_eq!(path, wanted(&store.path().join("run")));
    }
}
