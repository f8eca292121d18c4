//! Calls that the supervisor answers: laid over a policy, whoever made it.
//!
//! A call that the policy refuses stays refused. One that it allows, always or on a condition, asks
//! the listener instead when it is among the trapped ones. Programs of another machine than
//! this one have other numbers and other structures, which nobody reads here: what is trapped is
//! answered ENOSYS for them.

use duckweed_net::gate::front as gate;
use duckweed_trap::handlers::{self, Row, REFUSED, REFUSED_32_BIT};
use duckweed_trap::Mode;

use rustix::io::Errno;

use super::policy::{find, Action, Branch, Condition, Decision, Machine, Policy, Test, ENOSYS};
use super::table::Row as Call;

const INT: u64 = 0xffff_ffff;

/// Lays the traps of a mode over the policies.
pub fn lay(policies: &mut [Policy], mode: Mode) {
    for policy in policies {
        for row in handlers::rows(mode) {
            let Some(call) = find(row.name) else { continue };
            match policy.machine == Machine::NATIVE {
                true => trap(policy, call, row),
                false => deny(policy, row.name),
            }
        }
        REFUSED.iter().for_each(|name| deny(policy, name));
        if policy.machine != Machine::NATIVE {
            REFUSED_32_BIT.iter().for_each(|name| deny(policy, name));
        }
    }
}

/// Lays the socket gate's traps over the policies: what names an address, and every kind of socket that it does not know.
pub fn lay_gate(policies: &mut [Policy], word: u64) {
    for policy in policies {
        if policy.machine != Machine::NATIVE {
            gate::CALLS.iter().for_each(|(name, _)| deny(policy, name));
            deny(policy, "socketcall");
            continue;
        }
        for (name, _) in gate::CALLS {
            let Some(call) = find(name) else { continue };
            let new = match present(policy, call) {
                Some(Decision::Always(action)) if runs(action) => gate_decision(name, word),
                Some(Decision::Conditional(branches)) if *name == "sendmsg" => {
                    Decision::Conditional([vec![marked(word)], asking(branches)].concat())
                }
                Some(Decision::Conditional(branches)) => Decision::Conditional(asking(branches)),
                _ => continue,
            };
            policy.set(call, new);
        }
        GROUPS.iter().for_each(|(level, option)| refuse_option(policy, *level, *option));
        // It makes and sends on sockets by itself.
        ["io_uring_enter", "io_uring_register", "io_uring_setup"].iter().for_each(|name| deny(policy, name));
    }
}

/// Joining a multicast group on an interface of the host's: level and name of setsockopt(2), linux/in.h and in6.h.
const GROUPS: &[(u32, u32)] = &[(0, 35), (0, 39), (0, 42), (0, 46), (41, 20), (41, 42), (41, 46)];

/// What cannot concern the gate does not ask: sockets of the container's own namespaces, datagrams to nobody by name.
fn gate_decision(name: &str, word: u64) -> Decision {
    const UNIX: u64 = 1;
    const NETLINK: u64 = 16;
    let when = |argument, test, action| Branch { conditions: vec![Condition { argument, test }], action };
    let is = |value| Test::MaskedEq { mask: INT, value };
    match name {
        "socket" => Decision::Conditional(vec![
            when(0, is(UNIX), Action::Allow),
            when(0, is(NETLINK), Action::Allow),
            branch(&[], Action::Notify),
        ]),
        "sendto" => {
            Decision::Conditional(vec![when(4, Test::Eq(0), Action::Allow), branch(&[], Action::Notify)])
        }
        "sendmsg" => Decision::Conditional(vec![marked(word), branch(&[], Action::Notify)]),
        _ => Decision::Always(Action::Notify),
    }
}

/// sendmsg(2) reads three arguments; a sixth that is right comes from the container's own start.
fn marked(word: u64) -> Branch {
    Branch { conditions: vec![Condition { argument: 5, test: Test::Eq(word) }], action: Action::Allow }
}

fn asking(branches: Vec<Branch>) -> Vec<Branch> {
    let asks = |action| if runs(action) { Action::Notify } else { action };
    branches.into_iter().map(|one| Branch { action: asks(one.action), ..one }).collect()
}

fn refuse_option(policy: &mut Policy, level: u32, option: u32) {
    let Some(call) = find("setsockopt") else { return };
    let refusal = branch(&[(1, level), (2, option)], Action::Errno(Errno::NODEV.raw_os_error() as u16));
    let new = match present(policy, call) {
        Some(Decision::Always(action)) if runs(action) => vec![refusal, branch(&[], action)],
        Some(Decision::Conditional(branches)) => [vec![refusal], branches].concat(),
        _ => return,
    };
    policy.set(call, Decision::Conditional(new));
}

fn present(policy: &Policy, call: &Call) -> Option<Decision> {
    let number = policy.machine.number(call)?;
    Some(match policy.decisions.get(number) {
        None if number >= policy.decisions.len() => Decision::Always(policy.beyond()),
        None | Some(Decision::Unsaid) => Decision::Always(policy.default),
        Some(decision) => decision.clone(),
    })
}

fn trap(policy: &mut Policy, call: &Call, row: &Row) {
    let Some(decision) = present(policy, call) else { return };
    let new = match decision {
        Decision::Always(action) if !runs(action) => return,
        Decision::Always(_) if row.when.is_empty() => Decision::Always(Action::Notify),
        Decision::Always(action) => {
            let mut branches: Vec<Branch> =
                row.when.iter().map(|when| branch(when, Action::Notify)).collect();
            branches.push(branch(&[], action));
            Decision::Conditional(branches)
        }
        // A profile of the user's with conditions of its own: those first, asked about what they allow.
        Decision::Conditional(branches) => Decision::Conditional(asking(branches)),
        Decision::Unsaid => return,
    };
    policy.set(call, new);
}

fn runs(action: Action) -> bool {
    matches!(action, Action::Allow | Action::Log)
}

/// All of the conditions; none is written as one that always holds.
fn branch(when: &[(u8, u32)], action: Action) -> Branch {
    let test = |value: u32| Test::MaskedEq { mask: INT, value: u64::from(value) };
    let mut conditions: Vec<Condition> =
        when.iter().map(|(argument, value)| Condition { argument: *argument, test: test(*value) }).collect();
    if conditions.is_empty() {
        conditions.push(Condition { argument: 0, test: Test::MaskedEq { mask: 0, value: 0 } });
    }
    Branch { conditions, action }
}

fn deny(policy: &mut Policy, name: &str) {
    if let Some(call) = find(name) {
        policy.set(call, Decision::Always(Action::Errno(ENOSYS as u16)));
    }
}

/// A policy that allows everything, to lay traps over.
pub fn open() -> Vec<Policy> {
    Machine::RUNNABLE.iter().map(|machine| Policy::new(*machine, Action::Allow)).collect()
}
