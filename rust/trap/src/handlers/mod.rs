//! What is trapped, and what answers: one row for each system call.
//!
//! A row decides at which call, on which arguments, in which mode. What has no row runs in the
//! kernel untouched. [`REFUSED`] are calls that would go round the others.

mod access;
mod attributes;
pub(crate) mod capabilities;
mod durable;
mod exec;
pub(crate) mod ids;
mod meant;
mod mode;
mod moves;
mod names;
mod open;
mod owner;
mod peers;
pub(crate) mod stat;
pub(crate) mod status;

use crate::call::{Call, Outcome};
use crate::world::World;
use crate::Mode;

/// Answers a call.
pub type Handler = fn(&mut World, &Call) -> Outcome;

/// A condition on the low 32 bits of some arguments: all of `(argument, value)`.
pub type Condition = &'static [(u8, u32)];

/// One trapped call.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// As the kernel calls it.
    pub name: &'static str,
    /// Its number on this machine.
    pub number: i64,
    /// The least mode that traps it.
    pub mode: Mode,
    /// When: at any of these; always when there are none.
    pub when: &'static [Condition],
    /// What answers.
    pub handler: Handler,
}

const fn row(
    name: &'static str,
    number: i64,
    mode: Mode,
    when: &'static [Condition],
    handler: Handler,
) -> Row {
    Row { name, number, mode, when, handler }
}

