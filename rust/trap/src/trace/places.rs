//! The call sites in the code of a file: found once, replaced together.
//!
//! When one site of a library has proved busy, others will; and when threads have begun, none can be replaced any more. So the
//! library's file is looked through for `mov $number, %eax; syscall` with a number that the handler knows, once for all
//! processes, and all sites found are replaced at the first occasion. A loader's are replaced before it begins: what it does is always the same.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::rc::Rc;

use duckweed_sites::{is_site, ANSWERED};

use super::program::Elf;

/// No more than this of a file is looked through, bytes.
const LARGEST: u64 = 64 << 20;
const EXECUTABLE: u32 = 1;

/// A site: where in the file it begins, where that is in memory, counted from the file's first address there, and its call's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub address: u64,
    pub number: u32,
}

/// What was found in files.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_file: HashMap<(u64, u64, i64, i64), Rc<[Place]>>,
}

impl Places {
    /// The sites in a file of the host's.
    ///
    /// # Errors
    /// Those of opening and reading it, and ENOEXEC.
    pub fn of(&mut self, host: &[u8]) -> io::Result<Rc<[Place]>> {
        let file = File::open(OsStr::from_bytes(host))?;
        let is = file.metadata()?;
        let key = (is.dev(), is.ino(), is.ctime(), is.ctime_nsec());
        if let Some(found) = self.by_file.get(&key) {
            return Ok(Rc::clone(found));
        }
        let found: Rc<[Place]> = search(&file)?.into();
        self.by_file.insert(key, Rc::clone(&found));
        Ok(found)
    }
}

fn search(file: &File) -> io::Result<Vec<Place>> {
    let elf = Elf::read(file).map_err(io::Error::from)?;
    let mut found = Vec::new();
    for segment in elf.segments.iter().filter(|segment| segment.flags & EXECUTABLE != 0) {
        let mut code = vec![0; segment.in_file.min(LARGEST) as usize];
        file.read_exact_at(&mut code, segment.offset)?;
        for (index, bytes) in code.windows(7).enumerate() {
            if bytes[0] != 0xb8 || bytes[5] != 0x0f || bytes[6] != 0x05 {
                continue;
            }
            let number = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
            let is_known = ANSWERED.contains(&number);
            if is_known && bytes.try_into().is_ok_and(|bytes: [u8; 7]| is_site(bytes, number)) {
                let (offset, address) = (segment.offset + index as u64, segment.address + index as u64);
                found.push(Place { offset, address, number });
            }
        }
    }
    Ok(found)
}

/// The mapping of a file that an address is in: where it begins, where in the file that is, and the file's path on the host.
pub(super) fn mapping(pid: i32, address: u64) -> Option<(u64, u64, u64, Vec<u8>)> {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let text = std::str::from_utf8(line).ok()?;
        let mut words = text.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        if !(start..end).contains(&address) || !words.next()?.contains('x') {
            return None;
        }
        let offset = number(words.next()?)?;
        // The path is the rest, blanks and all.
        let at = text.find('/')?;
        Some((start, end, offset, line[at..].to_vec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sites_of_this_program_are_where_they_are() {
        let host = std::fs::read_link("/proc/self/exe").expect("a program");
        let mut places = Places::default();
        let found = places.of(host.as_os_str().as_bytes()).expect("an ELF file");
        let again = places.of(host.as_os_str().as_bytes()).expect("the same");
        assert!(Rc::ptr_eq(&found, &again));
        let file = std::fs::read(&host).expect("its bytes");
        for place in found.iter() {
            let bytes = file[place.offset as usize..][..7].try_into().expect("seven");
            assert!(is_site(bytes, place.number));
        }
    }

    #[test]
    fn an_address_of_ours_is_in_our_file() {
        let address = mapping as *const () as u64;
        let (start, end, _, path) = mapping(std::process::id() as i32, address).expect("a mapping");
        assert!((start..end).contains(&address) && path.starts_with(b"/"));
        assert!(mapping(std::process::id() as i32, 8).is_none());
    }
}
