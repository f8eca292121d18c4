//! The unsafe fence: system calls that rustix lacks, each behind a safe door.
//!
//! All `unsafe` of the workspace is in this crate, one small file per theme, each
//! block with the invariant it rests on and who keeps it. Nothing here decides
//! anything: it turns a kernel interface into owned descriptors, plain values and
//! `io::Error`, and cites the man page. The crates above (layer, runtime, core)
//! forbid unsafe code.

pub mod clone;
pub mod daemon;
pub mod errno;
pub mod exec;
pub mod fd;
pub mod identity;
pub mod interface;
pub mod landlock;
pub mod limit;
pub mod link;
pub mod memory;
pub mod mount;
pub mod notify;
pub mod packet;
pub mod ptrace;
pub mod random;
pub mod sealed;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod tracing;
pub mod trial;
pub mod unshare;
