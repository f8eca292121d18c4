//! Sockets: those with a name in the file system are translated; the network is the machine's, or a gate's.
//!
//! Whoever gives a container addresses and ports of its own ([`Gate`]) is asked first: it knows sockets of the internet and leaves all
//! others to what stands here. Then abstract names are the container's own, too: they carry its mark outside.

use std::rc::Rc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{ancillary, Action, Argument, Outcome, Run, Tracer};
use crate::call::Call;
use crate::permission::WRITE;
use crate::table::When;
use crate::union::{join, parent, Follow};
use crate::view::HERE;

/// What `sun_path` holds, its NUL included.
const LONGEST: usize = 108;

/// Asked about a call with a number before it is looked at here; `None`: it is none of its business.
pub type Gate = Rc<dyn Fn(&Tracer, i64, &Call) -> Result<Option<Action>, Errno>>;

/// What a file of /proc/net with this name is to hold instead of this text.
pub type Listing = Rc<dyn Fn(&Tracer, &str, &str) -> String>;

/// Calls that stop for a gate besides those that stop anyway, and when.
pub(super) const GATED: &[(i64, When)] = &[
    (libc::SYS_socket, When::NotUnix),
    (libc::SYS_listen, When::Always),
    (libc::SYS_recvfrom, When::NonZero(4)),
    (libc::SYS_recvmsg, When::Always),
    (libc::SYS_recvmmsg, When::Always),
    (libc::SYS_setsockopt, When::V6Only),
];

/// Whether the filter stops a call whatever its arguments are, in a container that has a gate.
pub(super) fn stops_always(number: i64) -> bool {
    matches!(number, libc::SYS_bind | libc::SYS_connect | libc::SYS_listen | libc::SYS_getsockname)
}

/// A name in an address.
enum Name {
    Path(Vec<u8>),
    /// Of those that all who have a network share; without a leading NUL.
    Abstract(Vec<u8>),
}

fn is_unix(address: &[u8]) -> bool {
    address.get(..2) == Some(&(libc::AF_UNIX as u16).to_ne_bytes())
}

/// The path in an address; `None` for any other address.
fn path_in(address: &[u8]) -> Option<Vec<u8>> {
    if address.len() < 4 || !is_unix(address) || address[2] == 0 {
        return None;
    }
    address[2..].split(|byte| *byte == 0).next().map(<[u8]>::to_vec)
}

fn abstract_in(address: &[u8]) -> Option<Vec<u8>> {
    (is_unix(address) && address.get(2) == Some(&0)).then(|| address[3..].to_vec())
}

fn unix_address(name: &[u8]) -> Vec<u8> {
    [&(libc::AF_UNIX as u16).to_ne_bytes(), name].concat()
}

impl Tracer {
    /// Asks the gate, if there is one.
    fn ask_gate(&mut self, number: i64, call: &Call) -> Result<Option<Action>, Errno> {
        match self.gate.clone() {
            Some(gate) => gate(self, number, call),
            None => Ok(None),
        }
    }

    /// What a file of /proc/net holds; `None`: the kernel's text is right.
    pub(super) fn listing(
        &self,
        name: &[u8],
        kernel: impl FnOnce() -> Result<String, Errno>,
    ) -> Result<Option<Vec<u8>>, Errno> {
        let Some(listing) = &self.listing else { return Ok(None) };
        let text = match name {
            b"tcp" | b"tcp6" | b"udp" | b"udp6" => {
                listing(self, std::str::from_utf8(name).unwrap_or_default(), &kernel()?)
            }
            // Of nobody: the heading alone.
            b"unix" | b"netlink" | b"packet" | b"raw" | b"raw6" | b"icmp" | b"icmp6" | b"udplite"
            | b"udplite6" | b"ptype" => kernel()?.lines().take(1).map(|line| format!("{line}\n")).collect(),
            _ => return Ok(None),
        };
        Ok(Some(text.into_bytes()))
    }

    /// A name that is to be translated.
    fn name_in(&self, address: &[u8]) -> Option<Name> {
        let shared = || self.gate.as_ref().and(abstract_in(address)).map(Name::Abstract);
        path_in(address).map(Name::Path).or_else(shared)
    }

    fn name_of(&self, call: &Call, address: usize, length: usize) -> Result<Option<Name>, Errno> {
        let length = call.int(length);
        if call.long(address) == 0 || !(3..=4096).contains(&length) {
            return Ok(None);
        }
        Ok(self.name_in(&call.bytes(address, (length as usize).min(2 + LONGEST))?))
    }

    /// The address of an abstract name of the container's.
    fn marked(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let name = [b"\0", &self.settings.mark[..], name].concat();
        if name.len() > LONGEST {
            return Err(Errno::INVAL);
        }
        Ok(unix_address(&name))
    }

    /// The address of a host path, short enough for it.
    fn address(&mut self, host: &[u8]) -> Result<Vec<u8>, Errno> {
        let host = match host.len() < LONGEST {
            true => host.to_vec(),
            false => self.shorten(host)?,
        };
        let mut address = unix_address(&host);
        address.push(0);
        Ok(address)
    }

