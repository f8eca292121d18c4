//! execve(2): which files a program is made of.
//!
//! The kernel would look for a script's interpreter and for a program's loader on the host. So scripts are
//! taken apart here, and of a program with a loader the kernel is given the loader; the program itself is
//! put beside it when that has begun ([`super::image`]).

use std::os::unix::fs::FileExt as _;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::open::Loose;
use super::{Argument, Outcome, Run, Tracer};
use crate::call::Call;
use crate::credentials::{Credentials, FileCapabilities, Program};
use crate::owners::CAPABILITY;
use crate::permission::{EXECUTE, READ};
use crate::union::{type_of, Follow, Spot};
use crate::view::HERE;

/// Scripts whose interpreters are scripts, as many as the kernel takes.
const MOST_SCRIPTS: usize = 5;
/// The kernel's BINPRM_BUF_SIZE.
const HEAD: usize = 256;
/// More words than any kernel takes.
const MOST_WORDS: usize = 1 << 18;

/// What is about to run.
#[derive(Debug)]
pub(super) struct Next {
    /// The path that was executed, as AT_EXECFN has it.
    pub name: Vec<u8>,
    /// The program's canonical path inside, /proc/PID/exe.
    pub path: Vec<u8>,
    /// A program that is put beside its loader.
    pub beside: Option<(Vec<u8>, Elf)>,
    /// The loader's path on the host.
    pub loader: Vec<u8>,
    /// The loader's first address in its own terms.
    pub entry: u64,
    /// Who it becomes.
    pub credentials: Option<Credentials>,
    /// Files that their owner may execute but not read: a process could neither map them nor be looked into by us.
    pub loose: Vec<Loose>,
}

/// What an ELF header says, as far as it matters.
#[derive(Debug, Clone)]
pub(super) struct Elf {
    pub is_fixed: bool,
    pub entry: u64,
    pub headers_at: u64,
    pub header_count: u64,
    pub segments: Vec<Segment>,
    pub interpreter: Option<Vec<u8>>,
}

/// A PT_LOAD.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub flags: u32,
    pub offset: u64,
    pub address: u64,
    pub in_file: u64,
    pub in_memory: u64,
}

pub(super) fn execve(tracer: &mut Tracer, call: &Call) -> Outcome {
    let path = call.text(0)?;
    let spot = tracer.place(call, HERE, &path, Follow::Yes)?;
    execute(tracer, call, spot, path, 1)
}

pub(super) fn execveat(tracer: &mut Tracer, call: &Call) -> Outcome {
    let flags = call.int(4);
    let path = call.text(1)?;
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        let spot = super::attributes::open_file(tracer, call, call.int(0))?;
        let name = format!("/dev/fd/{}", call.int(0)).into_bytes();
        return execute(tracer, call, spot, name, 2);
    }
    let follow = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    let spot = tracer.place(call, call.int(0), &path, follow)?;
    let name = match path.first() {
        Some(b'/') => path,
        _ if call.int(0) == HERE => path,
        _ => spot.path.clone(),
    };
    execute(tracer, call, spot, name, 2)
}

