//! What the trap backend will need: ptrace, seccomp's two ways of asking, Landlock.

use std::io;
use std::os::fd::AsFd;

use duckweed_sys::tracing;

use super::fact::{in_child, Fact, Step};
use super::Facts;

/// Tries them all.
pub fn probe(facts: &mut Facts) {
    let whole = |step: &'static str, trial: fn() -> io::Result<()>| {
        in_child(move || trial().step(step).map(|()| String::new()))
    };
    facts.insert("ptrace", whole("tracing a child", tracing::trace_child));
    facts.insert("ptrace_seccomp", whole("SECCOMP_RET_TRACE", tracing::trace_by_filter));
    facts.insert("seccomp_notify", whole("asking for a listener", tracing::listen));
    facts.insert(
        "seccomp_addfd",
        whole("handing over a descriptor", || {
            let gift = std::fs::File::open("/")?;
            tracing::listen_and_hand_over(gift.as_fd())
        }),
    );
    facts.insert(
        "landlock",
        Fact::here("asking for the ABI", tracing::landlock_abi().map(|abi| abi.to_string())),
    );
}
