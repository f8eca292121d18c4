//! Programs against a naive reading of the same rules, and one against the kernel.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use super::interpreter::{run, Call};
use super::oci::{ActionName, Arg, Operator, Rule, Seccomp};
use super::policy::{find, Machine, EPERM};
use super::table::{NONE, TABLE};
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = ERRNO | 38;
const KILL_PROCESS: u32 = 0x8000_0000;
/// Docker's fourteen.
const DOCKER_CAPABILITIES: u64 = 0xa804_25fb;
const SYS_ADMIN: u64 = 1 << 21;

/// xorshift: the same calls in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    /// Values near the edges that comparisons turn on.
    fn value(&mut self) -> u64 {
        const EDGES: [u64; 12] =
            [0, 1, 8, 37, 38, 39, 40, 0x7e02_0000, 0xffff_ffff, 1 << 32, (1 << 32) + 40, u64::MAX];
        let edge = EDGES[self.below(12) as usize];
        match self.below(4) {
            0 => edge.wrapping_add(1),
            1 => edge.wrapping_sub(1),
            2 => self.roll(),
            _ => edge,
        }
    }
}

fn builtin(capabilities: u64) -> Vec<Instruction> {
    program(None, Some(Builtin::Default), capabilities, None, None).unwrap().unwrap()
}

fn ask(program: &[Instruction], name: &str, arguments: &[u64]) -> u32 {
    let number = Machine::NATIVE.number(find(name).unwrap()).unwrap() as u32;
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    run(program, &Call { number, arch: Machine::NATIVE.audit(), arguments: all }).0
}

fn holds(operator: Operator, argument: u64, value: u64, second: u64) -> bool {
    match operator {
        Operator::Ne => argument != value,
        Operator::Lt => argument < value,
        Operator::Le => argument <= value,
        Operator::Eq => argument == value,
        Operator::Ge => argument >= value,
        Operator::Gt => argument > value,
        Operator::MaskedEq => argument & value == second,
    }
}

fn naive_value(action: ActionName, data: Option<u32>) -> u32 {
    match action {
        ActionName::Kill | ActionName::KillThread => 0,
        ActionName::KillProcess => KILL_PROCESS,
        ActionName::Trap => 0x0003_0000,
        ActionName::Errno => ERRNO | data.unwrap_or(EPERM),
        ActionName::Trace => 0x7ff0_0000 | data.unwrap_or(EPERM),
        ActionName::Allow => ALLOW,
        ActionName::Log => 0x7ffc_0000,
        ActionName::Notify => 0x7fc0_0000,
    }
}

/// Reads the rules one by one, knowing nothing of trees or merging.
struct Naive {
    default: u32,
    machine: Machine,
    newest: Option<u32>,
    rules: HashMap<u32, Vec<Rule>>,
}

impl Naive {
    fn new(rules: &Seccomp, machine: Machine) -> Self {
        let default = naive_value(rules.default_action, rules.default_errno_ret);
        let mut naive = Self { default, machine, newest: None, rules: HashMap::new() };
        for rule in &rules.syscalls {
            for row in rule.names.iter().filter_map(|name| find(name)) {
                let Some(number) = machine.number(row) else { continue };
                naive.newest = naive.newest.max(Some(number as u32));
                if naive_value(rule.action, rule.errno_ret) != default {
                    naive.rules.entry(number as u32).or_default().push(rule.clone());
                }
            }
        }
        naive
    }

    fn answer(&self, number: u32, arguments: &[u64; 6]) -> u32 {
        if self.newest.is_none_or(|newest| number > newest) {
            let refuses = matches!(self.default >> 16, 0 | 0x8000 | 3 | 5);
            return if refuses { ENOSYS } else { self.default };
        }
        let rules = self.rules.get(&number).map_or(&[][..], Vec::as_slice);
        let always = rules.iter().find(|rule| rule.args.as_ref().is_none_or(Vec::is_empty));
        let chosen = always.or_else(|| rules.iter().find(|rule| self.applies(rule, arguments)));
        chosen.map_or(self.default, |rule| naive_value(rule.action, rule.errno_ret))
    }

    fn applies(&self, rule: &Rule, arguments: &[u64; 6]) -> bool {
        let cut = |value: u64| if self.machine.is_32_bit() { value & 0xffff_ffff } else { value };
        let test =
            |arg: &Arg| holds(arg.op, cut(arguments[arg.index as usize]), cut(arg.value), cut(arg.value_two));
        let args = rule.args.clone().unwrap_or_default();
        let mut indices: Vec<_> = args.iter().map(|arg| arg.index).collect();
        indices.sort_unstable();
        if indices.windows(2).any(|pair| pair[0] == pair[1]) {
            args.iter().any(test)
        } else {
            args.iter().all(test)
        }
    }
}

