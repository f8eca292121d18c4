//! Seccomp: from rules about named system calls to a program the kernel runs.
//!
//! On the path of every start this stands between "what may the container call" and
//! `init`'s last steps before exec. Rules come from one of two places: the bundle's
//! `linux.seccomp` ([`oci`]) or our own table of what Docker's default profile amounts
//! to ([`builtin`]). Both become a [`policy::Policy`], one decision per call number and
//! machine, and [`assemble`] turns that into classic BPF:
//!
//! ```text
//! which machine is this call for?      x86_64: two; any other: the process is killed
//!   x86_64: bit 30 set (x32)           answered ENOSYS: nobody ships x32 programs, and its
//!                                      second set of numbers is a classic way round a filter
//!   a balanced search over numbers     ~7 comparisons whatever the call
//!     argument conditions              only for the few calls that have them
//!       allow, errno, ...
//! ```
//!
//! i386 programs run as under Docker: the same list of names, i386's own numbers. A
//! 32-bit ARM program on aarch64 is refused (killed), since we have no table for it.
//! Call numbers above the newest one that the rules mention are answered ENOSYS and not
//! the default errno, because libc falls back to an older call on ENOSYS only; runc
//! does the same.
//!
//! Nothing here reads a file; the built-in profile costs some tens of microseconds.

mod assemble;
pub mod builtin;
pub mod oci;
pub mod policy;
pub mod table;
mod traps;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

pub use builtin::Builtin;
use duckweed_sys::seccomp::Instruction;

/// Why no program could be made of a container's rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// A condition names an argument that no call has (there are six).
    #[error("seccomp: a rule for `{syscall}` has a condition on argument {index}, the last is 5")]
    BadArgument {
        /// The first name of the rule.
        syscall: String,
        /// The index as written.
        index: u32,
    },
    /// The kernel takes errno values up to 4095 (it would cut the rest off silently).
    #[error("seccomp: errno {errno} is out of range, the largest is 4095")]
    BadErrno {
        /// The value as written.
        errno: u32,
    },
    /// The kernel takes 4096 instructions.
    #[error("seccomp: the rules need {instructions} BPF instructions, the kernel takes 4096")]
    TooLong {
        /// What the rules came to.
        instructions: usize,
    },
    /// `architectures` lacks the machine this runs on: every call would kill.
    #[error("seccomp: the profile's architectures do not include this machine's")]
    WrongArchitecture,
}

/// Makes the program for a container, or `None` when it shall have no filter.
///
/// `seccomp` is the bundle's `linux.seccomp` and wins; `builtin` is used when it is
/// absent. `capabilities` is the container's effective set as a mask of `1 << CAP_*`:
/// the built-in profile opens calls for some of them. `emulation` and `gate` trap what the supervisor answers; sendmsg
/// with the gate's word in its sixth argument, which it does not have, is let through.
///
/// # Errors
/// See [`SeccompError`]; only rules from a bundle can fail.
pub fn program(
    seccomp: Option<&oci::Seccomp>,
    builtin: Option<Builtin>,
    capabilities: u64,
    emulation: Option<duckweed_trap::Mode>,
    gate: Option<u64>,
) -> Result<Option<Vec<Instruction>>, SeccompError> {
    let mut policies = match (seccomp, builtin) {
        (Some(rules), _) => rules.policies()?,
        (None, Some(Builtin::Default)) => builtin::policies(capabilities, builtin::kernel()),
        (None, Some(Builtin::Unconfined) | None) if emulation.is_some() || gate.is_some() => traps::open(),
        (None, Some(Builtin::Unconfined) | None) => return Ok(None),
    };
    if let Some(mode) = emulation {
        traps::lay(&mut policies, mode);
    }
    if let Some(word) = gate {
        traps::lay_gate(&mut policies, word);
    }
    assemble::assemble(&policies).map(Some)
}
