//! A policy: for one machine, what happens at each call number.
//!
//! This is the meeting point of the two sources of rules and the only thing the
//! assembler sees. The order of rules is settled here, the way libseccomp settles it:
//! the first unconditional rule for a call is final and outweighs every conditional
//! one, written before or after; conditional rules are asked in the order written; a
//! rule that says what the default says anyway is no rule.

use super::table::{Row, NONE, TABLE};

/// `EPERM`, what a refused call returns unless a rule says otherwise.
pub const EPERM: u32 = 1;
/// `ENOSYS`, what a call returns that we pretend not to know.
pub const ENOSYS: u32 = 38;

/// What the kernel does with a call (seccomp(2), "return value of a filter").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The call runs.
    Allow,
    /// The call returns this errno.
    Errno(u16),
    /// The thread dies by SIGSYS.
    KillThread,
    /// The process dies by SIGSYS.
    KillProcess,
    /// The thread gets SIGSYS with the details in siginfo.
    Trap(u16),
    /// The tracer is told this value; ENOSYS when there is none.
    Trace(u16),
    /// The call runs and is logged.
    Log,
    /// The listener decides.
    Notify,
}

impl Action {
    /// The filter's return value, `SECCOMP_RET_*` of linux/seccomp.h with its data.
    pub fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
            Self::Trap(data) => 0x0003_0000 | u32::from(data),
            Self::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Self::Log => 0x7ffc_0000,
            Self::Notify => 0x7fc0_0000,
        }
    }

    /// Whether a call under this action does not run and nobody is asked.
    pub fn refuses(self) -> bool {
        matches!(self, Self::Errno(_) | Self::KillThread | Self::KillProcess | Self::Trap(_))
    }
}

/// How an argument is compared, unsigned and as 64 bits (32 on i386).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Equal.
    Eq(u64),
    /// Not equal.
    Ne(u64),
    /// Less than.
    Lt(u64),
    /// Less or equal.
    Le(u64),
    /// Greater than.
    Gt(u64),
    /// Greater or equal.
    Ge(u64),
    /// `argument & mask == value`.
    MaskedEq {
        /// The bits looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

/// One condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    /// The comparison.
    pub test: Test,
}

/// Some conditions, all of which must hold, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Never empty.
    pub conditions: Vec<Condition>,
    /// What happens when they hold.
    pub action: Action,
}

/// What happens at one call number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was said: the policy's default.
    Unsaid,
    /// The same whatever the arguments.
    Always(Action),
    /// The first branch that holds, else the default.
    Conditional(Vec<Branch>),
}

/// The machines whose calls a filter can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, on x86_64 kernels.
    I386,
    /// 64-bit ARM.
    Aarch64,
}

impl Machine {
    /// The machine this program was compiled for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The machine this program was compiled for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// All machines whose programs this kernel runs and we have a table for.
    #[cfg(target_arch = "x86_64")]
    pub const RUNNABLE: &'static [Self] = &[Self::X86_64, Self::I386];
    /// All machines whose programs this kernel runs and we have a table for.
    #[cfg(target_arch = "aarch64")]
    pub const RUNNABLE: &'static [Self] = &[Self::Aarch64];

    /// `AUDIT_ARCH_*` of linux/audit.h, what `seccomp_data.arch` holds.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Whether arguments have 32 bits.
    pub fn is_32_bit(self) -> bool {
        self == Self::I386
    }

    /// The call's number on this machine, if it has the call.
    pub fn number(self, row: &Row) -> Option<usize> {
        let number = match self {
            Self::X86_64 => row.1,
            Self::I386 => row.2,
            Self::Aarch64 => row.3,
        };
        if number == NONE {
            None
        } else {
            usize::try_from(number).ok()
        }
    }
}

/// Finds a call in the table by name.
pub fn find(name: &str) -> Option<&'static Row> {
    TABLE.binary_search_by(|row| row.0.cmp(name)).ok().map(|at| &TABLE[at])
}

/// The decisions for one machine.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Whose call numbers these are.
    pub machine: Machine,
    /// What happens at a call nobody mentioned.
    pub default: Action,
    /// By call number; ends at the highest number mentioned.
    pub decisions: Vec<Decision>,
}

impl Policy {
    /// A policy without rules.
    pub fn new(machine: Machine, default: Action) -> Self {
        Self { machine, default, decisions: Vec::with_capacity(480) }
    }

    /// Adds a rule for one call; `conditions` empty means always.
    pub fn add(&mut self, row: &Row, action: Action, conditions: &[Condition]) {
        let default = self.default;
        let machine = self.machine;
        let Some(decision) = self.slot(row) else { return };
        if action == default {
            return;
        }
        match (&mut *decision, conditions.is_empty()) {
            (Decision::Always(_), _) => {}
            (_, true) => *decision = Decision::Always(action),
            (Decision::Unsaid, false) => {
                *decision =
                    Decision::Conditional(vec![Branch { conditions: machine.fit(conditions), action }]);
            }
            (Decision::Conditional(branches), false) => {
                branches.push(Branch { conditions: machine.fit(conditions), action });
            }
        }
    }

    /// Decides one call outright, whatever was added before.
    pub fn set(&mut self, row: &Row, decision: Decision) {
        if let Some(slot) = self.slot(row) {
            *slot = decision;
        }
    }

    /// The call's place, made when needed: mentioning a call, even to repeat the default,
    /// says that the profile knows numbers up to it.
    fn slot(&mut self, row: &Row) -> Option<&mut Decision> {
        let number = self.machine.number(row)?;
        if self.decisions.len() <= number {
            self.decisions.resize(number + 1, Decision::Unsaid);
        }
        Some(&mut self.decisions[number])
    }

    /// What a number above all mentioned ones gets: see the module's story.
    pub fn beyond(&self) -> Action {
        if self.default.refuses() {
            Action::Errno(ENOSYS as u16)
        } else {
            self.default
        }
    }
}

impl Machine {
    /// Cuts comparison values to the machine's argument size, as libseccomp does: the
    /// kernel zero-extends 32-bit arguments, so a longer value could never be met.
    fn fit(self, conditions: &[Condition]) -> Vec<Condition> {
        let cut = |value: u64| if self.is_32_bit() { value & 0xffff_ffff } else { value };
        let fit = |condition: &Condition| Condition {
            argument: condition.argument,
            test: match condition.test {
                Test::Eq(value) => Test::Eq(cut(value)),
                Test::Ne(value) => Test::Ne(cut(value)),
                Test::Lt(value) => Test::Lt(cut(value)),
                Test::Le(value) => Test::Le(cut(value)),
                Test::Gt(value) => Test::Gt(cut(value)),
                Test::Ge(value) => Test::Ge(cut(value)),
                Test::MaskedEq { mask, value } => Test::MaskedEq { mask: cut(mask), value: cut(value) },
            },
        };
        conditions.iter().map(fit).collect()
    }
}