/// `words`: the index of argv; the environment follows it.
fn execute(tracer: &mut Tracer, call: &Call, spot: Spot, name: Vec<u8>, words: usize) -> Outcome {
    let first = name.clone();
    let (mut spot, mut name) = (spot, name);
    let mut before: Vec<Vec<u8>> = Vec::new();
    let mut scripts = 0;
    let (file, loose) = loop {
        let (file, loose) = executable(tracer, call, &spot)?;
        let mut head = [0; HEAD];
        let length = file.read_at(&mut head, 0).map_err(crate::call::errno)?;
        let Some(line) = head[..length].strip_prefix(b"#!") else { break (file, loose) };
        scripts += 1;
        if scripts > MOST_SCRIPTS {
            return Err(Errno::LOOP);
        }
        let (interpreter, argument) = shebang(line)?;
        let rest = std::mem::take(&mut before);
        before = vec![interpreter.clone()];
        before.extend(argument);
        before.push(name);
        before.extend(rest.into_iter().skip(1));
        spot = tracer.place(call, HERE, &interpreter, Follow::Yes)?;
        name = interpreter;
    };
    let elf = Elf::read(&file)?;
    let mut loose = Vec::from_iter(loose);
    let credentials = becomes(tracer, call, &spot)?;
    let mut next = Next {
        name: first,
        path: spot.path.clone(),
        beside: None,
        loader: Vec::new(),
        entry: elf.entry,
        credentials,
        loose: Vec::new(),
    };
    let mut host = spot.host.clone();
    if let Some(interpreter) = &elf.interpreter {
        let loader = tracer.place(call, HERE, interpreter, Follow::Yes)?;
        let (file, of_file) = executable(tracer, call, &loader)?;
        let of_loader = Elf::read(&file).map_err(|_| Errno::LIBBAD)?;
        loose.extend(of_file);
        if of_loader.interpreter.is_some() || of_loader.is_fixed {
            return Err(Errno::LIBBAD);
        }
        next.entry = of_loader.entry;
        next.loader.clone_from(&loader.host);
        next.beside = Some((std::mem::replace(&mut host, loader.host), elf));
    }
    let mut arguments = vec![];
    if words == 2 {
        arguments.push((1, Argument::Word(call.long(2))));
        arguments.push((2, Argument::Word(call.long(3))));
    }
    if scripts > 0 {
        arguments.retain(|(index, _)| *index != 1);
        arguments.push((1, new_words(call, words, &before)?));
    }
    next.loose = loose;
    host.push(0);
    arguments.push((0, Argument::Bytes(host)));
    if let Some(tracee) = tracer.tracees.get_mut(&call.pid) {
        tracee.next = Some(next);
    }
    let run = Run { number: Some(libc::SYS_execve), arguments, after: None };
    // Only a call that failed comes back.
    run.then(|tracer, call, _| {
        if let Some(tracee) = tracer.tracees.get_mut(&call.pid) {
            tracee.next = None;
        }
    })
}

/// A file that may be executed, open for reading.
fn executable(
    tracer: &mut Tracer,
    call: &Call,
    spot: &Spot,
) -> Result<(std::fs::File, Option<Loose>), Errno> {
    let stat = super::stat::found(tracer, spot)?;
    if type_of(&stat) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    if u32::from(stat.stx_mode) & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    tracer.require(call, spot, &stat, EXECUTE)?;
    let loose = Loose::open(tracer, &spot.host, &stat, READ);
    let file = rustix::fs::open(&spot.host[..], OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((std::fs::File::from(file), loose))
}

/// The interpreter and its argument.
fn shebang(line: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), Errno> {
    let end = line.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(line.len());
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = &line[..end];
    let start = line.iter().position(|byte| !is_space(byte)).ok_or(Errno::NOEXEC)?;
    let line = &line[start..line.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at + 1)];
    let cut = line.iter().position(is_space).unwrap_or(line.len());
    let rest = &line[cut..];
    let argument = rest.iter().position(|byte| !is_space(byte)).map(|at| rest[at..].to_vec());
    Ok((line[..cut].to_vec(), argument))
}

/// argv with other words instead of its first.
fn new_words(call: &Call, index: usize, before: &[Vec<u8>]) -> Result<Argument, Errno> {
    let mut old = Vec::new();
    let mut at = call.long(index);
    while at != 0 {
        let word = Call::with(call.pid, [at, 0, 0, 0, 0, 0]).bytes(0, 8)?;
        let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
        if word == 0 {
            break;
        }
        old.push(word);
        if old.len() > MOST_WORDS {
            return Err(Errno::TOOBIG);
        }
        at += 8;
    }
    let kept = old.get(1..).unwrap_or_default();
    let mut block = vec![0; (before.len() + kept.len() + 1) * 8];
    let mut pointers = Vec::new();
    for (position, word) in kept.iter().enumerate() {
        let at = (before.len() + position) * 8;
        block[at..at + 8].copy_from_slice(&word.to_ne_bytes());
    }
    for (position, word) in before.iter().enumerate() {
        pointers.push((position * 8, block.len()));
        block.extend_from_slice(word);
        block.push(0);
    }
    Ok(Argument::Block(block, pointers))
}

