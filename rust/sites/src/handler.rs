//! The code that is put into programs: it answers their calls about files where nothing but the kernel is needed.
//!
//! It is compiled by itself (`build.rs`), for no library and no stack but the program's. What it reads of the program is read
//! by [`copy_text`] alone, whose fault the tracer turns into an answer; what it writes is written by the kernel, but for two
//! words that the kernel has just written. Whatever it does not know how to answer goes the slow way: [`SLOW`] makes the call as
//! it was, outside of this code, and the tracer has it.
//!
//! The rules are those of the tracer's own (`duckweed_trap::trace`): a name is looked for in the trees of its directory from the
//! topmost on; what is a link at the end and has to be followed, a device, a whiteout, or a file with a record is not for us.
#![no_std]

use core::arch::{asm, global_asm};
use core::mem::MaybeUninit;

#[path = "layout.rs"]
#[allow(dead_code)]
mod layout;
use layout::*;

const SLOW: i64 = i64::MIN;

const ENOENT: i64 = -2;
const EBADF: i64 = -9;
const EACCES: i64 = -13;
const EINVAL: i64 = -22;
const ELOOP: i64 = -40;
const ENODATA: i64 = -61;

const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: i32 = 0x100;
const AT_NO_AUTOMOUNT: i32 = 0x800;
const AT_EMPTY_PATH: i32 = 0x1000;
const AT_EACCESS: i32 = 0x200;

const O_ACCMODE: i32 = 3;
const O_CREAT: i32 = 0o100;
const O_EXCL: i32 = 0o200;
const O_NOCTTY: i32 = 0o400;
const O_TRUNC: i32 = 0o1000;
const O_APPEND: i32 = 0o2000;
const O_NONBLOCK: i32 = 0o4000;
const O_DSYNC: i32 = 0o1_0000;
const O_LARGEFILE: i32 = 0o10_0000;
const O_DIRECTORY: i32 = 0o20_0000;
const O_NOFOLLOW: i32 = 0o40_0000;
const O_CLOEXEC: i32 = 0o200_0000;
const O_SYNC: i32 = 0o401_0000;
const O_PATH: i32 = 0o1000_0000;
const SIMPLE: i32 = O_ACCMODE
    | O_CREAT
    | O_EXCL
    | O_NOCTTY
    | O_TRUNC
    | O_APPEND
    | O_NONBLOCK
    | O_DSYNC
    | O_LARGEFILE
    | O_DIRECTORY
    | O_NOFOLLOW
    | O_CLOEXEC
    | O_PATH
    | O_SYNC;

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;

/// The longest path that is looked at here; the program's stack may be small.
const PATH: usize = 400;
/// A host path with a name behind it.
const WHOLE: usize = 1024;
/// The longest host path of a directory: a path of the program's fits behind it.
const HOST: usize = WHOLE - PATH - 2;

const CLOSE: i64 = 3;
const FSTAT: i64 = 5;
const LSEEK: i64 = 8;
const FCNTL: i64 = 72;
const FCHMOD: i64 = 91;
const FCHOWN: i64 = 93;
const GETDENTS64: i64 = 217;
const OPENAT: i64 = 257;
const NEWFSTATAT: i64 = 262;
const UNLINKAT: i64 = 263;
const RENAMEAT: i64 = 264;
const READLINKAT: i64 = 267;
const UTIMENSAT: i64 = 280;
const STATX: i64 = 332;
const OPENAT2: i64 = 437;
const FLISTXATTR: i64 = 196;
const MKDIRAT: i64 = 258;
const FCHOWNAT: i64 = 260;
const SYMLINKAT: i64 = 266;
const FCHMODAT: i64 = 268;

// A stub comes here with rcx at its second half, the way to the tracer. Everything but rax, rcx and r11 is as the program left
// it when we return: the kernel would not have touched it either. The 128 bytes below the stack are the program's.
global_asm!(
    ".globl dw_enter",
    "dw_enter:",
    "lea rsp, [rsp - 128]",
    "push rcx",
    "push r9",
    "push r8",
    "push r10",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rax",
    "push rbx",
    "mov rbx, rsp",
    "sub rsp, 256",
    "and rsp, -16",
    "movaps [rsp], xmm0",
    "movaps [rsp + 16], xmm1",
    "movaps [rsp + 32], xmm2",
    "movaps [rsp + 48], xmm3",
    "movaps [rsp + 64], xmm4",
    "movaps [rsp + 80], xmm5",
    "movaps [rsp + 96], xmm6",
    "movaps [rsp + 112], xmm7",
    "movaps [rsp + 128], xmm8",
    "movaps [rsp + 144], xmm9",
    "movaps [rsp + 160], xmm10",
    "movaps [rsp + 176], xmm11",
    "movaps [rsp + 192], xmm12",
    "movaps [rsp + 208], xmm13",
    "movaps [rsp + 224], xmm14",
    "movaps [rsp + 240], xmm15",
    "lea rdi, [rbx + 8]",
    "cld",
    "call dw_handle",
    "movaps xmm0, [rsp]",
    "movaps xmm1, [rsp + 16]",
    "movaps xmm2, [rsp + 32]",
    "movaps xmm3, [rsp + 48]",
    "movaps xmm4, [rsp + 64]",
    "movaps xmm5, [rsp + 80]",
    "movaps xmm6, [rsp + 96]",
    "movaps xmm7, [rsp + 112]",
    "movaps xmm8, [rsp + 128]",
    "movaps xmm9, [rsp + 144]",
    "movaps xmm10, [rsp + 160]",
    "movaps xmm11, [rsp + 176]",
    "movaps xmm12, [rsp + 192]",
    "movaps xmm13, [rsp + 208]",
    "movaps xmm14, [rsp + 224]",
    "movaps xmm15, [rsp + 240]",
    "mov rsp, rbx",
    "pop rbx",
    "movabs r11, 0x8000000000000000",
    "cmp rax, r11",
    "je 2f",
    "lea rsp, [rsp + 8]",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop r10",
    "pop r8",
    "pop r9",
    "pop rcx",
    "lea rsp, [rsp + 128]",
    "jmp [rcx + 13]",
    "2:",
    "pop rax",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop r10",
    "pop r8",
    "pop r9",
    "pop rcx",
    "lea rsp, [rsp + 128]",
    "jmp rcx",
    // copy_text(to, from, room): the length, -2 when it is too long. A fault at dw_read goes on at dw_fault.
    ".globl dw_copy_text",
    "dw_copy_text:",
    "xor eax, eax",
    "3:",
    "cmp rax, rdx",
    "jae 4f",
    ".globl dw_read",
    "dw_read:",
    "movzx ecx, byte ptr [rsi + rax]",
    "mov [rdi + rax], cl",
    "test cl, cl",
    "je 5f",
    "inc rax",
    "jmp 3b",
    "4:",
    "mov rax, -2",
    "5:",
    "ret",
    ".globl dw_fault",
    "dw_fault:",
    "mov rax, -1",
    "ret",
    // copy_bytes(to, from, count): count; the same for what need not be a text. A fault at dw_put goes on at dw_fault.
    ".globl dw_copy_bytes",
    "dw_copy_bytes:",
    "xor eax, eax",
    "6:",
    "cmp rax, rdx",
    "jae 7f",
    "mov cl, [rsi + rax]",
    ".globl dw_put",
    "dw_put:",
    "mov [rdi + rax], cl",
    "inc rax",
    "jmp 6b",
    "7:",
    "ret",
    // What the compiler calls by itself.
    ".globl memcpy",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    ".globl memset",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
);

