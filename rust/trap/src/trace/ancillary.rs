//! Who sent a message, SCM_CREDENTIALS: ids go out as the host's, which the kernel checks, and come in as the container's.
//!
//! A sender that may claim to be somebody else is seen as who it is. Messages are looked at when they are received where a
//! gate stops that call anyway; with the machine's own network the receiver finds the machine's ids.

use rustix::io::Errno;

use super::Tracer;
use crate::call::Call;
use crate::credentials::{capability, Ids};

/// Of a `struct msghdr`: where the control data is, and how long.
const CONTROL: usize = 32;
const CONTROL_LENGTH: usize = 40;
/// More than any kernel takes.
const MOST: u64 = 20480;
/// `struct cmsghdr`: length, level, type.
const HEAD: usize = 16;
/// `struct ucred`.
const CREDENTIALS: usize = 12;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

/// Where credentials stand in control data.
fn places(control: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + HEAD <= control.len() {
        let length = word(control, at) as usize;
        if length < HEAD || length > control.len() - at {
            break;
        }
        let kind = (half(control, at + 8) as i32, half(control, at + 12) as i32);
        if kind == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) && length >= HEAD + CREDENTIALS {
            found.push(at + HEAD);
        }
        at += (length + 7) & !7;
    }
    found
}

fn put(control: &mut [u8], at: usize, ids: (u32, u32)) {
    control[at + 4..at + 8].copy_from_slice(&ids.0.to_ne_bytes());
    control[at + 8..at + 12].copy_from_slice(&ids.1.to_ne_bytes());
}

/// The control data of a message that is sent, with the host's ids; `None` when it has none of them.
///
/// # Errors
/// EPERM for ids that the caller does not have.
pub(super) fn sent(tracer: &Tracer, call: &Call, header: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let (address, length) = (word(header, CONTROL), word(header, CONTROL_LENGTH));
    if address == 0 || length < (HEAD + CREDENTIALS) as u64 || length > MOST {
        return Ok(None);
    }
    let mut control = Call::with(call.pid, [address, 0, 0, 0, 0, 0]).bytes(0, length as usize)?;
    let places = places(&control);
    if places.is_empty() {
        return Ok(None);
    }
    let who = tracer.world.caller(call)?;
    let has = |ids: Ids, id: u32| [ids.real, ids.effective, ids.saved].contains(&id);
    for at in places {
        let (uid, gid) = (half(&control, at + 4), half(&control, at + 8));
        let may = (has(who.uid, uid) || who.can(capability::SETUID))
            && (has(who.gid, gid) || who.can(capability::SETGID));
        if !may {
            return Err(Errno::PERM);
        }
        put(&mut control, at, tracer.settings.host_ids);
    }
    Ok(Some(control))
}

/// A message has been received: credentials of the container's processes are told as they are inside.
///
/// # Errors
/// EFAULT.
pub(super) fn received(tracer: &Tracer, call: &Call) -> Result<(), Errno> {
    let header = call.bytes(1, CONTROL_LENGTH + 8)?;
    let (address, length) = (word(&header, CONTROL), word(&header, CONTROL_LENGTH));
    if address == 0 || length < (HEAD + CREDENTIALS) as u64 || length > MOST {
        return Ok(());
    }
    let there = Call::with(call.pid, [address, 0, 0, 0, 0, 0]);
    let mut control = there.bytes(0, length as usize)?;
    let places = places(&control);
    for &at in &places {
        let ids =
            tracer.inner_ids(half(&control, at) as i32, (half(&control, at + 4), half(&control, at + 8)))?;
        put(&mut control, at, ids);
    }
    if places.is_empty() {
        return Ok(());
    }
    there.write(0, &control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize, kind: (i32, i32), body: usize) -> Vec<u8> {
        let mut out = length.to_ne_bytes().to_vec();
        out.extend(kind.0.to_ne_bytes());
        out.extend(kind.1.to_ne_bytes());
        out.resize(HEAD + body, 0);
        out
    }

    #[test]
    fn credentials_are_found_among_others_and_nothing_leads_beyond_the_end() {
        let descriptor = message(20, (libc::SOL_SOCKET, libc::SCM_RIGHTS), 8);
        let credentials = message(28, (libc::SOL_SOCKET, libc::SCM_CREDENTIALS), 16);
        assert_eq!(places(&[descriptor, credentials.clone()].concat()), [24 + HEAD]);
        assert_eq!(places(&credentials), [HEAD]);
        assert!(places(&credentials[..27]).is_empty());
        for length in [0, 15, 27, usize::MAX, usize::MAX - 7] {
            let bad = message(length, (libc::SOL_SOCKET, libc::SCM_CREDENTIALS), 16);
            assert!(places(&bad).is_empty());
        }
    }
}
