//! One union mount: its trees, and what is known of the names in them.

use std::collections::{HashMap, HashSet};

use rustix::fs::{FileType, CWD};

use super::{is_whiteout, lstat, type_of};

/// overlay's mark of a directory that hides what is below.
pub const OPAQUE: &str = "user.overlay.opaque";
/// How many names are remembered before all are forgotten.
const MOST_NODES: usize = 400_000;

/// A tree of the host's.
#[derive(Debug, Default)]
pub struct Tree {
    /// Its top: absolute, without links, without a slash at its end.
    pub root: Vec<u8>,
    /// Paths in it (from its top, with a slash before) that are whiteouts by the layer's index alone.
    pub hidden: HashSet<Vec<u8>>,
    /// And directories that are opaque by it.
    pub opaque: HashSet<Vec<u8>>,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Missing,
    Directory,
    Link,
    Other,
}

/// A name that was looked up.
#[derive(Debug)]
pub(super) struct Node {
    pub kind: Kind,
    /// The upper tree has it, or a whiteout of it.
    pub is_upper: bool,
    /// The lower trees that it comes from; several for a directory.
    pub lower: Vec<u16>,
    children: HashMap<Box<[u8]>, u32>,
}

/// Lower trees, topmost first, and where changes go.
#[derive(Debug, Default)]
pub struct Stack {
    /// Topmost first.
    pub lower: Vec<Tree>,
    /// `None`: read-only.
    pub upper: Option<Tree>,
    /// The lower trees may change behind our back: nothing is remembered.
    pub is_volatile: bool,
    /// Programs change the upper tree by themselves: of it nothing is remembered.
    pub is_shared: bool,
    nodes: Vec<Node>,
}

impl Stack {
    /// A stack of these trees.
    pub fn new(lower: Vec<Tree>, upper: Option<Tree>, is_volatile: bool) -> Self {
        Self { lower, upper, is_volatile, is_shared: false, nodes: Vec::new() }
    }

    pub(super) fn forget_all(&mut self) {
        self.nodes.clear();
    }

    /// The root's node.
    pub(super) fn top(&mut self) -> u32 {
        if self.nodes.len() > MOST_NODES || self.is_volatile {
            self.nodes.clear();
        }
        if self.nodes.is_empty() {
            let mut lower: Vec<u16> = Vec::new();
            for index in 0..self.lower.len() {
                lower.push(index as u16);
                if self.is_opaque(&self.lower[index], b"") {
                    break;
                }
            }
            let hides = self.upper.as_ref().is_some_and(|upper| self.is_opaque(upper, b""));
            let lower = if hides { Vec::new() } else { lower };
            let is_upper = self.upper.is_some();
            self.nodes.push(Node { kind: Kind::Directory, is_upper, lower, children: HashMap::new() });
        }
        0
    }