extern "C" {
    fn dw_copy_text(to: *mut u8, from: *const u8, room: usize) -> isize;
    fn dw_copy_bytes(to: *mut u8, from: *const u8, count: usize) -> isize;
}

/// A call as it was made: its number and arguments.
#[repr(C)]
pub struct Frame {
    number: i64,
    arguments: [u64; 6],
}

/// `struct stat` of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Stat {
    device: u64,
    inode: u64,
    links: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    pad: u32,
    special: u64,
    size: i64,
    block: i64,
    blocks: i64,
    times: [i64; 6],
    unused: [i64; 3],
}

/// The beginning of `struct statx` of the kernel.
#[repr(C)]
struct Statx {
    mask: u32,
    block: u32,
    attributes: u64,
    links: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    inode: u64,
    size: [u64; 3],
    times: [u64; 8],
    special: [u32; 2],
    device: [u32; 2],
    rest: [u64; 14],
}

#[inline(always)]
fn call(number: i64, a: u64, b: u64, c: u64, d: u64, e: u64) -> i64 {
    let result;
    // SAFETY: whoever calls passes pointers that are the program's, which the kernel checks, or to our own variables.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A word of the table's head, or of our own memory.
#[inline(always)]
fn word(at: u64) -> u64 {
    // SAFETY: the table and our own memory are mapped as long as this code is.
    unsafe { (at as *const u64).read_volatile() }
}

const NAMES: u64 = TABLE;
const LOWEST: u64 = TABLE + 8;
const IDS: u64 = TABLE + 16;
const HAS_DEVICES: u64 = TABLE + 24;
const IS_OFF: u64 = PRIVATE;
const KNOWN_AT: u64 = PRIVATE + 64;

/// An id as everybody inside sees it.
#[inline(always)]
fn inner(id: u32, ours: u32) -> u32 {
    if id == ours {
        0
    } else {
        65534
    }
}

/// Whether a file with this number may have a record.
#[inline(always)]
fn is_recorded(inode: u64) -> bool {
    let (a, b) = bits_of(inode);
    // SAFETY: in the table.
    let bit = |at: u64| unsafe { ((TABLE + BITS_AT + at / 8) as *const u8).read_volatile() } & (1 << (at & 7)) != 0;
    bit(a) && bit(b)
}

/// How many directories of a path can be asked for.
const WAYS: usize = 32;

/// What is known of a directory, for one call.
struct Place {
    flags: u32,
    trees: u32,
    /// The first tree is this descriptor; -1: it is a path, too.
    first: i32,
    tree: [(u32, u32); TREES],
    name: *const u8,
    length: usize,
    /// See `layout::Row`.
    own: u64,
    more: [u64; 2],
    /// The name is a path of several, all of them in the one tree.
    is_deep: bool,
    room: MaybeUninit<[u8; WHOLE]>,
}

/// Finds the row with a hash and a text, and puts what it says into the place.
#[inline(never)]
fn find(place: &mut Place, hash: u64, device: u64, inode: u64, text: *const u8, length: u32) -> bool {
    for step in 0..REACH as u64 {
        let at = TABLE + ROWS_AT + (hash.wrapping_add(step) & (ROWS as u64 - 1)) * 128;
        let field = |offset: u64| word(at + offset);
        let sequence = field(0);
        let found = field(8);
        if found == 0 {
            return false;
        }
        if found != hash || sequence & 1 != 0 {
            continue;
        }
        if field(16) != device || field(24) != inode {
            continue;
        }
        let (spelt, counts) = (field(40), field(48));
        if (spelt >> 32) as u32 != length || length != BY_IDENTITY && !same(spelt as u32, text, length as usize) {
            continue;
        }
        let flags = (sequence >> 32) as u32;
        let special = field(56) as u32;
        for index in 0..TREES {
            let pair = field(64 + 8 * index as u64);
            if (pair >> 32) as usize > HOST {
                return false;
            }
            // SAFETY: there are that many.
            unsafe { (&raw mut place.tree).cast::<(u32, u32)>().add(index).write((pair as u32, (pair >> 32) as u32)) };
        }
        (place.flags, place.trees) = (flags, counts as u32);
        let names = field(32);
        (place.own, place.more) = (names, [field(112), field(120)]);
        let is_usable = flags & VALID != 0 && (length == BY_IDENTITY || names == word(NAMES));
        return is_usable && !is_special(special, (counts >> 32) as u32, place) && field(0) == sequence;
    }
    false
}

/// Whether a name of a directory is not for us.
#[inline(always)]
fn is_special(at: u32, count: u32, place: &Place) -> bool {
    if count == 0 || place.length == 0 {
        return false;
    }
    let mut hash = EMPTY;
    let mut index = 0;
    while index < place.length {
        // SAFETY: the name is that long.
        let byte = unsafe { place.name.add(index as usize).read() };
        if byte == b'/' {
            break;
        }
        hash = step(hash, byte);
        index += 1;
    }
    let mut index = 0;
    while index < count {
        if word(TABLE + TEXTS_AT + u64::from(at) + 8 * u64::from(index)) == hash {
            return true;
        }
        index += 1;
    }
    false
}

#[inline(always)]
fn same(at: u32, text: *const u8, length: usize) -> bool {
    let there = (TABLE + TEXTS_AT + u64::from(at)) as *const u8;
    let mut index = 0;
    while index < length {
        // SAFETY: a text of the table's, and one in our buffer, both that long.
        if unsafe { there.add(index).read_volatile() != text.add(index).read() } {
            return false;
        }
        index += 1;
    }
    true
}

/// What is known of a directory that was found beneath a known one, with the hash of its identity; 0: nothing.
#[inline(always)]
fn known(hash: u64) -> u32 {
    let generation = word(LOWEST);
    for step in 0..4 {
        let at = KNOWN_AT + ((hash >> 1).wrapping_add(step) & (KNOWN as u64 - 1)) * 16;
        let key = word(at + 8);
        if word(at) == generation && key | 1 == hash && word(at) == generation {
            // What a layer's directory holds is a layer's, and what was made by the container is its own.
            return if key == hash { VALID | LISTED | LOWER | INNER } else { MADE };
        }
    }
    0
}

/// What is known of a directory in one that no layer has a part in.
const MADE: u32 = VALID | LISTED | UPPER | WRITE | CREATE | INNER;

#[inline(always)]
fn know(hash: u64, generation: u64) {
    for step in 0..4 {
        let at = KNOWN_AT + ((hash >> 1).wrapping_add(step) & (KNOWN as u64 - 1)) * 16;
        if word(at) != generation || step == 3 {
            let write = |at: u64, word: u64| {
                // SAFETY: our own memory.
                unsafe { (at as *mut u64).write_volatile(word) }
            };
            write(at, 0);
            write(at + 8, hash);
            write(at, generation);
            return;
        }
    }
}

fn fstat(descriptor: i32, out: &mut MaybeUninit<Stat>) -> i64 {
    match descriptor {
        AT_FDCWD => stat_at(AT_FDCWD, c"".as_ptr().cast(), out.as_mut_ptr() as u64, AT_EMPTY_PATH),
        _ => call(FSTAT, descriptor as u64, out.as_mut_ptr() as u64, 0, 0, 0),
    }
}

#[inline(always)]
fn stat_at(directory: i32, name: *const u8, out: u64, flags: i32) -> i64 {
    call(NEWFSTATAT, directory as i64 as u64, name as u64, out, flags as u64, 0)
}

impl Place {
    #[inline(always)]
    fn new() -> Self {
        Self { flags: 0, trees: 0, first: -1, tree: [(0, 0); TREES], name: core::ptr::null(), length: 0, own: 0, more: [0; 2], is_deep: false, room: MaybeUninit::uninit() }
    }

    /// What is known of an open directory, or of the working directory.
    #[inline(always)]
    fn open(&mut self, descriptor: i32) -> bool {
        let mut stat = MaybeUninit::uninit();
        if descriptor != AT_FDCWD && descriptor < 0 || fstat(descriptor, &mut stat) != 0 {
            return false;
        }
        // SAFETY: the kernel has written it.
        let stat: &Stat = unsafe { stat.assume_init_ref() };
        self.identified(descriptor, stat)
    }

    #[inline(always)]
    fn identified(&mut self, descriptor: i32, stat: &Stat) -> bool {
        if stat.mode & S_IFMT != S_IFDIR {
            return false;
        }
        self.first = descriptor;
        let hash = hash_of_identity(stat.device, stat.inode);
        let flags = known(hash);
        if flags != 0 {
            (self.flags, self.trees) = (flags, 1);
            return true;
        }
        find(self, hash, stat.device, stat.inode, core::ptr::null(), BY_IDENTITY)
    }

    /// The place of a path's last name. `path` is one of our buffers, `length` bytes and a zero.
    #[inline(always)]
    fn locate(&mut self, directory: i32, path: *const u8, length: usize) -> bool {
        let byte = |index: usize| {
            // SAFETY: it is that long.
            unsafe { path.add(index).read() }
        };
        let mut cut = length;
        while cut > 0 && byte(cut - 1) != b'/' {
            cut -= 1;
        }
        // SAFETY: as above.
        self.name = unsafe { path.add(cut) };
        self.length = length - cut;
        if length == 1 && cut == 1 {
            // The root itself, by the path of its tree.
            return find(self, hash_from(0, 0, EMPTY), 0, 0, path, 0);
        }
        if self.length == 0 || self.length > 255 {
            return false;
        }
        if byte(cut) == b'.' && (self.length == 1 || self.length == 2 && byte(cut + 1) == b'.') {
            return false;
        }
        if cut == 0 {
            return self.open(directory);
        }
        let is_relative = byte(0) != b'/';
        let mut stat = MaybeUninit::uninit();
        let (mut device, mut inode) = (0, 0);
        if is_relative {
            if directory != AT_FDCWD && directory < 0 || fstat(directory, &mut stat) != 0 {
                return false;
            }
            // SAFETY: the kernel has written it.
            let stat: &Stat = unsafe { stat.assume_init_ref() };
            (device, inode) = (stat.device, stat.inode);
        }
        // The hashes of all directories on the way, as far as there is room for them.
        let mut ways = [(0_u32, 0_u64); WAYS];
        let (mut count, mut hash) = (0, EMPTY);
        for index in 0..cut {
            if byte(index) == b'/' {
                // SAFETY: as many as there is room for.
                unsafe { *ways.get_unchecked_mut(count & (WAYS - 1)) = (index as u32, hash) };
                count += 1;
            }
            hash = step(hash, byte(index));
        }
        if count > WAYS {
            return false;
        }
        // SAFETY: there is one slash at least.
        let (end, hash) = unsafe { *ways.get_unchecked(count - 1) };
        if find(self, hash_from(device, inode, hash), device, inode, path, end) {
            return true;
        }
        // The directory itself is not known. One above may be, of one tree, in which the kernel finds the way.
        self.is_deep = true;
        let mut left = count - 1;
        while left > 0 {
            left -= 1;
            // SAFETY: less than `count`.
            let (end, hash) = unsafe { *ways.get_unchecked(left) };
            // SAFETY: in the path.
            self.name = unsafe { path.add(end as usize + 1) };
            self.length = length - end as usize - 1;
            if find(self, hash_from(device, inode, hash), device, inode, path, end) {
                return self.trees == 1 && self.is_straight();
            }
        }
        if !is_relative {
            return false;
        }
        (self.name, self.length) = (path, length);
        // SAFETY: written above.
        self.identified(directory, unsafe { stat.assume_init_ref() }) && self.trees == 1 && self.is_straight()
    }

    /// Whether a deep name has neither dots nor double slashes in it.
    #[inline(always)]
    fn is_straight(&self) -> bool {
        let byte = |index: usize| {
            // SAFETY: up to the zero at its end.
            unsafe { self.name.add(index).read() }
        };
        let mut index = 0;
        loop {
            // A component begins here.
            let is_dot = byte(index) == b'.';
            if byte(index) == b'/' || is_dot && matches!(byte(index + 1), b'/' | 0) {
                return false;
            }
            if is_dot && byte(index + 1) == b'.' && matches!(byte(index + 2), b'/' | 0) {
                return false;
            }
            while byte(index) != b'/' {
                if byte(index) == 0 {
                    return true;
                }
                index += 1;
            }
            index += 1;
        }
    }

    /// Opens a deep name by way of directories alone.
    #[inline(always)]
    fn open_deep(&mut self, flags: i32, mode: u64) -> i64 {
        const NO_LINKS: u64 = 4 | 2;
        let (directory, name) = self.in_tree(0);
        let how = [(flags | O_NOFOLLOW) as u32 as u64, if flags & O_CREAT != 0 { mode & 0o7777 } else { 0 }, NO_LINKS];
        call(OPENAT2, directory as i64 as u64, name as u64, how.as_ptr() as u64, 24, 0)
    }

    /// Descriptor and path of the name in one of the trees.
    #[inline(always)]
    fn in_tree(&mut self, index: u32) -> (i32, *const u8) {
        if index == 0 && self.first != -1 {
            return (self.first, self.name);
        }
        // SAFETY: whoever asks counts up to `trees`, of which there are as many pairs.
        let (at, length) = unsafe { *self.tree.get_unchecked(index as usize & 7) };
        let length = length as usize;
        let room = self.room.as_mut_ptr().cast::<u8>();
        // SAFETY: the room holds a host path, a slash, a path of the program's and a zero.
        unsafe {
            let from = (TABLE + TEXTS_AT + u64::from(at)) as *const u8;
            let mut index = 0;
            while index < length {
                room.add(index).write(from.add(index).read_volatile());
                index += 1;
            }
            room.add(length).write(b'/');
            index = 0;
            while index <= self.length {
                room.add(length + 1 + index).write(self.name.add(index).read());
                index += 1;
            }
        }
        (AT_FDCWD, room)
    }

    /// Puts the name where it stays for as long as the place.
    #[inline(always)]
    fn settle(&mut self) {
        let (directory, name) = self.in_tree(0);
        if directory != AT_FDCWD || name == self.name {
            let room = self.room.as_mut_ptr().cast::<u8>();
            let mut index = 0;
            while index <= self.length {
                // SAFETY: a name and a zero fit.
                unsafe { room.add(index).write(name.add(index).read()) };
                index += 1;
            }
        }
        self.first = directory;
    }

    /// Where [`Place::settle`] has put it.
    #[inline(always)]
    fn settled(&self) -> (i32, *const u8) {
        (self.first, self.room.as_ptr().cast())
    }

    /// What stat(2) says of the name itself in the topmost tree that has it, written to `out`, and in which tree that is.
    #[inline(always)]
    fn look(&mut self, from: u32, out: u64) -> (i64, u32) {
        if self.is_deep {
            let opened = self.open_deep(O_PATH | O_CLOEXEC, 0);
            if opened < 0 {
                return (opened, 0);
            }
            let result = call(FSTAT, opened as u64, out, 0, 0, 0);
            call(CLOSE, opened as u64, 0, 0, 0, 0);
            return (result, 0);
        }
        let mut index = from;
        while index < self.trees {
            let (directory, name) = self.in_tree(index);
            let result = stat_at(directory, name, out, AT_SYMLINK_NOFOLLOW);
            if result != ENOENT {
                return (result, index);
            }
            index += 1;
        }
        (ENOENT, index)
    }
}

/// A path of the program's, in a buffer of ours.
struct Path {
    room: MaybeUninit<[u8; PATH]>,
    start: usize,
    length: usize,
}

impl Path {
    #[inline(always)]
    fn new() -> Self {
        Self { room: MaybeUninit::uninit(), start: 0, length: 0 }
    }

    /// Whether it could be read, and is short enough.
    #[inline(always)]
    fn read(&mut self, address: u64) -> bool {
        if address == 0 {
            return false;
        }
        // SAFETY: the room is that long; a fault while reading is answered with -1.
        let length = unsafe { dw_copy_text(self.room.as_mut_ptr().cast(), address as *const u8, PATH) };
        if length < 0 {
            return false;
        }
        (self.start, self.length) = (0, length as usize);
        // What begins with ./ means the same without.
        while self.length > 2 {
            // SAFETY: three bytes at least.
            let [a, b, c] = unsafe { self.text().cast::<[u8; 3]>().read() };
            if a != b'.' || b != b'/' || c == b'/' {
                break;
            }
            self.start += 2;
            self.length -= 2;
        }
        true
    }

    /// Takes slashes from its end, but for one that is all there is.
    #[inline(always)]
    fn without_slashes(&mut self) {
        while self.length > 1 {
            // SAFETY: in the room.
            let last = unsafe { self.text().cast_mut().add(self.length - 1) };
            // SAFETY: as above.
            if unsafe { last.read() } != b'/' {
                return;
            }
            // SAFETY: as above.
            unsafe { last.write(0) };
            self.length -= 1;
        }
    }

    #[inline(always)]
    fn text(&self) -> *const u8 {
        // SAFETY: it begins in the room.
        unsafe { self.room.as_ptr().cast::<u8>().add(self.start) }
    }

    /// Goes on where the link leads that a place has in one of its trees; the path was the link's.
    #[inline(never)]
    fn follow(&mut self, place: &mut Place, tree: u32) -> bool {
        if place.is_deep {
            return false;
        }
        let mut link = MaybeUninit::<[u8; PATH]>::uninit();
        let (directory, name) = place.in_tree(tree);
        let from: *const u8 = link.as_ptr().cast();
        let count = call(READLINKAT, directory as i64 as u64, name as u64, link.as_mut_ptr() as u64, PATH as u64, 0);
        if count <= 0 {
            return false;
        }
        // SAFETY: there is at least one byte.
        let is_absolute = unsafe { from.read() } == b'/';
        let kept = if is_absolute { 0 } else { self.length - place.length };
        if self.start + kept + count as usize >= PATH {
            return false;
        }
        let to = self.text().cast_mut();
        let mut index = 0;
        // SAFETY: what is kept, what was read and a zero fit into the room.
        unsafe {
            while index < count as usize {
                to.add(kept + index).write(from.add(index).read_volatile());
                index += 1;
            }
            to.add(kept + index).write(0);
        }
        self.length = kept + index;
        true
    }
}

/// Where a path leads: its place, and what is there, written to `out`.
#[inline(never)]
fn reach(directory: i32, path: &mut Path, place: &mut Place, out: u64, follows: bool) -> (i64, u32) {
    let mut links = 0;
    loop {
        if !place.locate(directory, path.text(), path.length) {
            return (SLOW, 0);
        }
        let (result, tree) = place.look(0, out);
        if result != 0 {
            return (if result == ENOENT { ENOENT } else { SLOW }, tree);
        }
        // SAFETY: the kernel has just written to it.
        let mode = unsafe { (&raw const (*(out as *const Stat)).mode).read() };
        if mode & S_IFMT != S_IFLNK || !follows {
            return (0, tree);
        }
        links += 1;
        if links > 8 || !path.follow(place, tree) {
            return (SLOW, 0);
        }
        *place = Place::new();
    }
}

/// Whether what is found can be shown as it is.
#[inline(always)]
fn is_plain(mode: u32, place: &Place, tree: u32, follows: bool) -> bool {
    let kind = mode & S_IFMT;
    if kind == S_IFDIR {
        // A directory of several trees is shown under the number that does not change.
        return !(place.flags & UPPER != 0 && place.trees > 1 && tree == 0);
    }
    kind == S_IFREG || kind == S_IFIFO || kind == S_IFSOCK || kind == S_IFLNK && !follows
}

/// Gives a directory that layers have a part in the number that does not change; whether it is known.
#[inline(never)]
fn is_steady(mode: u32, stat: *mut Stat) -> bool {
    if mode & S_IFMT != S_IFDIR {
        return false;
    }
    // SAFETY: the kernel has just written to it.
    let (device, inode) = unsafe { ((&raw const (*stat).device).read(), (&raw const (*stat).inode).read()) };
    let mut place = Place::new();
    let hash = hash_of_identity(device, inode);
    if !find(&mut place, hash, device, inode, core::ptr::null(), BY_IDENTITY) {
        return false;
    }
    if place.flags & MERGED != 0 {
        // SAFETY: as above.
        unsafe {
            (&raw mut (*stat).device).write(place.more[0]);
            (&raw mut (*stat).inode).write(place.more[1]);
        }
    }
    true
}

/// What `out` says, which the kernel has just written there.
#[inline(always)]
fn shown(out: u64, place: &Place, tree: u32, follows: bool) -> i64 {
    let stat = out as *mut Stat;
    // SAFETY: the kernel has just written to it; a program that unmaps it meanwhile gets the fault it asks for.
    let (mode, inode) = unsafe { ((&raw const (*stat).mode).read(), (&raw const (*stat).inode).read()) };
    if is_recorded(inode) || !is_plain(mode, place, tree, follows) && !is_steady(mode, stat) {
        return SLOW;
    }
    owned(stat)
}

/// Mends the owner of what the kernel has just written.
#[inline(always)]
fn owned(stat: *mut Stat) -> i64 {
    let ids = word(IDS);
    // SAFETY: as above.
    unsafe {
        let (uid, gid) = (&raw mut (*stat).uid, &raw mut (*stat).gid);
        uid.write(inner(uid.read(), ids as u32));
        gid.write(inner(gid.read(), (ids >> 32) as u32));
    }
    0
}

#[inline(never)]
fn stat(directory: i32, path: u64, out: u64, flags: i32) -> i64 {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return SLOW;
    }
    let mut text = Path::new();
    if !text.read(path) {
        return SLOW;
    }
    if text.length == 0 {
        return if flags & AT_EMPTY_PATH != 0 && directory >= 0 { stat_open(directory, out) } else { SLOW };
    }
    let mut place = Place::new();
    let follows = flags & AT_SYMLINK_NOFOLLOW == 0;
    match reach(directory, &mut text, &mut place, out, follows) {
        (0, tree) => shown(out, &place, tree, follows),
        (result, _) => result,
    }
}

