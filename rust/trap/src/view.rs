//! Files as the caller of a trapped call sees them.
//!
//! The emulator lives in the container's mount namespace and with its root, but in the
//! pid namespace outside. An absolute path means the same to it as to the caller; a relative
//! one goes through the caller's own /proc entry: `PID/cwd/...` and `PID/fd/N/...` of a /proc
//! that was opened outside, one walk by the kernel and no descriptor in between.
//! /proc/self of a path would be ours, so that is spelled out first. A process that
//! called chroot(2) is nobody for whom the kernel could walk: see [`crate::walk`].

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags, CWD};
use rustix::io::Errno;

use crate::call::{c_string, Call};

/// `AT_FDCWD`.
pub const HERE: i32 = -100;
const WANTED: StatxFlags =
    StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::from_bits_retain(0x1000));

/// The container's files.
#[derive(Debug)]
pub struct View {
    /// A /proc of our own pid namespace.
    proc: OwnedFd,
    /// The container's `/`: its number, and its mount.
    root: (u64, u64),
    /// The device of the container's own /proc.
    proc_device: (u32, u32),
    /// What the files of a process in a /proc are called.
    proc_names: HashSet<Vec<u8>>,
    /// Where overlay puts what was changed.
    upper: Option<OwnedFd>,
    /// Somebody has called chroot(2).
    pub is_chrooted: bool,
    /// The machine's `fs.protected_hardlinks`.
    pub protects_hard_links: bool,
}

/// A place that a caller named.
#[derive(Debug)]
pub struct At {
    is_beneath_proc: bool,
    path: CString,
    follow: bool,
}

/// A name in an open directory.
#[derive(Debug)]
pub struct Entry {
    /// The directory, O_PATH.
    pub directory: OwnedFd,
    /// The last component.
    pub name: CString,
}

impl View {
    /// Must be called in the container's mount namespace.
    ///
    /// # Errors
    /// What statx(2) says of `/`.
    pub fn new(proc: OwnedFd, upper: Option<OwnedFd>) -> Result<Self, Errno> {
        let root = rustix::fs::statx(CWD, "/", AtFlags::empty(), WANTED)?;
        let own_proc = rustix::fs::statx(CWD, "/proc", AtFlags::empty(), WANTED);
        let proc_device = own_proc.map_or((0, 0), |stat| (stat.stx_dev_major, stat.stx_dev_minor));
        let mut view = Self {
            proc,
            root: (root.stx_ino, root.stx_mnt_id),
            proc_device,
            proc_names: HashSet::new(),
            upper,
            is_chrooted: false,
            protects_hard_links: true,
        };
        view.protects_hard_links =
            view.read_proc("sys/fs/protected_hardlinks").is_ok_and(|text| text.trim() != "0");
        view.proc_names.extend([b"self".to_vec(), b"thread-self".to_vec()]);
        for directory in ["self", "self/task"] {
            view.proc_names.extend(view.names_in(directory).unwrap_or_default());
        }
        Ok(view)
    }

