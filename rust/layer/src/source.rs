//! What to make an archive of, as one JSON document: Python writes it, and
//! either the extension or the runtime inside a user namespace does the work.
//!
//! ```json
//! {"kind":"upper","tree":"/abs/upper","lower":["/abs/top/fs","/abs/bottom/fs"],"owners":"root"}
//! {"kind":"copy","tree":"/abs/rootfs","lower":[...],"owners":"disk"}
//! {"kind":"merged","trees":["/abs/upper","/abs/top/fs",...],"owners":"root"}
//! {"kind":"whole","tree":"/abs/rootfs","lower":[...],"owners":"root"}
//! {"kind":"items","tree":"/abs/context","items":[{"from":"src","to":"app/src","uid":0,"gid":0}]}
//! ```
//!
//! `owners` is `disk` where stat(2) tells the container's ids, `root` where one
//! id stands for all. `epoch` (seconds) is the latest time that a member may
//! have (SOURCE_DATE_EPOCH). `memory` is a container's directory with the log of
//! root emulation (`duckweed_trap::owners`); the extension cannot read it. Paths beneath trees are spelt as in `index.json`:
//! bytes that are no UTF-8 as `%XX`, and `%` itself as `%25`.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use rustix::fs::{self, FileType, Mode};
use serde::Deserialize;

use crate::changes::{self, Changes, Lower};
use crate::closed::Closed;
use crate::error::WriteError;
use crate::facts::{self, Facts, Owners};
use crate::items::{self, Item};
use crate::layer_tar::{ChangesTar, LayerTar, Place, Written};
use crate::merged::{Merged, Stack};
use crate::{path, tree};

/// A description of an archive; see the module.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// From where.
    #[serde(flatten)]
    pub source: Source,
    /// Who owns what has no record.
    #[serde(default = "root")]
    pub owners: Owners,
    /// No time later than this.
    #[serde(default)]
    pub epoch: Option<i64>,
    /// The directory of a container whose root was emulated: its memory of owners is there. Whoever writes
    /// the archive opens it and hands it over as [`Facts`].
    #[serde(default)]
    pub memory: Option<PathBuf>,
}

fn root() -> Owners {
    Owners::Root
}

/// The kinds of archives.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// A layer: what an overlay's upperdir changes in `lower` (`fs/` trees, topmost first).
    Upper {
        /// The upperdir.
        tree: PathBuf,
        /// The layers.
        lower: Vec<PathBuf>,
    },
    /// A layer: what a whole tree has that `lower` has not.
    Copy {
        /// The tree.
        tree: PathBuf,
        /// The layers it was filled from.
        lower: Vec<PathBuf>,
    },
    /// All of a merged view, its root itself left out.
    Merged {
        /// Topmost first.
        trees: Vec<PathBuf>,
    },
    /// All of one tree, its root itself left out.
    Whole {
        /// The tree.
        tree: PathBuf,
        /// The layers it was filled from, which remember owners.
        lower: Vec<PathBuf>,
    },
    /// Chosen entries of one tree under names of their own.
    Items {
        /// The tree; not needed when no item comes from it.
        #[serde(default)]
        tree: Option<PathBuf>,
        /// In the order of the archive, which the caller chooses.
        items: Vec<Item>,
    },
}

impl Request {
    /// Reads the document.
    ///
    /// # Errors
    /// `Request`.
    pub fn parse(text: &str) -> Result<Request, WriteError> {
        serde_json::from_str(text).map_err(|error| WriteError::Request(error.to_string()))
    }

    /// Writes the tar into `out`, which is given small pieces. An archive that failed has no end mark.
    ///
    /// # Errors
    /// The first that is in the way.
    pub fn write(
        &self,
        out: impl Write,
        facts: &dyn Facts,
        cancel: Option<Arc<AtomicBool>>,
    ) -> Result<Written, WriteError> {
        let mut tar = LayerTar::new(out, self.epoch, cancel).with_closed(self.open_up()?);
        match &self.source {
            Source::Upper { tree, lower } | Source::Copy { tree, lower } => {
                let root = open(tree)?;
                let mut taker = ChangesTar { tar, root: &root, facts, owners: self.owners };
                self.walk(&root, lower, facts, &mut taker)?;
                taker.tar.finish()
            }
            Source::Merged { trees } => {
                let stack = stack(trees)?;
                let shown = stack.root();
                View { tar: &mut tar, stack: &stack, facts, owners: self.owners }.add(&shown, None, b"")?;
                tar.finish()
            }
            Source::Whole { tree, lower } => {
                let trees: Vec<PathBuf> = std::iter::once(tree).chain(lower).cloned().collect();
                let stack = stack(&trees)?;
                let (shown, below) = stack.root().split_first();
                View { tar: &mut tar, stack: &stack, facts, owners: self.owners }.add(
                    &shown,
                    Some(&below),
                    b"",
                )?;
                tar.finish()
            }
            Source::Items { tree, items } => {
                let root = tree.as_deref().map(open).transpose()?;
                items::add_all(&mut tar, root.as_ref(), items, self.owners)?;
                tar.finish()
            }
        }
    }

