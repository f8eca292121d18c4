//! A new program's first moments: before its first instruction it gets our memory, and what the kernel did not load.
//!
//! At the stop after execve a few instructions of ours are put over the program's entry, which carry out a list
//! of system calls that stands below its stack, and then trap. One run does all: the scratch mapping, the
//! program's segments beside its loader, its name. Then the entry is as it was, the auxiliary vector says
//! what the kernel would have said, and the program begins.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use duckweed_sys::memory;
use duckweed_sys::ptrace::{self, Registers, Resume};

use super::program::{Elf, Next};
use super::scratch::{PIECE, SIZE};
use super::sites::Patched;
use super::tracee::Memory;
use super::{gone, Tracer};

/// Carries out the calls of the table at rbx, rows of eight words: number, six arguments, whether the
/// result is kept; -2 as first or fifth argument is what was kept; a number of -1 ends it.
#[rustfmt::skip]
const STUB: [u8; 80] = [
    0x48, 0x8b, 0x03,                   // next: mov rax, [rbx]
    0x48, 0x83, 0xf8, 0xff,             //       cmp rax, -1
    0x74, 0x3f,                         //       je end
    0x48, 0x8b, 0x7b, 0x08,             //       mov rdi, [rbx+8]
    0x48, 0x8b, 0x73, 0x10,             //       mov rsi, [rbx+16]
    0x48, 0x8b, 0x53, 0x18,             //       mov rdx, [rbx+24]
    0x4c, 0x8b, 0x53, 0x20,             //       mov r10, [rbx+32]
    0x4c, 0x8b, 0x43, 0x28,             //       mov r8, [rbx+40]
    0x4c, 0x8b, 0x4b, 0x30,             //       mov r9, [rbx+48]
    0x49, 0x83, 0xf8, 0xfe,             //       cmp r8, -2
    0x75, 0x03,                         //       jne +3
    0x4d, 0x89, 0xe0,                   //       mov r8, r12
    0x48, 0x83, 0xff, 0xfe,             //       cmp rdi, -2
    0x75, 0x03,                         //       jne +3
    0x4c, 0x89, 0xe7,                   //       mov rdi, r12
    0x0f, 0x05,                         //       syscall
    0x48, 0x89, 0x03,                   //       mov [rbx], rax
    0x48, 0x83, 0x7b, 0x38, 0x00,       //       cmp qword [rbx+56], 0
    0x74, 0x03,                         //       je +3
    0x49, 0x89, 0xc4,                   //       mov r12, rax
    0x48, 0x83, 0xc3, 0x40,             //       add rbx, 64
    0xeb, 0xb8,                         //       jmp next
    0xcc,                               // end:  int3
    0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
];

const PAGE: u64 = 4096;
const KEPT: u64 = -2_i64 as u64;
const NONE: u64 = u64::MAX;
const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
/// Where programs with a loader are put: a part of the address space that no kernel uses by itself, which
/// sanitizers take for a program's.
const PROGRAMS: u64 = 0x5600_0000_0000;

/// A program that is being put in place.
#[derive(Debug)]
pub(super) struct Start {
    registers: Registers,
    entry: Vec<u8>,
    table: u64,
    rows: usize,
    next: Next,
    bias: u64,
    /// The rows that put the handler there, which may fail.
    sites: std::ops::Range<usize>,
}

type Row = [u64; 8];

fn row(number: i64, arguments: [u64; 6], keeps: bool) -> Row {
    let [a, b, c, d, e, f] = arguments;
    [number as u64, a, b, c, d, e, f, u64::from(keeps)]
}

