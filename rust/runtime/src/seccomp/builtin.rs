//! The built-in profile: what Docker's default profile amounts to, as our own table.
//!
//! Everything ordinary programs use is allowed by name; what only makes sense with a
//! capability is allowed with that capability; the rest is refused with EPERM. Which
//! names stand where was taken from moby's `profiles/seccomp/default.json` (2026-11) and
//! a test compares the two when `DUCKWEED_DOCKER_SECCOMP` names that file.
//!
//! One deliberate difference: Docker compares all 64 bits of `socket`'s first argument,
//! of which the kernel reads 32, so `AF_VSOCK | 1 << 32` passes there; here only the bits
//! that the kernel reads are compared.

use super::policy::{find, Action, Branch, Condition, Decision, Machine, Policy, Test, ENOSYS, EPERM};
use super::table::TABLE;

/// The profiles that need no file: the values of the annotation's `seccomp` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Builtin {
    /// Docker's default profile.
    Default,
    /// No filter.
    Unconfined,
}

// Numbers of capabilities, linux/capability.h.
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_MODULE: u32 = 16;
const CAP_SYS_RAWIO: u32 = 17;
const CAP_SYS_CHROOT: u32 = 18;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_PACCT: u32 = 20;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_BOOT: u32 = 22;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_TIME: u32 = 25;
const CAP_SYS_TTY_CONFIG: u32 = 26;
const CAP_SYSLOG: u32 = 34;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Calls that a capability opens.
#[rustfmt::skip]
const WITH_CAPABILITY: &[(u32, &[&str])] = &[
    (CAP_DAC_READ_SEARCH, &["open_by_handle_at"]),
    (CAP_SYS_ADMIN, &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
        "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount",
        "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog",
        "umount", "umount2", "unshare",
    ]),
    (CAP_SYS_BOOT, &["reboot"]),
    (CAP_SYS_CHROOT, &["chroot"]),
    (CAP_SYS_MODULE, &["delete_module", "finit_module", "init_module"]),
    (CAP_SYS_PACCT, &["acct"]),
    (CAP_SYS_PTRACE, &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"]),
    (CAP_SYS_RAWIO, &["ioperm", "iopl"]),
    (CAP_SYS_TIME, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (CAP_SYS_TTY_CONFIG, &["vhangup"]),
    (CAP_SYS_NICE, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (CAP_SYSLOG, &["syslog"]),
    (CAP_BPF, &["bpf"]),
    (CAP_PERFMON, &["perf_event_open"]),
];

/// Before this kernel ptrace could be used to step round a filter.
const PTRACE_IS_SAFE: (u32, u32) = (4, 8);
const PTRACE: &[&str] = &["process_vm_readv", "process_vm_writev", "ptrace"];

/// x86's own calls; other machines have no numbers for them.
const X86: &[&str] = &["arch_prctl", "modify_ldt"];

/// Every `CLONE_NEW*` bit but `CLONE_NEWTIME`, which clone(2) cannot express.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// The 32 bits of an argument that the kernel reads as an int.
const INT: u64 = 0xffff_ffff;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// PER_LINUX, PER_LINUX32, each alone and with UNAME26; all bits set only asks.
const PERSONALITIES: &[u64] = &[0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The running kernel's version, major and minor; 0.0 when it cannot be read.
pub fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_bytes();
    let mut numbers = release
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The profile for a container with these capabilities on this kernel, for every
/// machine whose programs it can run.
pub fn policies(capabilities: u64, kernel: (u32, u32)) -> Vec<Policy> {
    Machine::RUNNABLE.iter().map(|machine| policy(*machine, capabilities, kernel)).collect()
}

fn policy(machine: Machine, capabilities: u64, kernel: (u32, u32)) -> Policy {
    let has = |capability: u32| capabilities & (1 << capability) != 0;
    let mut policy = Policy::new(machine, Action::Errno(EPERM as u16));
    allow_ordinary(&mut policy);
    for (capability, names) in WITH_CAPABILITY {
        if has(*capability) {
            allow(&mut policy, names, &[]);
        }
    }
    if kernel >= PTRACE_IS_SAFE {
        allow(&mut policy, PTRACE, &[]);
    }
    allow(&mut policy, X86, &[]);
    if !has(CAP_SYS_ADMIN) {
        let no_namespaces = Test::MaskedEq { mask: CLONE_NAMESPACES, value: 0 };
        allow(&mut policy, &["clone"], &[Condition { argument: 0, test: no_namespaces }]);
        // clone3's flags are in memory, out of a filter's sight; ENOSYS makes libc use clone.
        add(&mut policy, &["clone3"], Action::Errno(ENOSYS as u16), &[]);
    }
    allow_sockets(&mut policy);
    for value in PERSONALITIES {
        allow(&mut policy, &["personality"], &[Condition { argument: 0, test: Test::Eq(*value) }]);
    }
    policy
}

/// Walks the two sorted lists side by side: no search per name.
fn allow_ordinary(policy: &mut Policy) {
    let mut rows = TABLE.iter();
    for name in ORDINARY {
        if let Some(row) = rows.find(|row| row.0 == *name) {
            policy.add(row, Action::Allow, &[]);
        }
    }
}

/// Every family but AF_ALG (kernel crypto, a long list of holes) and AF_VSOCK (talks to
/// the hypervisor, and is in no network namespace).
fn allow_sockets(policy: &mut Policy) {
    let branch = |mask, value, action| Branch {
        conditions: vec![Condition { argument: 0, test: Test::MaskedEq { mask, value } }],
        action,
    };
    let refused = policy.default;
    let branches =
        vec![branch(INT, AF_ALG, refused), branch(INT, AF_VSOCK, refused), branch(0, 0, Action::Allow)];
    if let Some(row) = find("socket") {
        policy.set(row, Decision::Conditional(branches));
    }
}

fn allow(policy: &mut Policy, names: &[&str], conditions: &[Condition]) {
    add(policy, names, Action::Allow, conditions);
}

fn add(policy: &mut Policy, names: &[&str], action: Action, conditions: &[Condition]) {
    for row in names.iter().filter_map(|name| find(name)) {
        policy.add(row, action, conditions);
    }
}

/// Allowed whatever the arguments and capabilities; sorted by name, as the table is.
#[rustfmt::skip]
const ORDINARY: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk",
    "cachestat", "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime",
    "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64",
    "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range",
    "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve",
    "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate",
    "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
    "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr",
    "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate",
    "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake",
    "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64",
    "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32",
    "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom",
    "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid",
    "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy",
    "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl",
    "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen", "listmount",
    "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64",
    "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir",
    "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect",
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync",
    "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat",
    "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64",
    "process_mrelease", "pselect6", "pselect6_time64", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg",
    "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
    "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_robust_list",
    "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid",
    "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid",
    "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32",
    "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl",
    "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn",
    "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount", "statx",
    "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
    "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
    "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit",
    "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64",
    "utimes", "vfork", "vmsplice", "wait4", "waitid", "waitpid", "write", "writev",
];
