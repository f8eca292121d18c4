//! Working directories, and what directories hold.
//!
//! A directory that comes from one tree is read by the kernel. For one that is put together from several the list is
//! made here and kept for as long as it is read; how far it was read stands in the open file's own position, which
//! the kernel keeps across dup, fork and lseek: each getdents becomes an lseek to the next item's number.

use rustix::io::Errno;

use super::{Action, Argument, Outcome, Run, Tracer};
use crate::call::Call;
use crate::credentials::capability;
use crate::permission::{EXECUTE, READ};
use crate::union::{parent, Follow, Item, Source, Spot};
use crate::view::HERE;

/// A list that is being read.
#[derive(Debug)]
pub(super) struct Listing {
    path: Vec<u8>,
    items: Vec<Item>,
}

pub(super) fn getdents64(tracer: &mut Tracer, call: &Call) -> Outcome {
    read(tracer, call, entry64)
}

fn entry64(item: &Item, next: u64) -> Vec<u8> {
    let length = (19 + item.name.len() + 1 + 7) & !7;
    let mut entry = Vec::with_capacity(length);
    entry.extend_from_slice(&item.inode.to_ne_bytes());
    entry.extend_from_slice(&next.to_ne_bytes());
    entry.extend_from_slice(&(length as u16).to_ne_bytes());
    entry.push(item.kind);
    entry.extend_from_slice(&item.name);
    entry.resize(length, 0);
    entry
}

/// All that a directory holds, as getdents64(2) gives it, and how many names that is.
pub(super) fn whole_listing(tracer: &mut Tracer, spot: &Spot) -> Result<(Vec<u8>, usize), Errno> {
    let items = everything(tracer, spot)?;
    let entries = items.iter().enumerate().flat_map(|(index, item)| entry64(item, index as u64 + 1));
    Ok((entries.collect(), items.len()))
}

pub(super) fn getdents(tracer: &mut Tracer, call: &Call) -> Outcome {
    read(tracer, call, |item, next| {
        let length = (18 + item.name.len() + 2 + 7) & !7;
        let mut entry = Vec::with_capacity(length);
        entry.extend_from_slice(&item.inode.to_ne_bytes());
        entry.extend_from_slice(&next.to_ne_bytes());
        entry.extend_from_slice(&(length as u16).to_ne_bytes());
        entry.extend_from_slice(&item.name);
        entry.resize(length - 1, 0);
        entry.push(item.kind);
        entry
    })
}

fn read(tracer: &mut Tracer, call: &Call, encode: fn(&Item, u64) -> Vec<u8>) -> Outcome {
    let descriptor = call.int(0);
    let host = tracer.descriptor(call, descriptor)?;
    let Some(path) = tracer.reverse(&host) else { return Ok(Action::Pass) };
    let index = tracer.union.mount_of(&path);
    let spot = tracer.union.at_mount(index, &path)?;
    let is_whole = host == spot.host || !matches!(tracer.union.mounts[index].source, Source::Union(_));
    if !spot.is_directory() || is_whole && tracer.union.is_listed_by_kernel(&spot) {
        return Ok(Action::Pass);
    }
    let position = position(tracer, call, descriptor)?;
    let key = (tracer.process_of(call), descriptor);
    let is_known = tracer.listings.get(&key).is_some_and(|listing| listing.path == path);
    if position != 0 && !tracer.listings.values().any(|listing| listing.path == path) {
        // The kernel began with it, before the directory had a second part.
        return Ok(Action::Pass);
    }
    if position == 0 || !is_known {
        let items = everything(tracer, &spot)?;
        tracer.listings.insert(key, Listing { path, items });
    }
    let Some(listing) = tracer.listings.get(&key) else { return Err(Errno::IO) };
    let room = call.word(2) as usize;
    let (mut bytes, mut next) = (Vec::new(), position);
    for item in listing.items.iter().skip(position as usize) {
        let entry = encode(item, next + 1);
        if bytes.len() + entry.len() > room {
            break;
        }
        bytes.extend_from_slice(&entry);
        next += 1;
    }
    let is_over = next as usize >= listing.items.len();
    if bytes.is_empty() {
        if is_over {
            tracer.listings.remove(&key);
            return Ok(Action::Answer(0));
        }
        return Err(Errno::INVAL);
    }
    call.write(1, &bytes)?;
    let length = bytes.len() as i64;
    let run = Run {
        number: Some(libc::SYS_lseek),
        arguments: vec![(1, Argument::Word(next)), (2, Argument::Word(libc::SEEK_SET as u64))],
        after: None,
    };
    run.then(move |_, _, result| {
        if *result >= 0 {
            *result = length;
        }
    })
}