fn compare(rules: &Seccomp, dice: &mut Dice, rounds: usize) {
    let program = program(Some(rules), None, 0, None, None).unwrap().unwrap();
    for policy in rules.policies().unwrap() {
        let machine = policy.machine;
        let naive = Naive::new(rules, machine);
        for _ in 0..rounds {
            let number = dice.below(480) as u32;
            let mut arguments = [0; 6].map(|_: u64| dice.value());
            if machine.is_32_bit() {
                arguments = arguments.map(|argument| argument & 0xffff_ffff);
            }
            let call = Call { number, arch: machine.audit(), arguments };
            let (answer, _) = run(&program, &call);
            assert_eq!(answer, naive.answer(number, &arguments), "{call:x?} under {rules:#?}");
        }
    }
}

fn random_rules(dice: &mut Dice) -> Seccomp {
    const ACTIONS: [ActionName; 8] = [
        ActionName::Allow,
        ActionName::Errno,
        ActionName::KillProcess,
        ActionName::Trap,
        ActionName::Trace,
        ActionName::Log,
        ActionName::Notify,
        ActionName::Kill,
    ];
    const OPERATORS: [Operator; 7] = [
        Operator::Ne,
        Operator::Lt,
        Operator::Le,
        Operator::Eq,
        Operator::Ge,
        Operator::Gt,
        Operator::MaskedEq,
    ];
    let arg = |dice: &mut Dice| {
        let op = OPERATORS[dice.below(7) as usize];
        let value = dice.value();
        let value_two = if dice.below(4) == 0 { dice.value() } else { dice.value() & value };
        Arg { index: dice.below(3) as u32, value, value_two, op }
    };
    let rule = |dice: &mut Dice| Rule {
        names: (0..=dice.below(6))
            .map(|_| TABLE[dice.below(TABLE.len() as u64) as usize].0.to_owned())
            .collect(),
        action: ACTIONS[dice.below(8) as usize],
        errno_ret: (dice.below(2) == 0).then(|| dice.below(4096) as u32),
        args: (dice.below(3) > 0).then(|| (0..dice.below(4)).map(|_| arg(dice)).collect()),
    };
    let count = 1 + dice.below(200);
    Seccomp {
        default_action: ACTIONS[dice.below(8) as usize],
        default_errno_ret: None,
        architectures: vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into(), "SCMP_ARCH_AARCH64".into()],
        flags: vec![],
        syscalls: (0..count).map(|_| rule(dice)).collect(),
    }
}

#[test]
fn random_rules_decide_as_a_naive_reading_does() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..150 {
        let rules = random_rules(&mut dice);
        compare(&rules, &mut dice, 1000);
    }
}

#[test]
fn the_table_is_sorted_and_agrees_with_libc() {
    assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let native = |name: &str| Machine::NATIVE.number(find(name).unwrap()).unwrap() as i64;
    assert_eq!(native("openat2"), libc::SYS_openat2);
    assert_eq!(native("clone3"), libc::SYS_clone3);
    assert_eq!(native("execve"), libc::SYS_execve);
    assert_eq!(native("landlock_restrict_self"), libc::SYS_landlock_restrict_self);
    assert_eq!(native("mseal"), libc::SYS_mseal);
    assert_eq!(find("open").unwrap().3, NONE);
    assert!(find("no_such_call").is_none());
}

#[test]
fn the_default_profile_refuses_namespaces_and_keys_but_not_files() {
    let program = builtin(DOCKER_CAPABILITIES);
    assert_eq!(ask(&program, "openat", &[]), ALLOW);
    assert_eq!(ask(&program, "ptrace", &[]), ALLOW);
    assert_eq!(ask(&program, "chroot", &[]), ALLOW);
    for name in
        ["unshare", "mount", "keyctl", "io_uring_setup", "bpf", "setns", "kexec_load", "open_by_handle_at"]
    {
        assert_eq!(ask(&program, name, &[]), ERRNO | EPERM, "{name}");
    }
}

#[test]
fn clone_may_not_make_namespaces_and_clone3_does_not_exist() {
    let program = builtin(DOCKER_CAPABILITIES);
    assert_eq!(ask(&program, "clone", &[0x0120_0011]), ALLOW);
    assert_eq!(ask(&program, "clone", &[0x1000_0011]), ERRNO | EPERM);
    assert_eq!(ask(&program, "clone3", &[]), ENOSYS);
    let privileged = builtin(DOCKER_CAPABILITIES | SYS_ADMIN);
    assert_eq!(ask(&privileged, "clone", &[0x1000_0011]), ALLOW);
    assert_eq!(ask(&privileged, "clone3", &[]), ALLOW);
    assert_eq!(ask(&privileged, "mount", &[]), ALLOW);
}