    pub(super) fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize]
    }

    /// The node of a name in a directory; `path` is the whole path from the mount point.
    pub(super) fn child(&mut self, directory: u32, name: &[u8], path: &[u8]) -> u32 {
        if let Some(id) = self.nodes[directory as usize].children.get(name).copied() {
            if self.is_shared && self.nodes[directory as usize].is_upper {
                let now = self.look_up(directory, path);
                let known = &mut self.nodes[id as usize];
                if (known.kind, known.is_upper, &known.lower) != (now.kind, now.is_upper, &now.lower) {
                    *known = now;
                }
            }
            return id;
        }
        let node = self.look_up(directory, path);
        let id = self.nodes.len() as u32;
        self.nodes.push(node);
        self.nodes[directory as usize].children.insert(name.into(), id);
        id
    }

    /// The node of a path whose directories are all known to be there.
    pub(super) fn descend(&mut self, path: &[u8]) -> u32 {
        let mut id = self.top();
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            end += name.len() + 1;
            id = self.child(id, name, &path[..end.min(path.len())]);
        }
        id
    }

    /// Forgets a name and all beneath it.
    pub(super) fn forget(&mut self, path: &[u8]) {
        let mut id = match self.nodes.is_empty() {
            true => return,
            false => 0_usize,
        };
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let Some((last, above)) = names.split_last() else { return self.forget_all() };
        for name in above {
            match self.nodes[id].children.get(*name) {
                Some(next) => id = *next as usize,
                None => return,
            }
        }
        self.nodes[id].children.remove(*last);
    }

    /// A host path of what a node shows: the upper tree's, else the topmost lower one's.
    pub(super) fn host(&self, id: u32, path: &[u8]) -> Vec<u8> {
        let node = self.node(id);
        match (&self.upper, node.lower.first()) {
            (Some(upper), _) if node.is_upper && node.kind != Kind::Missing => {
                [&upper.root[..], path].concat()
            }
            (_, Some(index)) => [&self.lower[usize::from(*index)].root[..], path].concat(),
            (Some(upper), None) => [&upper.root[..], path].concat(),
            (None, None) => [b"/proc/0", path].concat(),
        }
    }

    pub(super) fn is_opaque(&self, tree: &Tree, path: &[u8]) -> bool {
        let host = [&tree.root[..], path].concat();
        let mut value = [0; 4];
        tree.opaque.contains(path)
            || matches!(rustix::fs::lgetxattr(&host[..], OPAQUE, &mut value), Ok(count) if value[..count] == *b"y")
    }

    fn kind_in(&self, tree: &Tree, path: &[u8]) -> Option<Kind> {
        if tree.hidden.contains(path) {
            return Some(Kind::Missing);
        }
        let host = [&tree.root[..], path].concat();
        let stat = lstat(&host).ok()?;
        Some(match type_of(&stat) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Link,
            _ if is_whiteout(&stat) => Kind::Missing,
            _ => Kind::Other,
        })
    }

    fn look_up(&self, directory: u32, path: &[u8]) -> Node {
        let above = self.node(directory);
        let mut found =
            Node { kind: Kind::Missing, is_upper: false, lower: Vec::new(), children: HashMap::new() };
        if let Some(upper) = self.upper.as_ref().filter(|_| above.is_upper) {
            match self.kind_in(upper, path) {
                None => {}
                Some(Kind::Directory) => {
                    (found.kind, found.is_upper) = (Kind::Directory, true);
                    if self.is_opaque(upper, path) {
                        return found;
                    }
                }
                Some(kind) => {
                    (found.kind, found.is_upper) = (kind, true);
                    return found;
                }
            }
        }
        for index in &above.lower {
            let tree = &self.lower[usize::from(*index)];
            match self.kind_in(tree, path) {
                None => {}
                Some(Kind::Directory) => {
                    found.kind = Kind::Directory;
                    found.lower.push(*index);
                    if self.is_opaque(tree, path) {
                        break;
                    }
                }
                Some(kind) => {
                    if found.kind == Kind::Missing {
                        found.kind = kind;
                        found.lower.extend((kind != Kind::Missing).then_some(*index));
                    }
                    break;
                }
            }
        }
        found
    }

    /// Whether a name would be seen if the upper tree had nothing of it.
    pub(super) fn shows_below(&mut self, path: &[u8]) -> bool {
        let directory = self.descend(super::parent(path).strip_suffix(b"/").unwrap_or(super::parent(path)));
        for index in &self.node(directory).lower {
            match self.kind_in(&self.lower[usize::from(*index)], path) {
                None => {}
                Some(kind) => return kind != Kind::Missing,
            }
        }
        false
    }

    /// The link's target.
    pub(super) fn target(&self, id: u32, path: &[u8]) -> rustix::io::Result<Vec<u8>> {
        let text = rustix::fs::readlinkat(CWD, &self.host(id, path)[..], Vec::with_capacity(128))?;
        Ok(text.into_bytes())
    }
}
