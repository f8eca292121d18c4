//! The two kinds of descriptor that carry a network interface's frames: a tap, and a packet socket on one end of a
//! veth pair. Each frame, in both directions, has the ten bytes of `struct virtio_net_hdr` before it, by
//! which checksums and the cutting of large segments are left to whoever is best at it (tun.txt, packet(7)).

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `struct ifreq` of TUNSETIFF: a name and flags.
#[repr(C)]
struct TapRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

/// Checksums, TCP segmentation in both families, and with ECN (linux/if_tun.h).
const OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;

/// A new tap interface of this network namespace, gone when the descriptor is; non-blocking.
///
/// # Errors
/// EACCES or ENOENT of /dev/net/tun, EPERM without CAP_NET_ADMIN here, EBUSY for a name in use.
pub fn tap(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = TapRequest { name: [0; libc::IFNAMSIZ], flags: 0, padding: [0; 22] };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.flags = libc::c_short::try_from(wanted).unwrap_or(0);
    // SAFETY: TUNSETIFF reads and writes one ifreq (40 bytes, as TapRequest), which lives in this frame.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD as _, OFFLOADS) })?;
    Ok(tap)
}

/// Sends and receives all frames of the interface `index` of this network namespace, where it stays; non-blocking.
/// `room` bytes are asked for to hold frames that were not read yet.
///
/// # Errors
/// EPERM without CAP_NET_RAW here, ENODEV.
pub fn packet_socket(index: u32, room: usize) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it hears nothing before it is bound.
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    // Linux 4.20; without it our own frames come back and are recognized by their source.
    let _ = set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, room);
    let all = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
    // SAFETY: sockaddr_ll is plain integers; all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_protocol = all;
    address.sll_ifindex = c_int::try_from(index).unwrap_or(0);
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: bind reads `length` bytes of an address that lives in this frame.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// linux/if_packet.h; the libc crate lacks it.
const PACKET_IGNORE_OUTGOING: c_int = 23;

fn set(socket: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = u32::try_from(size_of::<c_int>()).unwrap_or(0);
    // SAFETY: setsockopt reads one int that lives in this frame.
    check(unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length)
    })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
