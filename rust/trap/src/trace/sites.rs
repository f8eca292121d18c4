//! Busy call sites of the programs, replaced; and what the code that answers there is told.
//!
//! [`duckweed_sites`] tells how it works. Here is decided which sites are replaced (those that have stopped [`BUSY`] times
//! in one address space, while nobody else runs in it), and for which directories the handler gets a row: one
//! for each that it had to ask us about. What of a row may become untrue is taken back before the call that makes it so is
//! answered; whoever is inside the handler meanwhile has made a call at the same time as that one, and may
//! see either state.
//!
//! The table is a file in the container's work directory, written with pwrite(2), which all mappings of it see. Without it (a file
//! system that executes nothing, an address that is taken) all calls stop, as they do for whoever is not
//! root, has a root directory of its own, or has installed a filter.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use duckweed_sites::layout::{self, Row};
use duckweed_sites::{is_site, jump, stub, ANSWERED, FAULT, HANDLER, PUT, READ};
use duckweed_sys::ptrace::{self, Registers};
use duckweed_sys::{memory, ptrace::Resume};

use super::image::code_of;
use super::places::{mapping, Place, Places};
use super::Tracer;
use crate::call::Call;
use crate::credentials::capability;
use crate::union::{join, lstat, parent, type_of, Anatomy, Changed, Follow, Kind, Spot};
use crate::view::HERE;

/// After how many stops a site is worth the pokes and the copied page.
const BUSY: u32 = 3;

/// The longest listing that is told, bytes.
const LONGEST_LISTING: usize = 16 * 1024;

/// The patched sites of an address space.
#[derive(Debug, Default, Clone)]
pub(super) struct Patched {
    /// The handler is there, and may answer.
    is_on: Cell<bool>,
    count: Cell<u64>,
    stops: RefCell<HashMap<u64, u32>>,
}

impl Patched {
    /// An address space that has the handler in it, or has not.
    pub fn new(has_handler: bool) -> Self {
        Self { is_on: Cell::new(has_handler), ..Self::default() }
    }
}

/// What a row is found by: a directory, and a path that begins there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    text: Option<Vec<u8>>,
}

impl Key {
    fn hash(&self) -> u64 {
        match &self.text {
            None => layout::hash_of_identity(self.device, self.inode),
            Some(text) => layout::hash_from(self.device, self.inode, hash(text)),
        }
    }
}

fn hash(text: &[u8]) -> u64 {
    text.iter().fold(layout::EMPTY, |hash, byte| layout::step(hash, *byte))
}

/// What a row says besides, by kind.
#[derive(Debug)]
enum More {
    Nothing,
    /// Device and inode that it is shown under.
    Shown(u64, u64),
    /// What it holds, as getdents64(2) gives it, and how many names that is.
    Listing(Vec<u8>, usize),
}

/// A row as we know it.
#[derive(Debug)]
struct Told {
    key: Key,
    path: Vec<u8>,
    names: u64,
    sequence: u32,
    is_valid: bool,
}

/// The table that all programs of a container read.
#[derive(Debug)]
pub struct Sites {
    /// The handler, and the table behind it.
    file: File,
    /// Its path on the host.
    pub path: Vec<u8>,
    names: u64,
    lower: u64,
    has_devices: bool,
    rows: HashMap<usize, Told>,
    by_key: HashMap<Key, usize>,
    by_path: BTreeMap<Vec<u8>, Vec<usize>>,
    refused: HashMap<Key, (u64, u64)>,
    bits: Vec<u8>,
    texts: HashMap<Vec<u8>, u32>,
    used: u64,
    places: Places,
}

