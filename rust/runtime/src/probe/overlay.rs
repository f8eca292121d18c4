//! Kernel overlay on the store's file system, used the way a container's root is.
//!
//! A mount that succeeds proves little: whiteouts and opaque directories must read right
//! and a write must land in the upper directory. So the trial lays out two layers, mounts
//! them, and looks.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use duckweed_sys::unshare::UnshareFlags;
use rustix::fs::{mknodat, setxattr, FileType, Mode, XattrFlags, CWD};
use rustix::mount::{
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags,
};

use super::fact::{in_child, wrong, Fact, Refusal, Step};
use super::namespaces::{enter, make_private};
use super::Facts;

/// Tries both ways to mount and judges the merged tree.
pub fn probe(facts: &mut Facts, scratch: &Path) {
    let base = scratch.join("overlay");
    let has = match lay_out(&base) {
        Ok(has) => has,
        Err(error) => {
            facts.insert("overlay", Fact::failed(&error, "laying out two layers"));
            return;
        }
    };
    let by_option = in_child(|| merged_is_right(&base, has, mount_by_options));
    // The first trial has written to upper; the second begins anew.
    let renewed = fs::rename(base.join("upper"), base.join("upper.old"))
        .and_then(|()| fs::create_dir(base.join("upper")));
    let stepwise = match renewed {
        Ok(()) => in_child(|| merged_is_right(&base, has, mount_stepwise)),
        Err(error) => Fact::failed(&error, "renewing the upper directory"),
    };
    facts.insert("overlay", by_option);
    facts.insert("overlay_lowerdir_add", stepwise);
}

/// Which of the two marks of deletion the file system could hold.
#[derive(Clone, Copy)]
struct Marks {
    whiteout: bool,
    opaque: bool,
}

fn lay_out(base: &Path) -> std::io::Result<Marks> {
    for directory in ["bottom/dir", "top/dir", "upper", "work", "merged"] {
        fs::create_dir_all(base.join(directory))?;
    }
    for file in ["bottom/kept", "bottom/gone", "bottom/dir/old", "top/dir/new"] {
        fs::write(base.join(file), file)?;
    }
    let whiteout = mknodat(CWD, base.join("top/gone"), FileType::CharacterDevice, Mode::empty(), 0).is_ok();
    let opaque = setxattr(base.join("top/dir"), "user.overlay.opaque", b"y", XattrFlags::empty()).is_ok();
    Ok(Marks { whiteout, opaque })
}

fn merged_is_right(
    base: &Path,
    has: Marks,
    mount: fn(&Path) -> Result<(), Refusal>,
) -> Result<String, Refusal> {
    enter(UnshareFlags::NEWNS)?;
    make_private()?;
    mount(base)?;
    let merged = base.join("merged");
    fs::read(merged.join("kept")).step("reading a lower file")?;
    fs::write(merged.join("made"), "").step("writing a file")?;
    fs::remove_file(merged.join("kept")).step("removing a lower file")?;
    if merged.join("kept").exists() || !base.join("upper/made").exists() {
        return Err(wrong("a change did not land in the upper directory"));
    }
    if has.whiteout && merged.join("gone").exists() {
        return Err(wrong("a whiteout did not hide its file"));
    }
    if has.opaque && (merged.join("dir/old").exists() || !merged.join("dir/new").exists()) {
        return Err(wrong("an opaque directory did not hide what is below"));
    }
    Ok(match (has.whiteout, has.opaque) {
        (true, true) => "",
        (false, _) => "no whiteouts",
        (true, false) => "no opaque directories",
    }
    .to_owned())
}

fn mount_by_options(base: &Path) -> Result<(), Refusal> {
    // A colon or comma in the path would end the option; the process stands in base instead.
    rustix::process::chdir(base).step("entering the scratch directory")?;
    let options = c"lowerdir=top:bottom,upperdir=upper,workdir=work,userxattr";
    mount("overlay", "merged", "overlay", MountFlags::empty(), options).step("mounting overlay")
}

fn mount_stepwise(base: &Path) -> Result<(), Refusal> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step("fsopen")?;
    let context = context.as_fd();
    for lower in ["top", "bottom"] {
        fsconfig_set_string(context, "lowerdir+", base.join(lower)).step("lowerdir+")?;
    }
    fsconfig_set_string(context, "upperdir", base.join("upper")).step("upperdir")?;
    fsconfig_set_string(context, "workdir", base.join("work")).step("workdir")?;
    fsconfig_set_flag(context, "userxattr").step("userxattr")?;
    fsconfig_create(context).step("creating the overlay")?;
    let tree = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).step("fsmount")?;
    move_mount(tree.as_fd(), "", CWD, base.join("merged"), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step("move_mount")
}
