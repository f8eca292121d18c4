//! From members to blocks: the writing side of the format, and always the same
//! bytes for the same members.
//!
//! Plain ustar wherever it can say everything; a PAX header before a member
//! (POSIX.1-2001) for what it cannot: names that do not fit, ids and sizes of
//! more than seven and eleven octal digits, times between two seconds or before
//! 1970, xattrs. Names are bytes and stay as they are, in both. User and group
//! names, and the time at which anything was read, are not written.
//!
//! Sparse files are written out: the readers of layers in the world agree on
//! no sparse format, and a run of zeros packs to nothing.

use std::io::{self, Write};

use super::header::Block;
use super::{Kind, Member, Time, BLOCK};
use crate::base64;

/// The largest numbers that the octal fields of a header hold.
const ID_LIMIT: u64 = 0o7_777_777;
const NUMBER_LIMIT: u64 = 0o77_777_777_777;

/// Writes an archive, member by member.
pub struct TarBuilder<W> {
    out: W,
    /// Bytes of the current body that are still to come, and the padding after it.
    left: u64,
    padding: usize,
    written: u64,
    members: u64,
}

impl<W: Write> TarBuilder<W> {
    /// An archive into `out`, which should take large pieces well (it gets small ones).
    pub fn new(out: W) -> TarBuilder<W> {
        TarBuilder { out, left: 0, padding: 0, written: 0, members: 0 }
    }

    /// Starts a member: its headers. `member.size` bytes by [`TarBuilder::write`] must follow for
    /// a file; other kinds have no body, whatever it says. Directories get their final slash here.
    ///
    /// # Errors
    /// `InvalidInput` when the body before it is not complete; else what `out` says.
    pub fn start(&mut self, member: &Member) -> io::Result<()> {
        if self.left != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the body before it is not complete"));
        }
        let size = if member.kind == Kind::File { member.size } else { 0 };
        let mut path = member.path.clone();
        if member.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let (block, records) = header(member, &path, size);
        if !records.is_empty() {
            self.extension(&path, &records)?;
        }
        self.put(&block)?;
        self.members += 1;
        self.left = size;
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        if size == 0 {
            self.padding = 0;
        }
        Ok(())
    }

    /// The next bytes of the body.
    ///
    /// # Errors
    /// `InvalidInput` for more bytes than were announced; else what `out` says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a body longer than announced"));
        }
        self.put(bytes)?;
        self.left -= bytes.len() as u64;
        if self.left == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.put(&[0; BLOCK][..padding])?;
        }
        Ok(())
    }

    /// Bytes of the current body that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Members started so far.
    pub fn members(&self) -> u64 {
        self.members
    }

    /// Ends the archive: two zero blocks, no more.
    ///
    /// # Errors
    /// As [`TarBuilder::start`].
    pub fn finish(mut self) -> io::Result<W> {
        if self.left != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the last body is not complete"));
        }
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn extension(&mut self, path: &[u8], records: &[u8]) -> io::Result<()> {
        let base = path.strip_suffix(b"/").unwrap_or(path).rsplit(|&byte| byte == b'/').next();
        let name = [b"PaxHeaders.0/", base.unwrap_or_default()].concat();
        let mut block = [0; BLOCK];
        fill(&mut block[..100], &name[..name.len().min(100)]);
        let fields = Fields { mode: 0o644, size: records.len() as u64, flag: b'x', ..Fields::default() };
        fields.write(&mut block);
        self.put(&block)?;
        self.put(records)?;
        let padding = (BLOCK - records.len() % BLOCK) % BLOCK;
        self.put(&[0; BLOCK][..padding])
    }
}

