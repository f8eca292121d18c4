//! A terminal made in the container's own devpts, so that its name is true inside.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{open_tree, OpenTreeFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::root::attach;
use crate::start_error::{Code, Doing as _, StartError};

/// Makes a terminal, makes it ours and /dev/console, and sends its master to the parent.
pub(super) fn take(rows: u16, cols: u16, socket: &OwnedFd, is_first: bool) -> Result<(), StartError> {
    let slave = make(rows, cols, socket).doing(Code::Internal, || "make a terminal")?;
    let _ = rustix::process::setsid();
    rustix::process::ioctl_tiocsctty(&slave).doing(Code::Internal, || "take the terminal")?;
    if is_first {
        console(&slave).doing(Code::Mount, || "mount /dev/console")?;
    }
    stdio(slave.as_fd(), slave.as_fd(), slave.as_fd()).doing(Code::Internal, || "hand over the terminal")
}

fn make(rows: u16, cols: u16, socket: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    if rows != 0 && cols != 0 {
        rustix::termios::tcsetwinsize(
            &slave,
            Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 },
        )?;
    }
    let fds = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[std::io::IoSlice::new(b"t")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(slave)
}

fn console(slave: &OwnedFd) -> Result<(), Errno> {
    let name = rustix::termios::ttyname(slave, Vec::new())?;
    match rustix::fs::mknodat(CWD, "/dev/console", FileType::RegularFile, 0o600.into(), 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let tree = open_tree(CWD, name, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    attach(tree.as_fd(), CWD, Path::new("/dev/console"))
}

/// Makes the three descriptors 0, 1 and 2.
pub(crate) fn stdio(
    stdin: std::os::fd::BorrowedFd<'_>,
    stdout: std::os::fd::BorrowedFd<'_>,
    stderr: std::os::fd::BorrowedFd<'_>,
) -> Result<(), Errno> {
    // Out of the way first: one of them may itself be 0, 1 or 2.
    let stdin = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    let stdout = rustix::io::fcntl_dupfd_cloexec(stdout, 3)?;
    let stderr = rustix::io::fcntl_dupfd_cloexec(stderr, 3)?;
    rustix::stdio::dup2_stdin(&stdin)?;
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)
}