#[inline(never)]
fn stat_open(descriptor: i32, out: u64) -> i64 {
    let result = call(FSTAT, descriptor as u64, out, 0, 0, 0);
    if result != 0 {
        return if result == EBADF { result } else { SLOW };
    }
    let mut place = Place::new();
    // SAFETY: the kernel has just written to it.
    let mode = unsafe { (*(out as *const Stat)).mode };
    if mode & S_IFMT == S_IFDIR {
        // SAFETY: as above.
        let stat = unsafe { *(out as *const Stat) };
        if !place.identified(descriptor, &stat) || is_recorded(stat.inode) {
            return SLOW;
        }
        if place.flags & MERGED != 0 && !is_steady(mode, out as *mut Stat) {
            return SLOW;
        }
        return owned(out as *mut Stat);
    }
    shown(out, &place, 0, true)
}

#[inline(never)]
fn statx(directory: i32, path: u64, flags: i32, mask: u64, out: u64) -> i64 {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return SLOW;
    }
    let mut text = Path::new();
    if !text.read(path) {
        return SLOW;
    }
    let mut stat = MaybeUninit::<Stat>::uninit();
    let room = stat.as_mut_ptr() as u64;
    let mut place = Place::new();
    if text.length == 0 {
        if flags & AT_EMPTY_PATH == 0 || directory < 0 || stat_open(directory, room) != 0 {
            return SLOW;
        }
        // SAFETY: the kernel has written it.
        return described(directory, c"".as_ptr().cast(), AT_EMPTY_PATH, mask, out, unsafe { stat.assume_init_ref() });
    }
    let follows = flags & AT_SYMLINK_NOFOLLOW == 0;
    let (result, tree) = reach(directory, &mut text, &mut place, room, follows);
    if result != 0 {
        return result;
    }
    if shown(room, &place, tree, follows) != 0 {
        return SLOW;
    }
    if place.is_deep {
        let opened = place.open_deep(O_PATH | O_CLOEXEC, 0);
        if opened < 0 {
            return SLOW;
        }
        // SAFETY: the kernel has written it.
        let stat = unsafe { stat.assume_init_ref() };
        let result = described(opened as i32, c"".as_ptr().cast(), AT_EMPTY_PATH, mask, out, stat);
        call(CLOSE, opened as u64, 0, 0, 0, 0);
        return result;
    }
    let (directory, name) = place.in_tree(tree);
    // SAFETY: the kernel has written it.
    described(directory, name, AT_SYMLINK_NOFOLLOW, mask, out, unsafe { stat.assume_init_ref() })
}

