//! The gate's other front with callers and kernels that may say anything: it answers, rewrites or fails, and comes to an end; and
//! no address that it writes is one of the host's loopback but the container's own.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};

use duckweed_net::gate::rewrite::{Argument, Ended, Outcome, Rewriter, Run, Step, CALLS};
use duckweed_net::gate::rules::{first_address, Terms};
use duckweed_net::gate::{Memory, Rules, Stopped};
use duckweed_net::stack::Addresses;
use proptest::prelude::*;
use rustix::io::Errno;

const NUMBER: u32 = 4;

/// A program whose memory is the same everywhere, and can be written to.
struct Program {
    arguments: [u64; 6],
    memory: RefCell<Vec<u8>>,
}

impl Memory for Program {
    fn argument(&self, index: usize) -> u64 {
        self.arguments[index]
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        if address > 0x1000 {
            return Err(Errno::FAULT);
        }
        into.copy_from_slice(self.memory.borrow().get(..into.len()).ok_or(Errno::FAULT)?);
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if address > 0x1000 {
            return Err(Errno::FAULT);
        }
        self.memory.borrow_mut().get_mut(..bytes.len()).ok_or(Errno::FAULT)?.copy_from_slice(bytes);
        Ok(())
    }
}

impl Stopped for Program {
    fn socket(&self, number: i32) -> Option<u64> {
        (0..4).contains(&number).then_some(number as u64)
    }
}

fn call(front: &mut Rewriter, name: &str, program: &Program) -> Outcome {
    let (_, answer) = CALLS.iter().find(|(known, _)| *known == name).unwrap();
    answer(front, program)
}

/// Has everything run that is asked for; the kernel's answers are these. Answers with all that was to be run.
fn follow(front: &mut Rewriter, program: &Program, first: Outcome, results: &[i64]) -> Vec<Run> {
    let (mut runs, mut step) = (Vec::new(), first);
    let mut results = results.iter().copied().cycle();
    while let Ok(Step::Run(mut run)) = step {
        let ended = Ended { result: results.next().unwrap_or(0), arguments: [0; 6] };
        step = match run.then.take() {
            Some(then) => then(front, program, ended),
            None => Ok(Step::GoOn),
        };
        runs.push(run);
        assert!(runs.len() < 40, "no end");
    }
    runs
}

fn born(front: &mut Rewriter, number: i64, family: u64, kind: u64) {
    let program = Program { arguments: [family, kind, 0, 0, 0, 0], memory: RefCell::new(Vec::new()) };
    let step = call(front, "socket", &program);
    assert!(!follow(front, &program, step, &[number]).is_empty());
}

/// Addresses of IPv4 in `struct sockaddr_in` or, mapped, in `sockaddr_in6`.
fn addresses_in(argument: &Argument) -> Vec<Ipv4Addr> {
    let (Argument::Bytes(bytes) | Argument::Block(bytes, _)) = argument else { return Vec::new() };
    let of = |bytes: &[u8]| match (bytes.len(), bytes.first()) {
        (16, Some(2)) => Some(Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7])),
        (28, Some(10)) => {
            let octets: [u8; 16] = bytes[8..24].try_into().unwrap();
            match IpAddr::from(octets).to_canonical() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(address) => address.is_loopback().then_some(Ipv4Addr::LOCALHOST),
            }
        }
        _ => None,
    };
    match argument {
        Argument::Block(_, pointers) => {
            let mut ends: Vec<usize> = pointers.iter().map(|(_, at)| *at).collect();
            ends.push(bytes.len());
            ends.windows(2).filter_map(|pair| of(&bytes[pair[0]..pair[1]])).collect()
        }
        _ => of(bytes).into_iter().collect(),
    }
}

proptest! {
    #[test]
    fn no_call_leads_astray_whatever_the_kernel_says(
        which in 0..CALLS.len(),
        socket in -1..5_i64,
        small in proptest::collection::vec(0..200_u64, 6),
        memory in proptest::collection::vec(any::<u8>(), 0..200),
        family in prop_oneof![Just(2_u8), Just(10), Just(1), Just(0), any::<u8>()],
        near in any::<bool>(),
        results in proptest::collection::vec(prop_oneof![Just(0_i64), Just(-98), Just(-115), Just(-512), Just(3), any::<i64>()], 1..6),
    ) {
        let mut front = Rewriter::new(Rules::new(Terms::alone(Addresses::default(), NUMBER)), false);
        for (number, family, kind) in [(0, 2, 1), (1, 10, 1), (2, 2, 2), (3, 10, 2)] {
            born(&mut front, number, family, kind);
        }
        let mut memory = memory;
        if memory.len() > 7 {
            memory[..2].copy_from_slice(&[family, 0]);
            if near {
                memory[4] = 127;
            }
        }
        let mut program = Program { arguments: [0; 6], memory: RefCell::new(memory) };
        program.arguments.copy_from_slice(&small);
        program.arguments[0] = socket as u64;
        let step = (CALLS[which].1)(&mut front, &program);
        let own = u32::from(first_address(NUMBER));
        for run in follow(&mut front, &program, step, &results) {
            for address in run.arguments.iter().flat_map(|(_, argument)| addresses_in(argument)) {
                let is_own = u32::from(address) & !3 == own || address.is_unspecified();
                prop_assert!(is_own, "{:?} to {address}", CALLS[which].0);
            }
        }
    }
}
