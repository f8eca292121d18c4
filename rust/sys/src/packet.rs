//! Packets: one SOCK_SEQPACKET message with the descriptors it carries, and addresses longer than sockaddr_un.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    recvmsg, sendmsg, socket_with, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The largest packet that anybody of ours sends: the room a receiver needs.
pub const LARGEST: usize = 64 * 1024;
/// More descriptors than any message carries; the kernel closes what does not fit.
const MOST_FDS: usize = 32;
/// Room for a path in sockaddr_un, without its NUL (unix(7)).
const LONGEST_ADDRESS: usize = 107;

/// A connected pair, both ends close-on-exec.
///
/// # Errors
/// EMFILE, ENFILE, ENOBUFS.
pub fn pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Receives one packet into `buffer`; `None` is the end of the connection.
///
/// # Errors
/// EAGAIN on a non-blocking socket with nothing to read.
pub fn receive<'a>(
    socket: BorrowedFd<'_>,
    buffer: &'a mut [u8],
) -> rustix::io::Result<Option<(&'a [u8], Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut again =
        || recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
    let got = match rustix::io::retry_on_intr(&mut again) {
        // The other side closed with words of ours unread. The kernel says so once, before what it
        // had sent to us; that is still there.
        Err(Errno::CONNRESET) => rustix::io::retry_on_intr(&mut again)?,
        got => got?,
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(Some((&buffer[..got.bytes], fds)))
}

/// Sends one packet whole, or not at all.
///
/// # Errors
/// EAGAIN when a non-blocking socket has no room; EPIPE, ECONNRESET when the other side is gone.
pub fn send(
    socket: BorrowedFd<'_>,
    kind: u8,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let kind = [kind];
    let parts = [IoSlice::new(&kind), IoSlice::new(payload)];
    rustix::io::retry_on_intr(|| sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// As [`send`] with `word` in a register that sendmsg(2) does not use: a system call filter that catches
/// sendmsg can tell this one by it.
///
/// # Errors
/// As [`send`].
pub fn send_marked(
    socket: BorrowedFd<'_>,
    kind: u8,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
    word: u64,
) -> rustix::io::Result<()> {
    let numbers: Vec<libc::c_int> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let length = size_of_val(&numbers[..]) as u32;
    // SAFETY: both compute a size from a size.
    let (room, whole) = unsafe { (libc::CMSG_SPACE(length) as usize, libc::CMSG_LEN(length) as usize) };
    // Words, so that the header is aligned.
    let mut control = vec![0_u64; room.div_ceil(8)];
    let mut parts = [
        libc::iovec { iov_base: (&raw const kind).cast_mut().cast(), iov_len: 1 },
        libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() },
    ];
    // SAFETY: integers and pointers; all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = room as _;
    // SAFETY: the buffer has room for one header and its numbers, is aligned for them and outlives the call.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = whole as _;
        std::ptr::copy_nonoverlapping(
            numbers.as_ptr().cast::<u8>(),
            libc::CMSG_DATA(header),
            size_of_val(&numbers[..]),
        );
    }
    loop {
        // SAFETY: the message, its parts and its control data live in this frame; the kernel only reads them.
        let sent = unsafe {
            let nothing: libc::c_long = 0;
            libc::syscall(
                libc::SYS_sendmsg,
                socket.as_raw_fd(),
                &raw const message,
                libc::MSG_NOSIGNAL,
                nothing,
                nothing,
                word,
            )
        };
        match io::Error::last_os_error() {
            _ if sent >= 0 => return Ok(()),
            error if error.raw_os_error() == Some(libc::EINTR) => {}
            error => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

/// Connects to a supervisor's socket; the result blocks.
///
/// # Errors
/// ENOENT, ECONNREFUSED: nobody is there.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    with_address(path, |address| Ok(rustix::net::connect(&socket, address)?))?;
    Ok(socket)
}

/// A non-blocking listening socket at `path`, mode 0600; a dead one's leftover is replaced.
///
/// # Errors
/// What socket(2), bind(2), listen(2) and chmod(2) say.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    with_address(path, |address| {
        match rustix::net::bind(&socket, address) {
            Err(Errno::ADDRINUSE) => {
                rustix::fs::unlink(path)?;
                rustix::net::bind(&socket, address)?;
            }
            bound => bound?,
        }
        Ok(())
    })?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o600))?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Hands `use_it` an address for `path`; one that is too long goes through a descriptor of its directory.
fn with_address<T>(path: &Path, use_it: impl FnOnce(&SocketAddrUnix) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= LONGEST_ADDRESS {
        return use_it(&SocketAddrUnix::new(path)?);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_fd().as_raw_fd().to_string()).join(name);
    use_it(&SocketAddrUnix::new(&short)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn descriptors_travel_with_their_packet() {
        let (ours, theirs) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        send(ours.as_fd(), b'J', b"{}", &[write.as_fd()]).unwrap();
        drop(write);
        let mut buffer = [0; LARGEST];
        let (bytes, fds) = receive(theirs.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!(bytes, b"J{}");
        rustix::io::write(&fds[0], b"through").unwrap();
        let mut text = [0; 7];
        rustix::io::read(&read, &mut text).unwrap();
        assert_eq!(&text, b"through");
    }

    #[test]
    fn a_marked_packet_is_a_packet() {
        let (ours, theirs) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        send_marked(ours.as_fd(), b'L', b"{}", &[write.as_fd(), read.as_fd()], u64::MAX).unwrap();
        let mut buffer = [0; 16];
        let (bytes, fds) = receive(theirs.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!((bytes, fds.len()), (&b"L{}"[..], 2));
    }

    #[test]
    fn the_largest_payload_arrives_whole_and_a_closed_end_is_the_end() {
        let (ours, theirs) = pair().unwrap();
        send(ours.as_fd(), b'O', &vec![7; LARGEST - 1], &[]).unwrap();
        drop(ours);
        let mut buffer = vec![0; LARGEST];
        assert_eq!(receive(theirs.as_fd(), &mut buffer).unwrap().unwrap().0.len(), LARGEST);
        assert!(receive(theirs.as_fd(), &mut buffer).unwrap().is_none());
    }

    #[test]
    fn what_was_sent_before_a_reset_is_not_lost() {
        let (ours, theirs) = pair().unwrap();
        send(theirs.as_fd(), b'E', b"", &[]).unwrap(); // never read
        send(ours.as_fd(), b'X', b"{}", &[]).unwrap();
        drop(ours);
        assert_eq!(receive(theirs.as_fd(), &mut [0; 8]).unwrap().unwrap().0, b"X{}");
        assert!(receive(theirs.as_fd(), &mut [0; 8]).unwrap().is_none());
    }

    #[test]
    fn a_path_of_300_bytes_can_be_listened_on_and_connected_to() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(150)).join("e".repeat(150));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("socket");
        drop(listen(&path).unwrap());
        let listener = listen(&path).unwrap(); // over the leftover of the first
        let client = connect(&path).unwrap();
        let server = rustix::net::accept(&listener).unwrap();
        send(client.as_fd(), b'E', b"", &[]).unwrap();
        assert_eq!(receive(server.as_fd(), &mut [0; 8]).unwrap().unwrap().0, b"E");
    }
}