/// What statx(2) says of a file that has been looked at.
#[inline(always)]
fn described(directory: i32, name: *const u8, flags: i32, mask: u64, out: u64, seen: &Stat) -> i64 {
    if call(STATX, directory as i64 as u64, name as u64, flags as u64, mask, out) != 0 {
        return SLOW;
    }
    let found = out as *mut Statx;
    let ids = word(IDS);
    // SAFETY: the kernel has just written to it.
    unsafe {
        let (uid, gid) = (&raw mut (*found).uid, &raw mut (*found).gid);
        uid.write(inner(uid.read(), ids as u32));
        gid.write(inner(gid.read(), (ids >> 32) as u32));
    }
    // SAFETY: as above.
    unsafe {
        if (&raw const (*found).inode).read() != seen.inode {
            (&raw mut (*found).inode).write(seen.inode);
            let minor = seen.device & 0xff | (seen.device >> 12) & 0xf_ff00;
            (&raw mut (*found).device).write([(seen.device >> 8) as u32 & 0xfff, minor as u32]);
        }
    }
    0
}

#[inline(never)]
fn open(directory: i32, path: u64, flags: i32, mode: u64) -> i64 {
    if flags & !SIMPLE != 0 {
        return SLOW;
    }
    let mut text = Path::new();
    if !text.read(path) || text.length == 0 {
        return SLOW;
    }
    if flags & O_DIRECTORY != 0 && flags & (O_ACCMODE | O_CREAT | O_TRUNC) == 0 {
        // Only a directory is opened, whether or not it is spelt as one; what is a link is not.
        text.without_slashes();
    }
    // SAFETY: two bytes and a zero at least.
    if text.length == 2 && unsafe { text.text().cast::<[u8; 2]>().read() } == *b".." {
        return open_above(directory, flags);
    }
    let may_follow = flags & O_NOFOLLOW == 0 && flags & (O_CREAT | O_EXCL) != O_CREAT | O_EXCL;
    let mut links = 0;
    loop {
        let mut place = Place::new();
        if !place.locate(directory, text.text(), text.length) {
            return SLOW;
        }
        let (result, tree) = open_at(&mut place, flags, mode);
        if result != ELOOP {
            return result;
        }
        links += 1;
        if !may_follow || links > 8 || !text.follow(&mut place, tree) {
            return SLOW;
        }
    }
}