impl Tracer {
    /// execve has succeeded.
    pub(super) fn executed(&mut self, pid: i32) -> io::Result<()> {
        let former = ptrace::event_message(pid)? as i32;
        let mut tracee = self.tracees.remove(&former).ok_or_else(gone)?;
        if former != pid {
            // Its leader is gone without a word.
            self.tracees.remove(&pid);
            if let Some(process) = self.processes.get_mut(&tracee.process) {
                process.threads -= 1;
            }
        }
        tracee.pending = None;
        tracee.memory = std::rc::Rc::new(Memory::default());
        let next = tracee.next.take();
        self.tracees.insert(pid, tracee);
        // A program that we have not taken apart must not run.
        let next = next.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        if let Some(who) = &next.credentials {
            self.world.become_one(pid, who.clone())?;
        }
        let process = self.tracees[&pid].process;
        let mut is_first = false;
        if let Some(process) = self.processes.get_mut(&process) {
            is_first = process.program.is_none();
            process.program = Some(next.path.clone());
            process.is_dumpable = true;
        }
        if is_first {
            self.learn_given_terminals(pid);
        }
        let sites = self.sites.as_ref().filter(|_| self.is_root(pid)).map(|sites| &sites.path[..]);
        let start = begin(pid, next, sites)?;
        if let Some(tracee) = self.tracees.get_mut(&pid) {
            tracee.start = Some(start);
        }
        ptrace::resume(pid, Resume::Continue, 0)
    }

    /// Our instructions have run.
    pub(super) fn image_ready(&mut self, pid: i32) -> io::Result<()> {
        let start = self.tracees.get_mut(&pid).and_then(|tracee| tracee.start.take()).ok_or_else(gone)?;
        let code = code_of(pid)?;
        code.write_all_at(&start.entry, start.registers.rip)?;
        let mut results = vec![0; start.rows * 64];
        memory::read_exact(pid, start.table, &mut results)?;
        let result = |index: usize| {
            i64::from_ne_bytes(results[index * 64..index * 64 + 8].try_into().unwrap_or_default())
        };
        let failed = |index: usize| (-4095..0).contains(&result(index));
        if (0..start.rows).any(|index| failed(index) && !start.sites.contains(&index)) {
            return Err(io::Error::from_raw_os_error(libc::ENOEXEC));
        }
        let scratch = result(0) as u64;
        if let Some((_, elf)) = &start.next.beside {
            clear_ends(pid, elf, start.bias)?;
        }
        let mut name = start.next.name.clone();
        name.truncate(PIECE as usize - 1);
        name.push(0);
        let name_at = scratch + SIZE - PIECE;
        memory::write(pid, name_at, &name)?;
        self.tell(pid, &start, name_at)?;
        if let Some(tracee) = self.tracees.get_mut(&pid) {
            let has_handler = !start.sites.is_empty() && !start.sites.clone().any(failed);
            tracee.memory = std::rc::Rc::new(Memory::at(scratch, Patched::new(has_handler)));
        }
        if !start.next.loader.is_empty() {
            let base = start.registers.rip.wrapping_sub(start.next.entry);
            // What is not replaced stops.
            let _ = self.patch_loader(pid, &code, &start.next.loader, base);
        }
        ptrace::set_registers(pid, &start.registers)?;
        ptrace::resume(pid, Resume::Continue, 0)
    }

    /// The auxiliary vector, as the kernel would have written it.
    fn tell(&self, pid: i32, start: &Start, name_at: u64) -> io::Result<()> {
        let at = auxiliary_vector(pid, start.registers.rsp)?;
        let mut vector = vec![0; 16 * 48];
        let length = memory::read(pid, at, &mut vector)?;
        let who = self.world.credentials(pid)?;
        for (index, pair) in vector[..length].chunks_exact_mut(16).enumerate() {
            let kind = u64::from_ne_bytes(pair[..8].try_into().unwrap_or_default());
            let beside = start.next.beside.as_ref().map(|(_, elf)| elf);
            let value = match (kind, beside) {
                (libc::AT_NULL, _) => break,
                (libc::AT_PHDR, Some(elf)) => start.bias + elf.headers_at,
                (libc::AT_PHNUM, Some(elf)) => elf.header_count,
                (libc::AT_ENTRY, Some(elf)) => start.bias + elf.entry,
                (libc::AT_BASE, Some(_)) => start.registers.rip.wrapping_sub(start.next.entry),
                (libc::AT_UID, _) => u64::from(who.uid.real),
                (libc::AT_EUID, _) => u64::from(who.uid.effective),
                (libc::AT_GID, _) => u64::from(who.gid.real),
                (libc::AT_EGID, _) => u64::from(who.gid.effective),
                (libc::AT_SECURE, _) => {
                    u64::from(who.uid.real != who.uid.effective || who.gid.real != who.gid.effective)
                }
                (libc::AT_EXECFN, _) => name_at,
                _ => continue,
            };
            memory::write(pid, at + 16 * index as u64 + 8, &value.to_ne_bytes())?;
        }
        Ok(())
    }
}

