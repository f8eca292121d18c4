//! Files of /proc whose text would be about the machine: told as they are inside.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Tracer;
use crate::bearer;
use crate::call::Call;
use crate::union::{Source, Spot};
use crate::view::read_text;

/// What a file holds instead; `None`: the kernel's text is right.
pub(super) fn text(tracer: &Tracer, _: &Call, spot: &Spot) -> Result<Option<Vec<u8>>, Errno> {
    let mount = &tracer.union.mounts[spot.mount];
    if !matches!(mount.source, Source::Proc) || spot.is_directory() {
        return Ok(None);
    }
    let inside = &spot.path[mount.at.len()..];
    let mut names: Vec<&[u8]> = inside.split(|byte| *byte == b'/').skip(1).collect();
    match names[..] {
        [b"sys", b"kernel", b"hostname"] => return Ok(Some(line(&tracer.settings.hostname))),
        [b"sys", b"kernel", b"domainname"] => return Ok(Some(line(&tracer.settings.domainname))),
        _ => {}
    }
    let Some(pid) = names.first().and_then(|name| std::str::from_utf8(name).ok()?.parse::<i32>().ok()) else {
        return Ok(None);
    };
    if names.get(1) == Some(&&b"task"[..]) && names.len() > 3 {
        names.drain(1..3);
    }
    let kernel = || -> Result<String, Errno> {
        let file: OwnedFd =
            rustix::fs::open(&spot.host[..], OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        read_text(&file)
    };
    let name = match names[..] {
        [_, b"net", name] => return tracer.listing(name, kernel),
        [_, name] => name,
        _ => return Ok(None),
    };
    Ok(match name {
        b"status" => {
            let number = bearer::number_of(pid)?;
            let text = kernel()?
                .replace("t (tracing stop)", "R (running)")
                .replace("TracerPid:\t", "TracerPid:\t0\n#");
            let text: String =
                text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
            Some(crate::handlers::status::lines(&text, tracer.world.known.get(number)).into_bytes())
        }
        b"maps" | b"smaps" | b"numa_maps" => Some(mapped(tracer, &kernel()?)),
        b"mounts" => Some(mounts(tracer, false)),
        b"mountinfo" => Some(mounts(tracer, true)),
        b"mountstats" => Some(Vec::new()),
        b"uid_map" | b"gid_map" => Some(b"         0          0 4294967295\n".to_vec()),
        b"limits" => Some(limits(&kernel()?)),
        _ => None,
    })
}

fn line(text: &[u8]) -> Vec<u8> {
    [text, b"\n"].concat()
}

/// The limit that carries credentials limits nothing.
fn limits(text: &str) -> Vec<u8> {
    let shown = |line: &str| match line.starts_with("Max file locks") {
        true => format!("{:<26}{:<21}{:<21}{:<10}\n", "Max file locks", "unlimited", "unlimited", "locks"),
        false => format!("{line}\n"),
    };
    text.lines().map(shown).collect::<String>().into_bytes()
}

/// Paths of mapped files by their names inside.
fn mapped(tracer: &Tracer, text: &str) -> Vec<u8> {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        match line.find(" /").or_else(|| line.find("file=/").map(|at| at + 4)) {
            Some(at) => {
                let (head, path) = line.split_at(at + 1);
                let (path, deleted) = match path.strip_suffix(" (deleted)") {
                    Some(path) => (path, " (deleted)"),
                    None => (path, ""),
                };
                out.push_str(head);
                match tracer.reverse(path.as_bytes()) {
                    Some(inner) => out.push_str(&String::from_utf8_lossy(&inner)),
                    None if ["/dev/", "/memfd:", "/SYSV", "/[aio]"]
                        .iter()
                        .any(|known| path.starts_with(known)) =>
                    {
                        out.push_str(path);
                    }
                    None => out.push_str("/unknown"),
                }
                out.push_str(deleted);
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out.into_bytes()
}

fn mounts(tracer: &Tracer, with_numbers: bool) -> Vec<u8> {
    let mut out = String::new();
    for (index, mount) in tracer.union.mounts.iter().enumerate() {
        let at = match mount.at.is_empty() {
            true => "/".to_owned(),
            false => String::from_utf8_lossy(&mount.at).replace(' ', "\\040"),
        };
        let access = if mount.is_read_only { "ro" } else { "rw" };
        let kind = mount.kind;
        let number = 100 + index;
        let line = match with_numbers {
            true => format!(
                "{number} {} 0:{number} / {at} {access},relatime - {kind} {kind} {access}\n",
                if index == 0 { 1 } else { 100 }
            ),
            false => format!("{kind} {at} {kind} {access},relatime 0 0\n"),
        };
        out.push_str(&line);
    }
    out.into_bytes()
}