/// The directory above one of a layer's or the upper tree's, when it is known itself.
#[inline(never)]
fn open_above(directory: i32, flags: i32) -> i64 {
    let mut place = Place::new();
    if flags & O_ACCMODE != 0 || flags & O_DIRECTORY == 0 || flags & (O_CREAT | O_TRUNC) != 0 {
        return SLOW;
    }
    if !place.open(directory) || place.flags & INNER == 0 {
        return SLOW;
    }
    let result = call(OPENAT, directory as i64 as u64, c"..".as_ptr() as u64, flags as u64, 0, 0);
    if result < 0 {
        return SLOW;
    }
    let mut above = Place::new();
    if above.open(result as i32) {
        return result;
    }
    call(CLOSE, result as u64, 0, 0, 0, 0);
    SLOW
}

/// Opens the name of a place, not followed: the descriptor, ELOOP and the tree of a link, ENOENT, or [`SLOW`].
#[inline(never)]
fn open_at(place: &mut Place, flags: i32, mode: u64) -> (i64, u32) {
    let generation = word(LOWEST);
    // A path alone opens nothing, and most flags mean nothing to it.
    let is_path = flags & O_PATH != 0;
    let flags = if is_path { flags & (O_PATH | O_CLOEXEC | O_DIRECTORY | O_NOFOLLOW) } else { flags };
    let writes = flags & O_ACCMODE != 0 || flags & (O_CREAT | O_TRUNC) != 0;
    // What a directory further down hands on to new files is not known here.
    let may_create = place.flags & CREATE != 0 && !place.is_deep;
    if writes && (place.flags & WRITE == 0 || flags & O_CREAT != 0 && !may_create) {
        return (SLOW, 0);
    }
    let open = |(directory, name): (i32, *const u8), flags: i32| {
        call(OPENAT, directory as i64 as u64, name as u64, (flags | O_NOFOLLOW) as u64, mode, 0)
    };
    let (mut result, mut tree) = (ENOENT, 0);
    if place.is_deep {
        result = place.open_deep(flags, mode);
        if result == ELOOP {
            return (SLOW, 0);
        }
    } else if place.trees == 1 {
        result = open(place.in_tree(0), flags);
    } else if writes {
        if flags & (O_CREAT | O_EXCL) != O_CREAT | O_EXCL {
            result = open(place.in_tree(0), flags & !O_CREAT);
        }
        if result == ENOENT {
            // What only a layer has is copied up by the tracer.
            let mut stat = MaybeUninit::<Stat>::uninit();
            if flags & O_CREAT == 0 || place.look(1, stat.as_mut_ptr() as u64).0 != ENOENT {
                return (SLOW, 0);
            }
            result = open(place.in_tree(0), flags);
        }
    } else {
        while tree < place.trees {
            result = open(place.in_tree(tree), flags);
            if result != ENOENT {
                break;
            }
            tree += 1;
        }
    }
    if result == ENOENT && flags & O_CREAT == 0 {
        return (ENOENT, 0);
    }
    if result < 0 {
        return (if result == ELOOP { ELOOP } else { SLOW }, tree);
    }
    let is_made = place.flags & (MADE | LOWER) == MADE;
    let may_be_directory = is_path || flags & O_DIRECTORY != 0;
    let is_followed = may_be_directory && place.trees == 1 && (is_made || place.flags & LOWER != 0);
    let has_devices = word(HAS_DEVICES) as u32 != 0 && flags & (O_DIRECTORY | O_PATH) == 0;
    if is_followed || has_devices || is_path {
        let mut stat = MaybeUninit::uninit();
        let looked = fstat(result as i32, &mut stat);
        // SAFETY: the kernel has written it when it says so.
        let stat: &Stat = unsafe { stat.assume_init_ref() };
        if has_devices && (looked != 0 || is_recorded(stat.inode)) {
            // An empty file may stand for a device.
            call(CLOSE, result as u64, 0, 0, 0, 0);
            return (SLOW, 0);
        }
        let kind = stat.mode & S_IFMT;
        if is_path && (looked != 0 || !matches!(kind, S_IFREG | S_IFDIR) && (kind != S_IFLNK || flags & O_NOFOLLOW == 0)) {
            call(CLOSE, result as u64, 0, 0, 0, 0);
            return (if looked == 0 && kind == S_IFLNK { ELOOP } else { SLOW }, tree);
        }
        // What has a record may pass something on to what is made in it.
        if is_followed && kind == S_IFDIR && looked == 0 && !(is_made && (is_recorded(stat.inode) || stat.mode & 0o2000 != 0)) {
            let hash = hash_of_identity(stat.device, stat.inode);
            know(if is_made { hash & !1 } else { hash }, generation);
        }
    }
    (result, 0)
}

