//! Sockets: those with a name in the file system are translated; the network is the machine's.
//!
//! This is the place for a gate: whoever gives containers addresses and published ports asks here before an AF_INET
//! address is handed on ([`bind`], [`connect`], [`sendto`], [`sendmsg`]).

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use super::{Action, Argument, Outcome, Run, Tracer};
use crate::call::Call;
use crate::owners::Record;
use crate::permission::WRITE;
use crate::union::{join, parent, Follow};
use crate::view::HERE;

/// What `sun_path` holds, its NUL included.
const LONGEST: usize = 108;

/// The path in an address; `None` for any other address.
fn path_in(address: &[u8]) -> Option<Vec<u8>> {
    if address.len() < 4 || address[..2] != (libc::AF_UNIX as u16).to_ne_bytes() || address[2] == 0 {
        return None;
    }
    address[2..].split(|byte| *byte == 0).next().map(<[u8]>::to_vec)
}

fn path_of(call: &Call, address: usize, length: usize) -> Result<Option<Vec<u8>>, Errno> {
    let length = call.int(length);
    if call.long(address) == 0 || !(4..=4096).contains(&length) {
        return Ok(None);
    }
    Ok(path_in(&call.bytes(address, (length as usize).min(2 + LONGEST))?))
}

impl Tracer {
    /// The address of a host path, short enough for it.
    fn address(&mut self, host: &[u8]) -> Result<Vec<u8>, Errno> {
        let host = match host.len() < LONGEST {
            true => host.to_vec(),
            false => self.shorten(host)?,
        };
        let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        address.extend_from_slice(&host);
        address.push(0);
        Ok(address)
    }

    /// Another way to a path: through a link with a short name to its directory.
    fn shorten(&mut self, host: &[u8]) -> Result<Vec<u8>, Errno> {
        let directory = parent(host).to_vec();
        let link = match self.short_directories.get(&directory) {
            Some(link) => link.clone(),
            None => {
                if self.short_directories.is_empty() {
                    let mode = rustix::fs::Mode::from_raw_mode(0o700);
                    rustix::fs::mkdir(&self.settings.short[..], mode)?;
                }
                let number = self.short_directories.len().to_string();
                let link = join(&self.settings.short, number.as_bytes());
                rustix::fs::symlink(&directory[..], &link[..])?;
                self.short_directories.insert(directory, link.clone());
                link
            }
        };
        let name = host.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let short = join(&link, name);
        if short.len() < LONGEST {
            Ok(short)
        } else {
            Err(Errno::NAMETOOLONG)
        }
    }

    /// The host path of an address that was shortened.
    fn lengthen(&self, host: &[u8]) -> Vec<u8> {
        let Some(rest) = host.strip_prefix(&join(&self.settings.short, b"")[..]) else {
            return host.to_vec();
        };
        let mut parts = rest.splitn(2, |byte| *byte == b'/');
        let (Some(number), Some(name)) = (parts.next(), parts.next()) else { return host.to_vec() };
        let link = join(&self.settings.short, number);
        let found = self.short_directories.iter().find(|(_, short)| **short == link);
        found.map_or_else(|| host.to_vec(), |(directory, _)| join(directory, name))
    }

    /// Takes the short names away.
    pub fn clean(&mut self) {
        for link in self.short_directories.values() {
            let _ = rustix::fs::unlinkat(CWD, &link[..], AtFlags::empty());
        }
        let _ = rustix::fs::unlinkat(CWD, &self.settings.short[..], AtFlags::REMOVEDIR);
    }

    /// The address of a socket's file that somebody wants to reach.
    fn peer(&mut self, call: &Call, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let spot = self.place(call, HERE, path, Follow::Yes)?;
        if !spot.exists() {
            return Err(Errno::NOENT);
        }
        let stat = super::stat::found(self, &spot)?;
        self.require(call, &spot, &stat, WRITE)?;
        self.address(&spot.host)
    }
}

pub(super) fn bind(tracer: &mut Tracer, call: &Call) -> Outcome {
    let Some(path) = path_of(call, 1, 2)? else { return Ok(Action::Pass) };
    let spot = tracer.place(call, HERE, &path, Follow::No)?;
    if spot.exists() {
        return Err(Errno::ADDRINUSE);
    }
    let owner = tracer.birth(call, &spot)?;
    let (to, hides) = tracer.make_room(&spot)?;
    let address = tracer.address(&to)?;
    let loose = super::open::Loose::parent(&to);
    let run = Run {
        arguments: vec![(2, Argument::Word(address.len() as u64)), (1, Argument::Bytes(address))],
        ..Run::default()
    };
    run.then(move |tracer, _, result| {
        drop(loose);
        let made = tracer.union.made(&spot, &to, hides);
        if *result == 0 && made.is_ok() && owner != (0, 0) {
            let _ = tracer.remember(&to, &spot.path, Record::owned(owner.0, owner.1));
        }
    })
}

