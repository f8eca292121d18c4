//! From policies to classic BPF.
//!
//! BPF jumps go forward only and, when conditional, at most 255 instructions far. So the
//! program is written **back to front**: when a jump is written its targets already
//! exist, its distance is known, and a target out of reach gets a long jump (or, for a
//! plain answer, a second copy of the answer) right there. `out` is the program in
//! reverse; a [`Label`] is an index into it and stays valid while the program grows.

use duckweed_sys::seccomp::Instruction;

use super::policy::{Action, Branch, Condition, Decision, Machine, Policy, Test, ENOSYS};
use super::SeccompError;

// linux/bpf_common.h: class | size | mode, class | operation | source.
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data; both machines are little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The bit that marks a call of the x32 ABI, `__X32_SYSCALL_BIT`.
const X32_BIT: u32 = 0x4000_0000;
/// BPF_MAXINSNS of the kernel.
const MAX_INSTRUCTIONS: usize = 4096;

/// Writes the program for these policies; a call for any other machine kills the process.
pub fn assemble(policies: &[Policy]) -> Result<Vec<Instruction>, SeccompError> {
    let mut writer = Writer { out: Vec::with_capacity(512), answers: Vec::new() };
    let mut next = writer.answer(Action::KillProcess);
    // The last policy is written first, so that the native machine is asked for first.
    for policy in policies.iter().rev() {
        let body = writer.policy(policy);
        next = writer.jump(JUMP_EQUAL, policy.machine.audit(), body, next);
    }
    writer.push(LOAD_WORD, ARCH);
    let mut program = writer.out;
    program.reverse();
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong { instructions: program.len() });
    }
    Ok(program)
}

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

/// A stretch of call numbers that go the same way; it ends where the next begins.
struct Range {
    start: u32,
    target: Target,
}

/// Where a range goes. Answers are placed by the search, near where they are needed.
#[derive(Clone, Copy)]
enum Target {
    Chain(Label),
    Answer(Action),
}

struct Writer {
    out: Vec<Instruction>,
    answers: Vec<(Action, Label)>,
}

impl Writer {
    fn push(&mut self, code: u16, k: u32) -> Label {
        self.out.push(Instruction { code, jt: 0, jf: 0, k });
        Label(self.out.len() - 1)
    }

    /// Instructions between the next one to be written and the label.
    fn distance(&self, label: Label) -> usize {
        self.out.len() - label.0 - 1
    }

    /// The instruction that answers `action`: an existing one within reach, or a new one.
    fn answer(&mut self, action: Action) -> Label {
        // Room for what one comparison may need before it jumps here.
        const REACH: usize = 240;
        let known = self.answers.iter().rposition(|(known, _)| *known == action);
        if let Some(at) = known {
            let label = self.answers[at].1;
            if self.distance(label) <= REACH {
                return label;
            }
        }
        let label = self.push(RETURN, action.value());
        self.answers.push((action, label));
        label
    }

    /// The same label, or a long jump to it when it is too far for a conditional one.
    /// `spare` is how many instructions may still come between.
    fn within_reach(&mut self, label: Label, spare: usize) -> Label {
        let distance = self.distance(label);
        if distance + spare <= usize::from(u8::MAX) {
            return label;
        }
        // A program is far shorter than 2^32: `assemble` refuses more than 4096.
        self.push(JUMP, distance as u32)
    }

    /// Compares the accumulator with `k`.
    fn jump(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        // One long jump may have to be written between `yes` and the comparison.
        let yes = self.within_reach(yes, 1);
        let no = self.within_reach(no, 0);
        // At most 255 each: `within_reach` saw to it.
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.out.push(Instruction { code, jt, jf, k });
        Label(self.out.len() - 1)
    }

    /// All of one machine's calls; what it returns begins by loading the number.
    fn policy(&mut self, policy: &Policy) -> Label {
        let ranges = self.ranges(policy);
        let mut body = self.search(&ranges);
        if policy.machine == Machine::X86_64 {
            let x32 = self.answer(Action::Errno(ENOSYS as u16));
            body = self.jump(JUMP_GREATER_EQUAL, X32_BIT, x32, body);
        }
        self.fall_into(body);
        self.push(LOAD_WORD, NUMBER)
    }

    /// Makes `label` the instruction that follows the next one written.
    fn fall_into(&mut self, label: Label) {
        let distance = self.distance(label);
        if distance > 0 {
            self.push(JUMP, distance as u32);
        }
    }

