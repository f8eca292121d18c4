//! Namespaces one by one, the id maps, and what is allowed inside.
//!
//! Each kind of namespace has a sysctl of its own (max_net_namespaces may be 0 while the
//! rest works), so each is tried alone, inside a user namespace, which is how it would be
//! used.

use std::fs;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use duckweed_sys::unshare::{unshare, UnshareFlags};
use rustix::mount::{mount, mount_change, MountFlags, MountPropagationFlags};
use rustix::process::{getgid, getuid, Pid};

use super::fact::{in_child, Fact, Refusal, Step};
use super::{Facts, IdRange, Request};

const KINDS: [(&str, UnshareFlags); 6] = [
    ("mntns", UnshareFlags::NEWNS),
    ("pidns", UnshareFlags::NEWPID),
    ("netns", UnshareFlags::NEWNET),
    ("ipcns", UnshareFlags::NEWIPC),
    ("utsns", UnshareFlags::NEWUTS),
    ("cgroupns", UnshareFlags::NEWCGROUP),
];

/// Tries them all.
pub fn probe(facts: &mut Facts, request: &Request) {
    facts.insert(
        "userns",
        in_child(|| unshare(UnshareFlags::NEWUSER).step("unshare").map(|()| String::new())),
    );
    for (name, flag) in KINDS {
        facts.insert(name, in_child(|| one(flag)));
    }
    facts.insert("uid_map", in_child(|| enter(UnshareFlags::empty()).map(|()| String::new())));
    facts.insert("mount", in_child(mount_something));
    facts.insert("proc", in_child(fresh_proc));
    facts.insert("link", in_child(link));
    let range = |range: Option<IdRange>, program, own| match range {
        Some(range) => in_child(move || real_map(program, own, range)),
        None => Fact::missing("no subordinate range was given"),
    };
    facts.insert("newuidmap", range(request.uids, "newuidmap", getuid().as_raw()));
    facts.insert("newgidmap", range(request.gids, "newgidmap", getgid().as_raw()));
}

fn one(flag: UnshareFlags) -> Result<String, Refusal> {
    unshare(UnshareFlags::NEWUSER).step("user namespace")?;
    unshare(flag).step("unshare").map(|()| String::new())
}

/// Enters a user namespace with the single-id map, and these namespaces with it.
pub fn enter(flags: UnshareFlags) -> Result<(), Refusal> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    unshare(UnshareFlags::NEWUSER | flags).step("unshare")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).step("writing uid_map")?;
    // Without this the kernel refuses the gid map to whoever is not root outside (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").step("writing setgroups")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).step("writing gid_map")
}

/// Cuts this mount namespace's changes off from the one it was copied from.
pub fn make_private() -> Result<(), Refusal> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("making mounts private")
}

/// AppArmor may allow the namespace and refuse its use; so it is used.
fn mount_something() -> Result<String, Refusal> {
    enter(UnshareFlags::NEWNS)?;
    make_private()?;
    mount("tmpfs", "/", "tmpfs", MountFlags::empty(), None).step("mounting a tmpfs").map(|()| String::new())
}

/// An interface whose other end is ours: a tap, or a veth pair with a packet socket.
fn link() -> Result<String, Refusal> {
    enter(UnshareFlags::NEWNET)?;
    let addresses = duckweed_net::stack::Addresses { v6: None, ..Default::default() };
    duckweed_net::interface::make("eth0", &addresses, true).step("making a network interface")?;
    Ok(String::new())
}

/// Refused where the /proc we see is partly masked by somebody else's mounts.
fn fresh_proc() -> Result<String, Refusal> {
    enter(UnshareFlags::NEWNS | UnshareFlags::NEWPID)?;
    make_private()?;
    // The new pid namespace begins with the next child.
    let fact = in_child(|| {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", flags, None).step("mounting proc")?;
        Ok(fs::read_link("/proc/self").step("reading /proc/self")?.to_string_lossy().into_owned())
    });
    match (fact.ok, fact.errno) {
        (true, _) if fact.detail == "1" => Ok(String::new()),
        (true, _) => Err(super::fact::wrong("/proc/self of the fresh /proc is not 1")),
        (false, Some(errno)) => Err(io::Error::from_raw_os_error(errno)).step(&fact.detail),
        (false, None) => Err(super::fact::wrong(&fact.detail)),
    }
}

/// newuidmap or newgidmap maps ids of a real child: the file says so, but a missing
/// setuid bit or file capability shows only now.
fn real_map(program: &str, own: u32, range: IdRange) -> Result<String, Refusal> {
    let (mut child_end, mut our_end) = std::os::unix::net::UnixStream::pair().step("socketpair")?;
    let target = duckweed_sys::trial::fork_holder(move || {
        let entered = unshare(UnshareFlags::NEWUSER).is_ok();
        let _ = child_end.write_all(&[u8::from(entered)]);
        // Held until the mapper is done with us; a byte and not EOF, since this process has a
        // copy of the other end too.
        let _ = child_end.read(&mut [0]);
    })
    .step("fork")?;
    let mut entered = [0];
    our_end.read_exact(&mut entered).step("waiting for the child")?;
    let answer = if entered == [1] {
        run_mapper(program, target, own, range)
    } else {
        Err(super::fact::wrong("user namespace"))
    };
    let _ = our_end.write_all(&[1]);
    let _ = rustix::process::waitpid(Some(target), rustix::process::WaitOptions::empty());
    answer
}

fn run_mapper(program: &str, target: Pid, own: u32, range: IdRange) -> Result<String, Refusal> {
    let IdRange { start, count } = range;
    let pid = target.as_raw_nonzero().to_string();
    let numbers = [0, own, 1, 1, start, count].map(|number| number.to_string());
    let mapper = Command::new(program)
        .arg(pid)
        .args(numbers)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .step(program)?;
    if mapper.status.success() {
        return Ok(format!("{start}:{count}"));
    }
    let said = String::from_utf8_lossy(&mapper.stderr);
    Err(super::fact::wrong(said.trim()))
}
