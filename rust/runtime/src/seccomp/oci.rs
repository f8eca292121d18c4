//! `linux.seccomp` of the OCI runtime specification (config-linux.md, "Seccomp").
//!
//! Names of calls that the table lacks are skipped, as every runtime does: profiles
//! list calls of all machines and of kernels to come. Several conditions on one
//! argument within a rule mean "any of these" and conditions on different arguments
//! mean "all of these": libseccomp takes one condition an argument, and runc and crun
//! therefore add such a rule once per condition. We do the same.

use serde::Deserialize;

use super::policy::{find, Action, Condition, Machine, Policy, Test, EPERM};
use super::SeccompError;

/// The object itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens at a call without a rule.
    pub default_action: ActionName,
    /// The errno when that is `SCMP_ACT_ERRNO`; EPERM when absent.
    #[serde(default)]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_*`; none means this machine only.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_*`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// The rules.
    #[serde(default)]
    pub syscalls: Vec<Rule>,
}

/// One rule: some calls, perhaps some conditions, one action.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Which calls.
    pub names: Vec<String>,
    /// What happens.
    pub action: ActionName,
    /// The errno of `SCMP_ACT_ERRNO`, the message of `SCMP_ACT_TRACE`; EPERM when absent.
    #[serde(default)]
    pub errno_ret: Option<u32>,
    /// When.
    #[serde(default)]
    pub args: Option<Vec<Arg>>,
}

/// A condition on an argument.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// Which argument, from 0.
    pub index: u32,
    /// What it is compared with; the mask of `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// The value of `SCMP_CMP_MASKED_EQ`.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// The specification's names of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "named and described in the specification")]
pub enum ActionName {
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// The specification's names of comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "named and described in the specification")]
pub enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

/// MAX_ERRNO of the kernel: a filter's larger errno is cut to this one.
const MAX_ERRNO: u32 = 4095;

impl Seccomp {
    /// The decisions for each machine that `architectures` names and this kernel runs.
    ///
    /// # Errors
    /// A bad argument index or errno, or no architecture that is this machine's.
    pub fn policies(&self) -> Result<Vec<Policy>, SeccompError> {
        let default = self.default_action.resolve(self.default_errno_ret)?;
        let machines = self.machines();
        if !machines.contains(&Machine::NATIVE) {
            return Err(SeccompError::WrongArchitecture);
        }
        let mut policies: Vec<_> =
            machines.into_iter().map(|machine| Policy::new(machine, default)).collect();
        for rule in &self.syscalls {
            let action = rule.action.resolve(rule.errno_ret)?;
            let groups = rule.groups()?;
            for row in rule.names.iter().filter_map(|name| find(name)) {
                for policy in &mut policies {
                    for conditions in &groups {
                        policy.add(row, action, conditions);
                    }
                }
            }
        }
        Ok(policies)
    }

    /// The flags for `install`; unknown ones are skipped.
    pub fn flag_bits(&self) -> u32 {
        self.flags.iter().fold(0, |bits, flag| bits | duckweed_sys::seccomp::flag(flag))
    }

    fn machines(&self) -> Vec<Machine> {
        if self.architectures.is_empty() {
            return vec![Machine::NATIVE];
        }
        let named = |machine: &Machine| {
            let name = match machine {
                Machine::X86_64 => "SCMP_ARCH_X86_64",
                Machine::I386 => "SCMP_ARCH_X86",
                Machine::Aarch64 => "SCMP_ARCH_AARCH64",
            };
            self.architectures.iter().any(|architecture| architecture == name)
        };
        Machine::RUNNABLE.iter().copied().filter(named).collect()
    }
}

impl ActionName {
    fn resolve(self, data: Option<u32>) -> Result<Action, SeccompError> {
        let data = data.unwrap_or(EPERM);
        let checked = || {
            u16::try_from(data)
                .ok()
                .filter(|_| data <= MAX_ERRNO)
                .ok_or(SeccompError::BadErrno { errno: data })
        };
        Ok(match self {
            Self::Kill | Self::KillThread => Action::KillThread,
            Self::KillProcess => Action::KillProcess,
            Self::Trap => Action::Trap(0),
            Self::Errno => Action::Errno(checked()?),
            Self::Trace => Action::Trace(checked()?),
            Self::Allow => Action::Allow,
            Self::Log => Action::Log,
            Self::Notify => Action::Notify,
        })
    }
}

impl Rule {
    /// The rule's conditions as alternatives, each a list that must hold as a whole.
    fn groups(&self) -> Result<Vec<Vec<Condition>>, SeccompError> {
        let mut conditions = Vec::new();
        for arg in self.args.iter().flatten() {
            conditions.push(self.condition(arg)?);
        }
        let repeats =
            |at: usize| conditions[..at].iter().any(|other| other.argument == conditions[at].argument);
        if (0..conditions.len()).any(repeats) {
            return Ok(conditions.into_iter().map(|condition| vec![condition]).collect());
        }
        Ok(vec![conditions])
    }

    fn condition(&self, arg: &Arg) -> Result<Condition, SeccompError> {
        if arg.index > 5 {
            let syscall = self.names.first().cloned().unwrap_or_default();
            return Err(SeccompError::BadArgument { syscall, index: arg.index });
        }
        let test = match arg.op {
            Operator::Ne => Test::Ne(arg.value),
            Operator::Lt => Test::Lt(arg.value),
            Operator::Le => Test::Le(arg.value),
            Operator::Eq => Test::Eq(arg.value),
            Operator::Ge => Test::Ge(arg.value),
            Operator::Gt => Test::Gt(arg.value),
            Operator::MaskedEq => Test::MaskedEq { mask: arg.value, value: arg.value_two },
        };
        Ok(Condition { argument: arg.index as u8, test })
    }
}
