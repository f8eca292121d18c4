//! Calls that the supervisor answers: laid over a policy, whoever made it.
//!
//! A call that the policy refuses stays refused. One that it allows, always or on a condition, asks
//! the listener instead when it is among the trapped ones. Programs of another machine than
//! this one have other numbers and other structures, which nobody reads here: what is trapped is
//! answered ENOSYS for them.

use duckweed_trap::handlers::{self, Row, REFUSED, REFUSED_32_BIT};
use duckweed_trap::Mode;

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
    let asks = |action| if runs(action) { Action::Notify } else { action };
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
        Decision::Conditional(branches) => Decision::Conditional(
            branches.into_iter().map(|one| Branch { action: asks(one.action), ..one }).collect(),
        ),
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
