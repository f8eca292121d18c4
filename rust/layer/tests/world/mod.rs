//! A place to extract into, with things around it that must not change.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use duckweed_layer::{extract_layer, ExtractError, ExtractOptions, LayerReport};

pub struct World {
    pub directory: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "do not touch").unwrap();
        fs::create_dir(outside.join("deep")).unwrap();
        World { directory }
    }

    pub fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    pub fn dest(&self) -> PathBuf {
        self.directory.path().join("dest")
    }

    /// Takes an earlier extraction away.
    pub fn clear(&self) {
        let top = fs::File::open(self.directory.path()).unwrap();
        duckweed_layer::tree::remove_tree(top.as_fd(), b"dest").unwrap();
    }

    pub fn fs(&self) -> PathBuf {
        self.dest().join("fs")
    }

    pub fn extract(&self, bytes: &[u8]) -> Result<LayerReport, ExtractError> {
        self.extract_with(bytes, &ExtractOptions::default())
    }

    pub fn extract_with(&self, bytes: &[u8], options: &ExtractOptions) -> Result<LayerReport, ExtractError> {
        extract_layer(bytes, &self.dest(), options)
    }
}

/// A temporary directory cannot remove what its owner may not write to.
impl Drop for World {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Everything that is beneath a directory: path to what it is.
pub fn snapshot(top: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(top, top, &mut found);
    found
}

fn collect(top: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            format!("dir {:o}", meta.mode() & 0o7777)
        } else if kind.is_symlink() {
            format!("symlink {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_fifo() {
            "fifo".into()
        } else if kind.is_char_device() {
            format!("char {}", meta.rdev())
        } else {
            let content = fs::read(&path)
                .map_or("unreadable".into(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
            format!("file {:o} x{} {}", meta.mode() & 0o7777, meta.nlink(), content)
        };
        found.insert(name, what);
        if kind.is_dir() {
            collect(top, &path, found);
        }
    }
}

/// Just the paths, directories with a slash.
pub fn paths(top: &Path) -> Vec<String> {
    let slash = |(path, what): (String, String)| if what.starts_with("dir") { path + "/" } else { path };
    snapshot(top).into_iter().map(slash).collect()
}