pub(super) fn connect(tracer: &mut Tracer, call: &Call) -> Outcome {
    to_peer(tracer, call, 1, 2)
}

pub(super) fn sendto(tracer: &mut Tracer, call: &Call) -> Outcome {
    to_peer(tracer, call, 4, 5)
}

fn to_peer(tracer: &mut Tracer, call: &Call, address: usize, length: usize) -> Outcome {
    let Some(path) = path_of(call, address, length)? else { return Ok(Action::Pass) };
    let bytes = tracer.peer(call, &path)?;
    Ok(Action::Run(Run {
        arguments: vec![(length, Argument::Word(bytes.len() as u64)), (address, Argument::Bytes(bytes))],
        ..Run::default()
    }))
}

/// `struct msghdr` is 56 bytes: the name's address and length come first.
const HEADER: usize = 56;

fn name_in(call: &Call, header: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let word = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().unwrap_or_default());
    let (name, length) = (word(0), word(8) as u32);
    if name == 0 || !(4..=4096).contains(&length) {
        return Ok(None);
    }
    let named = Call::with(call.pid, [name, 0, 0, 0, 0, 0]);
    Ok(path_in(&named.bytes(0, (length as usize).min(2 + LONGEST))?))
}

pub(super) fn sendmsg(tracer: &mut Tracer, call: &Call) -> Outcome {
    let mut block = call.bytes(1, HEADER)?;
    let Some(path) = name_in(call, &block)? else { return Ok(Action::Pass) };
    let address = tracer.peer(call, &path)?;
    block[8..12].copy_from_slice(&(address.len() as u32).to_ne_bytes());
    block.extend_from_slice(&address);
    Ok(Action::Run(Run { arguments: vec![(1, Argument::Block(block, vec![(0, HEADER)]))], ..Run::default() }))
}

/// Many messages at once go to names in the file system only one by one.
pub(super) fn sendmmsg(_: &mut Tracer, call: &Call) -> Outcome {
    let count = call.word(2).min(1024) as usize;
    for index in 0..count {
        let at = Call::with(call.pid, [call.long(1) + (index * 64) as u64, 0, 0, 0, 0, 0]);
        if name_in(call, &at.bytes(0, HEADER)?)?.is_some() {
            return Err(Errno::NOSYS);
        }
    }
    Ok(Action::Pass)
}

/// Calls that tell an address: (descriptor, address, length).
pub(super) fn name(_: &mut Tracer, call: &Call) -> Outcome {
    if call.long(1) == 0 || call.long(2) == 0 {
        return Ok(Action::Pass);
    }
    let room = call.words(2, 1)?[0] as usize;
    Run::default().then(move |tracer, call, result| {
        if *result >= 0 {
            let _ = show_name(tracer, call, room);
        }
    })
}

fn show_name(tracer: &Tracer, call: &Call, room: usize) -> Result<(), Errno> {
    let length = (call.words(2, 1)?[0] as usize).min(room).min(2 + LONGEST);
    let Some(host) = path_in(&call.bytes(1, length)?) else { return Ok(()) };
    let Some(path) = tracer.reverse(&tracer.lengthen(&host)) else { return Ok(()) };
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(&path);
    address.push(0);
    call.write(1, &address[..address.len().min(room)])?;
    call.write(2, &(address.len() as u32).to_ne_bytes())
}

/// SO_PEERCRED, as the other end is now.
pub(super) fn getsockopt(_: &mut Tracer, _: &Call) -> Outcome {
    Run::default().then(|tracer, call, result| {
        if *result == 0 {
            let _ = show_peer(tracer, call);
        }
    })
}

fn show_peer(tracer: &Tracer, call: &Call) -> Result<(), Errno> {
    if call.words(4, 1)?[0] < 12 {
        return Ok(());
    }
    let words = call.words(3, 3)?;
    let pid = words[0] as i32;
    let ours = tracer.settings.host_ids;
    let ids = match tracer.is_ours(pid) {
        true => {
            let who = tracer.world.credentials(pid)?;
            (who.uid.effective, who.gid.effective)
        }
        false => (super::paths::inner_id(words[1], ours.0), super::paths::inner_id(words[2], ours.1)),
    };
    let bytes: Vec<u8> = [words[0], ids.0, ids.1].iter().flat_map(|word| word.to_ne_bytes()).collect();
    call.write(3, &bytes)
}
