//! Ids, capabilities and limits of the command, in the one order that works.
//!
//! capabilities(7): the bounding set first, while CAP_SETPCAP is there; groups before the
//! user, while CAP_SETGID is there; the sets after the user, because changing it clears
//! them; ambient last, it must be permitted and inheritable.

use rustix::process::{DumpableBehavior, Gid, Rlimit, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::idmap::Maps;
use super::user::Identity;
use crate::spec;
use crate::start_error::{Code, Doing as _, StartError};

/// Names of capabilities by number, linux/capability.h.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's default list as a mask; a test spells it out.
pub(super) const DOCKERS_DEFAULT: u64 = 0xa804_25fb;

/// The five sets as masks of `1 << CAP_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CapabilityMasks {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl CapabilityMasks {
    /// Without a list there are none, as the specification says.
    pub fn new(lists: Option<&spec::Capabilities>) -> Self {
        let Some(lists) = lists else { return Self::default() };
        let (permitted, inheritable) = (mask(&lists.permitted), mask(&lists.inheritable));
        Self {
            bounding: mask(&lists.bounding),
            effective: mask(&lists.effective) & permitted,
            permitted,
            inheritable,
            // The kernel refuses any other, and generated bundles list them all the same (crun spec).
            ambient: mask(&lists.ambient) & permitted & inheritable,
        }
    }

    /// All that a namespace can give: `--privileged`.
    pub fn all() -> Self {
        let every = (1 << NAMES.len()) - 1;
        Self { bounding: every, effective: every, permitted: every, ..Self::default() }
    }
}

/// Unknown names are newer than we are; leaving them out takes away, never gives.
fn mask(names: &[String]) -> u64 {
    names
        .iter()
        .filter_map(|name| NAMES.iter().position(|known| *known == name.strip_prefix("CAP_").unwrap_or(name)))
        .fold(0, |mask, number| mask | 1 << number)
}

/// The capabilities with these names as a mask of `1 << CAP_*`.
pub(crate) fn capability_mask(names: &[String]) -> u64 {
    mask(names)
}

/// Becomes `identity` with no more than `masks`.
pub(super) fn take_on(
    identity: &Identity,
    masks: CapabilityMasks,
    maps: Option<&Maps>,
) -> Result<(), StartError> {
    drop_bounding(masks.bounding)?;
    set_ids(identity, masks, maps)?;
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(if identity.uid == 0 {
            masks.effective
        } else {
            masks.ambient
        }),
        permitted: CapabilitySet::from_bits_retain(if identity.uid == 0 {
            masks.permitted
        } else {
            masks.ambient
        }),
        inheritable: CapabilitySet::from_bits_retain(masks.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).doing(Code::Internal, || "set the capabilities")?;
    for number in (0..NAMES.len()).filter(|number| masks.ambient & (1 << number) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(one, true)
            .doing(Code::Internal, || format!("raise CAP_{} in the ambient set", NAMES[number]))?;
    }
    die_with_parent()
}

fn drop_bounding(keep: u64) -> Result<(), StartError> {
    for number in (0..64).filter(|number| keep & (1 << number) == 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // Past the last capability of this kernel.
            Err(rustix::io::Errno::INVAL) if number > 30 => break,
            other => other.doing(Code::Internal, || "drop a capability")?,
        }
    }
    Ok(())
}

fn set_ids(identity: &Identity, masks: CapabilityMasks, maps: Option<&Maps>) -> Result<(), StartError> {
    // A single-id map has setgroups denied: what groups the user has outside stay.
    if maps.is_none_or(|maps| !maps.is_single()) {
        let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups).doing(Code::BadUser, || "set the groups")?;
    }
    if rustix::process::getgid().as_raw() != identity.gid {
        let gid = Gid::from_raw(identity.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .doing(Code::BadUser, || format!("become group {}", identity.gid))?;
    }
    if rustix::process::getuid().as_raw() != identity.uid {
        if masks.ambient != 0 {
            rustix::thread::set_keep_capabilities(true).doing(Code::Internal, || "keep the capabilities")?;
        }
        let uid = Uid::from_raw(identity.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .doing(Code::BadUser, || format!("become user {}", identity.uid))?;
    }
    Ok(())
}

/// Fails early, in words, when the maps have no id for the user.
pub(super) fn check_mapped(identity: &Identity, wanted: &str, maps: Option<&Maps>) -> Result<(), StartError> {
    let Some(maps) = maps else { return Ok(()) };
    let refuse = |what: &str, id: u32| {
        let why = if maps.is_single() { "only one uid is mapped" } else { "it is outside the mapped range" };
        let name = if wanted.is_empty() { id.to_string() } else { wanted.to_owned() };
        let message = format!("user `{name}` ({what} {id}) has no id here: {why}");
        Err(StartError::new(Code::BadUser, "become the user", message))
    };
    if !maps.has_uid(identity.uid) {
        return refuse("uid", identity.uid);
    }
    if !maps.has_gid(identity.gid) {
        return refuse("gid", identity.gid);
    }
    Ok(())
}

/// A change of credentials disarms this, prctl(2): it is armed after each.
pub(crate) fn die_with_parent() -> Result<(), StartError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(Code::Internal, || "tie the container to its supervisor")
}

/// Closes /proc/PID of ours to everyone inside: a process of the container has our uid,
/// and through /proc/PID/exe it could otherwise reach this very program on the host.
pub(super) fn hide_from_container() -> Result<(), StartError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .doing(Code::Internal, || "close /proc/self")
}

/// Sets the limits, lowered to what this process may have.
pub(crate) fn limit(rlimits: &[spec::Rlimit]) -> Result<(), StartError> {
    duckweed_sys::limit::restore_descriptors();
    for wanted in rlimits {
        let resource = duckweed_sys::limit::resource(&wanted.kind).ok_or_else(|| {
            StartError::new(
                Code::Rlimit,
                "read the limits",
                format!("`{}` is no resource limit", wanted.kind),
            )
        })?;
        let now = rustix::process::getrlimit(resource);
        let most = |value: u64| -> Option<u64> {
            let value = (value != u64::MAX).then_some(value);
            match (value, now.maximum) {
                (Some(value), Some(maximum)) => Some(value.min(maximum)),
                (None, maximum) => maximum,
                (value, None) => value,
            }
        };
        let new = Rlimit { current: most(wanted.soft.min(wanted.hard)), maximum: most(wanted.hard) };
        if new != now {
            rustix::process::setrlimit(resource, new)
                .doing(Code::Rlimit, || format!("set {}", wanted.kind))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_numbers_are_the_kernels() {
        let names = |names: &[&str]| mask(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&["CAP_CHOWN", "CAP_SETFCAP", "CAP_CHECKPOINT_RESTORE"]), 1 | 1 << 31 | 1 << 40);
        assert_eq!(names(&["CAP_OF_THE_FUTURE"]), 0);
        // Docker's default list, as /proc/PID/status shows it.
        let docker = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETFCAP",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_AUDIT_WRITE",
        ];
        assert_eq!(names(&docker), DOCKERS_DEFAULT);
    }
}
