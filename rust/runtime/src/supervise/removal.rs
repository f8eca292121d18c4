//! `--rm`: a container that leaves nothing.
//!
//! First the names, so that nobody finds it and the name is free; then every tree is
//! renamed into the store's `tmp/`, where it is nobody's; only then is anything deleted.
//! A crash between leaves rubbish in `tmp/` that says whose it was.

use std::path::{Path, PathBuf};

use super::state::State;
use crate::spec::AutoRemove;

/// Takes names and trees away; the answer is what is left to delete.
pub fn take_away(what: &AutoRemove, state: &State, store: &Path, id: &str) -> Vec<PathBuf> {
    for name in &what.names {
        // A name may be another container's by now: this one was renamed.
        if std::fs::read_link(name).is_ok_and(|target| target.file_name().is_some_and(|last| last == id)) {
            let _ = std::fs::remove_file(name);
        }
    }
    let mut trees = Vec::new();
    for path in &what.paths {
        match state.temporary(store, "rm").and_then(|to| std::fs::rename(path, &to).map(|()| to)) {
            Ok(moved) => trees.push(moved),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => trees.push(path.clone()), // another file system, perhaps: deleted where it is
        }
    }
    trees
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_anothers_by_now_stays() {
        let store = tempfile::tempdir().unwrap();
        let at = |name: &str| store.path().join(name);
        std::fs::create_dir_all(at("containers/mine/rootfs")).unwrap();
        std::fs::create_dir(at("names")).unwrap();
        std::os::unix::fs::symlink("../containers/mine", at("names/web")).unwrap();
        std::os::unix::fs::symlink("../containers/other", at("names/db")).unwrap();
        let what = AutoRemove {
            paths: vec![at("containers/mine"), at("volumes/never-made")],
            names: vec![at("names/web"), at("names/db"), at("names/none")],
        };
        let state = State::starting(true).unwrap();
        let left = take_away(&what, &state, store.path(), "mine");
        assert_eq!(left.len(), 1);
        assert!(left[0].starts_with(at("tmp")) && left[0].join("rootfs").is_dir());
        assert!(!at("containers/mine").exists());
        assert!(at("names/web").symlink_metadata().is_err());
        assert!(at("names/db").symlink_metadata().is_ok());
    }
}
