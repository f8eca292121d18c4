//! What we are and where: credentials, limits, sysctls, devices, cgroups, ping.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::makedev;
use rustix::net::{ipproto, socket, AddressFamily, SocketType};
use rustix::process::{getrlimit, Resource};
use serde_json::{json, Map, Value};

use super::fact::Fact;
use super::Facts;

/// Devices, ping sockets, cgroup delegation.
pub fn probe(facts: &mut Facts) {
    facts.insert("tun", Fact::here("opening /dev/net/tun", open_device("/dev/net/tun", makedev(10, 200))));
    facts.insert("fuse", Fact::here("opening /dev/fuse", open_device("/dev/fuse", makedev(10, 229))));
    let ping = socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP));
    facts.insert("ping", Fact::here("making an ICMP socket", ping.map(|_| "").map_err(Into::into)));
    facts.insert("cgroup", cgroup());
    facts.insert("not_chroot", not_chroot());
}

/// Opens a device for use; masked devices are often /dev/null under another name.
fn open_device(path: &str, number: u64) -> io::Result<String> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.rdev() != number {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::NODEV.raw_os_error()));
    }
    Ok(path.to_owned())
}

/// The sysctls that decide what users may do; absent ones are null.
const SETTINGS: [&str; 13] = [
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.osrelease",
    "kernel.unprivileged_userns_clone",
    "kernel.yama.ptrace_scope",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "user.max_cgroup_namespaces",
    "user.max_ipc_namespaces",
    "user.max_mnt_namespaces",
    "user.max_net_namespaces",
    "user.max_pid_namespaces",
    "user.max_user_namespaces",
    "user.max_uts_namespaces",
];

/// Their values as text, runs of blanks made one.
pub fn settings() -> Value {
    let read = |name: &str| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let text = fs::read_to_string(path).ok()?;
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    SETTINGS.iter().map(|name| ((*name).to_owned(), json!(read(name)))).collect::<Map<_, _>>().into()
}

/// Credentials and what already holds this process, from /proc/self/status.
pub fn process() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.split(':').next() == Some(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let number = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
    let mask = |name: &str| field(name).unwrap_or_default();
    json!({
        "uid": rustix::process::getuid().as_raw(),
        "euid": rustix::process::geteuid().as_raw(),
        "gid": rustix::process::getgid().as_raw(),
        "capabilities": {"effective": mask("CapEff"), "permitted": mask("CapPrm"), "bounding": mask("CapBnd")},
        "no_new_privs": number("NoNewPrivs"),
        "seccomp": number("Seccomp"),
        "seccomp_filters": number("Seccomp_filters"),
        "tracer_pid": number("TracerPid"),
        "machine": rustix::system::uname().machine().to_string_lossy(),
        "in_user_namespace": in_user_namespace(),
    })
}

/// The first user namespace maps all 2^32 - 1 ids onto themselves.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// Soft and hard limits; null means unlimited.
pub fn limits() -> Value {
    let both = |resource| {
        let limit = getrlimit(resource);
        json!({"soft": limit.current, "hard": limit.maximum})
    };
    json!({"nofile": both(Resource::Nofile), "nproc": both(Resource::Nproc), "memlock": both(Resource::Memlock)})
}

/// Whether the root directory is the root of a mount: in a chroot it (mostly) is not, and
/// there the kernel refuses user namespaces with a bare EPERM (user_namespaces(7)).
fn not_chroot() -> Fact {
    match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) if mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")) => Fact::works(""),
        Ok(_) => Fact::missing("the root directory is not a mount's root"),
        Err(error) => Fact::failed(&error, "reading mountinfo"),
    }
}

/// Whether a child of our own cgroup can be made, and which controllers it would have.
fn cgroup() -> Fact {
    let lines = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = lines.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Fact::missing("cgroup v1 only");
    };
    let Some(mount) = unified_mount() else {
        return Fact::missing("cgroup v2 is not mounted");
    };
    let directory = mount.join(own.trim_start_matches('/'));
    let child = directory.join(format!("duckweed-probe-{}", rustix::process::getpid().as_raw_nonzero()));
    let tried: io::Result<String> = fs::create_dir(&child).and_then(|()| {
        let controllers = fs::read_to_string(directory.join("cgroup.controllers"));
        fs::remove_dir(&child)?;
        Ok(controllers?.trim().to_owned())
    });
    Fact::here("making a cgroup", tried)
}

fn unified_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}
