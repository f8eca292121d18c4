//! /proc/PID/status of a process that is not root: the kernel's text with the lines about ids and capabilities ours.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::call::Call;
use crate::credentials::Credentials;
use crate::view::read_text;
use crate::world::World;

/// A file with the text as it should be; `None` when the kernel's is right, or it is another file.
pub fn rewrite(world: &World, call: &Call, directory: i32, path: &[u8]) -> Option<Result<OwnedFd, Errno>> {
    if world.known.are_all_root() || !(path == b"status" || path.ends_with(b"/status")) {
        return None;
    }
    let at = world.view.at(call, directory, path, true).ok()?;
    let held = world.view.hold(&at).ok()?;
    if !world.view.is_proc(&world.view.stat_fd(&held).ok()?) {
        return None;
    }
    let full = world.view.path_of(&held)?;
    let number = world.number_of_proc_path(full.to_bytes())?;
    if number == 0 {
        return None;
    }
    let file = rustix::fs::open(&full, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let text = read_text(&file).ok()?;
    Some(keep(&lines(&text, world.known.get(number))))
}

fn keep(text: &str) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create("status", MemfdFlags::CLOEXEC)?;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}

pub(crate) fn lines(text: &str, who: &Credentials) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let _ = match line.split(':').next().unwrap_or_default() {
            "Uid" => ids(&mut out, "Uid", who.uid),
            "Gid" => ids(&mut out, "Gid", who.gid),
            "Groups" => {
                let groups: Vec<String> = who.groups.iter().map(ToString::to_string).collect();
                writeln!(out, "Groups:\t{} ", groups.join(" "))
            }
            "CapInh" => writeln!(out, "CapInh:\t{:016x}", who.sets.inheritable),
            "CapPrm" => writeln!(out, "CapPrm:\t{:016x}", who.sets.permitted),
            "CapEff" => writeln!(out, "CapEff:\t{:016x}", who.sets.effective),
            "CapBnd" => writeln!(out, "CapBnd:\t{:016x}", who.sets.bounding),
            "CapAmb" => writeln!(out, "CapAmb:\t{:016x}", who.sets.ambient),
            "NoNewPrivs" => writeln!(out, "NoNewPrivs:\t{}", u8::from(who.no_new_privileges)),
            _ => writeln!(out, "{line}"),
        };
    }
    out
}

fn ids(out: &mut String, name: &str, ids: crate::credentials::Ids) -> std::fmt::Result {
    writeln!(out, "{name}:\t{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.fs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_about_who_it_is_change() {
        let text = "Name:\tsh\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t65534 \nCapEff:\t00000000a80425fb\nThreads:\t1\n";
        let who = Credentials::new(33, 34, vec![35, 36], 1, false);
        assert_eq!(
            lines(text, &who),
            "Name:\tsh\nUid:\t33\t33\t33\t33\nGid:\t34\t34\t34\t34\nGroups:\t35 36 \nCapEff:\t0000000000000000\nThreads:\t1\n"
        );
    }
}
