//! A stack of trees seen merged, as overlayfs shows it, without a mount.
//!
//! What a whole directory is made of is a list of trees; a name in it belongs
//! to the topmost tree that has it, unless a whiteout comes before. Nothing is
//! held open but the roots, so a stack may be as high and a tree as deep as
//! they like.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, Stat};
use rustix::io::Errno;

use crate::index::{Index, Record, Type};
use crate::{beneath, path, tree};

/// Trees, topmost first.
pub struct Stack {
    trees: Vec<Tree>,
}

struct Tree {
    root: OwnedFd,
    is_layer: bool,
    index: Index,
    /// Whiteouts that only the index has: names by directory.
    whiteouts: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

/// A directory of the merged view: the trees that make it up, topmost first. None: there is no such directory.
#[derive(Debug, Clone, Default)]
pub struct Merged(Vec<usize>);

impl Merged {
    /// Whether any tree has it.
    pub fn exists(&self) -> bool {
        !self.0.is_empty()
    }

    /// The topmost tree alone, and the others.
    pub fn split_first(mut self) -> (Merged, Merged) {
        let rest = self.0.split_off(self.0.len().min(1));
        (self, Merged(rest))
    }
}

/// Whose a name is.
pub struct Seen {
    /// Number of the tree in the stack.
    pub tree: usize,
    /// What it is on disk.
    pub stat: Stat,
}

impl Stack {
    /// Opens trees, topmost first. The index of a layer's `fs/` stands beside it; other trees have none.
    ///
    /// # Errors
    /// The first that cannot be opened, or whose index cannot be read, with its path.
    pub fn open(paths: &[PathBuf]) -> Result<Stack, (PathBuf, io::Error)> {
        let open = |path: &PathBuf| Tree::open(path).map_err(|error| (path.clone(), error));
        Ok(Stack { trees: paths.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// The root of the merged view.
    pub fn root(&self) -> Merged {
        let mut trees = Vec::new();
        for (number, tree) in self.trees.iter().enumerate() {
            trees.push(number);
            if tree.is_opaque(b"", &tree.root) {
                break;
            }
        }
        Merged(trees)
    }

    /// The root of one tree.
    pub fn tree_root(&self, tree: usize) -> &OwnedFd {
        &self.trees[tree].root
    }

    /// Whether a tree is a layer's, not a container's.
    pub fn is_layer(&self, tree: usize) -> bool {
        self.trees[tree].is_layer
    }

    /// The layers' trees of those that make up a directory.
    pub fn layers_of(&self, directory: &Merged) -> Merged {
        Merged(directory.0.iter().copied().filter(|&tree| self.is_layer(tree)).collect())
    }

    /// What the index of a tree says of a path.
    pub fn record(&self, tree: usize, path: &[u8]) -> Option<&Record> {
        self.trees[tree].index.entries.get(path)
    }

    /// What `path`, whose directory is `directory`, is.
    ///
    /// # Errors
    /// What stat(2) says, but for names that are not there.
    pub fn look_up(&self, directory: &Merged, path: &[u8]) -> Result<Option<Seen>, Errno> {
        for &number in &directory.0 {
            let tree = &self.trees[number];
            match tree::stat_at(&tree.root, path)? {
                Some(stat) if tree::is_whiteout(&stat) => return Ok(None),
                Some(stat) => return Ok(Some(Seen { tree: number, stat })),
                None if tree.has_whiteout(path) => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// The directory `path` in `directory`: nothing when it is not one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn descend(&self, directory: &Merged, path: &[u8]) -> Result<Merged, Errno> {
        let mut trees = Vec::new();
        for &number in &directory.0 {
            let tree = &self.trees[number];
            match tree::stat_at(&tree.root, path)? {
                None if tree.has_whiteout(path) => break,
                None => {}
                Some(stat) if tree::file_type(&stat) != FileType::Directory => break,
                Some(_) => {
                    let fd = match beneath::open_directory(&tree.root, path) {
                        // A directory of the machine that is closed to us: nobody sees anything in it.
                        Err(Errno::ACCESS) if !tree.is_layer => continue,
                        other => other?,
                    };
                    trees.push(number);
                    if tree.is_opaque(path, &fd) {
                        break;
                    }
                }
            }
        }
        Ok(Merged(trees))
    }

    /// The names in a directory with the tree and the type of each, sorted by bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn list(&self, directory: &Merged, at: &[u8]) -> Result<BTreeMap<Vec<u8>, (usize, FileType)>, Errno> {
        let mut names: BTreeMap<Vec<u8>, Option<(usize, FileType)>> = BTreeMap::new();
        for &number in &directory.0 {
            let tree = &self.trees[number];
            let fd = beneath::open_directory(&tree.root, at)?;
            for (name, kind) in beneath::sorted_names(&fd)? {
                if names.contains_key(&name) {
                    continue;
                }
                let is_gone = kind == FileType::CharacterDevice
                    && tree::stat_at(&fd, &name)?.is_none_or(|stat| tree::is_whiteout(&stat));
                names.insert(name, (!is_gone).then_some((number, kind)));
            }
            for name in tree.whiteouts.get(at).into_iter().flatten() {
                names.entry(name.clone()).or_insert(None);
            }
        }
        Ok(names.into_iter().filter_map(|(name, found)| Some((name, found?))).collect())
    }
}

impl Tree {
    fn open(path: &Path) -> io::Result<Tree> {
        let root = fs::open(path, tree::DIRECTORY, Mode::empty())?;
        let index = match path.parent() {
            Some(layer) if path.ends_with("fs") => Index::read(layer)?,
            _ => Index::default(),
        };
        let mut whiteouts: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (path, _) in index.entries.iter().filter(|(_, record)| record.kind == Type::Whiteout) {
            let (parent, name) = path::split(path);
            whiteouts.entry(parent.to_vec()).or_default().insert(name.to_vec());
        }
        Ok(Tree { root, is_layer: path.ends_with("fs"), index, whiteouts })
    }

    fn has_whiteout(&self, path: &[u8]) -> bool {
        let (parent, name) = path::split(path);
        self.whiteouts.get(parent).is_some_and(|names| names.contains(name))
    }

    fn is_opaque(&self, path: &[u8], fd: &OwnedFd) -> bool {
        tree::is_opaque(fd) || self.index.entries.get(path).is_some_and(|record| record.opaque)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers; the upper one deletes `gone`, hides what was in `new`, and has a file where a directory was.
    fn stack(place: &Path) -> Stack {
        let (high, low) = (place.join("high/fs"), place.join("low/fs"));
        for (tree, files) in [
            (&low, &["a/low", "gone", "new/old", "kind/x", "a.txt"][..]),
            (&high, &["a/high", "new/new", "kind"]),
        ] {
            for file in files {
                std::fs::create_dir_all(tree.join(file).parent().unwrap()).unwrap();
                std::fs::write(tree.join(file), "").unwrap();
            }
        }
        let record = |kind, opaque| Record { kind, opaque, ..Record::default() };
        let entries = BTreeMap::from([
            (b"gone".to_vec(), record(Type::Whiteout, false)),
            (b"new".to_vec(), record(Type::Dir, true)),
        ]);
        Index { entries }.write(&place.join("high")).unwrap();
        Stack::open(&[high, low]).unwrap()
    }

    fn names(stack: &Stack, directory: &Merged, at: &[u8]) -> Vec<String> {
        let names = stack.list(directory, at).unwrap();
        names.iter().map(|(name, (tree, _))| format!("{}{tree}", String::from_utf8_lossy(name))).collect()
    }

    #[test]
    fn directories_merge_and_whiteouts_and_files_hide() {
        let place = tempfile::tempdir().unwrap();
        let stack = stack(place.path());
        let root = stack.root();
        assert_eq!(names(&stack, &root, b""), ["a0", "a.txt1", "kind0", "new0"]);
        let below = |name: &[u8]| stack.descend(&root, name).unwrap();
        assert_eq!(names(&stack, &below(b"a"), b"a"), ["high0", "low1"]);
        assert_eq!(names(&stack, &below(b"new"), b"new"), ["new0"]);
        assert!(!below(b"kind").exists() && !below(b"gone").exists() && !below(b"absent").exists());
        assert!(stack.look_up(&root, b"gone").unwrap().is_none());
        assert_eq!(stack.look_up(&root, b"a.txt").unwrap().unwrap().tree, 1);
        assert!(stack.look_up(&below(b"new"), b"new/old").unwrap().is_none());
    }
}