#[inline(never)]
fn access(directory: i32, path: u64, wanted: u32, flags: i32) -> i64 {
    if wanted & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW) != 0 {
        return SLOW;
    }
    let mut text = Path::new();
    if !text.read(path) || text.length == 0 {
        return SLOW;
    }
    let mut place = Place::new();
    let mut stat = MaybeUninit::<Stat>::uninit();
    let follows = flags & AT_SYMLINK_NOFOLLOW == 0;
    let (result, _) = reach(directory, &mut text, &mut place, stat.as_mut_ptr() as u64, follows);
    if result == ENOENT {
        return ENOENT;
    }
    if result != 0 || wanted & 2 != 0 && place.flags & READ_ONLY != 0 {
        return SLOW;
    }
    // SAFETY: the kernel has written it.
    let stat = unsafe { stat.assume_init_ref() };
    let kind = stat.mode & S_IFMT;
    if !(kind == S_IFREG || kind == S_IFDIR || kind == S_IFLNK) {
        return SLOW;
    }
    if wanted == 0 {
        return 0;
    }
    if stat.uid != word(IDS) as u32 || is_recorded(stat.inode) {
        return SLOW;
    }
    // Root may read and write everything, and run what somebody may run.
    if wanted & 1 != 0 && kind == S_IFREG && stat.mode & 0o111 == 0 {
        return EACCES;
    }
    0
}

#[inline(never)]
fn readlink(directory: i32, path: u64, out: u64, size: u64) -> i64 {
    let mut text = Path::new();
    if !text.read(path) || text.length == 0 || size as i32 <= 0 {
        return SLOW;
    }
    let mut place = Place::new();
    if !place.locate(directory, text.text(), text.length) {
        return SLOW;
    }
    if place.is_deep {
        let opened = place.open_deep(O_PATH | O_CLOEXEC, 0);
        if opened < 0 {
            return if opened == ENOENT { ENOENT } else { SLOW };
        }
        let mut stat = MaybeUninit::uninit();
        let mut result = SLOW;
        if fstat(opened as i32, &mut stat) == 0 {
            // SAFETY: the kernel has written it.
            let stat: &Stat = unsafe { stat.assume_init_ref() };
            match stat.mode & S_IFMT {
                S_IFREG | S_IFDIR => result = EINVAL,
                S_IFLNK => result = call(READLINKAT, opened as u64, c"".as_ptr() as u64, out, size, 0),
                _ => {}
            }
        }
        call(CLOSE, opened as u64, 0, 0, 0, 0);
        return if result >= 0 || result == EINVAL { result } else { SLOW };
    }
    let mut index = 0;
    while index < place.trees {
        let (directory, name) = place.in_tree(index);
        let result = call(READLINKAT, directory as i64 as u64, name as u64, out, size, 0);
        if result == ENOENT {
            index += 1;
            continue;
        }
        if result == EINVAL {
            // It is no link; but it may be a whiteout.
            let mut stat = MaybeUninit::<Stat>::uninit();
            let (looked, _) = place.look(index, stat.as_mut_ptr() as u64);
            // SAFETY: the kernel has written it when it says so.
            let is_plain = looked == 0 && matches!(unsafe { stat.assume_init_ref() }.mode & S_IFMT, S_IFREG | S_IFDIR);
            return if is_plain { EINVAL } else { SLOW };
        }
        return if result >= 0 { result } else { SLOW };
    }
    ENOENT
}

#[inline(never)]
fn list(descriptor: i32, out: u64, size: u64) -> i64 {
    let mut place = Place::new();
    if descriptor < 0 || !place.open(descriptor) {
        return SLOW;
    }
    if place.flags & TOLD != 0 {
        // As the tracer does it: how far it was read is the open file's own position.
        const SET: u64 = 0;
        const CURRENT: u64 = 1;
        let (at, length, count) = (place.more[0] as u32, place.more[0] >> 32, place.more[1]);
        let position = call(LSEEK, descriptor as u64, 0, CURRENT, 0, 0);
        if position == count as i64 {
            return 0;
        }
        let from = (TABLE + TEXTS_AT + u64::from(at)) as *const u8;
        // SAFETY: the text is that long; a fault while writing is answered with -1.
        if position != 0
            || length > size
            || unsafe { dw_copy_bytes(out as *mut u8, from, length as usize) } < 0
            || call(LSEEK, descriptor as u64, count, SET, 0, 0) < 0
        {
            return SLOW;
        }
        return length as i64;
    }
    if place.flags & LISTED == 0 {
        return SLOW;
    }
    call(GETDENTS64, descriptor as u64, out, size, 0, 0)
}

#[inline(never)]
fn getcwd(out: u64, size: u64) -> i64 {
    let mut place = Place::new();
    if !place.open(AT_FDCWD) || place.own == 0 {
        return SLOW;
    }
    let (at, length) = (place.own as u32, (place.own >> 32) as usize);
    let from = (TABLE + TEXTS_AT + u64::from(at)) as *const u8;
    // SAFETY: the text is that long and has a zero behind it; a fault while writing is answered with -1.
    if length as u64 >= size || unsafe { dw_copy_bytes(out as *mut u8, from, length + 1) } < 0 {
        return SLOW;
    }
    length as i64 + 1
}

