//! `duckweed-runtime freeze`: a container stands still for as long as somebody holds our stdin open.
//!
//! Every process of its pid namespace is sent SIGSTOP, parents before children, and
//! looked for again until no new one is found; at the end SIGCONT, children first, so
//! that a shell never sees its child stopped. No cgroup is needed, and no privilege: the
//! namespace is our user's. Whoever asked for it may be killed at any moment; that closes
//! our stdin, and the container goes on.

use std::io::{self, Read as _, Write as _};

use rustix::process::{kill_process, Pid, Signal};

/// Freezes the container whose init is `pid`, says `ok` on stdout, thaws it when stdin ends.
///
/// # Errors
/// In one line: no such container, or one in this machine's own pid namespace.
pub fn run(pid: i32) -> Result<(), String> {
    let namespace = family(pid).ok_or_else(|| format!("no process {pid} to freeze"))?;
    if Some(&namespace) == self::namespace(std::process::id() as i32).as_ref() && tracer(pid).is_none() {
        return Err("the container shares this machine's pid namespace: nobody can tell its processes".into());
    }
    let stopped = stop_all(pid, &namespace);
    let told = writeln!(io::stdout(), "ok").and_then(|()| io::stdout().flush());
    if told.is_ok() {
        let _ = io::stdin().read(&mut [0]);
    }
    for &pid in stopped.iter().rev() {
        // A stopped process ends by SIGKILL only; its number may be another's by now.
        if family(pid).as_ref() == Some(&namespace) {
            signal(pid, Signal::CONT);
        }
    }
    Ok(())
}

fn stop_all(init: i32, namespace: &std::path::Path) -> Vec<i32> {
    let mut stopped = Vec::new();
    let mut seen = std::collections::HashSet::new();
    loop {
        let mut found: Vec<i32> = pids().filter(|pid| family(*pid).as_deref() == Some(namespace)).collect();
        found.retain(|pid| seen.insert(*pid));
        if found.is_empty() {
            return stopped;
        }
        // Children have higher numbers, but for a wrap round; init comes first in any case.
        found.sort_unstable_by_key(|&pid| (pid != init, pid));
        for pid in found {
            if !is_stopped(pid) && signal(pid, Signal::STOP) {
                stopped.push(pid);
            }
        }
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What the container's processes have in common and others have not: their tracer (the trap isolation), else
/// their namespace.
fn family(pid: i32) -> Option<std::path::PathBuf> {
    match tracer(pid) {
        Some(tracer) => Some(tracer.into()),
        None => namespace(pid),
    }
}

fn tracer(pid: i32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim();
    // In a namespace of its own its tracer is somebody who looks into it.
    let own = namespace(std::process::id() as i32);
    let is_ours = namespace(pid).is_none_or(|namespace| Some(namespace) == own);
    (number != "0" && is_ours).then(|| format!("traced by {number}"))
}

fn namespace(pid: i32) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Whether it was stopped before we came: it stays so.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't' | 'Z'))
}

fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}