/// Setuid and setgid programs, and those with capabilities, make their caller somebody else.
fn becomes(tracer: &Tracer, call: &Call, spot: &Spot) -> Result<Option<Credentials>, Errno> {
    if tracer.settings.emulation != Some(crate::Mode::Full) {
        return Ok(None);
    }
    let stat = rustix::fs::statx(
        rustix::fs::CWD,
        &spot.host[..],
        rustix::fs::AtFlags::empty(),
        crate::union::WANTED,
    )?;
    let mode = u32::from(stat.stx_mode);
    let record = tracer.world.owners.find(tracer.file_system(&spot.path, &stat), &stat);
    let value = record.and_then(|record| record.xattrs.get(CAPABILITY));
    let capabilities = value.and_then(|value| FileCapabilities::parse(value));
    let is_set_gid = mode & 0o2010 == 0o2010;
    let facts = tracer.facts(spot, &stat);
    let program = Program {
        set_uid: (mode & 0o4000 != 0).then_some(facts.uid),
        set_gid: is_set_gid.then_some(facts.gid),
        capabilities,
    };
    let who = tracer.world.caller(call)?;
    let new = who.after_exec(program);
    Ok((new != *who).then_some(new))
}

impl Elf {
    /// Reads the headers of a program for this machine.
    ///
    /// # Errors
    /// ENOEXEC.
    pub fn read(file: &std::fs::File) -> Result<Self, Errno> {
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).map_err(|_| Errno::NOEXEC)?;
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let long =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        const EXEC: u16 = 2;
        const DYN: u16 = 3;
        const X86_64: u16 = 62;
        let is_ours = header[..6] == *b"\x7fELF\x02\x01" && half(18) == X86_64 && half(54) == 56;
        if !is_ours || !matches!(half(16), EXEC | DYN) || half(56) > 512 {
            return Err(Errno::NOEXEC);
        }
        let table_at = long(&header, 32);
        let mut table = vec![0; usize::from(half(56)) * 56];
        file.read_exact_at(&mut table, table_at).map_err(|_| Errno::NOEXEC)?;
        let mut elf = Self {
            is_fixed: half(16) == EXEC,
            entry: long(&header, 24),
            headers_at: 0,
            header_count: u64::from(half(56)),
            segments: Vec::new(),
            interpreter: None,
        };
        for row in table.chunks_exact(56) {
            let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
            let (offset, address, in_file, in_memory) =
                (long(row, 8), long(row, 16), long(row, 32), long(row, 40));
            match word(0) {
                1 => elf.segments.push(Segment { flags: word(4), offset, address, in_file, in_memory }),
                3 => {
                    if !(2..=4096).contains(&in_file) {
                        return Err(Errno::NOEXEC);
                    }
                    let mut path = vec![0; in_file as usize];
                    file.read_exact_at(&mut path, offset).map_err(|_| Errno::NOEXEC)?;
                    path.truncate(path.iter().position(|byte| *byte == 0).ok_or(Errno::NOEXEC)?);
                    elf.interpreter = Some(path);
                }
                6 => elf.headers_at = address,
                _ => {}
            }
        }
        elf.segments.retain(|segment| segment.in_memory > 0);
        let sane = |segment: &Segment| {
            segment.in_file <= segment.in_memory
                && segment.address.checked_add(segment.in_memory).is_some_and(|end| end < 1 << 47)
        };
        if elf.segments.is_empty() || !elf.segments.iter().all(sane) {
            return Err(Errno::NOEXEC);
        }
        if elf.headers_at == 0 {
            let holds = |segment: &&Segment| {
                segment.offset <= table_at && table_at < segment.offset + segment.in_file
            };
            let segment = elf.segments.iter().find(holds);
            elf.headers_at = segment.map_or(0, |segment| segment.address + (table_at - segment.offset));
        }
        Ok(elf)
    }
}
