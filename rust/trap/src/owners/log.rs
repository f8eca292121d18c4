//! The log: every change of a container's records, one after the other, on disk.
//!
//! ```text
//! "duckweed owners1"                          the head, 16 bytes
//! length u32 | crc32 u32 | payload            an entry; numbers are little-endian, the sum is of the payload
//!   1 set     key 28 | also 8 | uid 4 | gid 4 | device 1 4 4 | count 2 | (length 2, name, length 4, value)...
//!   2 forget  key 28
//! ```
//!
//! An entry is written with one write(2) at the end, before the call that it records is
//! answered: once a chown has returned, killing whatever process you like loses nothing.
//! A reader stops at the first entry that is short or whose sum is wrong; a writer cuts
//! the rest off. The disk is asked to have it (fdatasync) before a sync of the container's
//! is answered, and at its end: after a crash of the machine all owners are there that were
//! set before the last sync that returned. When most of the log is history it is
//! written anew beside itself and renamed; the sync after that takes the name along.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, OFlags, SeekFrom};

use super::record::{Device, Key, Record};

/// The file's name in the container's directory.
pub const FILE_NAME: &str = "owners";
const HEAD: &[u8; 16] = b"duckweed owners1";
/// An entry holds attributes; the kernel's limit for the value of one is 64 KiB.
const LARGEST_ENTRY: usize = 4 << 20;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file's facts are these from now on. `also` is another inode number under which it was seen.
    Set {
        /// The file.
        key: Key,
        /// Its number while it was still shown as the lower file it was copied from.
        also: u64,
        /// The facts.
        record: Record,
    },
    /// There is no such file any more.
    Forget {
        /// The file.
        key: Key,
    },
}

/// A log that can be added to.
#[derive(Debug)]
pub struct Log {
    directory: OwnedFd,
    /// Made when there is something to write.
    file: Option<OwnedFd>,
    is_dirty: bool,
    /// The name is new: the disk may still have another file under it, or none.
    is_name_dirty: bool,
    /// Bytes in the file.
    length: u64,
}

impl Log {
    /// Opens the log in a directory and reads what is there; an absent one is empty and stays absent.
    ///
    /// # Errors
    /// What open(2) and read(2) say; InvalidData for a file that is no such log.
    pub fn open(directory: OwnedFd) -> io::Result<(Self, Vec<Entry>)> {
        let mut log = Self { directory, file: None, is_dirty: false, is_name_dirty: false, length: 0 };
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(&log.directory, FILE_NAME, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok((log, Vec::new())),
            other => other?,
        };
        let bytes = read_all(&file)?;
        let (entries, whole) = parse(&bytes)?;
        if whole < bytes.len() {
            rustix::fs::ftruncate(&file, whole as u64)?;
        }
        if whole == 0 {
            rustix::io::write(&file, HEAD)?;
        }
        log.length = whole.max(HEAD.len()) as u64;
        log.file = Some(file);
        Ok((log, entries))
    }

    /// Adds an entry: it is in the file when this returns.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EIO. The log is as before then.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(96);
        if self.file.is_none() {
            let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            self.file = Some(rustix::fs::openat(&self.directory, FILE_NAME, flags, Mode::from(0o600))?);
            self.is_name_dirty = true;
            bytes.extend_from_slice(HEAD);
        }
        encode(entry, &mut bytes);
        let Some(file) = &self.file else { return Ok(()) };
        match rustix::io::write(file, &bytes) {
            Ok(count) if count == bytes.len() => {
                self.length += count as u64;
                self.is_dirty = true;
                Ok(())
            }
            failed => {
                rustix::fs::ftruncate(file, self.length)?;
                Err(failed.err().unwrap_or(rustix::io::Errno::NOSPC).into())
            }
        }
    }

    /// Bytes on disk.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Has the disk take what was appended.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT of fdatasync(2).
    pub fn sync(&mut self) -> io::Result<()> {
        if let (true, Some(file)) = (self.is_dirty, &self.file) {
            rustix::fs::fdatasync(file)?;
            self.is_dirty = false;
        }
        if self.is_name_dirty {
            // Ours is an O_PATH descriptor, which cannot be synced.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::fsync(rustix::fs::openat(&self.directory, ".", flags, Mode::empty())?)?;
            self.is_name_dirty = false;
        }
        Ok(())
    }

    /// Writes a new log with these entries only, and puts it in the old one's place.
    ///
    /// # Errors
    /// As [`Log::append`]; the old log is still there then.
    pub fn rewrite<'a>(&mut self, entries: impl Iterator<Item = Entry> + 'a) -> io::Result<()> {
        const NEW: &str = ".owners.new";
        let mut bytes = HEAD.to_vec();
        entries.for_each(|entry| encode(&entry, &mut bytes));
        let _ = rustix::fs::unlinkat(&self.directory, NEW, rustix::fs::AtFlags::empty());
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, NEW, flags, Mode::from(0o600))?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&file, rest)?..];
        }
        rustix::fs::fdatasync(&file)?;
        rustix::fs::renameat(&self.directory, NEW, &self.directory, FILE_NAME)?;
        (self.file, self.length, self.is_dirty) = (Some(file), bytes.len() as u64, false);
        self.is_name_dirty = true;
        Ok(())
    }
}

