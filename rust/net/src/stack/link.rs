//! Frames of the container's interface, in and out.
//!
//! Every frame has a `struct virtio_net_hdr` before it (linux/virtio_net.h). Reading, it says
//! that a checksum was left out because nobody needed it, and that a segment of up to
//! 64 KiB was not cut up. Writing, it asks for the same.

use std::io::IoSlice;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::Addresses;
use crate::fragment;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, kind, Mac};
use crate::wire::ip::{self, protocol, Fragment};

/// The length of `struct virtio_net_hdr`.
pub const OFFLOAD: usize = 10;
/// The most TCP payload in one segment: with its headers it must stay below 64 KiB.
pub const BURST: usize = 65_535 - 40 - 60;
/// Room for the largest frame.
const LARGEST: usize = OFFLOAD + ethernet::HEADER + 65_535 + 64;
/// Flags and kinds of the header.
const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
/// The window of one connection on a link that holds back its sender.
const LARGE_WINDOW: usize = 1 << 20;
/// Buffers for chunks that are kept for the next.
const KEPT: usize = 8;

/// The link.
#[derive(Debug)]
pub struct Link {
    descriptor: OwnedFd,
    guest_mac: Mac,
    gateway_mac: Mac,
    mtu: usize,
    /// Bytes that it holds before it drops; `None` where it makes the sender wait.
    room: Option<usize>,
    readable: bool,
    buffer: Vec<u8>,
    header: Vec<u8>,
    chunks: Vec<Vec<u8>>,
    fragment_id: u32,
}

impl Link {
    pub fn new(descriptor: OwnedFd, addresses: &Addresses) -> rustix::io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        // A tap is no socket: it stops its interface's queue instead of dropping.
        let room = sockopt::socket_recv_buffer_size(&descriptor).ok();
        Ok(Self {
            descriptor,
            guest_mac: addresses.guest_mac,
            gateway_mac: addresses.gateway_mac,
            mtu: usize::from(addresses.mtu),
            room,
            readable: true,
            buffer: Vec::new(),
            header: Vec::with_capacity(128),
            chunks: Vec::new(),
            fragment_id: 0,
        })
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The largest window for one connection alone.
    pub fn window(&self) -> usize {
        self.window_of(1)
    }

    /// The largest window when `count` connections share the link: all together must not overflow it.
    pub fn window_of(&self, count: usize) -> usize {
        match self.room {
            None => LARGE_WINDOW,
            // What the kernel counts for a frame is more than its bytes, and up to twice that for small ones.
            Some(room) => (room / 2 / count.max(1)).clamp(16 * 1024, LARGE_WINDOW),
        }
    }

