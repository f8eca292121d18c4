//! The gate's front with a caller that may say anything: it refuses or answers, and does no more.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Mutex;

use duckweed_net::gate::front::CALLS;
use duckweed_net::gate::rules::Terms;
use duckweed_net::gate::{Caller, Front, Memory, Reply, Rules};
use duckweed_net::stack::Addresses;
use proptest::prelude::*;
use rustix::io::Errno;

/// A program of which there is only what a call needs.
#[derive(Default)]
struct Program {
    arguments: [u64; 6],
    /// Pieces of memory by their addresses; anything else is a fault.
    memory: Mutex<HashMap<u64, Vec<u8>>>,
    descriptors: HashMap<i32, OwnedFd>,
}

impl Memory for Program {
    fn argument(&self, index: usize) -> u64 {
        self.arguments[index]
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        let memory = self.memory.lock().unwrap();
        let piece = memory.get(&address).and_then(|piece| piece.get(..into.len())).ok_or(Errno::FAULT)?;
        into.copy_from_slice(piece);
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut memory = self.memory.lock().unwrap();
        let piece =
            memory.get_mut(&address).and_then(|piece| piece.get_mut(..bytes.len())).ok_or(Errno::FAULT)?;
        piece.copy_from_slice(bytes);
        Ok(())
    }
}

impl Caller for Program {
    fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        self.descriptors.get(&number).ok_or(Errno::BADF)?.try_clone().map_err(|_| Errno::MFILE)
    }
}

fn gate() -> Front {
    Front::new(Rules::new(Terms {
        addresses: Addresses::default(),
        number: std::process::id() << 1,
        host_loopback: false,
        // Nothing that a random address means leaves this machine.
        reaches_out: false,
        outside: [None, None],
        servers: Vec::new(),
        ways: Vec::new(),
        resolver: None,
        neighbours: None,
    }))
}

fn call(front: &mut Front, name: &str, program: &Program) -> Result<Reply, Errno> {
    let (_, answer) = CALLS.iter().find(|(known, _)| *known == name).unwrap();
    answer(front, program)
}

impl Program {
    fn put(&mut self, address: u64, bytes: impl Into<Vec<u8>>) -> u64 {
        self.memory.lock().unwrap().insert(address, bytes.into());
        address
    }

    fn socket(&mut self, front: &mut Front, number: i32, family: u64, kind: u64) {
        self.arguments = [family, kind, 0, 0, 0, 0];
        let Ok(Reply::Socket { socket, .. }) = call(front, "socket", self) else { panic!("no socket") };
        self.descriptors.insert(number, socket);
    }
}

/// `struct sockaddr_in`.
fn inet(address: &str) -> Vec<u8> {
    let SocketAddr::V4(address) = address.parse().unwrap() else { panic!("{address}") };
    let mut bytes = 2_u16.to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    bytes.extend(address.ip().octets());
    bytes.extend([0; 8]);
    bytes
}

#[test]
fn a_program_listens_connects_and_believes_in_its_own_addresses() {
    let mut front = gate();
    let mut program = Program::default();
    program.socket(&mut front, 3, 2, 1);
    let at = program.put(0x1000, inet("0.0.0.0:80"));
    program.arguments = [3, at, 16, 0, 0, 0];
    assert!(matches!(call(&mut front, "bind", &program), Ok(Reply::Value(0))));
    program.arguments = [3, 16, 0, 0, 0, 0];
    assert!(matches!(call(&mut front, "listen", &program), Ok(Reply::Value(0))));
    // On the host it is a port that needs no privilege, on the loopback.
    let host = SocketAddr::try_from(rustix::net::getsockname(&program.descriptors[&3]).unwrap()).unwrap();
    assert!(host.ip().is_loopback() && host.port() >= 1024, "{host}");
    program.put(0x2000, [0; 16]);
    program.put(0x3000, 16_u32.to_ne_bytes());
    program.arguments = [3, 0x2000, 0x3000, 0, 0, 0];
    assert!(matches!(call(&mut front, "getsockname", &program), Ok(Reply::Value(0))));
    assert_eq!(program.memory.lock().unwrap()[&0x2000], inet("0.0.0.0:80"));

    program.socket(&mut front, 4, 2, 1);
    let at = program.put(0x1000, inet("127.0.0.1:80"));
    program.arguments = [4, at, 16, 0, 0, 0];
    assert!(matches!(call(&mut front, "connect", &program), Ok(Reply::Value(0) | Reply::GoOn)));
    program.put(0x2000, [0; 16]);
    program.arguments = [4, 0x2000, 0x3000, 0, 0, 0];
    assert!(matches!(call(&mut front, "getpeername", &program), Ok(Reply::Value(0))));
    assert_eq!(program.memory.lock().unwrap()[&0x2000], inet("127.0.0.1:80"));
}

#[test]
fn what_listens_on_the_host_is_not_there() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut front = gate();
    let mut program = Program::default();
    for address in ["127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.2.100"] {
        program.socket(&mut front, 3, 2, 1);
        let at = program.put(0x1000, inet(&format!("{address}:{port}")));
        program.arguments = [3, at, 16, 0, 0, 0];
        assert!(matches!(call(&mut front, "connect", &program), Err(Errno::CONNREFUSED)), "{address}");
    }
    // Its port is free to the container all the same.
    program.socket(&mut front, 3, 2, 1);
    let at = program.put(0x1000, inet(&format!("0.0.0.0:{port}")));
    program.arguments = [3, at, 16, 0, 0, 0];
    assert!(matches!(call(&mut front, "bind", &program), Ok(Reply::Value(0))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random calls on sockets of every kind, with random memory under every pointer.
    #[test]
    fn no_call_makes_it_panic_or_leaves_a_way_out(
        which in 0..CALLS.len(),
        socket in 0..4_i32,
        small in proptest::collection::vec(0..200_u64, 6),
        memory in proptest::collection::vec(any::<u8>(), 0..200),
        family in prop_oneof![Just(2_u8), Just(10), Just(1), Just(0), any::<u8>()],
        pointers in any::<u8>(),
    ) {
        let mut front = gate();
        let mut program = Program::default();
        program.socket(&mut front, 0, 2, 1);
        program.socket(&mut front, 1, 10, 1);
        program.socket(&mut front, 2, 2, 2);
        program.descriptors.insert(3, rustix::pipe::pipe().unwrap().0);
        let mut memory = memory;
        if memory.len() > 1 {
            memory[..2].copy_from_slice(&[family, 0]);
        }
        // Small numbers are addresses as well: every one has the same memory.
        for address in 0..256 {
            program.put(address, memory.clone());
        }
        program.arguments.copy_from_slice(&small);
        program.arguments[0] = if CALLS[which].0 == "socket" { small[0] } else { socket as u64 };
        for (index, number) in small.iter().enumerate().skip(1) {
            if pointers & 1 << index != 0 {
                program.arguments[index] = u64::MAX - number;
            }
        }
        let _ = (CALLS[which].1)(&mut front, &program);
        for socket in 0..2 {
            let peer = rustix::net::getpeername(program.descriptors[&socket].as_fd());
            prop_assert!(!matches!(peer, Ok(Some(_))), "connected to {:?}", peer);
        }
    }
}