    fn names_in(&self, path: &str) -> Result<Vec<Vec<u8>>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.proc, path, flags, Mode::empty())?;
        let entries = rustix::fs::Dir::new(directory)?;
        entries.map(|entry| Ok(entry?.file_name().to_bytes().to_vec())).collect()
    }

    /// Whether a path ends as those of a process's files in /proc do: in a number, or in one of their names.
    pub fn is_name_in_proc(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name.iter().all(u8::is_ascii_digit) || self.proc_names.contains(name)
    }

    /// The place that a call means by a directory's descriptor and a path.
    ///
    /// # Errors
    /// ENOENT for the empty path.
    pub fn at(&self, call: &Call, directory: i32, path: &[u8], follow: bool) -> Result<At, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path[0] != b'/' {
            let base = if directory == HERE { "cwd".to_owned() } else { format!("fd/{directory}") };
            let mut full = format!("{}/{base}/", call.pid).into_bytes();
            full.extend_from_slice(path);
            return Ok(At { is_beneath_proc: true, path: c_string(full)?, follow });
        }
        if let Some(own) = self.own_entry(call, path) {
            return own;
        }
        if self.is_elsewhere(call) {
            let full = [format!("{}/root", call.pid).as_bytes(), path].concat();
            return Ok(At { is_beneath_proc: true, path: c_string(full)?, follow });
        }
        Ok(At { is_beneath_proc: false, path: c_string(path.to_vec())?, follow })
    }

    /// What a descriptor of the caller is open on, or its working directory.
    pub fn at_descriptor(&self, call: &Call, descriptor: i32) -> Result<At, Errno> {
        let text = match descriptor {
            HERE => format!("{}/cwd", call.pid),
            _ if descriptor < 0 => return Err(Errno::BADF),
            _ => format!("{}/fd/{descriptor}", call.pid),
        };
        Ok(At { is_beneath_proc: true, path: c_string(text.into_bytes())?, follow: true })
    }

    /// Holds the caller's root directory.
    ///
    /// # Errors
    /// ESRCH-like ones: it is gone.
    pub fn root_of(&self, call: &Call) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.is_elsewhere(call) {
            true => rustix::fs::openat(&self.proc, format!("{}/root", call.pid), flags, Mode::empty()),
            false => rustix::fs::open("/", flags, Mode::empty()),
        }
    }

    /// Whether the caller's root directory is another than the container's.
    pub fn is_elsewhere(&self, call: &Call) -> bool {
        let root = || rustix::fs::statx(&self.proc, format!("{}/root", call.pid), AtFlags::empty(), WANTED);
        self.is_chrooted && root().is_ok_and(|root| (root.stx_ino, root.stx_mnt_id) != self.root)
    }

    /// As [`View::at`] for the calls with AT_EMPTY_PATH.
    pub fn at_or_descriptor(
        &self,
        call: &Call,
        directory: i32,
        path: &[u8],
        follow: bool,
        may_be_empty: bool,
    ) -> Result<At, Errno> {
        match path.is_empty() && may_be_empty {
            true => self.at_descriptor(call, directory),
            false => self.at(call, directory, path, follow),
        }
    }

    /// Paths whose meaning depends on who walks them.
    fn own_entry(&self, call: &Call, path: &[u8]) -> Option<Result<At, Errno>> {
        const STREAMS: [(&[u8], &str); 3] =
            [(b"/dev/stdin", "0"), (b"/dev/stdout", "1"), (b"/dev/stderr", "2")];
        let beneath = |text: Vec<u8>, is_beneath_proc| {
            Some(c_string(text).map(|path| At { is_beneath_proc, path, follow: true }))
        };
        if let Some((_, number)) = STREAMS.iter().find(|(name, _)| *name == path) {
            return beneath(format!("{}/fd/{number}", call.pid).into_bytes(), true);
        }
        // Digits alone: anything more would be walked from our /proc, which is the host's.
        let is_number = |text: &&[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        if let Some(number) = path.strip_prefix(b"/dev/fd/").filter(is_number) {
            return beneath([format!("{}/fd/", call.pid).as_bytes(), number].concat(), true);
        }
        let rest = path.strip_prefix(b"/proc/")?;
        let (inner, rest) = match rest.strip_prefix(b"self") {
            Some(rest) => (self.inner_pid(call, false)?, rest),
            None => (self.inner_pid(call, true)?, rest.strip_prefix(b"thread-self")?),
        };
        match rest.first() {
            None | Some(b'/') => beneath([b"/proc/", inner.as_bytes(), rest].concat(), false),
            Some(_) => None,
        }
    }

    /// The caller's number in the container's pid namespace, as /proc/self or /proc/thread-self has it.
    pub fn inner_pid(&self, call: &Call, is_thread: bool) -> Option<String> {
        let status = self.read_proc(&format!("{}/status", call.pid)).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().last().map(str::to_owned)
        };
        match is_thread {
            true => Some(format!("{}/task/{}", field("NStgid:")?, field("NSpid:")?)),
            false => field("NStgid:"),
        }
    }

    /// What statx(2) says of a place.
    pub fn stat(&self, at: &At) -> Result<Statx, Errno> {
        let flags = if at.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        rustix::fs::statx(self.base(at), &at.path, flags, WANTED)
    }

    /// Holds a place: every further step means this file, whatever happens to its name.
    pub fn hold(&self, at: &At) -> Result<OwnedFd, Errno> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !at.follow);
        rustix::fs::openat(self.base(at), &at.path, flags, Mode::empty())
    }

    fn base(&self, at: &At) -> BorrowedFd<'_> {
        if at.is_beneath_proc {
            self.proc.as_fd()
        } else {
            CWD
        }
    }

    /// Holds the directory of a name that need not exist.
    ///
    /// # Errors
    /// ENOENT, EEXIST-like ones are the caller's to tell apart: a path that ends in `.`, `..` or `/`
    /// alone has no last component and is EINVAL here.
    pub fn entry(&self, call: &Call, directory: i32, path: &[u8]) -> Result<Entry, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let trimmed = path.trim_ascii_end_matches(b'/');
        let cut = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = trimmed.split_at(cut);
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Errno::INVAL);
        }
        let at = match parent.is_empty() {
            true => self.at_descriptor(call, directory)?,
            false => self.at(call, directory, parent, true)?,
        };
        let directory = rustix::fs::openat(
            self.base(&at),
            &at.path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Entry { directory, name: c_string(name.to_vec())? })
    }

    /// What statx(2) says of an open file.
    pub fn stat_fd(&self, fd: impl AsFd) -> Result<Statx, Errno> {
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED)
    }

    /// What statx(2) says of a name in a directory, without following it.
    pub fn stat_name(&self, directory: impl AsFd, name: &CStr) -> Result<Statx, Errno> {
        rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, WANTED)
    }

    /// The place's path from the container's root, if it has one.
    pub fn path_of(&self, fd: impl AsFd) -> Option<CString> {
        let link = format!("self/fd/{}", fd.as_fd().as_raw_fd());
        let path = rustix::fs::readlinkat(&self.proc, link, Vec::with_capacity(256)).ok()?;
        let bytes = path.to_bytes();
        (bytes.starts_with(b"/") && !bytes.ends_with(b" (deleted)")).then_some(path)
    }

    /// A path to an open file by which calls that take no descriptor reach it; relative to [`View::proc`].
    pub fn handle(&self, fd: impl AsFd) -> String {
        format!("self/fd/{}", fd.as_fd().as_raw_fd())
    }

    /// The /proc of our own pid namespace.
    pub fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// The file in the upperdir that a path of the root file system shows.
    pub fn upper(&self, path: &CStr) -> Option<Statx> {
        let beneath =
            path.to_bytes().strip_prefix(b"/").map(|rest| if rest.is_empty() { b"." } else { rest })?;
        rustix::fs::statx(self.upper.as_ref()?, beneath, AtFlags::SYMLINK_NOFOLLOW, WANTED).ok()
    }

    /// Whether there is an upperdir that is not itself what is seen.
    pub fn has_upper(&self) -> bool {
        self.upper.is_some()
    }

    /// The name of a file's file system in keys: 0 is the root's.
    pub fn file_system(&self, stat: &Statx) -> u64 {
        if stat.stx_mnt_id == self.root.1 {
            return 0;
        }
        u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor) | 1 << 63
    }

    /// Whether a file is the container's /proc's.
    pub fn is_proc(&self, stat: &Statx) -> bool {
        (stat.stx_dev_major, stat.stx_dev_minor) == self.proc_device
    }

    /// A small file of our /proc, as text.
    pub fn read_proc(&self, path: &str) -> Result<String, Errno> {
        let file = rustix::fs::openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        read_text(&file)
    }

    /// The caller's umask.
    pub fn umask(&self, call: &Call) -> Result<u32, Errno> {
        let status = self.read_proc(&format!("{}/status", call.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).ok_or(Errno::IO)?;
        u32::from_str_radix(line.trim(), 8).map_err(|_| Errno::IO)
    }
}

/// All of a small file, as text.
pub fn read_text(file: &OwnedFd) -> Result<String, Errno> {
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    loop {
        match rustix::io::read(file, &mut block)? {
            0 => break,
            count => bytes.extend_from_slice(&block[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

trait TrimEnd {
    fn trim_ascii_end_matches(&self, byte: u8) -> &[u8];
}

impl TrimEnd for [u8] {
    /// Without the bytes at its end that are `byte`.
    fn trim_ascii_end_matches(&self, byte: u8) -> &[u8] {
        let end = self.iter().rposition(|other| *other != byte).map_or(0, |last| last + 1);
        &self[..end]
    }
}
