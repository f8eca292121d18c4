//! Room for arguments in a tracee's memory.
//!
//! Every program gets a small mapping of ours when it starts ([`super::image`]); each call that needs room
//! has a piece of it to itself until it ends. Before its first program, or when all pieces are taken, a tracee
//! has room below its stack, beyond the 128 bytes that the ABI lets it use there.

use duckweed_sys::memory;
use duckweed_sys::ptrace::Registers;
use rustix::io::Errno;

use super::{Argument, Run, Tracer};

/// The size of a piece.
pub(super) const PIECE: u64 = 8192;
/// The size of the mapping: seven pieces, and one for the program's name.
pub(super) const SIZE: u64 = 8 * PIECE;
const RED_ZONE: u64 = 128;

impl Tracer {
    /// The registers for a changed call, its bytes written.
    pub(super) fn prepare(
        &mut self,
        pid: i32,
        before: &Registers,
        run: &Run,
    ) -> Result<(Registers, Option<u32>), Errno> {
        let mut registers = *before;
        if let Some(number) = run.number {
            registers.orig_rax = number as u64;
        }
        let needed: u64 = run
            .arguments
            .iter()
            .map(|(_, argument)| match argument {
                Argument::Bytes(bytes) | Argument::Block(bytes, _) => (bytes.len() as u64 + 15) & !15,
                Argument::Word(_) => 0,
            })
            .sum();
        let mut slot = None;
        let mut at = 0;
        if needed > 0 {
            let memory = &self.tracees.get(&pid).ok_or(Errno::SRCH)?.memory;
            slot = if needed <= PIECE { memory.take() } else { None };
            at = match slot {
                Some(slot) => memory.scratch.get() + u64::from(slot) * PIECE,
                None => (before.rsp - RED_ZONE - needed) & !15,
            };
        }
        for (index, argument) in &run.arguments {
            let value = match argument {
                Argument::Word(value) => *value,
                Argument::Bytes(bytes) => {
                    let here = at;
                    memory::write(pid, here, bytes).map_err(crate::call::errno)?;
                    at += (bytes.len() as u64 + 15) & !15;
                    here
                }
                Argument::Block(bytes, pointers) => {
                    let here = at;
                    let mut bytes = bytes.clone();
                    for (offset, target) in pointers {
                        bytes[*offset..*offset + 8].copy_from_slice(&(here + *target as u64).to_ne_bytes());
                    }
                    memory::write(pid, here, &bytes).map_err(crate::call::errno)?;
                    at += (bytes.len() as u64 + 15) & !15;
                    here
                }
            };
            set_argument(&mut registers, *index, value);
        }
        Ok((registers, slot))
    }
}

fn set_argument(registers: &mut Registers, index: usize, value: u64) {
    let place = match index {
        0 => &mut registers.rdi,
        1 => &mut registers.rsi,
        2 => &mut registers.rdx,
        3 => &mut registers.r10,
        4 => &mut registers.r8,
        _ => &mut registers.r9,
    };
    *place = value;
}
