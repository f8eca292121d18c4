//! From a path as a program wrote it to a file of the host's.
//!
//! Links are followed here, component by component, inside the container's tree: `..` stops at its root, an
//! absolute link begins there. What comes out is a canonical path inside, and one of the host's that holds
//! no link.

use rustix::fs::{FileType, CWD};
use rustix::io::Errno;

use super::stack::Kind;
use super::{join, lstat, parent, type_of, Source, Union};

/// As the kernel's.
const MOST_LINKS: usize = 40;

/// What happens with a link at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It is followed.
    Yes,
    /// It is what is meant.
    No,
}

/// Who asks, where the answer depends on it.
pub trait Asker {
    /// The process, for /proc/self.
    fn process(&self) -> i32;
    /// The thread.
    fn thread(&self) -> i32;
    /// The container's first process, which is 1 to whoever asks /proc for that.
    fn first(&self) -> i32;
    /// Whether a process is one of the container's.
    fn knows(&self, process: i32) -> bool;
    /// Whether the asker may search a directory; EACCES.
    ///
    /// # Errors
    /// EACCES.
    fn may_search(&self, spot: &Spot, is_root_mount: bool) -> Result<(), Errno>;
    /// The path inside of the program that a process runs.
    fn program(&self, process: i32) -> Option<Vec<u8>>;
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub struct Spot {
    /// The canonical path inside.
    pub path: Vec<u8>,
    /// A path of the host's; for what is missing, where it would be made.
    pub host: Vec<u8>,
    /// The mount it is in.
    pub mount: usize,
    /// What it is.
    pub kind: Kind,
    /// For a union: the upper tree has it.
    pub is_upper: bool,
    /// For a union: how many trees it is merged from.
    pub trees: usize,
    /// `host` is a link of /proc that the kernel has to follow: what is behind it has no name inside.
    pub is_magic: bool,
    /// The path was written with a slash at its end.
    pub wants_directory: bool,
}

impl Spot {
    /// Whether there is something.
    pub fn exists(&self) -> bool {
        self.kind != Kind::Missing
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// What a /proc entry is to us.
enum ProcName {
    Plain,
    Hidden,
    Text(Vec<u8>),
    Program(i32),
    Magic,
}

impl Union {
    /// Walks `path` from the directory `base` inside the root directory `root`.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ELOOP, EACCES, ENAMETOOLONG as path_resolution(7) has them; a missing last component is
    /// a [`Spot`].
    pub fn walk(
        &mut self,
        asker: &dyn Asker,
        root: &[u8],
        base: &[u8],
        path: &[u8],
        follow: Follow,
    ) -> Result<Spot, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.len() >= 4096 {
            return Err(Errno::NAMETOOLONG);
        }
        let mut here = if path[0] == b'/' { root.to_vec() } else { base.to_vec() };
        let mut rest: Vec<Vec<u8>> = Vec::new();
        let wants_directory = path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
        push(&mut rest, path);
        let mut links = 0;
        let mut spot = self.spot_of(asker, &here)?;
        while let Some(mut name) = rest.pop() {
            if name == b"1" && here == self.mounts[spot.mount].at && self.is_proc(&spot) {
                name = asker.first().to_string().into_bytes();
            }
            if name.len() > 255 {
                return Err(Errno::NAMETOOLONG);
            }
            if !spot.is_directory() {
                return Err(if spot.exists() { Errno::NOTDIR } else { Errno::NOENT });
            }
            asker.may_search(&spot, spot.mount == 0)?;
            if name == b"." {
                continue;
            }
            if name == b".." {
                if here != root {
                    here = parent(&here).to_vec();
                }
                spot = self.spot_of(asker, &here)?;
                continue;
            }
            let next = join(&here, &name);
            let is_last = rest.is_empty();
            spot = self.step(asker, &spot, &name, &next)?;
            let follows = !is_last || follow == Follow::Yes || wants_directory;
            if spot.kind == Kind::Link && follows {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                match self.link_target(asker, &spot)? {
                    Some(target) => {
                        if target.first() == Some(&b'/') {
                            here = if self.is_proc(&spot) { b"/".to_vec() } else { root.to_vec() };
                        }
                        push(&mut rest, &target);
                        spot = self.spot_of(asker, &here)?;
                        continue;
                    }
                    None if is_last => spot.is_magic = true,
                    None => return Err(Errno::ACCESS),
                }
            }
            here = next;
        }
        spot.wants_directory = wants_directory;
        if wants_directory && spot.exists() && !spot.is_directory() && !spot.is_magic {
            return Err(Errno::NOTDIR);
        }
        Ok(spot)
    }

    /// The host path of the topmost lower tree's part of a directory that the upper tree has, too.
    pub fn below(&self, spot: &Spot) -> Option<Vec<u8>> {
        let mount = &self.mounts[spot.mount];
        let Source::Union(stack) = &mount.source else { return None };
        let inside = if spot.path == b"/" { &b""[..] } else { &spot.path[mount.at.len()..] };
        stack
            .lower
            .iter()
            .map(|tree| [&tree.root[..], inside].concat())
            .find(|host| lstat(host).is_ok_and(|stat| type_of(&stat) == FileType::Directory))
    }

    fn is_proc(&self, spot: &Spot) -> bool {
        matches!(self.mounts[spot.mount].source, Source::Proc)
    }

    /// The spot of a canonical path, looked up from the top of its mount.
    ///
    /// # Errors
    /// ENOENT.
    pub fn spot_of(&mut self, _: &dyn Asker, path: &[u8]) -> Result<Spot, Errno> {
        let index = self.mount_of(path);
        self.at_mount(index, path)
    }

    /// As [`Union::spot_of`].
    ///
    /// # Errors
    /// None but the host's own.
    pub fn at_mount(&mut self, index: usize, path: &[u8]) -> Result<Spot, Errno> {
        let mount = &mut self.mounts[index];
        let inside = if path == b"/" { &b""[..] } else { &path[mount.at.len()..] };
        let mut spot = Spot {
            path: path.to_vec(),
            host: Vec::new(),
            mount: index,
            kind: Kind::Missing,
            is_upper: false,
            trees: 1,
            is_magic: false,
            wants_directory: false,
        };
        match &mut mount.source {
            Source::Union(stack) => {
                let id = stack.descend(inside);
                fill(&mut spot, stack, id, inside);
            }
            Source::Tree(root) => {
                spot.host = [&root[..], inside].concat();
                spot.kind = kind_of(&spot.host)?;
            }
            Source::Proc => {
                spot.host = [b"/proc", inside].concat();
                spot.kind = kind_of(&spot.host)?;
            }
        }
        if self.masked.iter().any(|masked| masked == path) && spot.exists() {
            spot.host = if spot.is_directory() { self.empty.clone() } else { b"/dev/null".to_vec() };
        }
        Ok(spot)
    }

    /// One name further.
    fn step(&mut self, asker: &dyn Asker, above: &Spot, name: &[u8], next: &[u8]) -> Result<Spot, Errno> {
        if let Some(index) = self.mounted_at(next) {
            return self.at_mount(index, next);
        }
        if self.masked.iter().any(|masked| masked == &above.path) {
            return Ok(Spot { path: next.to_vec(), kind: Kind::Missing, ..above.clone() });
        }
        let index = above.mount;
        if matches!(self.mounts[index].source, Source::Proc) {
            let inside = &next[self.mounts[index].at.len()..];
            if matches!(proc_name(asker, inside), ProcName::Hidden) {
                let host = [b"/proc", inside].concat();
                return Ok(Spot { path: next.to_vec(), host, kind: Kind::Missing, ..above.clone() });
            }
        }
        let _ = name;
        self.at_mount(index, next)
    }

    /// Where a link points; `None` for one whose end has no name inside.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn link_target(&mut self, asker: &dyn Asker, spot: &Spot) -> Result<Option<Vec<u8>>, Errno> {
        let read = |host: &[u8]| -> Result<Vec<u8>, Errno> {
            Ok(rustix::fs::readlinkat(CWD, host, Vec::with_capacity(128))?.into_bytes())
        };
        let mount = &mut self.mounts[spot.mount];
        match &mut mount.source {
            Source::Union(stack) => {
                let inside = &spot.path[mount.at.len()..];
                let id = stack.descend(inside);
                stack.target(id, inside).map(Some)
            }
            Source::Tree(_) => read(&spot.host).map(Some),
            Source::Proc => {
                let inside = &spot.path[mount.at.len()..];
                match proc_name(asker, inside) {
                    ProcName::Hidden => Err(Errno::NOENT),
                    ProcName::Text(text) => Ok(Some(text)),
                    ProcName::Plain => read(&spot.host).map(Some),
                    ProcName::Program(process) => Ok(asker.program(process)),
                    ProcName::Magic => {
                        let target = read(&spot.host)?;
                        Ok(self.reverse(&target).filter(|_| target.first() == Some(&b'/')))
                    }
                }
            }
        }
    }
}

fn push(rest: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    names.reverse();
    rest.append(&mut names);
}

fn fill(spot: &mut Spot, stack: &super::Stack, id: u32, inside: &[u8]) {
    let node = stack.node(id);
    spot.kind = node.kind;
    spot.is_upper = node.is_upper && node.kind != Kind::Missing;
    spot.trees = usize::from(node.is_upper) + node.lower.len();
    spot.host = stack.host(id, inside);
}

fn kind_of(host: &[u8]) -> Result<Kind, Errno> {
    match lstat(host) {
        Ok(stat) => Ok(match type_of(&stat) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        }),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::SRCH) => Ok(Kind::Missing),
        Err(errno) => Err(errno),
    }
}

