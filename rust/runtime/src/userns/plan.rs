//! What can be worked out before the fork: a mistake in the bundle costs no process, and
//! the child finds everything ready.

use duckweed_sys::clone::{self, Flags};
use duckweed_sys::seccomp::Instruction;
use std::io;

use super::credentials::CapabilityMasks;
use super::idmap::Maps;
use super::kernel;
use crate::bundle::Bundle;
use crate::isolation::Io;
use crate::seccomp::{self, Builtin};
use crate::spec::{Namespace, NamespaceKind, SeccompProfile};
use crate::start_error::{Code, Doing as _, StartError};

/// All that the child needs.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub bundle: &'a Bundle,
    pub io: Io,
    pub namespaces: Namespaces,
    /// `None` without a user namespace of our own or joined.
    pub maps: Option<Maps>,
    pub capabilities: CapabilityMasks,
    pub filter: Option<Filter>,
    /// What the supervisor answers for the kernel.
    pub emulation: Option<duckweed_trap::Mode>,
    /// Its sockets are the host's.
    pub gate: bool,
}

/// A system call filter and its `SECCOMP_FILTER_FLAG_*`.
#[derive(Debug)]
pub(crate) struct Filter {
    pub program: Vec<Instruction>,
    pub flags: u32,
    /// Lets one message through that hands over the listener; a number that nobody can guess.
    pub word: u64,
}

impl<'a> Plan<'a> {
    pub fn new(bundle: &'a Bundle, io: Io) -> Result<Plan<'a>, StartError> {
        if bundle.spec.process.args.is_empty() {
            return Err(StartError::new(
                Code::Spec,
                "read the command",
                "no command: `process.args` is empty",
            ));
        }
        let mut namespaces = Namespaces::new(&bundle.spec.linux.namespaces)?;
        let capabilities = CapabilityMasks::new(bundle.spec.process.capabilities.as_ref());
        let maps = match namespaces.has(clone::NEWUSER) {
            true => Some(Maps::new(&bundle.spec.linux.uid_mappings, &bundle.spec.linux.gid_mappings)?),
            false => None,
        };
        if bundle.joined {
            namespaces.flags &= !clone::NEWUSER;
        }
        let filter = Filter::new(bundle, capabilities.effective)?;
        let emulation = bundle.block.root_emulation.mode();
        let gate = bundle.block.has_gate();
        Ok(Plan { bundle, io, namespaces, maps, capabilities, filter, emulation, gate })
    }

    /// Whether every user is root to the kernel, whoever it is to itself.
    pub fn emulates_users(&self) -> bool {
        self.emulation == Some(duckweed_trap::Mode::Full)
    }
}

impl Plan<'_> {
    /// Whether somebody answers calls of the command for the kernel.
    pub fn asks(&self) -> bool {
        self.emulation.is_some() || self.gate
    }
}

impl Filter {
    /// Without rules but for what is emulated: `--privileged`.
    pub fn asking_only(mode: Option<duckweed_trap::Mode>, gate: bool) -> Result<Option<Filter>, StartError> {
        Self::made(None, Some(Builtin::Unconfined), 0, (mode, gate))
    }

    fn made(
        rules: Option<&seccomp::oci::Seccomp>,
        builtin: Option<Builtin>,
        capabilities: u64,
        (mode, gate): (Option<duckweed_trap::Mode>, bool),
    ) -> Result<Option<Filter>, StartError> {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .doing(Code::Internal, || "get a random number")?;
        let word = u64::from_ne_bytes(bytes);
        let program = seccomp::program(rules, builtin, capabilities, mode, gate.then_some(word))
            .map_err(|error| StartError::new(Code::Seccomp, "make the filter", error.to_string()))?;
        let flags = rules.map_or(0, |rules| rules.flag_bits());
        Ok(program.map(|program| Filter { program, flags, word }))
    }

    pub fn new(bundle: &Bundle, capabilities: u64) -> Result<Option<Filter>, StartError> {
        let builtin = bundle.block.seccomp.map(|profile| match profile {
            SeccompProfile::Default => Builtin::Default,
            SeccompProfile::Unconfined => Builtin::Unconfined,
        });
        let rules = bundle.spec.linux.seccomp.as_ref();
        let block = &bundle.block;
        Self::made(rules, builtin, capabilities, (block.root_emulation.mode(), block.has_gate()))
    }
}

/// The namespaces to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Namespaces {
    pub flags: Flags,
}

impl Namespaces {
    fn new(wanted: &[Namespace]) -> Result<Self, StartError> {
        let mut flags = 0;
        for namespace in wanted {
            if let Some(path) = &namespace.path {
                let message =
                    format!("joining a namespace by its path ({}) is not supported", path.display());
                return Err(StartError::new(Code::Namespace, "read linux.namespaces", message));
            }
            flags |= match namespace.kind {
                NamespaceKind::User => clone::NEWUSER,
                NamespaceKind::Mount => clone::NEWNS,
                NamespaceKind::Pid => clone::NEWPID,
                NamespaceKind::Ipc => clone::NEWIPC,
                NamespaceKind::Uts => clone::NEWUTS,
                NamespaceKind::Network => clone::NEWNET,
                NamespaceKind::Cgroup => clone::NEWCGROUP,
                NamespaceKind::Time => 0,
            };
        }
        if flags & clone::NEWNS == 0 {
            let message = "a container needs a mount namespace of its own: `linux.namespaces` has none";
            return Err(StartError::new(Code::Spec, "read linux.namespaces", message));
        }
        Ok(Self { flags })
    }

    pub fn has(self, flag: Flags) -> bool {
        self.flags & flag != 0
    }

    /// Why clone(2) refused.
    pub fn refusal(self, error: &io::Error) -> StartError {
        let error =
            kernel::explain(StartError::io(Code::Namespace, "make the container's namespaces", error));
        if error.errno != rustix::io::Errno::PERM.raw_os_error() || self.has(clone::NEWUSER) {
            return error;
        }
        // As podman leaves them: it runs its runtime in a user namespace of its own.
        let message =
            "make the container's namespaces: `linux.namespaces` has no user namespace, and without one \
                       they are for root alone (EPERM)";
        StartError { message: message.into(), ..error }
    }
}