macro_rules! rows {
    ($($(#[$attribute:meta])* $mode:ident $name:ident $handler:path $(, $when:expr)?;)*) => {
        &[$($(#[$attribute])* row(
            stringify!($name),
            number::$name,
            Mode::$mode,
            rows!(@when $($when)?),
            $handler,
        ),)*]
    };
    (@when) => { &[] };
    (@when $when:expr) => { $when };
}

/// libc's constants under the calls' own names.
#[allow(non_upper_case_globals)]
mod number {
    macro_rules! numbers {
        ($($name:ident = $number:ident;)*) => { $(pub const $name: i64 = libc::$number;)* };
    }
    numbers! {
        fchown = SYS_fchown; fchownat = SYS_fchownat; fstat = SYS_fstat; newfstatat = SYS_newfstatat;
        statx = SYS_statx; mknodat = SYS_mknodat; openat = SYS_openat; openat2 = SYS_openat2;
        mkdirat = SYS_mkdirat; symlinkat = SYS_symlinkat; linkat = SYS_linkat; unlinkat = SYS_unlinkat;
        renameat2 = SYS_renameat2; fchmod = SYS_fchmod; fchmodat = SYS_fchmodat; truncate = SYS_truncate;
        utimensat = SYS_utimensat; setxattr = SYS_setxattr; lsetxattr = SYS_lsetxattr;
        fsetxattr = SYS_fsetxattr; getxattr = SYS_getxattr; lgetxattr = SYS_lgetxattr;
        fgetxattr = SYS_fgetxattr; listxattr = SYS_listxattr; llistxattr = SYS_llistxattr;
        flistxattr = SYS_flistxattr; removexattr = SYS_removexattr; lremovexattr = SYS_lremovexattr;
        fremovexattr = SYS_fremovexattr; sync = SYS_sync; syncfs = SYS_syncfs; fsync = SYS_fsync;
        fdatasync = SYS_fdatasync; setuid = SYS_setuid; setreuid = SYS_setreuid; setresuid = SYS_setresuid;
        setgid = SYS_setgid; setregid = SYS_setregid; setresgid = SYS_setresgid; setfsuid = SYS_setfsuid;
        setfsgid = SYS_setfsgid; setgroups = SYS_setgroups; getuid = SYS_getuid; geteuid = SYS_geteuid;
        getgid = SYS_getgid; getegid = SYS_getegid; getresuid = SYS_getresuid; getresgid = SYS_getresgid;
        getgroups = SYS_getgroups; capget = SYS_capget; capset = SYS_capset; prctl = SYS_prctl;
        execve = SYS_execve; execveat = SYS_execveat; faccessat = SYS_faccessat;
        faccessat2 = SYS_faccessat2; chdir = SYS_chdir; fchdir = SYS_fchdir; chroot = SYS_chroot;
        getsockopt = SYS_getsockopt; bind = SYS_bind; kill = SYS_kill; tkill = SYS_tkill;
        tgkill = SYS_tgkill; prlimit64 = SYS_prlimit64;
    }
    pub const fchmodat2: i64 = 452;
    #[cfg(target_arch = "x86_64")]
    numbers! {
        chown = SYS_chown; lchown = SYS_lchown; stat = SYS_stat; lstat = SYS_lstat; mknod = SYS_mknod;
        open = SYS_open; creat = SYS_creat; mkdir = SYS_mkdir; symlink = SYS_symlink; link = SYS_link;
        unlink = SYS_unlink; rmdir = SYS_rmdir; rename = SYS_rename; renameat = SYS_renameat;
        chmod = SYS_chmod; utime = SYS_utime; utimes = SYS_utimes; futimesat = SYS_futimesat;
        access = SYS_access; getrlimit = SYS_getrlimit; setrlimit = SYS_setrlimit;
    }
}

/// RLIMIT_LOCKS, which carries credentials.
const LOCKS: u32 = 10;
const SOL_SOCKET: u32 = libc::SOL_SOCKET as u32;
const SO_PEERCRED: u32 = libc::SO_PEERCRED as u32;

const PRCTL: &[Condition] = &[
    &[(0, capabilities::OPTIONS[0] as u32)],
    &[(0, capabilities::OPTIONS[1] as u32)],
    &[(0, capabilities::OPTIONS[2] as u32)],
    &[(0, capabilities::OPTIONS[3] as u32)],
    &[(0, capabilities::OPTIONS[4] as u32)],
    &[(0, capabilities::OPTIONS[5] as u32)],
    &[(0, capabilities::OPTIONS[6] as u32)],
    &[(0, capabilities::OPTIONS[7] as u32)],
    &[(0, capabilities::OPTIONS[8] as u32)],
];

/// Every trapped call.
pub const ROWS: &[Row] = rows! {
    #[cfg(target_arch = "x86_64")] Owners chown owner::chown;
    #[cfg(target_arch = "x86_64")] Owners lchown owner::lchown;
    Owners fchown owner::fchown;
    Owners fchownat owner::fchownat;
    #[cfg(target_arch = "x86_64")] Owners stat stat::stat;
    #[cfg(target_arch = "x86_64")] Owners lstat stat::lstat;
    Owners fstat stat::fstat;
    Owners newfstatat stat::newfstatat;
    Owners statx stat::statx;
    #[cfg(target_arch = "x86_64")] Owners mknod names::mknod;
    Owners mknodat names::mknodat;
    #[cfg(target_arch = "x86_64")] Owners mkdir names::mkdir;
    Owners mkdirat names::mkdirat;
    #[cfg(target_arch = "x86_64")] Owners symlink names::symlink;
    Owners symlinkat names::symlinkat;
    #[cfg(target_arch = "x86_64")] Owners link names::link;
    Owners linkat names::linkat;
    #[cfg(target_arch = "x86_64")] Owners unlink names::unlink;
    Owners unlinkat names::unlinkat;
    #[cfg(target_arch = "x86_64")] Owners rmdir names::rmdir;
    #[cfg(target_arch = "x86_64")] Owners rename moves::rename;
    #[cfg(target_arch = "x86_64")] Owners renameat moves::renameat;
    Owners renameat2 moves::renameat2;
    // Opens that may write or create matter to owners; the others only to who may read.
    #[cfg(target_arch = "x86_64")] Owners open open::open;
    #[cfg(target_arch = "x86_64")] Owners creat open::creat;
    Owners openat open::openat;
    Owners openat2 open::openat2;
    #[cfg(target_arch = "x86_64")] Owners chmod mode::chmod;
    Owners fchmod mode::fchmod;
    Owners fchmodat mode::fchmodat;
    Owners fchmodat2 mode::fchmodat2;
    Owners truncate mode::truncate;
    Owners utimensat mode::utimensat;
    #[cfg(target_arch = "x86_64")] Owners utime mode::utimes;
    #[cfg(target_arch = "x86_64")] Owners utimes mode::utimes;
    #[cfg(target_arch = "x86_64")] Owners futimesat mode::futimesat;
    Owners setxattr attributes::setxattr;
    Owners lsetxattr attributes::lsetxattr;
    Owners fsetxattr attributes::fsetxattr;
    Owners getxattr attributes::getxattr;
    Owners lgetxattr attributes::lgetxattr;
    Owners fgetxattr attributes::fgetxattr;
    Owners listxattr attributes::listxattr;
    Owners llistxattr attributes::llistxattr;
    Owners flistxattr attributes::flistxattr;
    Owners removexattr attributes::removexattr;
    Owners lremovexattr attributes::lremovexattr;
    Owners fremovexattr attributes::fremovexattr;
    Owners sync durable::sync;
    Owners syncfs durable::sync;
    Owners fsync durable::sync;
    Owners fdatasync durable::sync;
    Full setuid ids::setuid;
    Full setreuid ids::setreuid;
    Full setresuid ids::setresuid;
    Full setgid ids::setgid;
    Full setregid ids::setregid;
    Full setresgid ids::setresgid;
    Full setfsuid ids::setfsuid;
    Full setfsgid ids::setfsgid;
    Full setgroups ids::setgroups;
    Full getuid ids::getuid;
    Full geteuid ids::geteuid;
    Full getgid ids::getgid;
    Full getegid ids::getegid;
    Full getresuid ids::getresuid;
    Full getresgid ids::getresgid;
    Full getgroups ids::getgroups;
    Full capget capabilities::capget;
    Full capset capabilities::capset;
    Full prctl capabilities::prctl, PRCTL;
    Full execve exec::execve;
    Full execveat exec::execveat;
    #[cfg(target_arch = "x86_64")] Full access access::access;
    Full faccessat access::faccessat;
    Full faccessat2 access::faccessat2;
    Full chdir access::chdir;
    Full fchdir access::fchdir;
    Full chroot access::chroot;
    Full getsockopt peers::getsockopt, &[&[(1, SOL_SOCKET), (2, SO_PEERCRED)]];
    Full bind peers::bind;
    Full kill ids::kill;
    Full tkill ids::kill;
    Full tgkill ids::tgkill;
    #[cfg(target_arch = "x86_64")] Full getrlimit ids::getrlimit, &[&[(0, LOCKS)]];
    #[cfg(target_arch = "x86_64")] Full setrlimit ids::setrlimit, &[&[(0, LOCKS)]];
    Full prlimit64 ids::prlimit64, &[&[(1, LOCKS)]];
};

/// Calls that would reach files or owners by another way; answered ENOSYS, as by a kernel that lacks them.
pub const REFUSED: &[&str] = &[
    "getxattrat",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "listxattrat",
    "open_by_handle_at",
    "removexattrat",
    "setxattrat",
];

/// Names that only 32-bit programs have for what [`ROWS`] traps.
pub const REFUSED_32_BIT: &[&str] = &[
    "chown32",
    "fchown32",
    "fstat64",
    "fstatat64",
    "getegid32",
    "geteuid32",
    "getgid32",
    "getgroups32",
    "getresgid32",
    "getresuid32",
    "getuid32",
    "lchown32",
    "lstat64",
    "oldfstat",
    "oldlstat",
    "oldstat",
    "setfsgid32",
    "setfsuid32",
    "setgid32",
    "setgroups32",
    "setregid32",
    "setresgid32",
    "setresuid32",
    "setreuid32",
    "setuid32",
    "socketcall",
    "stat64",
    "truncate64",
    "ugetrlimit",
    "umount",
    "utimensat_time64",
];

/// The rows of a mode.
pub fn rows(mode: Mode) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(move |row| row.mode <= mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_has_two_rows() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