    /// Neighbouring numbers with the same plain answer become one range.
    fn ranges(&mut self, policy: &Policy) -> Vec<Range> {
        let mut merged: Vec<(u32, &Decision)> = Vec::with_capacity(128);
        let always_default = Decision::Always(policy.default);
        let beyond = Decision::Always(policy.beyond());
        let decisions = policy.decisions.iter().chain(std::iter::once(&beyond));
        for (number, decision) in (0u32..).zip(decisions) {
            let decision = if *decision == Decision::Unsaid { &always_default } else { decision };
            let same = merged.last().is_some_and(|(_, last)| *last == decision);
            if !same {
                merged.push((number, decision));
            }
        }
        // Conditions are written here, before the search, so that its jumps stay short.
        let mut target = |decision: &Decision| match decision {
            Decision::Conditional(branches) => Target::Chain(self.chain(branches, policy)),
            Decision::Always(action) => Target::Answer(*action),
            Decision::Unsaid => Target::Answer(policy.default),
        };
        merged.into_iter().map(|(start, decision)| Range { start, target: target(decision) }).collect()
    }

    /// Splits the ranges in half until one is left.
    fn search(&mut self, ranges: &[Range]) -> Label {
        match ranges {
            [] => self.answer(Action::KillProcess),
            [Range { target: Target::Chain(label), .. }] => *label,
            [Range { target: Target::Answer(action), .. }] => self.answer(*action),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let start = high[0].start;
                let above = self.search(high);
                let below = self.search(low);
                self.jump(JUMP_GREATER_EQUAL, start, above, below)
            }
        }
    }

    /// The branches of a call, in the order written, then the default.
    fn chain(&mut self, branches: &[Branch], policy: &Policy) -> Label {
        let mut next = self.answer(policy.default);
        for branch in branches.iter().rev() {
            next = self.branch(branch, policy.machine, next);
        }
        next
    }

    fn branch(&mut self, branch: &Branch, machine: Machine, otherwise: Label) -> Label {
        let mut holds = self.answer(branch.action);
        for condition in branch.conditions.iter().rev() {
            holds = self.condition(condition, machine, holds, otherwise);
        }
        holds
    }

    fn condition(&mut self, condition: &Condition, machine: Machine, yes: Label, no: Label) -> Label {
        let argument = Argument { offset: ARGUMENTS + 8 * u32::from(condition.argument), machine };
        match condition.test {
            Test::Eq(value) => self.equal(argument, u64::MAX, value, yes, no),
            Test::Ne(value) => self.equal(argument, u64::MAX, value, no, yes),
            Test::MaskedEq { mask, value } => self.equal(argument, mask, value, yes, no),
            Test::Gt(value) => self.greater(argument, JUMP_GREATER, value, yes, no),
            Test::Ge(value) => self.greater(argument, JUMP_GREATER_EQUAL, value, yes, no),
            Test::Le(value) => self.greater(argument, JUMP_GREATER, value, no, yes),
            Test::Lt(value) => self.greater(argument, JUMP_GREATER_EQUAL, value, no, yes),
        }
    }

    /// `argument & mask == value`, half by half, the halves without mask left out.
    fn equal(&mut self, argument: Argument, mask: u64, value: u64, yes: Label, no: Label) -> Label {
        if value & !mask != 0 && !argument.machine.is_32_bit() {
            return no;
        }
        let low = self.equal_half(argument.offset, mask as u32, value as u32, yes, no);
        if argument.machine.is_32_bit() {
            return low;
        }
        self.equal_half(argument.offset + 4, (mask >> 32) as u32, (value >> 32) as u32, low, no)
    }

    fn equal_half(&mut self, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
        if mask == 0 {
            return if value == 0 { yes } else { no };
        }
        let compare = self.jump(JUMP_EQUAL, value, yes, no);
        if compare == yes {
            return yes;
        }
        if mask != u32::MAX {
            self.push(AND, mask);
        }
        self.push(LOAD_WORD, offset)
    }

    /// `argument > value` or `>=`, by `code`, which decides between equal high halves.
    fn greater(&mut self, argument: Argument, code: u16, value: u64, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        self.jump(code, value as u32, yes, no);
        let low = self.push(LOAD_WORD, argument.offset);
        if argument.machine.is_32_bit() {
            return low;
        }
        let high = (value >> 32) as u32;
        let same_or_less = self.jump(JUMP_EQUAL, high, low, no);
        self.jump(JUMP_GREATER, high, yes, same_or_less);
        self.push(LOAD_WORD, argument.offset + 4)
    }
}

/// Where an argument lies and how wide it is.
#[derive(Clone, Copy)]
struct Argument {
    offset: u32,
    machine: Machine,
}