    /// The changes alone: `A`, `C` or `D` and the path, in order.
    ///
    /// # Errors
    /// As [`Request::write`]; `Request` for a source that is not of changes.
    pub fn changes(&self, facts: &dyn Facts) -> Result<Vec<(char, Vec<u8>)>, WriteError> {
        let (Source::Upper { tree, lower } | Source::Copy { tree, lower }) = &self.source else {
            return Err(WriteError::Request("only `upper` and `copy` have changes".into()));
        };
        let _open = self.open_up()?;
        let mut list = List(Vec::new());
        self.walk(&open(tree)?, lower, facts, &mut list)?;
        list.0.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(list.0)
    }

    /// Where one id stands for all, nobody but an owner can be kept out.
    fn open_up(&self) -> Result<Closed, WriteError> {
        match &self.source {
            Source::Upper { tree, .. } | Source::Copy { tree, .. } | Source::Whole { tree, .. }
                if self.owners == Owners::Root =>
            {
                Closed::open_up(&open(tree)?).map_err(|(at, errno)| WriteError::Entry {
                    path: path::display(&at),
                    operation: "read the directory",
                    errno,
                })
            }
            _ => Ok(Closed::default()),
        }
    }

    fn walk(
        &self,
        root: &OwnedFd,
        lower: &[PathBuf],
        facts: &dyn Facts,
        taker: &mut dyn Changes,
    ) -> Result<(), WriteError> {
        let below = stack(lower)?;
        match self.source {
            Source::Copy { .. } => changes::of_copy(root, &below, self.owners, facts, taker),
            _ => changes::of_upper(root, &below, taker),
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, WriteError> {
    let opened = fs::open(path, tree::DIRECTORY, Mode::empty());
    opened.map_err(|errno| WriteError::Tree { path: path.to_owned(), source: errno.into() })
}

fn stack(paths: &[PathBuf]) -> Result<Stack, WriteError> {
    Stack::open(paths).map_err(|(path, source)| WriteError::Tree { path, source })
}

/// A merged view on its way into an archive.
struct View<'a, W: Write> {
    tar: &'a mut LayerTar<W>,
    stack: &'a Stack,
    facts: &'a dyn Facts,
    owners: Owners,
}

impl<W: Write> View<'_, W> {
    /// Adds what is in a directory. `below` are the layers that remember more of a container's own tree; `None`:
    /// those that show through it.
    fn add(&mut self, shown: &Merged, below: Option<&Merged>, at: &[u8]) -> Result<(), WriteError> {
        let fail = |path: &[u8]| {
            let path = path::display(path);
            move |errno| WriteError::Entry { path, operation: "read the directory", errno }
        };
        for (name, (number, kind)) in self.stack.list(shown, at).map_err(fail(at))? {
            let path = path::join(at, &name);
            if path.len() > path::PATH_LIMIT {
                let reason = "its name is too long for an archive";
                return Err(WriteError::Member { path: path::display(&path), reason });
            }
            self.add_entry(&path, number, below.unwrap_or(shown))?;
            if kind == FileType::Directory {
                let inner = self.stack.descend(shown, &path).map_err(fail(&path))?;
                let below = below.map(|below| self.stack.descend(below, &path)).transpose();
                self.add(&inner, below.map_err(fail(&path))?.as_ref(), &path)?;
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, path: &[u8], number: usize, below: &Merged) -> Result<(), WriteError> {
        let (stack, facts, owners) = (self.stack, self.facts, self.owners);
        let place = Place { tree: number, root: stack.tree_root(number), path };
        if stack.is_layer(number) {
            let record = stack.record(number, path);
            return self.tar.add(&place, |_, stat| facts::of_layer(path, stat, record));
        }
        let seen = stack.look_up(&stack.layers_of(below), path).map_err(|errno| WriteError::Entry {
            path: path::display(path),
            operation: "look up in the lower layers",
            errno,
        })?;
        let lower =
            seen.as_ref().map(|seen| Lower { stat: &seen.stat, record: stack.record(seen.tree, path) });
        self.tar.add(&place, |entry, stat| facts::of_change(path, entry, stat, lower, facts, owners))
    }
}

struct List(Vec<(char, Vec<u8>)>);

impl Changes for List {
    fn changed(&mut self, path: &[u8], lower: Option<Lower<'_>>) -> Result<(), WriteError> {
        self.0.push((if lower.is_some() { 'C' } else { 'A' }, path.to_vec()));
        Ok(())
    }

    fn deleted(&mut self, path: &[u8]) -> Result<(), WriteError> {
        self.0.push(('D', path.to_vec()));
        Ok(())
    }
}
