//! Less than the whole emulation: what is refused then is what a user namespace with one id refuses.

use rustix::io::Errno;

use crate::call::Call;
use crate::credentials::KEEP;
use crate::Mode;

/// The errno of a call that needs more than is emulated.
///
/// # Errors
/// EINVAL for an id that there is not, EPERM for what nobody may.
pub(super) fn refuse(emulation: Option<Mode>, number: i64, call: &Call) -> Result<(), Errno> {
    if emulation == Some(Mode::Full) {
        return Ok(());
    }
    let known = |indices: &[usize], keeps: bool| {
        let is_known = |index: &usize| call.word(*index) == 0 || keeps && call.word(*index) == KEEP;
        if indices.iter().all(is_known) {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    };
    match number {
        libc::SYS_setuid | libc::SYS_setgid => return known(&[0], false),
        libc::SYS_setreuid | libc::SYS_setregid => return known(&[0, 1], true),
        libc::SYS_setresuid | libc::SYS_setresgid => return known(&[0, 1, 2], true),
        libc::SYS_setgroups => return Err(Errno::PERM),
        _ => {}
    }
    if emulation.is_some() {
        return Ok(());
    }
    match number {
        libc::SYS_chown | libc::SYS_lchown | libc::SYS_fchown => known(&[1, 2], true),
        libc::SYS_fchownat => known(&[2, 3], true),
        libc::SYS_mknod => is_no_device(call.word(1)),
        libc::SYS_mknodat => is_no_device(call.word(2)),
        libc::SYS_setxattr | libc::SYS_lsetxattr | libc::SYS_fsetxattr => {
            match call.text(1)?.starts_with(b"user.") {
                true => Ok(()),
                false => Err(Errno::PERM),
            }
        }
        _ => Ok(()),
    }
}

fn is_no_device(mode: u32) -> Result<(), Errno> {
    match mode & libc::S_IFMT {
        libc::S_IFCHR | libc::S_IFBLK => Err(Errno::PERM),
        _ => Ok(()),
    }
}