impl Sites {
    /// Makes the file: the handler, and a table that says nothing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(path: Vec<u8>, host_ids: (u32, u32)) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(OsStr::from_bytes(&path))?;
        file.write_all_at(HANDLER, 0)?;
        file.set_len(layout::TEXT_SIZE + layout::TABLE_SIZE)?;
        let mut head = Vec::with_capacity(24);
        head.extend_from_slice(&1_u64.to_ne_bytes());
        head.extend_from_slice(&1_u64.to_ne_bytes());
        head.extend_from_slice(&host_ids.0.to_ne_bytes());
        head.extend_from_slice(&host_ids.1.to_ne_bytes());
        file.write_all_at(&head, layout::TEXT_SIZE)?;
        Ok(Self {
            file,
            path,
            names: 1,
            lower: 1,
            has_devices: false,
            rows: HashMap::new(),
            by_key: HashMap::new(),
            by_path: BTreeMap::new(),
            refused: HashMap::new(),
            bits: vec![0; (layout::BITS / 8) as usize],
            texts: HashMap::new(),
            used: 0,
            places: Places::default(),
        })
    }

    fn put(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, layout::TEXT_SIZE + at)
    }

    /// These inodes may have a record from now on.
    fn mark(&mut self, inodes: &[u64]) -> io::Result<()> {
        // A first image has thousands: one write for all of them.
        let many = inodes.len() > 64;
        for inode in inodes {
            let (a, b) = layout::bits_of(*inode);
            for bit in [a, b] {
                let (place, mask) = ((bit / 8) as usize, 1 << (bit & 7));
                if self.bits[place] & mask == 0 {
                    self.bits[place] |= mask;
                    if !many {
                        self.put(layout::BITS_AT + bit / 8, &self.bits[place..=place])?;
                    }
                }
            }
        }
        if many {
            for (page, bytes) in self.bits.chunks(4096).enumerate() {
                if bytes.iter().any(|byte| *byte != 0) {
                    self.put(layout::BITS_AT + 4096 * page as u64, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Where a text is in the table; it is put there when it is new.
    fn text(&mut self, text: &[u8], align: u64) -> io::Result<u32> {
        if let Some(at) = self.texts.get(text).filter(|at| u64::from(**at) % align == 0) {
            return Ok(*at);
        }
        let at = self.used.next_multiple_of(align);
        if at + text.len() as u64 + 8 > layout::TEXTS {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.put(layout::TEXTS_AT + at, text)?;
        self.used = at + text.len() as u64;
        self.texts.insert(text.to_vec(), at as u32);
        Ok(at as u32)
    }

    fn row_of(&self, hash: u64) -> Option<usize> {
        let places = (0..layout::REACH as u64)
            .map(|step| (hash.wrapping_add(step) & (layout::ROWS as u64 - 1)) as usize);
        places.into_iter().find(|place| self.rows.get(place).is_none_or(|row| !row.is_valid))
    }

    /// Whether a directory has a row that counts, or has been looked at in vain.
    fn knows(&self, key: &Key) -> bool {
        let counts = |place: &usize| {
            self.rows
                .get(place)
                .is_some_and(|row| row.is_valid && (row.names == self.names || row.key.text.is_none()))
        };
        self.by_key.get(key).is_some_and(counts) || self.refused.get(key) == Some(&(self.names, self.lower))
    }

    fn tell(
        &mut self,
        key: Key,
        path: &[u8],
        anatomy: &Anatomy,
        creates: bool,
        more: &More,
    ) -> io::Result<()> {
        let hash = key.hash();
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        let place = match self.by_key.get(&key) {
            Some(place) => *place,
            None => self.row_of(hash).ok_or_else(full)?,
        };
        let flags = [
            (true, layout::VALID),
            (anatomy.is_upper, layout::UPPER),
            (anatomy.is_upper && !anatomy.is_read_only, layout::WRITE),
            (creates, layout::CREATE),
            (anatomy.is_listed, layout::LISTED),
            (anatomy.is_read_only, layout::READ_ONLY),
            (anatomy.is_lower, layout::LOWER),
            (anatomy.is_inner, layout::INNER),
            (anatomy.is_merged, layout::MERGED),
            (matches!(more, More::Listing(..)), layout::TOLD),
        ];
        let flags = flags.iter().filter(|(is, _)| *is).fold(0, |all, (_, flag)| all | flag);
        let mut trees = [(0, 0); layout::TREES];
        for (slot, host) in trees.iter_mut().zip(&anatomy.trees) {
            *slot = (self.text(host, 1)?, host.len() as u32);
        }
        let specials: Vec<u8> =
            anatomy.specials.iter().flat_map(|name| self::hash(name).to_ne_bytes()).collect();
        let special = if specials.is_empty() { 0 } else { self.text(&specials, 8)? };
        let (text, text_length, names) = match &key.text {
            Some(text) => (self.text(text, 1)?, text.len() as u32, self.names),
            None => {
                let own = self.text(&[path, b"\0"].concat(), 1)?;
                (0, layout::BY_IDENTITY, u64::from(own) | (path.len() as u64) << 32)
            }
        };
        let more = match more {
            More::Nothing => [0, 0],
            More::Shown(device, inode) => [*device, *inode],
            More::Listing(bytes, count) => {
                [u64::from(self.text(bytes, 1)?) | (bytes.len() as u64) << 32, *count as u64]
            }
        };
        let sequence = self.rows.get(&place).map_or(0, |row| row.sequence);
        self.bury(place)?;
        let counts = (anatomy.trees.len() as u64) | (anatomy.specials.len() as u64) << 32;
        let mut words = vec![hash, key.device, key.inode, names];
        words.push(u64::from(text) | u64::from(text_length) << 32);
        words.extend([counts, u64::from(special)]);
        words.extend(trees.iter().map(|(at, length)| u64::from(*at) | u64::from(*length) << 32));
        words.extend(more);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let at = layout::ROWS_AT + (place * size_of::<Row>()) as u64;
        let next = sequence.wrapping_add(2) & !1;
        self.put(at, &(u64::from(next | 1)).to_ne_bytes())?;
        self.put(at + 8, &bytes)?;
        self.put(at, &(u64::from(next) | u64::from(flags) << 32).to_ne_bytes())?;
        self.by_key.insert(key.clone(), place);
        self.by_path.entry(path.to_vec()).or_default().push(place);
        let told = Told { key, path: path.to_vec(), names: self.names, sequence: next, is_valid: true };
        self.rows.insert(place, told);
        Ok(())
    }

    /// A row does not count any more.
    fn bury(&mut self, place: usize) -> io::Result<()> {
        let Some(row) = self.rows.get_mut(&place).filter(|row| row.is_valid) else { return Ok(()) };
        row.is_valid = false;
        let (sequence, key, path) = (row.sequence, row.key.clone(), row.path.clone());
        self.by_key.remove(&key);
        if let Some(places) = self.by_path.get_mut(&path) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_path.remove(&path);
            }
        }
        self.put(layout::ROWS_AT + (place * size_of::<Row>()) as u64, &u64::from(sequence).to_ne_bytes())
    }

    /// Rows of a directory and of all beneath it do not count any more.
    fn bury_beneath(&mut self, path: &[u8]) -> io::Result<()> {
        let mut places = self.by_path.get(path).cloned().unwrap_or_default();
        let beneath = join(path, b"");
        let rest = self.by_path.range(beneath.clone()..).take_while(|(path, _)| path.starts_with(&beneath));
        places.extend(rest.flat_map(|(_, places)| places.iter().copied()));
        places.into_iter().try_for_each(|place| self.bury(place))
    }

    fn take_back(&mut self, changed: Vec<Changed>) -> io::Result<()> {
        let (mut names, mut lower) = (false, false);
        for change in changed {
            lower |= !matches!(change, Changed::Moved(_, false));
            match change {
                Changed::BroughtUp(path) | Changed::Marked(path) => {
                    for place in self.by_path.get(&path).cloned().unwrap_or_default() {
                        self.bury(place)?;
                    }
                }
                Changed::Moved(path, _) => {
                    names = true;
                    self.bury_beneath(&path)?;
                }
                Changed::Everything => {
                    names = true;
                    for place in self.rows.keys().copied().collect::<Vec<_>>() {
                        self.bury(place)?;
                    }
                }
            }
        }
        if names {
            self.names += 1;
            self.put(0, &self.names.to_ne_bytes())?;
        }
        if lower {
            self.lower += 1;
            self.put(8, &self.lower.to_ne_bytes())?;
        }
        Ok(())
    }
}

impl Tracer {
    /// Has programs answer busy calls themselves, from now on.
    pub fn use_sites(&mut self) {
        // Root inside must be the one whom no mode keeps from reading and writing.
        if self.settings.capabilities & capability::DAC_OVERRIDE == 0 {
            return;
        }
        let path = join(parent(&self.union.work), b"sites");
        if let Ok(sites) = Sites::new(path, self.settings.host_ids) {
            self.union.share();
            self.sites = Some(sites);
            self.tell_sites();
        }
    }

    /// Tells the handler what has changed; what cannot be told must not be believed any more.
    pub(super) fn tell_sites(&mut self) {
        let Some(sites) = &mut self.sites else { return };
        let news = self.world.owners.news();
        let changed = std::mem::take(&mut self.union.changed);
        let has_devices = self.world.owners.has_devices();
        let told: io::Result<()> = (|| {
            if !news.is_empty() {
                sites.mark(&news)?;
            }
            if has_devices && !sites.has_devices {
                sites.has_devices = true;
                sites.put(24, &1_u32.to_ne_bytes())?;
            }
            if changed.is_empty() {
                return Ok(());
            }
            sites.take_back(changed)
        })();
        if told.is_err() {
            self.sites = None;
            for pid in self.tracees.keys().copied().collect::<Vec<_>>() {
                self.turn_off(pid);
            }
        }
    }

    /// Files that are shown under another number than their own are not for the handler.
    pub(super) fn mark_sites(&mut self, inodes: &[u64]) {
        if let Some(sites) = &mut self.sites {
            // A lost mark would be a lie.
            if sites.mark(inodes).is_err() {
                self.union.changed.push(Changed::Everything);
            }
        }
    }

    /// A new directory may have the number of one that is gone.
    pub(super) fn forget_site(&mut self, is: &rustix::fs::Statx) {
        let key = Key { device: device(is), inode: is.stx_ino, text: None };
        if let Some(sites) = &mut self.sites {
            if let Some(place) = sites.by_key.get(&key).copied() {
                let _ = sites.bury(place);
            }
        }
    }

    /// All calls of a process stop from now on.
    pub(super) fn turn_off(&self, pid: i32) {
        let Some(tracee) = self.tracees.get(&pid) else { return };
        if tracee.memory.sites.is_on.replace(false) {
            // ESRCH: it has ended.
            let _ = memory::write(pid, layout::PRIVATE, &1_u64.to_ne_bytes());
        }
    }

    /// After a call has been decided on, and before it is answered.
    pub(super) fn follow_up(&mut self, number: i64, call: &Call, registers: &Registers) {
        self.tell_sites();
        if self.sites.is_none() {
            return;
        }
        let Some(patched) = self.tracees.get(&call.pid).map(|tracee| &tracee.memory.sites) else { return };
        if !patched.is_on.get() {
            return;
        }
        let is_answered = u32::try_from(number).is_ok_and(|number| ANSWERED.contains(&number));
        if !is_answered {
            if self.is_for_itself(number, call) {
                self.turn_off(call.pid);
            }
            return;
        }
        if (layout::STUBS..layout::STUBS + layout::STUBS_SIZE).contains(&registers.rip) {
            // The handler did not know; next time it will.
            let _ = self.introduce(number, call);
            return;
        }
        let stops = {
            let mut stops = patched.stops.borrow_mut();
            let stops = stops.entry(registers.rip).or_default();
            *stops += 1;
            *stops
        };
        if stops == BUSY {
            // A site that cannot be replaced goes on stopping.
            let _ = self.patch(number, call.pid, registers.rip);
        }
    }

    /// Calls after which a process sees files in its own way, or its calls are looked at by others.
    fn is_for_itself(&self, number: i64, call: &Call) -> bool {
        match number {
            libc::SYS_seccomp | libc::SYS_chroot => true,
            libc::SYS_prctl => call.int(0) == libc::PR_SET_SECCOMP || !self.is_root(call.pid),
            // Calls about ids: whoever is not root any more.
            _ => super::ids::of(number).is_some() && !self.is_root(call.pid),
        }
    }

    /// Whether a process is the container's root, with its files.
    pub(super) fn is_root(&self, pid: i32) -> bool {
        let call = Call::with(pid, [0; 6]);
        let process = self.process_of(&call);
        self.world.is_plain_root(&call) == Ok(true)
            && self.processes.get(&process).is_some_and(|process| process.root == b"/")
    }

    /// A fault while the handler reads a path of the program's: the call is made by the program, and fails there.
    pub(super) fn is_fault_of_handler(&self, pid: i32, signal: i32) -> io::Result<bool> {
        let Some(tracee) = self.tracees.get(&pid) else { return Ok(false) };
        if !matches!(signal, libc::SIGSEGV | libc::SIGBUS) || tracee.memory.sites.count.get() == 0 {
            return Ok(false);
        }
        let registers = ptrace::registers(pid)?;
        // Of texts the copy's next instruction writes, to a buffer of ours or of the program's.
        if ![READ, READ + 4, PUT].contains(&registers.rip.wrapping_sub(layout::TEXT)) {
            return Ok(false);
        }
        ptrace::set_registers(pid, &Registers { rip: layout::TEXT + FAULT, ..registers })?;
        ptrace::resume(pid, Resume::Continue, 0)?;
        Ok(true)
    }

    /// Replaces the busy call site that ends at `next`, and all others of its file.
    fn patch(&mut self, number: i64, pid: i32, next: u64) -> io::Result<()> {
        let Some(tracee) = self.tracees.get(&pid) else { return Ok(()) };
        // Seven bytes cannot be changed at once: nobody may be on its way through them.
        if std::rc::Rc::strong_count(&tracee.memory) > 1 {
            return Ok(());
        }
        let mut sites = vec![(next.wrapping_sub(7), number as u32)];
        if let Some((start, end, offset, host)) = mapping(pid, next) {
            let in_memory = |place: &Place| Some(place.offset.checked_sub(offset)? + start);
            if let Some(found) = self.sites.as_mut().and_then(|sites| sites.places.of(&host).ok()) {
                let found = found.iter().filter_map(|place| Some((in_memory(place)?, place.number)));
                sites.extend(found.filter(|(at, _)| *at != next.wrapping_sub(7) && at + 7 <= end));
            }
        }
        self.replace(pid, &code_of(pid)?, &sites)
    }

    /// Replaces the call sites of a loader that is about to begin.
    pub(super) fn patch_loader(&mut self, pid: i32, code: &File, host: &[u8], base: u64) -> io::Result<()> {
        if !self.tracees.get(&pid).is_some_and(|tracee| tracee.memory.sites.is_on.get()) {
            return Ok(());
        }
        let Some(sites) = &mut self.sites else { return Ok(()) };
        let found = sites.places.of(host)?;
        let sites: Vec<_> = found.iter().map(|place| (base + place.address, place.number)).collect();
        self.replace(pid, code, &sites)
    }

    /// Replaces call sites, as far as they are some.
    fn replace(&self, pid: i32, code: &File, sites: &[(u64, u32)]) -> io::Result<()> {
        let Some(tracee) = self.tracees.get(&pid) else { return Ok(()) };
        let patched = &tracee.memory.sites;
        let mut at = layout::STUBS + patched.count.get() * layout::STUB;
        let (first, mut stubs, mut jumps) = (at, Vec::new(), Vec::new());
        for (site, number) in sites {
            let mut bytes = [0; 7];
            let is_full = at + layout::STUB > layout::STUBS + layout::STUBS_SIZE;
            if is_full || code.read_exact_at(&mut bytes, *site).is_err() || !is_site(bytes, *number) {
                continue;
            }
            stubs.extend_from_slice(&stub(at, bytes, *number, site + 7));
            jumps.push((*site, jump(at)));
            at += layout::STUB;
        }
        code.write_all_at(&stubs, first)?;
        patched.count.set(patched.count.get() + jumps.len() as u64);
        jumps.iter().try_for_each(|(site, jump)| code.write_all_at(jump, *site))
    }

    /// Has the handler know the directory that a call is about.
    fn introduce(&mut self, number: i64, call: &Call) -> Result<(), rustix::io::Errno> {
        match number {
            libc::SYS_fstat | libc::SYS_getdents64 => self.introduce_open(call, call.int(0)),
            libc::SYS_open
            | libc::SYS_stat
            | libc::SYS_lstat
            | libc::SYS_access
            | libc::SYS_readlink
            | libc::SYS_getxattr
            | libc::SYS_lgetxattr
            | libc::SYS_mkdir
            | libc::SYS_chmod
            | libc::SYS_chown
            | libc::SYS_lchown
            | libc::SYS_unlink => self.introduce_path(call, HERE, 0),
            libc::SYS_rename => {
                self.introduce_path(call, HERE, 0)?;
                self.introduce_path(call, HERE, 1)
            }
            libc::SYS_renameat | libc::SYS_renameat2 => {
                self.introduce_path(call, call.int(0), 1)?;
                self.introduce_path(call, call.int(2), 3)
            }
            libc::SYS_getcwd => self.introduce_open(call, HERE),
            libc::SYS_symlink => self.introduce_path(call, HERE, 1),
            libc::SYS_symlinkat => self.introduce_path(call, call.int(1), 2),
            libc::SYS_fchmod | libc::SYS_fchown | libc::SYS_fgetxattr | libc::SYS_flistxattr => Ok(()),
            _ => self.introduce_path(call, call.int(0), 1),
        }
    }

    fn introduce_open(&mut self, call: &Call, descriptor: i32) -> Result<(), rustix::io::Errno> {
        let is = self.stat_descriptor(call, descriptor)?;
        if type_of(&is) != rustix::fs::FileType::Directory {
            return Ok(());
        }
        let key = Key { device: device(&is), inode: is.stx_ino, text: None };
        if self.sites.as_ref().is_none_or(|sites| sites.knows(&key)) {
            return Ok(());
        }
        let spot = self.spot_of_descriptor(call, descriptor)?;
        // Of a directory that was brought up meanwhile the part is open that does not count any more.
        let is_first = |spot: &Spot| {
            lstat(&spot.host).is_ok_and(|there| super::stat::identity(&there) == super::stat::identity(&is))
        };
        self.describe(key, spot.filter(is_first));
        Ok(())
    }

    fn introduce_path(&mut self, call: &Call, directory: i32, index: usize) -> Result<(), rustix::io::Errno> {
        if call.long(index) == 0 {
            return Ok(());
        }
        let mut path = call.text(index)?;
        // As the handler reads it.
        while path.len() > 2 && path.starts_with(b"./") && path[2] != b'/' {
            path.drain(..2);
        }
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        // Links at the end are followed from directory to directory.
        for _ in 0..8 {
            self.introduce_directory(call, directory, &path)?;
            if path.is_empty() || path.len() > 1 && path.ends_with(b"/") {
                return Ok(());
            }
            let spot = self.place(call, directory, &path, Follow::No)?;
            if spot.is_directory() && spot.is_upper {
                // It may be shown under another number than its own.
                let is = lstat(&spot.host)?;
                let key = Key { device: device(&is), inode: is.stx_ino, text: None };
                if self.sites.as_ref().is_some_and(|sites| !sites.knows(&key)) {
                    self.describe(key, Some(spot));
                }
                return Ok(());
            }
            if spot.kind != Kind::Link || spot.is_magic {
                return Ok(());
            }
            let Some(target) = self.target(call, &spot)? else { return Ok(()) };
            if target.first() == Some(&b'/') {
                path = target;
            } else {
                path.truncate(path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1));
                path.extend_from_slice(&target);
            }
        }
        Ok(())
    }

    fn introduce_directory(
        &mut self,
        call: &Call,
        directory: i32,
        path: &[u8],
    ) -> Result<(), rustix::io::Errno> {
        let Some(cut) = path.iter().rposition(|byte| *byte == b'/') else {
            return self.introduce_open(call, directory);
        };
        let (mut device_of, mut inode) = (0, 0);
        if path[0] != b'/' {
            let is = self.stat_descriptor(call, directory)?;
            (device_of, inode) = (device(&is), is.stx_ino);
        }
        let text = &path[..cut];
        let key = Key { device: device_of, inode, text: Some(text.to_vec()) };
        if self.sites.as_ref().is_none_or(|sites| sites.knows(&key)) {
            return Ok(());
        }
        let spot = self.place(call, directory, if text.is_empty() { b"/" } else { text }, Follow::Yes);
        self.describe(key, spot.ok());
        Ok(())
    }

    fn describe(&mut self, key: Key, spot: Option<Spot>) {
        let told = spot.and_then(|spot| self.tell_of(key.clone(), &spot)).is_some();
        let Some(sites) = &mut self.sites else { return };
        if !told {
            if sites.refused.len() > layout::ROWS {
                sites.refused.clear();
            }
            sites.refused.insert(key, (sites.names, sites.lower));
        }
    }

    /// Makes a directory's row; `None` where there can be none.
    fn tell_of(&mut self, key: Key, spot: &Spot) -> Option<()> {
        let anatomy = self.union.anatomy(spot)?;
        if anatomy.trees.len() > layout::TREES {
            return None;
        }
        let creates = anatomy.is_upper && !anatomy.is_read_only && self.inherits_nothing(spot);
        let mut more = More::Nothing;
        if key.text.is_none() && anatomy.is_merged {
            let found = super::stat::found(self, spot).ok()?;
            let (inode, major, minor) = super::stat::origin(&self.origins, &found);
            more = More::Shown(rustix::fs::makedev(major, minor), inode);
        } else if key.text.is_none() && anatomy.trees.len() > 1 && !anatomy.is_upper {
            let (listing, count) = super::directories::whole_listing(self, spot).ok()?;
            if listing.len() <= LONGEST_LISTING {
                more = More::Listing(listing, count);
            }
        }
        self.sites.as_mut()?.tell(key, &spot.path, &anatomy, creates, &more).ok()
    }

    /// Whether what root makes in a directory is root's, whatever the directory says.
    fn inherits_nothing(&mut self, spot: &Spot) -> bool {
        let Ok(stat) = lstat(&spot.host) else { return false };
        let file_system = self.file_system(&spot.path, &stat);
        let record = self.world.owners.find(file_system, &stat);
        u32::from(stat.stx_mode) & 0o2000 == 0 && record.is_none_or(|record| record.xattrs.is_empty())
    }

    /// What was told of a directory's files is to be told anew: it has another mode or other attributes.
    pub(super) fn reconsider(&mut self, spot: &Spot) {
        if spot.is_directory() {
            self.union.changed.push(Changed::Marked(spot.path.clone()));
        }
    }
}

fn device(stat: &rustix::fs::Statx) -> u64 {
    rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}