/// Whether a descriptor is of an ordinary file without a record that is open for writing: then it is not a layer's.
#[inline(always)]
fn is_written(descriptor: i32) -> bool {
    const F_GETFL: u64 = 3;
    let flags = call(FCNTL, descriptor as u64, F_GETFL, 0, 0, 0);
    let mut stat = MaybeUninit::uninit();
    if flags < 0 || flags as i32 & O_ACCMODE == 0 || fstat(descriptor, &mut stat) != 0 {
        return false;
    }
    // SAFETY: the kernel has written it.
    let stat: &Stat = unsafe { stat.assume_init_ref() };
    stat.mode & S_IFMT == S_IFREG && stat.uid == word(IDS) as u32 && !is_recorded(stat.inode)
}

#[inline(never)]
fn unlink(directory: i32, path: u64) -> i64 {
    let mut text = Path::new();
    if !text.read(path) || text.length == 0 {
        return SLOW;
    }
    let mut place = Place::new();
    if !place.locate(directory, text.text(), text.length) || place.flags & WRITE == 0 || place.is_deep {
        return SLOW;
    }
    let mut stat = MaybeUninit::<Stat>::uninit();
    let out = stat.as_mut_ptr() as u64;
    let (result, tree) = place.look(0, out);
    if result == ENOENT {
        return result;
    }
    // SAFETY: the kernel has written it when it says so.
    if result != 0 || tree != 0 || !is_ours(unsafe { stat.assume_init_ref() }) {
        return SLOW;
    }
    // What a layer has, too, leaves a whiteout.
    if place.look(1, out).0 != ENOENT {
        return SLOW;
    }
    let (directory, name) = place.in_tree(0);
    let result = call(UNLINKAT, directory as i64 as u64, name as u64, 0, 0, 0);
    if result == 0 {
        0
    } else {
        SLOW
    }
}

/// Whether a file is an ordinary one of which nothing is remembered.
#[inline(always)]
fn is_ours(stat: &Stat) -> bool {
    stat.mode & S_IFMT == S_IFREG && !is_recorded(stat.inode)
}

#[inline(never)]
fn rename(old_directory: i32, old: u64, new_directory: i32, new: u64) -> i64 {
    let (mut old_text, mut new_text) = (Path::new(), Path::new());
    if !old_text.read(old) || !new_text.read(new) || old_text.length == 0 || new_text.length == 0 {
        return SLOW;
    }
    let (mut from, mut to) = (Place::new(), Place::new());
    if !from.locate(old_directory, old_text.text(), old_text.length)
        || !to.locate(new_directory, new_text.text(), new_text.length)
    {
        return SLOW;
    }
    if from.flags & to.flags & WRITE == 0 || from.trees != 1 || to.trees != 1 || from.is_deep || to.is_deep {
        return SLOW;
    }
    let mut stat = MaybeUninit::<Stat>::uninit();
    let out = stat.as_mut_ptr() as u64;
    // SAFETY: the kernel has written it when it says so.
    if from.look(0, out).0 != 0 || !is_ours(unsafe { stat.assume_init_ref() }) {
        return SLOW;
    }
    let (there, _) = to.look(0, out);
    // SAFETY: as above.
    if there != ENOENT && (there != 0 || !is_ours(unsafe { stat.assume_init_ref() })) {
        return SLOW;
    }
    let ((old_directory, old), (new_directory, new)) = (from.in_tree(0), to.in_tree(0));
    let (a, b) = (old_directory as i64 as u64, new_directory as i64 as u64);
    let result = call(RENAMEAT, a, old as u64, b, new as u64, 0);
    if result == 0 {
        0
    } else {
        SLOW
    }
}

/// Whether the name of an attribute is of those that only a record gives.
#[inline(always)]
fn is_given(name: u64) -> bool {
    let mut text = Path::new();
    if !text.read(name) || text.length < 9 || text.length > 255 {
        return false;
    }
    // SAFETY: nine bytes at least.
    let first = unsafe { text.text().cast::<[u8; 7]>().read() };
    first == *b"securit" || first == *b"system."
}

#[inline(never)]
fn get_attribute(path: u64, name: u64, follows: bool) -> i64 {
    let mut text = Path::new();
    if !is_given(name) || !text.read(path) || text.length == 0 {
        return SLOW;
    }
    let mut place = Place::new();
    let mut stat = MaybeUninit::<Stat>::uninit();
    let (result, tree) = reach(AT_FDCWD, &mut text, &mut place, stat.as_mut_ptr() as u64, follows);
    if result != 0 {
        return result;
    }
    // SAFETY: the kernel has written it.
    let stat = unsafe { stat.assume_init_ref() };
    let is_plain = stat.mode & S_IFMT == S_IFDIR || is_plain(stat.mode, &place, tree, follows);
    if is_plain && !is_recorded(stat.inode) {
        ENODATA
    } else {
        SLOW
    }
}

#[inline(never)]
fn get_attribute_open(descriptor: i32, name: u64) -> i64 {
    let mut stat = MaybeUninit::uninit();
    if !is_given(name) || descriptor < 0 || fstat(descriptor, &mut stat) != 0 {
        return SLOW;
    }
    // SAFETY: the kernel has written it.
    let stat: &Stat = unsafe { stat.assume_init_ref() };
    if stat.mode & S_IFMT == S_IFREG && !is_recorded(stat.inode) {
        ENODATA
    } else {
        SLOW
    }
}

/// The directory of a path as one in which names can be made, with nothing of a layer's behind them.
#[inline(always)]
fn makes(place: &mut Place, text: &mut Path, directory: i32, path: u64) -> bool {
    text.read(path)
        && text.length != 0
        && place.locate(directory, text.text(), text.length)
        && place.flags & (WRITE | CREATE) == WRITE | CREATE
        && place.trees == 1
        && !place.is_deep
}

#[inline(never)]
fn mkdir(directory: i32, path: u64, mode: u64) -> i64 {
    let (mut place, mut text) = (Place::new(), Path::new());
    if !makes(&mut place, &mut text, directory, path) {
        return SLOW;
    }
    let (directory, name) = place.in_tree(0);
    // mkdir(2) takes the sticky bit, but neither of the others.
    if call(MKDIRAT, directory as i64 as u64, name as u64, mode & 0o1777, 0, 0) == 0 {
        0
    } else {
        SLOW
    }
}

#[inline(never)]
fn symlink(target: u64, directory: i32, path: u64) -> i64 {
    let (mut place, mut text) = (Place::new(), Path::new());
    if !makes(&mut place, &mut text, directory, path) {
        return SLOW;
    }
    let (directory, name) = place.in_tree(0);
    if call(SYMLINKAT, target, directory as i64 as u64, name as u64, 0, 0) == 0 {
        0
    } else {
        SLOW
    }
}

/// A file of the container's own, without a record, that a path means: its place and tree. `SLOW` or 0.
#[inline(always)]
fn changes(place: &mut Place, directory: i32, path: u64, follows: bool, takes: impl Fn(u32) -> bool) -> i64 {
    let mut text = Path::new();
    if !text.read(path) || text.length == 0 {
        return SLOW;
    }
    let mut stat = MaybeUninit::<Stat>::uninit();
    let (result, tree) = reach(directory, &mut text, place, stat.as_mut_ptr() as u64, follows);
    if result != 0 || tree != 0 || place.flags & WRITE == 0 || place.is_deep {
        return SLOW;
    }
    // SAFETY: the kernel has written it.
    let stat = unsafe { stat.assume_init_ref() };
    let is_ours = stat.uid == word(IDS) as u32 && !is_recorded(stat.inode);
    if !is_ours || !is_plain(stat.mode, place, tree, follows) || !takes(stat.mode) {
        return SLOW;
    }
    // The name is in a buffer that is about to go: from here on it is in the place's.
    place.settle();
    0
}

