//! What the store's file system can hold and do.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{symlink, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{
    flock, ioctl_ficlone, mknodat, setxattr, statfs, statvfs, FileType, FlockOperation, Mode, XattrFlags, CWD,
};
use serde_json::{json, Value};

use super::fact::Fact;
use super::Facts;

/// Tries each; `scratch` is an empty directory of ours on that file system.
pub fn probe(facts: &mut Facts, scratch: &Path) {
    let file = scratch.join("file");
    let nothing = |tried: io::Result<()>| tried.map(|()| "");
    facts.insert("store_write", Fact::here("writing a file", nothing(fs::write(&file, "x"))));
    facts.insert("store_exec", Fact::here("starting a program", nothing(exec(&scratch.join("program")))));
    let xattr = setxattr(&file, "user.duckweed.probe", b"1", XattrFlags::empty()).map_err(Into::into);
    facts.insert("store_xattr", Fact::here("setting a user xattr", nothing(xattr)));
    let link = fs::hard_link(&file, scratch.join("hard"));
    facts.insert("store_hardlink", Fact::here("making a hard link", nothing(link)));
    facts.insert(
        "store_symlink",
        Fact::here("making a symlink", nothing(symlink("file", scratch.join("soft")))),
    );
    let node = mknodat(CWD, scratch.join("whiteout"), FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(Into::into);
    facts.insert("store_whiteout", Fact::here("making a 0:0 device", nothing(node)));
    facts.insert("store_flock", Fact::here("locking a file", nothing(lock(&file))));
    facts
        .insert("store_reflink", Fact::here("cloning a file", nothing(clone(&file, &scratch.join("clone")))));
}

fn lock(file: &Path) -> io::Result<()> {
    flock(File::open(file)?, FlockOperation::NonBlockingLockExclusive).map_err(Into::into)
}

fn clone(source: &Path, target: &Path) -> io::Result<()> {
    ioctl_ficlone(File::create(target)?, File::open(source)?).map_err(Into::into)
}

/// Writes the smallest program there is and runs it: noexec mounts refuse only this.
fn exec(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?;
    io::Write::write_all(&mut file, &tiny_program())?;
    // Written and open at once would be ETXTBSY.
    drop(file);
    let status =
        Command::new(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(rustix::io::Errno::NOEXEC.raw_os_error()))
}

/// exit(0) as machine code.
#[cfg(target_arch = "x86_64")]
const EXIT: [u8; 12] = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05, 0, 0, 0];
/// exit(0) as machine code.
#[cfg(target_arch = "aarch64")]
const EXIT: [u8; 12] = [0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4];
/// `e_machine` of elf.h.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// An ELF file of one header, one segment and [`EXIT`] (elf(5)).
fn tiny_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half =
        |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|value| elf.extend(value.to_le_bytes()));
    let word =
        |elf: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|value| elf.extend(value.to_le_bytes()));
    let long =
        |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|value| elf.extend(value.to_le_bytes()));
    half(&mut elf, &[2, MACHINE]); // ET_EXEC
    word(&mut elf, &[1]);
    long(&mut elf, &[BASE + HEADERS, 64, 0]); // entry, program headers, no sections
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 1, 0, 0, 0]);
    word(&mut elf, &[1, 5]); // PT_LOAD, readable and executable
    let size = HEADERS + EXIT.len() as u64;
    long(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend(EXIT);
    elf
}

/// Names of file systems by magic number, linux/magic.h and the projects' own headers;
/// those that matter to a store, most of all the ones that matter badly.
const NAMES: &[(u64, &str)] = &[
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x6573_5546, "fuse"),
    (0x00c3_6400, "ceph"),
    (0x2fc1_2fc1, "zfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x1983_0326, "fhgfs"),
    (0x2003_0528, "orangefs"),
    (0xf2f5_2010, "f2fs"),
    (0x5346_414f, "afs"),
    (0xf15f, "ecryptfs"),
    (0xca45_1a4e, "bcachefs"),
    (0x8584_58f6, "ramfs"),
    (0x7371_7368, "squashfs"),
];

/// Type, free bytes and free inodes.
pub fn filesystem(scratch: &Path) -> Value {
    let Ok(stat) = statfs(scratch) else { return Value::Null };
    let Ok(space) = statvfs(scratch) else { return Value::Null };
    let magic = stat.f_type as u64 & 0xffff_ffff;
    let name = NAMES.iter().find(|(known, _)| *known == magic).map_or("unknown", |(_, name)| *name);
    json!({
        "type": name,
        "magic": format!("{magic:#x}"),
        "free_bytes": space.f_bavail * space.f_frsize,
        "total_bytes": space.f_blocks * space.f_frsize,
        "free_inodes": space.f_favail,
        "total_inodes": space.f_files,
    })
}