/// Keeps other writers away until what it returns is closed. The emulator of a run whose supervisor was killed may
/// have a moment to live: that is waited for. `None` where directories cannot be locked.
///
/// # Errors
/// EWOULDBLOCK: somebody writes, and goes on doing so.
pub fn only_writer(directory: impl AsFd) -> io::Result<Option<OwnedFd>> {
    const PATIENCE: u32 = 2_000;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    for _ in 0..PATIENCE {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(std::time::Duration::from_millis(5)),
            Err(_) => return Ok(None),
        }
    }
    Err(rustix::io::Errno::WOULDBLOCK.into())
}

/// Reads the log of a directory without changing it; an absent one is empty.
///
/// # Errors
/// As [`Log::open`].
pub fn read(directory: impl AsFd) -> io::Result<Vec<Entry>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(directory, FILE_NAME, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
        Ok(file) => Ok(parse(&read_all(&file)?)?.0),
    }
}

fn read_all(file: &OwnedFd) -> io::Result<Vec<u8>> {
    rustix::fs::seek(file, SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    let mut block = vec![0; 64 * 1024];
    loop {
        match rustix::io::read(file, &mut block)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&block[..count]),
        }
    }
}

/// The entries, and how many bytes of the file are whole.
fn parse(bytes: &[u8]) -> io::Result<(Vec<Entry>, usize)> {
    let Some(head) = bytes.get(..HEAD.len()) else {
        // Killed between making the file and writing its head.
        return if HEAD.starts_with(bytes) { Ok((Vec::new(), 0)) } else { Err(foreign()) };
    };
    if head != HEAD {
        return Err(foreign());
    }
    let mut entries = Vec::new();
    let mut at = HEAD.len();
    while let Some((entry, length)) = parse_one(&bytes[at..]) {
        entries.push(entry);
        at += length;
    }
    Ok((entries, at))
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "`owners` is no index of owners that is known here")
}

fn parse_one(bytes: &[u8]) -> Option<(Entry, usize)> {
    let mut reader = Reader(bytes);
    let length = reader.u32()? as usize;
    let sum = reader.u32()?;
    if length > LARGEST_ENTRY {
        return None;
    }
    let payload = reader.take(length)?;
    if crc32(payload) != sum {
        return None;
    }
    Some((decode(&mut Reader(payload))?, 8 + length))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn key(&mut self) -> Option<Key> {
        let (file_system, inode) = (self.u64()?, self.u64()?);
        let seconds = i64::from_le_bytes(self.take(8)?.try_into().ok()?);
        Some(Key { file_system, inode, birth: (seconds, self.u32()?) })
    }
}

fn decode(reader: &mut Reader<'_>) -> Option<Entry> {
    match reader.u8()? {
        1 => {
            let (key, also) = (reader.key()?, reader.u64()?);
            let mut record = Record::owned(reader.u32()?, reader.u32()?);
            let (kind, major, minor) = (reader.u8()?, reader.u32()?, reader.u32()?);
            if kind != 0 {
                record.device = Some(Device { is_block: kind == 2, major, minor });
            }
            for _ in 0..reader.u16()? {
                let length = usize::from(reader.u16()?);
                let name = reader.take(length)?.to_vec();
                let length = reader.u32()? as usize;
                record.xattrs.insert(name, reader.take(length)?.to_vec());
            }
            Some(Entry::Set { key, also, record })
        }
        2 => Some(Entry::Forget { key: reader.key()? }),
        _ => None,
    }
}

fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(80);
    let key = |payload: &mut Vec<u8>, key: &Key| {
        payload.extend_from_slice(&key.file_system.to_le_bytes());
        payload.extend_from_slice(&key.inode.to_le_bytes());
        payload.extend_from_slice(&key.birth.0.to_le_bytes());
        payload.extend_from_slice(&key.birth.1.to_le_bytes());
    };
    match entry {
        Entry::Forget { key: gone } => {
            payload.push(2);
            key(&mut payload, gone);
        }
        Entry::Set { key: file, also, record } => {
            payload.push(1);
            key(&mut payload, file);
            payload.extend_from_slice(&also.to_le_bytes());
            payload.extend_from_slice(&record.uid.to_le_bytes());
            payload.extend_from_slice(&record.gid.to_le_bytes());
            let device = record.device.unwrap_or(Device { is_block: false, major: 0, minor: 0 });
            payload.push(record.device.map_or(0, |device| 1 + u8::from(device.is_block)));
            payload.extend_from_slice(&device.major.to_le_bytes());
            payload.extend_from_slice(&device.minor.to_le_bytes());
            payload.extend_from_slice(&(record.xattrs.len() as u16).to_le_bytes());
            for (name, value) in &record.xattrs {
                payload.extend_from_slice(&(name.len() as u16).to_le_bytes());
                payload.extend_from_slice(name);
                payload.extend_from_slice(&(value.len() as u32).to_le_bytes());
                payload.extend_from_slice(value);
            }
        }
    }
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
}

/// The CRC-32 of IEEE 802.3, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0_u32, |sum, byte| TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(inode: u64) -> Key {
        Key { file_system: 0, inode, birth: (1, 2) }
    }

    fn set(inode: u64, uid: u32) -> Entry {
        let mut record = Record::owned(uid, 7);
        record.device = Some(Device { is_block: true, major: 8, minor: 1 });
        record.xattrs.insert(b"security.capability".to_vec(), vec![1, 2, 3]);
        Entry::Set { key: key(inode), also: 9, record }
    }

    fn directory(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn the_sum_is_the_one_everybody_knows() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_was_appended_is_read_and_nothing_is_made_without_need() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, entries) = Log::open(directory(place.path())).unwrap();
        assert_eq!((entries, std::fs::read_dir(place.path()).unwrap().count()), (vec![], 0));
        let written = vec![set(1, 100), Entry::Forget { key: key(1) }, set(2, 5)];
        written.iter().for_each(|entry| log.append(entry).unwrap());
        log.sync().unwrap();
        assert_eq!(read(directory(place.path())).unwrap(), written);
        log.rewrite(written[2..].iter().cloned()).unwrap();
        log.append(&written[0]).unwrap();
        let (again, entries) = Log::open(directory(place.path())).unwrap();
        assert_eq!(entries, [set(2, 5), set(1, 100)]);
        assert_eq!(again.length(), std::fs::metadata(place.path().join(FILE_NAME)).unwrap().len());
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(FILE_NAME), "root:x:0:0:root:/root:/bin/sh").unwrap();
        assert!(Log::open(directory(place.path())).is_err());
    }

    proptest! {
        #[test]
        fn a_log_cut_or_overwritten_anywhere_keeps_all_that_came_before(cut in 0_usize..400, garbage: [u8; 9]) {
            let place = tempfile::tempdir().unwrap();
            let (mut log, _) = Log::open(directory(place.path())).unwrap();
            let written: Vec<Entry> = (1..4).map(|inode| set(inode, 3)).collect();
            written.iter().for_each(|entry| log.append(entry).unwrap());
            let path = place.path().join(FILE_NAME);
            let mut bytes = std::fs::read(&path).unwrap();
            let whole = (bytes.len() - 16) / 3;
            bytes.truncate(cut);
            let kept = cut.min(16 + 3 * whole).saturating_sub(16) / whole;
            if cut >= 16 {
                bytes.extend_from_slice(&garbage);
            }
            std::fs::write(&path, bytes).unwrap();
            let (mut log, entries) = Log::open(directory(place.path())).unwrap();
            // One more may be whole: garbage can happen to be the very byte that was cut off.
            prop_assert!(entries.len() >= kept);
            prop_assert_eq!(&entries[..], &written[..entries.len()]);
            log.append(&written[2]).unwrap();
            prop_assert_eq!(read(directory(place.path())).unwrap().len(), entries.len() + 1);
        }
    }
}