/// The descriptor that a path of /proc/self/fd means; what C libraries make of fchmodat(2) with flags.
#[inline(always)]
fn own_descriptor(path: u64) -> i32 {
    const OWN: &[u8; 14] = b"/proc/self/fd/";
    let mut text = Path::new();
    if !text.read(path) || text.length < 15 || text.length > 18 {
        return -1;
    }
    let mut number = 0;
    let mut index = 0;
    while index < text.length {
        // SAFETY: less than its length; and the name is 14 bytes long.
        let byte = unsafe { text.text().add(index).read() };
        if index < 14 {
            // SAFETY: as above.
            if byte != unsafe { *OWN.get_unchecked(index) } {
                return -1;
            }
        } else if byte.is_ascii_digit() {
            number = number * 10 + i32::from(byte - b'0');
        } else {
            return -1;
        }
        index += 1;
    }
    number
}

#[inline(never)]
fn chmod(directory: i32, path: u64, mode: u32) -> i64 {
    let mut place = Place::new();
    let descriptor = own_descriptor(path);
    if descriptor >= 0 {
        let mut stat = MaybeUninit::uninit();
        if fstat(descriptor, &mut stat) != 0 {
            return SLOW;
        }
        // SAFETY: the kernel has written it.
        let stat: &Stat = unsafe { stat.assume_init_ref() };
        let is_simple = (stat.mode | mode) & 0o6000 == 0 && stat.uid == word(IDS) as u32 && !is_recorded(stat.inode);
        if !is_simple || !place.identified(descriptor, stat) || place.flags & (WRITE | MERGED) != WRITE || place.trees != 1 {
            return SLOW;
        }
        let result = call(FCHMODAT, AT_FDCWD as i64 as u64, path, u64::from(mode), 0, 0);
        return if result == 0 { 0 } else { SLOW };
    }
    // A directory that hands on its group is for the tracer to know of.
    let is_simple = |now: u32| (now | mode) & 0o6000 == 0 && matches!(now & S_IFMT, S_IFREG | S_IFDIR);
    if changes(&mut place, directory, path, true, is_simple) != 0 {
        return SLOW;
    }
    let (directory, name) = place.settled();
    if call(FCHMODAT, directory as i64 as u64, name as u64, u64::from(mode), 0, 0) == 0 {
        0
    } else {
        SLOW
    }
}

#[inline(never)]
fn chown(directory: i32, path: u64, uid: u32, gid: u32, flags: i32) -> i64 {
    let is_root = |id: u32| matches!(id, 0 | u32::MAX);
    let follows = flags & AT_SYMLINK_NOFOLLOW == 0;
    let mut place = Place::new();
    if flags & !AT_SYMLINK_NOFOLLOW != 0 || !is_root(uid) || !is_root(gid) {
        return SLOW;
    }
    // Giving a program away takes its setuid bit.
    if changes(&mut place, directory, path, follows, |now| now & 0o6000 == 0) != 0 {
        return SLOW;
    }
    let (directory, name) = place.settled();
    let keep = u64::from(u32::MAX);
    if call(FCHOWNAT, directory as i64 as u64, name as u64, keep, keep, AT_SYMLINK_NOFOLLOW as u64) == 0 {
        0
    } else {
        SLOW
    }
}

#[inline(never)]
fn utimens(directory: i32, path: u64, times: u64, flags: i32) -> i64 {
    let mut place = Place::new();
    let follows = flags & AT_SYMLINK_NOFOLLOW == 0;
    if flags & !AT_SYMLINK_NOFOLLOW != 0 || changes(&mut place, directory, path, follows, |_| true) != 0 {
        return SLOW;
    }
    let (directory, name) = place.settled();
    if call(UTIMENSAT, directory as i64 as u64, name as u64, times, AT_SYMLINK_NOFOLLOW as u64, 0) == 0 {
        0
    } else {
        SLOW
    }
}

#[inline(never)]
fn list_attributes_open(descriptor: i32, out: u64, size: u64) -> i64 {
    let mut stat = MaybeUninit::uninit();
    if descriptor < 0 || fstat(descriptor, &mut stat) != 0 {
        return SLOW;
    }
    // SAFETY: the kernel has written it.
    let stat: &Stat = unsafe { stat.assume_init_ref() };
    if stat.mode & S_IFMT == S_IFREG && !is_recorded(stat.inode) && call(FLISTXATTR, descriptor as u64, out, size, 0, 0) == 0 {
        0
    } else {
        SLOW
    }
}

/// Answers a call, or says that it does not.
#[no_mangle]
extern "C" fn dw_handle(frame: &Frame) -> i64 {
    if word(IS_OFF) != 0 {
        return SLOW;
    }
    let [a, b, c, d, e, _] = frame.arguments;
    match frame.number {
        2 => open(AT_FDCWD, a, b as i32, c),
        257 => open(a as i32, b, c as i32, d),
        4 => stat(AT_FDCWD, a, b, 0),
        5 => stat_open(a as i32, b),
        6 => stat(AT_FDCWD, a, b, AT_SYMLINK_NOFOLLOW),
        262 => stat(a as i32, b, c, d as i32),
        332 => statx(a as i32, b, c as i32, d, e),
        21 => access(AT_FDCWD, a, b as u32, 0),
        269 => access(a as i32, b, c as u32, 0),
        439 => access(a as i32, b, c as u32, d as i32),
        89 => readlink(AT_FDCWD, a, b, c),
        267 => readlink(a as i32, b, c, d),
        191 => get_attribute(a, b, true),
        192 => get_attribute(a, b, false),
        193 => get_attribute_open(a as i32, b),
        79 => getcwd(a, b),
        217 => list(a as i32, b, c),
        87 => unlink(AT_FDCWD, a),
        263 => {
            if c as i32 == 0 {
                unlink(a as i32, b)
            } else {
                SLOW
            }
        }
        82 => rename(AT_FDCWD, a, AT_FDCWD, b),
        264 => rename(a as i32, b, c as i32, d),
        316 => {
            if e as u32 == 0 {
                rename(a as i32, b, c as i32, d)
            } else {
                SLOW
            }
        }
        91 => {
            if is_written(a as i32) {
                call(FCHMOD, a, b, 0, 0, 0)
            } else {
                SLOW
            }
        }
        93 => {
            let is_root = |id: u64| matches!(id as u32, 0 | u32::MAX);
            if is_root(b) && is_root(c) && is_written(a as i32) {
                call(FCHOWN, a, u64::from(u32::MAX), u64::from(u32::MAX), 0, 0)
            } else {
                SLOW
            }
        }
        83 => mkdir(AT_FDCWD, a, b),
        258 => mkdir(a as i32, b, c),
        88 => symlink(a, AT_FDCWD, b),
        266 => symlink(a, b as i32, c),
        90 => chmod(AT_FDCWD, a, b as u32),
        268 => chmod(a as i32, b, c as u32),
        92 => chown(AT_FDCWD, a, b as u32, c as u32, 0),
        94 => chown(AT_FDCWD, a, b as u32, c as u32, AT_SYMLINK_NOFOLLOW),
        260 => chown(a as i32, b, c as u32, d as u32, e as i32),
        196 => list_attributes_open(a as i32, b, c),
        280 => {
            if b != 0 {
                utimens(a as i32, b, c, d as i32)
            } else if d as u32 == 0 && is_written(a as i32) {
                call(UTIMENSAT, a, 0, c, 0, 0)
            } else {
                SLOW
            }
        }
        _ => SLOW,
    }
}