/// A stopped tracee's memory, which can be written whatever its protection is.
///
/// # Errors
/// Those of opening it.
pub(super) fn code_of(pid: i32) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))
}

/// Behind argc, argv and the environment.
fn auxiliary_vector(pid: i32, stack: u64) -> io::Result<u64> {
    let mut count = [0; 8];
    memory::read_exact(pid, stack, &mut count)?;
    let mut at = stack + 8 + (u64::from_ne_bytes(count) + 1) * 8;
    let mut block = [0; 4096];
    loop {
        let length = memory::read(pid, at, &mut block)? & !7;
        if length == 0 {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        match block[..length].chunks_exact(8).position(|word| word == [0; 8]) {
            Some(index) => return Ok(at + 8 * (index as u64 + 1)),
            None => at += length as u64,
        }
    }
}

fn begin(pid: i32, next: Next, sites: Option<&[u8]>) -> io::Result<Start> {
    let registers = ptrace::registers(pid)?;
    let mut rows = vec![row(libc::SYS_mmap, [0, SIZE, READ_WRITE, ANONYMOUS, NONE, 0], false)];
    let first = rows.len();
    let mut text = next.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    text.truncate(15);
    text.resize(16, 0);
    if let Some(path) = sites {
        let at = text.len() as u64;
        text.extend_from_slice(path);
        text.push(0);
        put_handler(&mut rows, at);
    }
    let sites = first..rows.len();
    let host_at = text.len() as u64;
    let mut bias = 0;
    if let Some((host, elf)) = &next.beside {
        text.extend_from_slice(host);
        text.push(0);
        bias = load(&mut rows, elf, host_at);
    }
    // The name was the loader's, or a script's interpreter's.
    rows.push(row(libc::SYS_prctl, [libc::PR_SET_NAME as u64, 0, 0, 0, 0, 0], false));
    let count = rows.len();
    rows.push([NONE; 8]);
    let size = (rows.len() * 64 + text.len()) as u64;
    let table = (registers.rsp - 256 - size) & !63;
    let text_at = table + rows.len() as u64 * 64;
    for row in &mut rows {
        match row[0] as i64 {
            libc::SYS_prctl | libc::SYS_openat => row[2] += text_at,
            _ => {}
        }
    }
    let mut bytes: Vec<u8> = rows.iter().flatten().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend_from_slice(&text);
    memory::write(pid, table, &bytes)?;
    let code = code_of(pid)?;
    let mut entry = vec![0; STUB.len()];
    code.read_exact_at(&mut entry, registers.rip)?;
    code.write_all_at(&STUB, registers.rip)?;
    ptrace::set_registers(pid, &Registers { rbx: table, orig_rax: NONE, ..registers })?;
    Ok(Start { registers, entry, table, rows: count, next, bias, sites })
}

/// Rows that map the handler, its table, its own memory and the room for stubs.
fn put_handler(rows: &mut Vec<Row>, path_at: u64) {
    use duckweed_sites::layout::{
        PRIVATE, PRIVATE_SIZE, STUBS, STUBS_SIZE, TABLE, TABLE_SIZE, TEXT, TEXT_SIZE,
    };
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
    rows.push(row(libc::SYS_openat, [libc::AT_FDCWD as u64, path_at, flags, 0, 0, 0], true));
    let place = libc::MAP_FIXED_NOREPLACE as u64;
    let (read, run) = (libc::PROT_READ as u64, (libc::PROT_READ | libc::PROT_EXEC) as u64);
    let (private, shared) = (libc::MAP_PRIVATE as u64 | place, libc::MAP_SHARED as u64 | place);
    let nothing = ANONYMOUS | place;
    rows.push(row(libc::SYS_mmap, [TEXT, TEXT_SIZE, run, private, KEPT, 0], false));
    rows.push(row(libc::SYS_mmap, [TABLE, TABLE_SIZE, read, shared, KEPT, TEXT_SIZE], false));
    rows.push(row(libc::SYS_mmap, [PRIVATE, PRIVATE_SIZE, READ_WRITE, nothing, NONE, 0], false));
    rows.push(row(libc::SYS_mmap, [STUBS, STUBS_SIZE, run, nothing, NONE, 0], false));
    rows.push(row(libc::SYS_close, [KEPT, 0, 0, 0, 0, 0], false));
}

/// Rows that map a program's segments as the kernel does; answers with where it is put.
fn load(rows: &mut Vec<Row>, elf: &Elf, host_at: u64) -> u64 {
    let low = elf.segments.iter().map(|segment| segment.address).min().unwrap_or(0) & !(PAGE - 1);
    let high = elf.segments.iter().map(|segment| segment.address + segment.in_memory).max().unwrap_or(0);
    let span = (high - low + PAGE - 1) & !(PAGE - 1);
    let bias = if elf.is_fixed { 0 } else { PROGRAMS + (random() & 0x3ff_ffff) * PAGE - low };
    let fixed = ANONYMOUS | libc::MAP_FIXED_NOREPLACE as u64;
    rows.push(row(libc::SYS_mmap, [bias + low, span, 0, fixed, NONE, 0], false));
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
    rows.push(row(libc::SYS_openat, [libc::AT_FDCWD as u64, host_at, flags, 0, 0, 0], true));
    for segment in &elf.segments {
        let protection = [(4, libc::PROT_READ), (2, libc::PROT_WRITE), (1, libc::PROT_EXEC)]
            .iter()
            .filter(|(flag, _)| segment.flags & flag != 0)
            .fold(0, |all, (_, one)| all | *one as u64);
        let inside = segment.address & (PAGE - 1);
        let start = bias + segment.address - inside;
        let in_file =
            if segment.in_file == 0 { 0 } else { (segment.in_file + inside + PAGE - 1) & !(PAGE - 1) };
        if in_file > 0 {
            let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
            let length = segment.in_file + inside;
            rows.push(row(
                libc::SYS_mmap,
                [start, length, protection, flags, KEPT, segment.offset - inside],
                false,
            ));
        }
        let in_memory = (segment.in_memory + inside + PAGE - 1) & !(PAGE - 1);
        if in_memory > in_file {
            let flags = ANONYMOUS | libc::MAP_FIXED as u64;
            rows.push(row(
                libc::SYS_mmap,
                [start + in_file, in_memory - in_file, protection, flags, NONE, 0],
                false,
            ));
        }
    }
    rows.push(row(libc::SYS_close, [KEPT, 0, 0, 0, 0, 0], false));
    bias
}

/// What follows a segment's bytes in its last page is zero.
fn clear_ends(pid: i32, elf: &Elf, bias: u64) -> io::Result<()> {
    for segment in
        elf.segments.iter().filter(|segment| segment.in_memory > segment.in_file && segment.in_file > 0)
    {
        let end = bias + segment.address + segment.in_file;
        let length = ((PAGE - (end & (PAGE - 1))) & (PAGE - 1)).min(segment.in_memory - segment.in_file);
        if length > 0 && segment.flags & 2 != 0 {
            memory::write(pid, end, &vec![0; length as usize])?;
        }
    }
    Ok(())
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness all programs are at one place, as with personality(ADDR_NO_RANDOMIZE).
    let _ = duckweed_sys::random::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}