    /// The ids of a process as they are inside; of one that is not the container's, by those it has on the host.
    pub(super) fn inner_ids(&self, pid: i32, host: (u32, u32)) -> Result<(u32, u32), Errno> {
        if self.is_ours(pid) {
            let who = self.world.credentials(pid)?;
            return Ok((who.uid.effective, who.gid.effective));
        }
        let ours = self.settings.host_ids;
        Ok((super::paths::inner_id(host.0, ours.0), super::paths::inner_id(host.1, ours.1)))
    }

    /// Another way to a path: through a link with a short name to its directory.
    fn shorten(&mut self, host: &[u8]) -> Result<Vec<u8>, Errno> {
        let link = self.short.of(parent(host))?;
        let name = host.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let short = join(&link, name);
        if short.len() < LONGEST {
            Ok(short)
        } else {
            Err(Errno::NAMETOOLONG)
        }
    }

    /// Takes the short names away.
    pub fn clean(&mut self) {
        self.short.clean();
    }

    /// The address of a socket's file that somebody wants to reach.
    fn peer(&mut self, call: &Call, name: &Name) -> Result<Vec<u8>, Errno> {
        let path = match name {
            Name::Path(path) => path,
            Name::Abstract(name) => return self.marked(name),
        };
        let spot = self.place(call, HERE, path, Follow::Yes)?;
        if !spot.exists() {
            return Err(Errno::NOENT);
        }
        let stat = super::stat::found(self, &spot)?;
        self.require(call, &spot, &stat, WRITE)?;
        self.address(&spot.host)
    }
}

pub(super) fn socket(tracer: &mut Tracer, call: &Call) -> Outcome {
    Ok(tracer.ask_gate(libc::SYS_socket, call)?.unwrap_or(Action::Pass))
}

pub(super) fn listen(tracer: &mut Tracer, call: &Call) -> Outcome {
    Ok(tracer.ask_gate(libc::SYS_listen, call)?.unwrap_or(Action::Pass))
}

pub(super) fn setsockopt(tracer: &mut Tracer, call: &Call) -> Outcome {
    Ok(tracer.ask_gate(libc::SYS_setsockopt, call)?.unwrap_or(Action::Pass))
}

pub(super) fn recvmsg(tracer: &mut Tracer, call: &Call) -> Outcome {
    if let Some(action) = tracer.ask_gate(libc::SYS_recvmsg, call)? {
        return Ok(action);
    }
    // Only who has room for it can be told who sent a message.
    if u64::from_ne_bytes(call.bytes(1, 48)?[40..].try_into().unwrap_or_default()) == 0 {
        return Ok(Action::Pass);
    }
    Run::default().then(|tracer, call, result| {
        if *result >= 0 {
            let _ = ancillary::received(tracer, call);
        }
    })
}

pub(super) fn recvmmsg(tracer: &mut Tracer, call: &Call) -> Outcome {
    Ok(tracer.ask_gate(libc::SYS_recvmmsg, call)?.unwrap_or(Action::Pass))
}

pub(super) fn bind(tracer: &mut Tracer, call: &Call) -> Outcome {
    if let Some(action) = tracer.ask_gate(libc::SYS_bind, call)? {
        return Ok(action);
    }
    if tracer.gate.is_some() && call.int(2) == 2 && is_unix(&call.bytes(1, 2)?) {
        // Without a name the kernel chooses one, which would have no mark.
        let mut random = [0; 4];
        let _ = duckweed_sys::random::fill(&mut random);
        let name = format!("{:05x}", u32::from_ne_bytes(random) & 0xf_ffff);
        return Ok(with_address(1, 2, tracer.marked(name.as_bytes())?));
    }
    let path = match tracer.name_of(call, 1, 2)? {
        None => return Ok(Action::Pass),
        Some(Name::Abstract(name)) => return Ok(with_address(1, 2, tracer.marked(&name)?)),
        Some(Name::Path(path)) => path,
    };
    let spot = tracer.place(call, HERE, &path, Follow::No)?;
    if spot.exists() {
        return Err(Errno::ADDRINUSE);
    }
    let record = tracer.birth(call, &spot)?.record(0o777, FileType::Socket);
    let (to, hides) = tracer.make_room(&spot)?;
    let address = tracer.address(&to)?;
    let loose = super::open::Loose::parent(&to);
    let run = Run { arguments: arguments(1, 2, address), ..Run::default() };
    run.then(move |tracer, _, result| {
        drop(loose);
        let made = tracer.union.made(&spot, &to, hides);
        if *result == 0 && made.is_ok() && !record.says_nothing() {
            let _ = tracer.remember(&to, &spot.path, record);
        }
    })
}

fn arguments(index: usize, length: usize, address: Vec<u8>) -> Vec<(usize, Argument)> {
    vec![(length, Argument::Word(address.len() as u64)), (index, Argument::Bytes(address))]
}

fn with_address(index: usize, length: usize, address: Vec<u8>) -> Action {
    Action::Run(Run { arguments: arguments(index, length, address), ..Run::default() })
}

