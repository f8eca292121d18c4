//! Chosen entries under names of their own: what `COPY` puts into a layer and
//! `cp` into a stream.
//!
//! An item is a file or a whole tree of the source under another path, with
//! owner, mode or time overridden; or something that is in no tree: a directory,
//! a link, a small file with its bytes in the document.

use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Stat};
use serde::Deserialize;

use crate::error::WriteError;
use crate::facts::{self, Owners};
use crate::layer_tar::{LayerTar, Place};
use crate::tar::{Kind, Member, Time};
use crate::{base64, beneath, path, tree};

/// One item. What is not said is as in the tree; for what is in no tree, 0:0, now is never: 1970.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Item {
    /// Path beneath the tree; empty is the tree itself. Absent: the item is in no tree.
    pub from: Option<String>,
    /// Path in the archive; empty is its root, which is not told itself, and `.` is the root told as `.`.
    pub to: String,
    /// A directory of the tree with all that is in it.
    pub walk: bool,
    /// Of a walked tree: paths beneath `from` that are left out, with all beneath them.
    pub without: Vec<String>,
    /// Owner, of all that is walked.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Permission bits of files and directories.
    pub mode: Option<u32>,
    /// Time of last change: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// In no tree: contents of a file, in base64.
    pub bytes: Option<String>,
    /// In no tree: target of a symbolic link.
    pub link: Option<String>,
}

/// Adds them in their order.
///
/// # Errors
/// `Request` for one that makes no sense, `Entry` for one that is not there.
pub fn add_all<W: Write>(
    tar: &mut LayerTar<W>,
    root: Option<&OwnedFd>,
    items: &[Item],
    owners: Owners,
) -> Result<(), WriteError> {
    for item in items {
        let to = normal(&item.to)?;
        match (&item.from, root) {
            (None, _) => add_made(tar, item, to)?,
            (Some(from), Some(root)) => {
                let without = item.without.iter().map(|it| normal(it)).collect::<Result<_, _>>()?;
                let from = normal(from)?;
                Walk { tar, root, item, owners, without, start: from.len() }.add(&from, &to)?;
            }
            (Some(_), None) => return Err(WriteError::Request("an item of a tree, and no `tree`".into())),
        }
    }
    Ok(())
}

fn normal(text: &str) -> Result<Vec<u8>, WriteError> {
    let bytes = path::decode(text).ok_or_else(|| WriteError::Request(format!("bad path `{text}`")))?;
    path::normalize(&bytes).map_err(|reason| WriteError::Request(format!("`{text}`: {reason}")))
}

struct Walk<'a, W: Write> {
    tar: &'a mut LayerTar<W>,
    root: &'a OwnedFd,
    item: &'a Item,
    owners: Owners,
    without: Vec<Vec<u8>>,
    /// Length of the path that the walk started at.
    start: usize,
}

impl<W: Write> Walk<'_, W> {
    fn add(&mut self, from: &[u8], to: &[u8]) -> Result<(), WriteError> {
        let fail = |errno| WriteError::Entry { path: path::display(from), operation: "open", errno };
        let (parent, name) = path::split(from);
        let name = if name.is_empty() { b".".as_slice() } else { name };
        let directory = beneath::open_directory(self.root, parent).map_err(fail)?;
        let stat = tree::stat_at(&directory, name).map_err(fail)?.ok_or(rustix::io::Errno::NOENT);
        let stat = stat.map_err(fail)?;
        if !to.is_empty() || self.item.to == "." {
            let (item, owners) = (self.item, self.owners);
            let place = Place { tree: 0, root: self.root, path: from };
            let told = if to.is_empty() { b"." } else { to };
            self.tar.add(&place, |_, stat| describe(item, told, stat, owners))?;
        }
        if !self.item.walk || tree::file_type(&stat) != FileType::Directory {
            return Ok(());
        }
        let fail =
            |errno| WriteError::Entry { path: path::display(from), operation: "read the directory", errno };
        let names = beneath::open_directory(self.root, from).and_then(beneath::sorted_names);
        for (name, _) in names.map_err(fail)? {
            let inner = path::join(from, &name);
            let relative = inner[self.start..].strip_prefix(b"/").unwrap_or(&inner[self.start..]);
            if inner.len() <= path::PATH_LIMIT && !self.without.iter().any(|path| path == relative) {
                self.add(&inner, &path::join(to, &name))?;
            }
        }
        Ok(())
    }
}

fn describe(item: &Item, to: &[u8], stat: &Stat, owners: Owners) -> Member {
    let mut member = facts::of_disk(to, stat, owners);
    member.uid = item.uid.unwrap_or(member.uid);
    member.gid = item.gid.unwrap_or(member.gid);
    if let Some(mode) = item.mode.filter(|_| member.kind != Kind::Symlink) {
        member.mode = mode & 0o7777;
    }
    if let Some((seconds, nanoseconds)) = item.mtime {
        member.mtime = Time { seconds, nanoseconds };
    }
    member
}

fn add_made<W: Write>(tar: &mut LayerTar<W>, item: &Item, to: Vec<u8>) -> Result<(), WriteError> {
    if to.is_empty() {
        return Err(WriteError::Request("an item without a name".into()));
    }
    let (seconds, nanoseconds) = item.mtime.unwrap_or_default();
    let body = match &item.bytes {
        Some(text) => base64::decode(text.as_bytes())
            .ok_or_else(|| WriteError::Request(format!("`{}`: bad base64", path::display(&to))))?,
        None => Vec::new(),
    };
    let (kind, mode) = match (&item.bytes, &item.link) {
        (Some(_), _) => (Kind::File, 0o644),
        (None, Some(_)) => (Kind::Symlink, 0o777),
        (None, None) => (Kind::Directory, 0o755),
    };
    let link = match &item.link {
        Some(text) => {
            path::decode(text).ok_or_else(|| WriteError::Request(format!("bad link target `{text}`")))?
        }
        None => Vec::new(),
    };
    let member = Member {
        path: to,
        link,
        kind,
        size: 0,
        stored: 0,
        offset: 0,
        mode: item.mode.unwrap_or(mode) & 0o7777,
        uid: item.uid.unwrap_or(0),
        gid: item.gid.unwrap_or(0),
        mtime: Time { seconds, nanoseconds },
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    };
    tar.add_ready(member, &body)
}