/// How far an open file was read.
fn position(tracer: &Tracer, call: &Call, descriptor: i32) -> Result<u64, Errno> {
    let text = tracer.world.view.read_proc(&format!("{}/fdinfo/{descriptor}", call.pid))?;
    let line = text.lines().find_map(|line| line.strip_prefix("pos:")).ok_or(Errno::IO)?;
    line.trim().parse().map_err(|_| Errno::IO)
}

fn everything(tracer: &mut Tracer, spot: &Spot) -> Result<Vec<Item>, Errno> {
    let mut items = tracer.union.list(spot)?;
    if spot.path == b"/proc" {
        items.retain(|item| match std::str::from_utf8(&item.name).ok().and_then(|name| name.parse().ok()) {
            Some(pid) => tracer.is_ours(pid),
            None => true,
        });
    }
    let own = super::stat::found(tracer, spot).map_or(1, |stat| stat.stx_ino);
    let above = {
        let path = parent(&spot.path).to_vec();
        let index = tracer.union.mount_of(&path);
        let spot = tracer.union.at_mount(index, &path)?;
        super::stat::found(tracer, &spot).map_or(1, |stat| stat.stx_ino)
    };
    let dot = |name: &[u8], inode| Item { name: name.to_vec(), inode, kind: libc::DT_DIR };
    items.splice(0..0, [dot(b".", own), dot(b"..", above)]);
    Ok(items)
}

pub(super) fn getcwd(tracer: &mut Tracer, call: &Call) -> Outcome {
    let path = tracer.directory(call, HERE)?;
    let process = tracer.process_of(call);
    let root = tracer.processes.get(&process).map_or_else(|| b"/".to_vec(), |one| one.root.clone());
    let mut text = match path.strip_prefix(&root[..]) {
        _ if root == b"/" => path.clone(),
        Some([]) => b"/".to_vec(),
        Some(rest) => rest.to_vec(),
        None => [b"(unreachable)", &path[..]].concat(),
    };
    text.push(0);
    if text.len() > call.long(1) as usize {
        return Err(Errno::RANGE);
    }
    call.write(0, &text)?;
    Ok(Action::Answer(text.len() as i64))
}

/// The directory that a call names, which the caller may enter.
fn enterable(tracer: &mut Tracer, call: &Call) -> Result<Spot, Errno> {
    let spot = tracer.place_at(call, HERE, 0, Follow::Yes)?;
    if !spot.exists() {
        return Err(Errno::NOENT);
    }
    if !spot.is_directory() {
        return Err(Errno::NOTDIR);
    }
    let stat = super::stat::found(tracer, &spot)?;
    tracer.require(call, &spot, &stat, EXECUTE)?;
    Ok(spot)
}

pub(super) fn chdir(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = enterable(tracer, call)?;
    Ok(Action::Run(Run::with_path(0, &spot.host)))
}

pub(super) fn chroot(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = enterable(tracer, call)?;
    if !tracer.world.caller(call)?.can(capability::SYS_CHROOT) {
        return Err(Errno::PERM);
    }
    let process = tracer.process_of(call);
    if let Some(process) = tracer.processes.get_mut(&process) {
        process.root = spot.path;
    }
    super::DONE
}

/// A watch of a directory sees the tree that is written to.
pub(super) fn inotify_add_watch(tracer: &mut Tracer, call: &Call) -> Outcome {
    let flags = call.word(2);
    let follow = if flags & libc::IN_DONT_FOLLOW != 0 { Follow::No } else { Follow::Yes };
    let mut spot = tracer.place_at(call, HERE, 1, follow)?;
    if !spot.exists() {
        return Err(Errno::NOENT);
    }
    let stat = super::stat::found(tracer, &spot)?;
    tracer.require(call, &spot, &stat, READ)?;
    if spot.is_directory() && !tracer.union.is_read_only(&spot.path) {
        // Changes of a directory happen in the upper tree.
        let _ = tracer.union.bring_up(&mut spot, &mut tracer.copied);
    }
    Ok(Action::Run(Run::with_path(1, &spot.host)))
}