/// A header's block, and the PAX records of what does not fit in it.
fn header(member: &Member, path: &[u8], size: u64) -> (Block, Vec<u8>) {
    let mut block = [0; BLOCK];
    let mut records = Vec::new();
    if !place_name(&mut block, path) {
        record(&mut records, b"path", path);
    }
    let link = if matches!(member.kind, Kind::HardLink | Kind::Symlink) { &member.link[..] } else { b"" };
    if link.len() > 100 {
        record(&mut records, b"linkpath", link);
    }
    fill(&mut block[157..257], &link[..link.len().min(100)]);
    let mut fit = |key: &[u8], number: u64, limit: u64| {
        if number > limit {
            record(&mut records, key, number.to_string().as_bytes());
            return 0;
        }
        number
    };
    let mut fields = Fields {
        mode: u64::from(member.mode & 0o7777),
        size: fit(b"size", size, NUMBER_LIMIT),
        uid: fit(b"uid", u64::from(member.uid), ID_LIMIT),
        gid: fit(b"gid", u64::from(member.gid), ID_LIMIT),
        flag: flag(member.kind),
        device: member.device,
        mtime: 0,
    };
    let seconds = u64::try_from(member.mtime.seconds).ok().filter(|&seconds| seconds <= NUMBER_LIMIT);
    fields.mtime = seconds.unwrap_or(0);
    if seconds.is_none() || member.mtime.nanoseconds != 0 {
        record(&mut records, b"mtime", time(member.mtime).as_bytes());
    }
    let mut xattrs: Vec<_> = member.xattrs.iter().collect();
    xattrs.sort();
    for (name, value) in xattrs {
        xattr(&mut records, name, value);
    }
    fields.write(&mut block);
    (block, records)
}

/// Puts a name into the header, split at a slash if that is what it takes. `false`: it does not fit, and its end stands there.
fn place_name(block: &mut Block, path: &[u8]) -> bool {
    if path.len() <= 100 {
        fill(&mut block[..100], path);
        return true;
    }
    // The slash at the split is not written, and neither side may be empty.
    let earliest = path.len() - 101;
    let split =
        path[..path.len() - 1].iter().enumerate().skip(earliest.max(1)).find(|(_, &byte)| byte == b'/');
    match split {
        Some((at, _)) if at <= 155 => {
            fill(&mut block[..100], &path[at + 1..]);
            fill(&mut block[345..500], &path[..at]);
            true
        }
        _ => {
            fill(&mut block[..100], &path[path.len() - 100..]);
            false
        }
    }
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
        Kind::Other(flag) => flag,
    }
}

/// The numbers of a header.
#[derive(Default)]
struct Fields {
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    flag: u8,
    device: (u32, u32),
}

impl Fields {
    /// Writes them, the magic, and the checksum over it all.
    fn write(&self, block: &mut Block) {
        octal(&mut block[100..108], self.mode);
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], self.mtime);
        block[156] = self.flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(self.device.0));
        octal(&mut block[337..345], u64::from(self.device.1));
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut block[148..155], sum);
    }
}