#[test]
fn socket_families_are_judged_by_the_bits_the_kernel_reads() {
    let program = builtin(DOCKER_CAPABILITIES);
    for (family, answer) in
        [(2, ALLOW), (37, ALLOW), (38, ERRNO | 1), (39, ALLOW), (40, ERRNO | 1), (41, ALLOW)]
    {
        assert_eq!(ask(&program, "socket", &[family]), answer, "{family}");
        assert_eq!(ask(&program, "socket", &[family | 1 << 32]), answer, "{family} and garbage above");
    }
}

#[test]
fn capabilities_open_their_calls() {
    let cases =
        [(2, "open_by_handle_at"), (19, "pidfd_getfd"), (23, "mbind"), (25, "clock_settime"), (34, "syslog")];
    for (capability, name) in cases {
        assert_eq!(ask(&builtin(0), name, &[]), ERRNO | EPERM, "{name}");
        assert_eq!(ask(&builtin(1 << capability), name, &[]), ALLOW, "{name}");
    }
}

#[test]
fn old_kernels_get_no_ptrace() {
    let program = assemble::assemble(&builtin::policies(0, (4, 7))).unwrap();
    assert_eq!(ask(&program, "ptrace", &[]), ERRNO | EPERM);
    assert!(builtin::kernel() > (4, 8));
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let program = builtin(0);
    let call = |number, arch| run(&program, &Call { number, arch, arguments: [0; 6] }).0;
    let native = Machine::NATIVE.audit();
    assert_eq!(call(467, native), ENOSYS);
    assert_eq!(call(0x3fff_ffff, native), ENOSYS);
    assert_eq!(call(u32::MAX, native), ENOSYS);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn x32_calls_do_not_exist_and_foreign_machines_are_killed() {
    let program = builtin(u64::MAX);
    let call = |number, arch| run(&program, &Call { number, arch, arguments: [0; 6] }).0;
    assert_eq!(call(0x4000_0000, 0xc000_003e), ENOSYS);
    assert_eq!(call(0x4000_0000 | 520, 0xc000_003e), ENOSYS);
    assert_eq!(call(0, 0xc000_00b7), KILL_PROCESS);
    assert_eq!(call(3, 0x4000_0003), ALLOW, "i386 read");
    assert_eq!(call(284, 0x4000_0003), ALLOW, "i386 waitid");
    assert_eq!(call(288, 0x4000_0003), ERRNO | EPERM, "i386 keyctl");
}

#[test]
fn no_call_pays_for_a_long_chain() {
    let program = builtin(DOCKER_CAPABILITIES);
    let steps = |number| run(&program, &Call { number, arch: Machine::NATIVE.audit(), arguments: [0; 6] }).1;
    let worst = (0..480).map(steps).max().unwrap();
    assert!(worst <= 24, "{worst} instructions for one call");
    assert!(program.len() < 400, "{} instructions", program.len());
}

#[test]
fn profiles_far_longer_than_a_short_jump_still_decide_rightly() {
    let mut dice = Dice(7);
    let mut rules = random_rules(&mut dice);
    rules.default_action = ActionName::Errno;
    // Neighbours differ: nothing merges, and every chain is long.
    rules.syscalls = (0..TABLE.len())
        .map(|at| Rule {
            names: vec![TABLE[at].0.to_owned()],
            action: if at % 2 == 0 { ActionName::Allow } else { ActionName::Trace },
            errno_ret: Some(at as u32),
            args: (at % 3 == 0).then(|| vec![Arg { index: 1, value: 40, value_two: 0, op: Operator::Lt }]),
        })
        .collect();
    rules
        .syscalls
        .iter_mut()
        .filter(|rule| rule.action == ActionName::Allow)
        .for_each(|rule| rule.errno_ret = None);
    compare(&rules, &mut dice, 20_000);
}

#[test]
fn too_long_profiles_are_refused() {
    let many = (0..3000).map(|value| Rule {
        names: vec!["read".into()],
        action: ActionName::Allow,
        errno_ret: None,
        args: Some(vec![Arg { index: 0, value, value_two: 0, op: Operator::Eq }]),
    });
    let rules = Seccomp {
        default_action: ActionName::Errno,
        default_errno_ret: None,
        architectures: vec![],
        flags: vec![],
        syscalls: many.collect(),
    };
    assert!(matches!(program(Some(&rules), None, 0, None, None), Err(SeccompError::TooLong { .. })));
}

#[test]
fn bad_rules_are_named() {
    let parse = |text: &str| program(Some(&serde_json::from_str(text).unwrap()), None, 0, None, None);
    let index = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["kill"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(index, Err(SeccompError::BadArgument { syscall: "kill".into(), index: 6 }));
    let errno = parse(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}"#);
    assert_eq!(errno, Err(SeccompError::BadErrno { errno: 5000 }));
    let foreign = parse(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_S390X"]}"#);
    assert_eq!(foreign, Err(SeccompError::WrongArchitecture));
}

#[test]
fn the_kernel_takes_the_default_profile_and_keeps_to_it() {
    let program = builtin(0);
    let ending = duckweed_sys::trial::attempt(|| {
        rustix::thread::set_no_new_privs(true).unwrap();
        duckweed_sys::seccomp::install(&program, 0).unwrap();
        let refused = rustix::process::chroot("/").unwrap_err();
        let opened = std::fs::File::open("/proc/self/status").is_ok();
        vec![refused.raw_os_error() as u8, u8::from(opened)]
    });
    assert_eq!(ending.unwrap(), duckweed_sys::trial::Ending::Answered(vec![1, 1]));
}

#[test]
fn unconfined_and_nothing_make_no_program() {
    assert_eq!(program(None, None, 0, None, None), Ok(None));
    assert_eq!(program(None, Some(Builtin::Unconfined), 0, None, None), Ok(None));
}

/// Docker's own file holds conditions that its daemon settles before it writes a bundle;
/// this settles them the same way.
fn docker_rules(text: &str, capabilities: u64) -> Seccomp {
    const CAPABILITIES: [(&str, u32); 15] = [
        ("CAP_DAC_READ_SEARCH", 2),
        ("CAP_SYS_MODULE", 16),
        ("CAP_SYS_RAWIO", 17),
        ("CAP_SYS_CHROOT", 18),
        ("CAP_SYS_PTRACE", 19),
        ("CAP_SYS_PACCT", 20),
        ("CAP_SYS_ADMIN", 21),
        ("CAP_SYS_BOOT", 22),
        ("CAP_SYS_NICE", 23),
        ("CAP_SYS_TIME", 25),
        ("CAP_SYS_TTY_CONFIG", 26),
        ("CAP_SYSLOG", 34),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
        ("CAP_CHECKPOINT_RESTORE", 40),
    ];
    let mut file: serde_json::Value = serde_json::from_str(text).unwrap();
    let held = |name: &serde_json::Value| {
        CAPABILITIES.iter().any(|(known, bit)| name == known && capabilities & (1 << bit) != 0)
    };
    let native = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let any = |list: &serde_json::Value, test: &dyn Fn(&serde_json::Value) -> bool| {
        list.as_array().is_some_and(|list| list.iter().any(test))
    };
    let rules = file["syscalls"].as_array_mut().unwrap();
    rules.retain(|rule| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let here = |arch: &serde_json::Value| arch == native;
        (includes["caps"].is_null() || any(&includes["caps"], &held))
            && (includes["arches"].is_null() || any(&includes["arches"], &here))
            && !any(&excludes["caps"], &held)
            && !any(&excludes["arches"], &here)
    });
    let mut rules: Seccomp = serde_json::from_value(file).unwrap();
    rules.architectures = vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into(), "SCMP_ARCH_AARCH64".into()];
    rules
}

#[test]
fn the_default_profile_decides_as_dockers_file_does() {
    let Some(path) = std::env::var_os("DUCKWEED_DOCKER_SECCOMP") else {
        eprintln!("skipped: DUCKWEED_DOCKER_SECCOMP does not name Docker's profile");
        return;
    };
    let text = std::fs::read_to_string(path).unwrap();
    let mut dice = Dice(42);
    let all = [0, DOCKER_CAPABILITIES, SYS_ADMIN, u64::MAX];
    for capabilities in all.into_iter().chain((0..41).map(|bit| 1 << bit)) {
        let rules = docker_rules(&text, capabilities);
        compare(&rules, &mut dice, 2000);
        let ours = builtin(capabilities);
        for machine in Machine::RUNNABLE {
            let naive = Naive::new(&rules, *machine);
            for number in 0..=0x200 {
                for _ in 0..8 {
                    // 32 bits: above them we are stricter about `socket`, on purpose.
                    let arguments = [0; 6].map(|_: u64| dice.value() & 0xffff_ffff);
                    let call = Call { number, arch: machine.audit(), arguments };
                    let expected = naive.answer(number, &arguments);
                    assert_eq!(
                        run(&ours, &call).0,
                        expected,
                        "{call:x?} {machine:?} capabilities {capabilities:x}"
                    );
                }
            }
        }
    }
}

#[test]
#[ignore = "a measurement: run with --ignored --nocapture, release build"]
fn building_the_default_profile_is_quick() {
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(builtin(std::hint::black_box(DOCKER_CAPABILITIES)));
    }
    let each = started.elapsed() / 1000;
    eprintln!("{each:?} for {} instructions", builtin(DOCKER_CAPABILITIES).len());
    assert!(each < std::time::Duration::from_micros(500));
}