/// What a path of /proc is: `inside` begins with a slash.
fn proc_name(asker: &dyn Asker, inside: &[u8]) -> ProcName {
    let names: Vec<&[u8]> = inside.split(|byte| *byte == b'/').skip(1).collect();
    let Some(first) = names.first() else { return ProcName::Plain };
    match *first {
        b"self" if names.len() == 1 => return ProcName::Text(asker.process().to_string().into_bytes()),
        b"thread-self" if names.len() == 1 => {
            return ProcName::Text(format!("{}/task/{}", asker.process(), asker.thread()).into_bytes());
        }
        _ => {}
    }
    if !first.first().is_some_and(u8::is_ascii_digit) {
        return ProcName::Plain;
    }
    let number = std::str::from_utf8(first).ok().and_then(|text| text.parse().ok());
    let Some(number) = number.filter(|number| asker.knows(*number)) else { return ProcName::Hidden };
    let mut inner = &names[1..];
    if inner.first() == Some(&&b"task"[..]) && inner.len() >= 2 {
        inner = &inner[2..];
    }
    match inner {
        [b"exe"] => ProcName::Program(number),
        [b"cwd"] => ProcName::Magic,
        [b"root"] => ProcName::Text(b"/".to_vec()),
        [b"fd", number] if number.first().is_some_and(u8::is_ascii_digit) => ProcName::Magic,
        [b"map_files", _] => ProcName::Hidden,
        _ => ProcName::Plain,
    }
}
