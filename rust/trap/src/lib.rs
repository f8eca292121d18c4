//! Root emulation: a container with one uid whose programs find a whole system of users.
//!
//! Without subordinate ids a user namespace has one uid, 0, and the kernel refuses every
//! chown, setuid and mknod to another. Here those calls are trapped by a seccomp filter
//! ([`handlers`]) and answered by a process of the supervisor's ([`emulator`]): owners, device nodes and
//! privileged attributes are remembered per inode ([`owners`]), ids and capabilities per
//! process ([`credentials`], [`bearer`]), and whatever asks for them is told the same story. Everything that
//! is not trapped runs at the kernel's own speed, and a call about a file whose name no recorded file has ever had
//! ([`owners::names`]) is handed back to it at once.
//!
//! # What is exact
//!
//! - The owner, group, device number and privileged attributes of a file, from the moment the call that
//!   set them returned, for every process of the container, under every name, across rename, link, copy-up,
//!   commit, restart; the log on disk is told in [`owners::log`].
//! - Modes, times, sizes, names and contents: those are the file system's own.
//! - Rules for changing ids, groups and capabilities; who may search, see, open, make, move, link, remove, chown, chmod,
//!   touch, cut short and set attributes, by modes and access lists, and which of two reasons to refuse is named: random
//!   calls of several users get the answers that they get with real ids (`tests/emulation/random.c`).
//! - Users, groups and access lists of new files: setgid directories and default lists included.
//! - What a layer made of the container says: the same as one made under a range of ids, header by header.
//!
//! # What is approximate
//!
//! - **It is no boundary between the container's users.** To the kernel they are one: a permission is
//!   looked at and then the kernel walks the path again, so whoever swaps a link in between gets through;
//!   ptrace, /proc/PID/mem and signals by pidfd reach processes of "other" users. The container's boundary to
//!   the host is the user namespace and does not depend on anything here.
//! - Ids belong to processes, not to threads (the POSIX rule, which C libraries keep anyway).
//! - readdir's type of an emulated device is a regular file's; only null, zero, full, random and urandom can be opened.
//! - A user without rights is not kept from ports below 1024, from what capabilities other than those for files and ids
//!   decide, nor from what is done by calls that are not trapped: `readlink`, `statfs`, watching a file, and connecting to
//!   a socket's file.
//! - Capabilities of a file stay when it is written to (the kernel would clear them); when it is cut short they go.
//! - The machine's `fs.protected_symlinks`, `protected_fifos` and `protected_regular` see one user.
//! - What a user other than root makes by openat2 with `RESOLVE_` flags is root's.
//! - A file of /proc/PID that has another name than one of the emulator's own (threads' directories, `ns`) may be shown as root's.
//! - SO_PEERCRED says who the other end is now, not who it was at connect.
//! - 32-bit programs get ENOSYS for every trapped call, x32 for every call.
//! - Under the trap isolation a directory whose mode keeps its owner out keeps root out, too: to the kernel they are one.
//! - Where the file system knows no birth times, a record could be taken for a later file's
//!   when the first was removed by something that is not trapped.
#![forbid(unsafe_code)]

pub mod bearer;
pub mod call;
pub mod credentials;
pub mod emulator;
pub mod handlers;
pub mod owners;
pub mod permission;
pub mod remembered;
pub mod table;
pub mod table_aarch64;
#[cfg(target_arch = "x86_64")]
pub mod trace;
pub mod union;
pub mod view;
pub mod walk;
pub mod world;

/// How much is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Owners, devices and attributes of files; every process stays root.
    Owners,
    /// Ids of processes too, and what they may.
    Full,
}