pub(super) fn connect(tracer: &mut Tracer, call: &Call) -> Outcome {
    to_peer(tracer, (libc::SYS_connect, call), 1, 2)
}

pub(super) fn sendto(tracer: &mut Tracer, call: &Call) -> Outcome {
    to_peer(tracer, (libc::SYS_sendto, call), 4, 5)
}

fn to_peer(tracer: &mut Tracer, (number, call): (i64, &Call), address: usize, length: usize) -> Outcome {
    if let Some(action) = tracer.ask_gate(number, call)? {
        return Ok(action);
    }
    let Some(name) = tracer.name_of(call, address, length)? else { return Ok(Action::Pass) };
    Ok(with_address(address, length, tracer.peer(call, &name)?))
}

/// `struct msghdr` is 56 bytes: the name's address and length come first.
const HEADER: usize = 56;

fn name_in(tracer: &Tracer, call: &Call, header: &[u8]) -> Result<Option<Name>, Errno> {
    let word = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().unwrap_or_default());
    let named = Call::with(call.pid, [word(0), u64::from(word(8) as u32), 0, 0, 0, 0]);
    tracer.name_of(&named, 0, 1)
}

pub(super) fn sendmsg(tracer: &mut Tracer, call: &Call) -> Outcome {
    if let Some(action) = tracer.ask_gate(libc::SYS_sendmsg, call)? {
        return Ok(action);
    }
    let mut block = call.bytes(1, HEADER)?;
    let mut pointers = Vec::new();
    if let Some(control) = ancillary::sent(tracer, call, &block)? {
        pointers.push((32, block.len()));
        block.extend_from_slice(&control);
        block.resize((block.len() + 7) & !7, 0);
    }
    if let Some(name) = name_in(tracer, call, &block)? {
        let address = tracer.peer(call, &name)?;
        block[8..12].copy_from_slice(&(address.len() as u32).to_ne_bytes());
        pointers.push((0, block.len()));
        block.extend_from_slice(&address);
    }
    if pointers.is_empty() {
        return Ok(Action::Pass);
    }
    Ok(Action::Run(Run { arguments: vec![(1, Argument::Block(block, pointers))], ..Run::default() }))
}

/// Many messages at once go to names in the file system only one by one.
pub(super) fn sendmmsg(tracer: &mut Tracer, call: &Call) -> Outcome {
    if let Some(action) = tracer.ask_gate(libc::SYS_sendmmsg, call)? {
        return Ok(action);
    }
    let count = call.word(2).min(1024) as usize;
    for index in 0..count {
        let at = Call::with(call.pid, [call.long(1) + (index * 64) as u64, 0, 0, 0, 0, 0]);
        if name_in(tracer, call, &at.bytes(0, HEADER)?)?.is_some() {
            return Err(Errno::NOSYS);
        }
    }
    Ok(Action::Pass)
}

/// Calls that tell an address: getsockname, getpeername, accept.
pub(super) fn name(tracer: &mut Tracer, number: i64, call: &Call) -> Outcome {
    if let Some(action) = tracer.ask_gate(number, call)? {
        return Ok(action);
    }
    tells(call, 1, 2)
}

pub(super) fn recvfrom(tracer: &mut Tracer, call: &Call) -> Outcome {
    if let Some(action) = tracer.ask_gate(libc::SYS_recvfrom, call)? {
        return Ok(action);
    }
    tells(call, 4, 5)
}

fn tells(call: &Call, address: usize, length: usize) -> Outcome {
    if call.long(address) == 0 || call.long(length) == 0 {
        return Ok(Action::Pass);
    }
    let room = call.words(length, 1)?[0] as usize;
    Run::default().then(move |tracer, call, result| {
        if *result >= 0 {
            let _ = show_name(tracer, call, (address, length), room);
        }
    })
}

fn show_name(tracer: &Tracer, call: &Call, (at, length): (usize, usize), room: usize) -> Result<(), Errno> {
    let told = (call.words(length, 1)?[0] as usize).min(room).min(2 + LONGEST);
    let address = match tracer.name_in(&call.bytes(at, told)?) {
        None => return Ok(()),
        Some(Name::Abstract(host)) => match host.strip_prefix(&tracer.settings.mark[..]) {
            Some(name) => unix_address(&[b"\0", name].concat()),
            None => return Ok(()),
        },
        Some(Name::Path(host)) => match tracer.reverse(&tracer.short.lengthen(&host).unwrap_or(host)) {
            Some(path) => [unix_address(&path), vec![0]].concat(),
            None => return Ok(()),
        },
    };
    call.write(at, &address[..address.len().min(room)])?;
    call.write(length, &(address.len() as u32).to_ne_bytes())
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
    let ids = tracer.inner_ids(words[0] as i32, (words[1], words[2]))?;
    let bytes: Vec<u8> = [words[0], ids.0, ids.1].iter().flat_map(|word| word.to_ne_bytes()).collect();
    call.write(3, &bytes)
}