    pub fn set_readable(&mut self) {
        self.readable = true;
    }

    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// The buffer that frames are read into; to be given back.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.reserve(LARGEST);
        buffer
    }

    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Reads one frame with its header; false when there is none.
    pub fn read(&mut self, frame: &mut Vec<u8>) -> bool {
        while self.readable {
            frame.clear();
            match rustix::io::read(&self.descriptor, spare_capacity(frame)) {
                Ok(count) if count > OFFLOAD + ethernet::HEADER => return true,
                Ok(0) => self.readable = false, // the other end of a socket is closed
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => self.readable = false,
            }
        }
        false
    }

    /// Whether somebody vouches for the checksums inside.
    pub fn is_checked(frame: &[u8]) -> bool {
        frame.first().is_some_and(|flags| flags & (NEEDS_CHECKSUM | DATA_VALID) != 0)
    }

    /// A buffer of [`BURST`] bytes; the one that was given back last, whose memory the processor still has at hand.
    pub fn take_chunk(&mut self) -> Vec<u8> {
        self.chunks.pop().unwrap_or_else(|| vec![0; BURST])
    }

    /// Takes a buffer back.
    pub fn give_chunk(&mut self, mut chunk: Vec<u8>) {
        if chunk.capacity() >= BURST && self.chunks.len() < KEPT {
            chunk.resize(BURST, 0);
            self.chunks.push(chunk);
        }
    }

    /// Nothing has happened for a while: memory that only speed needs goes back.
    pub fn rest(&mut self) {
        self.chunks = Vec::new();
        self.buffer = Vec::new();
    }

    /// Sends one TCP segment, its checksum and its cutting left to the kernel. `write_tcp` writes the TCP header and
    /// says how long it is. Answers with the bytes that went.
    pub fn send_segment(
        &mut self,
        ends: (IpAddr, IpAddr),
        segment_size: usize,
        data: &[IoSlice<'_>],
        write_tcp: impl FnOnce(&mut Vec<u8>) -> usize,
    ) -> usize {
        let length: usize = data.iter().map(|slice| slice.len()).sum();
        let mut header = std::mem::take(&mut self.header);
        self.begin(&mut header, ends.0);
        let ip_header = ip::header_length(ends.0);
        let ip_at = header.len();
        // The length of the TCP header is known only when it is written.
        header.resize(ip_at + ip_header, 0);
        let tcp_at = header.len();
        let tcp_header = write_tcp(&mut header);
        let mut ip_bytes = Vec::with_capacity(ip_header);
        ip::write_header(&mut ip_bytes, ends, protocol::TCP, tcp_header + length, None);
        header[ip_at..tcp_at].copy_from_slice(&ip_bytes);
        let sum = Sum::default().pseudo_header(ends.0, ends.1, protocol::TCP, tcp_header + length).fold();
        header[tcp_at + 16..tcp_at + 18].copy_from_slice(&sum.to_be_bytes());
        let number = |value: usize| u16::try_from(value).unwrap_or(0).to_ne_bytes();
        header[0] = NEEDS_CHECKSUM;
        if length > segment_size {
            header[1] = if ends.0.is_ipv4() { GSO_TCP4 } else { GSO_TCP6 };
            header[4..6].copy_from_slice(&number(segment_size));
        }
        let headers = number(header.len() - OFFLOAD);
        header[2..4].copy_from_slice(&headers);
        header[6..8].copy_from_slice(&number(tcp_at - OFFLOAD));
        header[8..10].copy_from_slice(&number(16));
        let sent = self.write(&header, data);
        self.header = header;
        sent
    }

    /// Sends a packet that carries `payload` of `protocol`, in pieces when it is long.
    pub fn send_packet(&mut self, ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> usize {
        let header_length = ip::header_length(ends.0);
        if payload.len() + header_length <= self.mtu {
            return self.send_piece(ends, protocol, payload, None);
        }
        self.fragment_id = self.fragment_id.wrapping_add(1);
        let id = self.fragment_id;
        let pieces: Vec<_> = fragment::cut(payload, self.mtu, header_length).collect();
        pieces
            .into_iter()
            .map(|(offset, more, piece)| {
                self.send_piece(ends, protocol, piece, Some(Fragment { id, offset, more }))
            })
            .sum()
    }

    fn send_piece(
        &mut self,
        ends: (IpAddr, IpAddr),
        protocol: u8,
        payload: &[u8],
        fragment: Option<Fragment>,
    ) -> usize {
        let mut header = std::mem::take(&mut self.header);
        self.begin(&mut header, ends.0);
        ip::write_header(&mut header, ends, protocol, payload.len(), fragment);
        let sent = self.write(&header, &[IoSlice::new(payload)]);
        self.header = header;
        sent
    }

    /// Sends an ARP message to the container.
    pub fn send_arp(&mut self, message: &[u8]) -> usize {
        let mut header = vec![0; OFFLOAD];
        header.extend_from_slice(&ethernet::header(self.guest_mac, self.gateway_mac, kind::ARP));
        self.write(&header, &[IoSlice::new(message)])
    }

    fn begin(&self, header: &mut Vec<u8>, address: IpAddr) {
        header.clear();
        header.resize(OFFLOAD, 0);
        let kind = if address.is_ipv4() { kind::IPV4 } else { kind::IPV6 };
        header.extend_from_slice(&ethernet::header(self.guest_mac, self.gateway_mac, kind));
    }

    /// What cannot be written is lost, as on any link.
    fn write(&self, header: &[u8], data: &[IoSlice<'_>]) -> usize {
        let mut parts = Vec::with_capacity(1 + data.len());
        parts.push(IoSlice::new(header));
        parts.extend_from_slice(data);
        rustix::io::writev(&self.descriptor, &parts).map_or(0, |count| count.saturating_sub(OFFLOAD))
    }
}
