//! What a directory is made of, for programs that look into it without asking us.

use super::{is_beneath, Source, Spot, Union};

/// Something that what was told of directories depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The upper tree has a directory now that was a layer's alone.
    BroughtUp(Vec<u8>),
    /// A link has another name, or none; a directory, if it says so.
    Moved(Vec<u8>, bool),
    /// A directory has another mode, or other attributes.
    Marked(Vec<u8>),
    /// Nobody knows what.
    Everything,
}

/// A directory, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// Host paths of its parts, topmost first.
    pub trees: Vec<Vec<u8>>,
    /// The first of them is written to.
    pub is_upper: bool,
    /// Nothing may be written.
    pub is_read_only: bool,
    /// The kernel's listing of the first is the whole truth.
    pub is_listed: bool,
    /// It is one layer's, and all beneath but what is special.
    pub is_lower: bool,
    /// Layers have a part in what the upper tree has.
    pub is_merged: bool,
    /// The directory above lies in the same trees.
    pub is_inner: bool,
    /// Names in it that lead elsewhere: to mounts, or to what is hidden.
    pub specials: Vec<Vec<u8>>,
}

impl Union {
    /// Takes a directory apart; `None` where only we know what is in it.
    pub fn anatomy(&mut self, spot: &Spot) -> Option<Anatomy> {
        let path = if spot.path == b"/" { &b""[..] } else { &spot.path[..] };
        if !spot.is_directory() || spot.is_magic || is_beneath(path, b"/dev") {
            return None;
        }
        if self.masked.iter().any(|masked| is_beneath(path, masked)) {
            return None;
        }
        let mut found = Anatomy { is_read_only: self.is_read_only(&spot.path), ..Anatomy::default() };
        let mount = &mut self.mounts[spot.mount];
        let inside = path.get(mount.at.len()..)?;
        let mut hidden: Vec<Vec<u8>> = Vec::new();
        match &mut mount.source {
            Source::Proc => return None,
            Source::Tree(root) => {
                found.trees.push([&root[..], inside].concat());
                (found.is_upper, found.is_listed) = (!found.is_read_only, true);
            }
            Source::Union(stack) => {
                found.is_inner = !inside.is_empty();
                let id = stack.descend(inside);
                let node = stack.node(id);
                if let Some(upper) = stack.upper.as_ref().filter(|_| node.is_upper) {
                    found.trees.push([&upper.root[..], inside].concat());
                    found.is_upper = true;
                    found.is_merged = !node.lower.is_empty();
                }
                for index in &node.lower {
                    let tree = &stack.lower[usize::from(*index)];
                    let host = [&tree.root[..], inside].concat();
                    // What has nothing in it, and is not what is open, need not be asked.
                    if !found.trees.is_empty()
                        && super::listing::read(&host).is_ok_and(|items| items.is_empty())
                    {
                        continue;
                    }
                    found.trees.push(host);
                    hidden.extend(tree.hidden.iter().chain(&tree.opaque).cloned());
                }
                found.is_lower = !node.is_upper && found.trees.len() == 1 && !stack.is_volatile;
                // Where no layer has anything there are no whiteouts.
                let is_opaque =
                    stack.upper.as_ref().is_some_and(|upper| node.is_upper && stack.is_opaque(upper, inside));
                found.is_listed = found.trees.len() == 1 && !is_opaque;
            }
        }
        let at = mount.at.clone();
        let mounts = self.mounts.iter().map(|mount| &mount.at[..]);
        let others = self.masked.iter().chain(&self.protected).map(|path| &path[..]);
        let hidden: Vec<Vec<u8>> = hidden.iter().map(|path| [&at[..], path].concat()).collect();
        let elsewhere = mounts.chain(others).chain(hidden.iter().map(|path| &path[..]));
        found.specials = elsewhere.filter_map(|other| first_name(path, other)).map(<[u8]>::to_vec).collect();
        found.specials.sort();
        found.specials.dedup();
        Some(found)
    }

    /// From now on programs may change the upper trees by themselves.
    pub fn share(&mut self) {
        for mount in &mut self.mounts {
            if let Source::Union(stack) = &mut mount.source {
                stack.is_shared = true;
            }
        }
    }
}

/// The name in a directory by which a path beneath it goes on.
fn first_name<'a>(directory: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(directory)?.strip_prefix(b"/")?;
    rest.split(|byte| *byte == b'/').next().filter(|name| !name.is_empty())
}
