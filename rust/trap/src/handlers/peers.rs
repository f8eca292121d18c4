//! Who is at the other end of a socket, and whose a socket's file is.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::names::{birth, Kind};
use crate::bearer;
use crate::call::{Call, Outcome, DONE, GO_ON};
use crate::view::HERE;
use crate::world::World;

/// A copy of a socket of the caller's, by pidfd_getfd(2); `None` where that is refused.
fn socket(call: &Call, number: i32) -> Option<OwnedFd> {
    let thread = Pid::from_raw(call.pid)?;
    // PIDFD_THREAD, 6.9; a leader needs none.
    let pidfd = rustix::process::pidfd_open(thread, PidfdFlags::empty())
        .or_else(|_| rustix::process::pidfd_open(thread, PidfdFlags::from_bits_retain(libc::O_EXCL as u32)))
        .ok()?;
    rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok()
}

/// SO_PEERCRED, as the other end is now: it may have been somebody else when it connected.
pub fn getsockopt(world: &mut World, call: &Call) -> Outcome {
    let is_asked = (call.int(1), call.int(2)) == (libc::SOL_SOCKET, libc::SO_PEERCRED);
    if !is_asked || world.known.are_all_root() {
        return GO_ON;
    }
    let Some(socket) = socket(call, call.int(0)) else { return GO_ON };
    let Ok(peer) = rustix::net::sockopt::socket_peercred(&socket) else { return GO_ON };
    let pid = peer.pid.as_raw_nonzero().get();
    let Ok(number) = bearer::number_of(pid) else { return GO_ON };
    if number == 0 {
        return GO_ON;
    }
    let Some(inner) = inner_pid(world, pid) else { return GO_ON };
    let who = world.known.get(number);
    let room = call.words(4, 1)?[0];
    let words = [inner, who.uid.effective, who.gid.effective];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = bytes.len().min(room as usize);
    call.write(3, &bytes[..length])?;
    call.write(4, &(length as u32).to_ne_bytes())?;
    DONE
}

fn inner_pid(world: &World, pid: i32) -> Option<u32> {
    let status = world.view.read_proc(&format!("{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NStgid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// bind(2) of a name in the file system by somebody: made here, so that its file is theirs.
pub fn bind(world: &mut World, call: &Call) -> Outcome {
    if world.known.are_all_root() && !world.owners.has_lower() {
        return GO_ON;
    }
    let length = (call.long(2) as usize).min(110);
    if length < 4 {
        return GO_ON;
    }
    let address = call.bytes(1, length)?;
    let path = address[2..].split(|byte| *byte == 0).next().unwrap_or_default();
    if address[..2] != (libc::AF_UNIX as u16).to_ne_bytes() || path.is_empty() {
        return GO_ON;
    }
    let Some(birth) = birth(world, call, HERE, path, Kind::Other)? else { return GO_ON };
    let Some(socket) = socket(call, call.int(0)) else { return GO_ON };
    let umask = 0o777 & !birth.mode(world, call, 0o777)?.as_raw_mode();
    bind_there(world, call, &socket, path, umask)?;
    birth.record(world, 0o777, FileType::Socket)?;
    DONE
}

/// Our umask decides the mode, so it is set to the caller's for a moment; no other thread makes files
/// meanwhile (the world is locked). The address is the caller's own, from its own directory.
fn bind_there(world: &World, call: &Call, socket: &OwnedFd, path: &[u8], umask: u32) -> Result<(), Errno> {
    let address = rustix::net::SocketAddrUnix::new(path)?;
    let here = world.view.hold(&world.view.at_descriptor(call, HERE)?)?;
    rustix::process::fchdir(&here)?;
    let before = rustix::process::umask(Mode::from_raw_mode(umask));
    let bound = rustix::net::bind(socket, &address);
    rustix::process::umask(before);
    rustix::process::chdir("/")?;
    bound
}
