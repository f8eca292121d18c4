//! From a bundle to processes, without privilege.
//!
//! `bundle` reads config.json, `userns` turns it into a process in its own namespaces,
//! `seccomp` makes the filter it runs under, `within` does single jobs in a short-lived
//! user namespace, `freeze` makes a container stand still, `copying` moves files in and
//! out of it. `emulation` makes one uid look like many, `network` is how it reaches others.
//! `supervise` stays with what runs, `client` brings a user's terminal to
//! it, and `message` is what the two say to each other. `sealed` sees to it that what enters
//! a container is a copy of this program that cannot be changed.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod client;
pub mod copying;
pub mod emulation;
pub mod freeze;
mod gate;
pub mod isolation;
mod memory;
pub mod message;
pub mod network;
pub mod probe;
pub mod sealed;
pub mod seccomp;
pub mod spec;
pub mod start_error;
pub mod supervise;
#[cfg(target_arch = "x86_64")]
pub mod trap;
#[cfg(not(target_arch = "x86_64"))]
#[path = "trap/elsewhere.rs"]
pub mod trap;
pub mod userns;
pub mod within;
