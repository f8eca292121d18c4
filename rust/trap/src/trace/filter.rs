//! The filter that stops calls for the tracer: the table, as a program for the kernel.

use duckweed_sys::seccomp::Instruction;

use crate::handlers::capabilities::OPTIONS;
use crate::table::{Fate, Guard, When, LAST, TABLE};

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const POINTER: u32 = 8;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRACE: u32 = libc::SECCOMP_RET_TRACE;

/// Namespaces, and children that are not ours to trace.
const FORBIDDEN_CLONE: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_UNTRACED
    | libc::CLONE_PTRACE) as u32;

/// `TIOCSTI` and `TIOCLINUX`: typing for others.
const FORBIDDEN_IOCTLS: [u32; 2] = [0x5412, 0x541c];

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The low and the high half of an argument.
fn argument(index: u8) -> (u32, u32) {
    let low = 16 + 8 * u32::from(index);
    (low, low + 4)
}

/// What becomes of a call in a container that has a gate for its sockets, or none.
fn fate_of(number: u16, fate: Fate, is_gated: bool) -> Fate {
    let gated = super::sockets::GATED.iter().find(|(gated, _)| *gated == i64::from(number));
    match gated {
        Some((_, when)) if is_gated => Fate::Trace(*when),
        _ => fate,
    }
}

/// The program; `is_gated`: sockets are told where they may go. A call that the table lets through is allowed by number alone, which
/// the kernel remembers.
pub fn program(is_gated: bool) -> Vec<Instruction> {
    let mut out = vec![
        instruction(LOAD, 0, 0, ARCH),
        instruction(EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        // Other machines' numbers are modelled by nobody.
        instruction(RETURN, 0, 0, errno(libc::ENOSYS)),
        instruction(LOAD, 0, 0, NUMBER),
        instruction(GREATER, 0, 1, u32::from(LAST)),
        instruction(RETURN, 0, 0, errno(libc::ENOSYS)),
    ];
    let mut expected = 0;
    for (number, _, fate) in TABLE {
        // Numbers between two rows are calls of nobody's.
        for unknown in expected..*number {
            out.push(instruction(EQUAL, 0, 1, u32::from(unknown)));
            out.push(instruction(RETURN, 0, 0, errno(libc::ENOSYS)));
        }
        expected = number + 1;
        let mut body = body(fate_of(*number, *fate, is_gated));
        if !body.is_empty() {
            if duckweed_sites::MADE.contains(&u32::from(*number)) {
                body.splice(0..0, from_handler());
            }
            out.push(instruction(EQUAL, 0, body.len() as u8, u32::from(*number)));
            out.extend(body);
        }
    }
    out.push(instruction(RETURN, 0, 0, ALLOW));
    out
}

/// What is called by the code of ours in a program is let through: it has looked already.
fn from_handler() -> [Instruction; 5] {
    use duckweed_sites::layout::{TEXT, TEXT_SIZE};
    [
        instruction(LOAD, 0, 0, POINTER + 4),
        instruction(EQUAL, 0, 3, (TEXT >> 32) as u32),
        instruction(LOAD, 0, 0, POINTER),
        instruction(GREATER, 1, 0, TEXT as u32 + TEXT_SIZE as u32 - 1),
        instruction(RETURN, 0, 0, ALLOW),
    ]
}

fn body(fate: Fate) -> Vec<Instruction> {
    let end = |k| instruction(RETURN, 0, 0, k);
    match fate {
        Fate::Pass => Vec::new(),
        Fate::Refuse(number) => vec![end(errno(i32::from(number)))],
        Fate::Trace(When::Always) => vec![end(TRACE)],
        Fate::Trace(When::NonZero(index)) => {
            let (low, high) = argument(index);
            vec![
                instruction(LOAD, 0, 0, low),
                instruction(EQUAL, 1, 0, 0),
                end(TRACE),
                instruction(LOAD, 0, 0, high),
                instruction(EQUAL, 1, 0, 0),
                end(TRACE),
                end(ALLOW),
            ]
        }
        Fate::Trace(When::Options) => {
            // PR_SET_MM and PR_SET_PTRACER would change what we know of a process, or who may trace it.
            let more = [libc::PR_SET_MM as u32, libc::PR_SET_PTRACER as u32];
            // Of a process that must not be dumped we could read nothing, either: that is told, not done.
            let own = [libc::PR_SET_DUMPABLE, libc::PR_GET_DUMPABLE, libc::PR_SET_SECCOMP];
            let traced = OPTIONS.iter().chain(&own).map(|option| (*option as u32, TRACE));
            let refused = more.iter().map(|option| (*option, errno(libc::EPERM)));
            one_of(argument(0).0, traced.chain(refused))
        }
        Fate::Trace(When::PeerCredentials) => vec![
            instruction(LOAD, 0, 0, argument(1).0),
            instruction(EQUAL, 0, 3, libc::SOL_SOCKET as u32),
            instruction(LOAD, 0, 0, argument(2).0),
            instruction(EQUAL, 0, 1, libc::SO_PEERCRED as u32),
            end(TRACE),
            end(ALLOW),
        ],
        Fate::Trace(When::NotUnix) => vec![
            instruction(LOAD, 0, 0, argument(0).0),
            instruction(EQUAL, 1, 0, libc::AF_UNIX as u32),
            end(TRACE),
            end(ALLOW),
        ],
        // Multicast groups are joined on interfaces of the machine's.
        Fate::Trace(When::V6Only) => {
            let level = |level: u32, options: &[(u32, u32)]| {
                let mut inner = one_of(argument(2).0, options.iter().copied());
                inner.insert(0, instruction(EQUAL, 0, inner.len() as u8, level));
                inner
            };
            let refused =
                |options: &'static [u32]| options.iter().map(|option| (*option, errno(libc::ENODEV)));
            let v4: Vec<_> = refused(&[35, 39, 42, 46]).collect();
            let v6: Vec<_> = refused(&[20, 42, 46]).chain([(26, TRACE)]).collect();
            let mut out = vec![instruction(LOAD, 0, 0, argument(1).0)];
            out.extend(level(libc::IPPROTO_IP as u32, &v4));
            out.extend(level(libc::IPPROTO_IPV6 as u32, &v6));
            out.push(end(ALLOW));
            out
        }
        Fate::Trace(When::Limit(index)) => {
            one_of(argument(index).0, std::iter::once((rustix::process::Resource::Locks as u32, TRACE)))
        }
        Fate::Guard(Guard::Clone) => vec![
            instruction(LOAD, 0, 0, argument(0).0),
            instruction(ANY_BIT, 0, 1, FORBIDDEN_CLONE),
            end(errno(libc::EPERM)),
            end(ALLOW),
        ],
        Fate::Guard(Guard::Terminal) => {
            one_of(argument(1).0, FORBIDDEN_IOCTLS.iter().map(|request| (*request, errno(libc::EPERM))))
        }
    }
}

/// An answer for some values of a word; all others are allowed.
fn one_of(offset: u32, values: impl Iterator<Item = (u32, u32)>) -> Vec<Instruction> {
    let mut out = vec![instruction(LOAD, 0, 0, offset)];
    for (value, answer) in values {
        out.push(instruction(EQUAL, 0, 1, value));
        out.push(instruction(RETURN, 0, 0, answer));
    }
    out.push(instruction(RETURN, 0, 0, ALLOW));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_short_enough_and_ends() {
        for program in [program(false), program(true)] {
            assert!(program.len() < 4096, "{}", program.len());
            assert_eq!(program.last().map(|last| last.code), Some(RETURN));
        }
    }
}