/// Octal digits with leading zeros and a NUL at the end. (Device numbers of Linux have at most 20 bits each.)
fn octal(field: &mut [u8], number: u64) {
    let mut rest = number;
    let digits = field.len() - 1;
    for place in field[..digits].iter_mut().rev() {
        *place = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    field[digits] = 0;
}

/// `LENGTH KEY=VALUE\n`; the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    if length.to_string().len() != body.to_string().len() {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// `SECONDS[.NANOSECONDS]` without trailing zeros; before 1970 the fraction counts away from it.
fn time(time: Time) -> String {
    let (seconds, nanoseconds) = match time.seconds < 0 && time.nanoseconds > 0 {
        true => (time.seconds + 1, 1_000_000_000 - time.nanoseconds),
        false => (time.seconds, time.nanoseconds),
    };
    let sign = if time.seconds < 0 && seconds == 0 { "-" } else { "" };
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}

/// star's spelling, which Docker, podman and umoci read; a name with `=` in it needs libarchive's.
fn xattr(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !name.contains(&b'=') {
        return record(records, &[b"SCHILY.xattr.", name].concat(), value);
    }
    let mut key = b"LIBARCHIVE.xattr.".to_vec();
    for &byte in name {
        match byte {
            b'=' | b'%' | 0x7f..=0xff | 0..=0x20 => key.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => key.push(byte),
        }
    }
    record(records, &key, base64::encode(value).trim_end_matches('=').as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::TarReader;

    fn member(kind: Kind, path: &[u8]) -> Member {
        Member {
            path: path.to_vec(),
            link: Vec::new(),
            kind,
            size: 0,
            stored: 0,
            offset: 0,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { seconds: 1_700_000_000, nanoseconds: 0 },
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }

    fn archive(members: &[(Member, &[u8])]) -> Vec<u8> {
        let mut tar = TarBuilder::new(Vec::new());
        for (member, body) in members {
            tar.start(member).unwrap();
            tar.write(body).unwrap();
        }
        tar.finish().unwrap()
    }

    /// What our reader makes of one member.
    fn read_back(member: &Member) -> Member {
        let bytes = archive(&[(member.clone(), &vec![b'x'; member.size as usize])]);
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = TarReader::new(&bytes[..]);
        let read = reader.next_member().unwrap().unwrap();
        assert!(reader.next_member().unwrap().is_none());
        Member { offset: 0, stored: member.stored, ..read }
    }

    fn odd_members() -> Vec<Member> {
        let file = |path: &[u8]| member(Kind::File, path);
        let long = [&b"a/"[..], &[b'b'; 254], b"/", &[0xff; 254], b"/end"].concat();
        let mut list =
            vec![file(b"plain"), file("größe/\u{1f980}".as_bytes()), file(b"\xff\xfe"), file(&long)];
        list.push(file(&[&[b'p'; 155][..], b"/", &[b'n'; 100]].concat()));
        list.push(file(&[&[b'p'; 156][..], b"/", &[b'n'; 100]].concat()));
        list.push(file(&[b'n'; 101]));
        list.push(Member { uid: 2_097_151, gid: 2_097_152, ..file(b"ids") });
        list.push(Member { uid: u32::MAX - 1, size: 511, ..file(b"more ids") });
        for (seconds, nanoseconds) in
            [(0, 0), (0, 1), (-1, 0), (-1, 500_000_000), (-2, 999_999_999), (1 << 40, 120), (1, 10)]
        {
            list.push(Member { mtime: Time { seconds, nanoseconds }, ..file(b"time") });
        }
        list.push(Member { device: (4095, (1 << 20) - 1), ..member(Kind::CharDevice, b"dev") });
        list.push(Member { device: (8, 1), ..member(Kind::BlockDevice, b"disk") });
        list.push(member(Kind::Fifo, b"fifo"));
        list.push(Member { link: long, ..member(Kind::Symlink, b"symlink") });
        list.push(Member { link: b"plain".to_vec(), ..member(Kind::HardLink, b"link") });
        let xattrs = vec![
            (b"security.capability".to_vec(), b"\0\x01=\n\xff".to_vec()),
            (b"user.a=b%\xff".to_vec(), b"v".to_vec()),
            (b"user.empty".to_vec(), Vec::new()),
        ];
        list.push(Member { xattrs, ..file(b"xattrs") });
        list
    }

    #[test]
    fn whatever_is_written_is_read_back_the_same() {
        for member in odd_members() {
            assert_eq!(read_back(&member), member);
        }
        assert_eq!(read_back(&member(Kind::Directory, b"dir")).path, b"dir/");
    }

    #[test]
    fn another_implementation_reads_the_same() {
        for member in odd_members() {
            let bytes = archive(&[(member.clone(), &vec![b'x'; member.size as usize])]);
            let mut reader = tar::Archive::new(&bytes[..]);
            let mut entry = reader.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(*entry.path_bytes(), member.path);
            assert_eq!(entry.link_name_bytes().unwrap_or_default().into_owned(), member.link);
            let is_plain = [&b"plain"[..], b"dev", b"disk", b"fifo", b"link"].contains(&&member.path[..]);
            assert!(!is_plain || entry.pax_extensions().unwrap().is_none());
        }
    }

    #[test]
    fn sizes_beyond_eight_gib_go_to_a_pax_record() {
        let big = Member { size: NUMBER_LIMIT + 1, ..member(Kind::File, b"big") };
        let (block, records) = header(&big, b"big", big.size);
        assert_eq!(records, b"19 size=8589934592\n");
        assert_eq!(&block[124..136], b"00000000000\0");
    }

    #[test]
    fn lengths_of_records_count_their_own_digits() {
        for value in [1, 5, 6, 7, 85, 86, 87, 88, 89, 90, 985, 986, 987, 988, 989, 990] {
            let mut records = Vec::new();
            record(&mut records, b"key", &vec![b'v'; value]);
            let text = String::from_utf8_lossy(&records);
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), records.len());
        }
    }

    #[test]
    fn bodies_are_exactly_as_long_as_announced() {
        let file = Member { size: 3, ..member(Kind::File, b"file") };
        let mut tar = TarBuilder::new(Vec::new());
        tar.start(&file).unwrap();
        assert!(tar.write(b"four").is_err());
        tar.write(b"12").unwrap();
        assert!(tar.start(&file).is_err());
        assert!(tar.finish().is_err());
    }
}
