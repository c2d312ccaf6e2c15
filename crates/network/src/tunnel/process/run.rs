//! Datagrams on their way out: those of one peer and one size leave with one system call.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use super::device::Device;

/// Bytes of one system call: a datagram's limit, which holds for all of them together.
const BYTES_MAX: usize = 65_000;

/// Datagrams of one system call (`UDP_MAX_SEGMENTS` of older kernels).
const COUNT_MAX: usize = 64;

/// Room for the largest packet, encrypted.
const ROOM: usize = 66_000;

/// Datagrams that wait: all of one size but the last, which may be shorter and ends the run.
#[derive(Debug)]
pub(super) struct Run {
    bytes: Vec<u8>,
    filled: usize,
    count: usize,
    stride: usize,
    to: Option<SocketAddr>,
    is_closed: bool,
}

// === impl Run ===

impl Run {
    pub(super) fn new() -> Run {
        Run {
            bytes: vec![0; BYTES_MAX + ROOM],
            filled: 0,
            count: 0,
            stride: 0,
            to: None,
            is_closed: false,
        }
    }

    /// Where the next datagram is to be written.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Takes the datagram of `length` bytes that was written to [`Run::room`].
    pub(super) fn push(&mut self, length: usize, to: SocketAddr, device: &Device) {
        let fits = self.count > 0
            && !self.is_closed
            && self.to == Some(to)
            && length <= self.stride
            && self.count < COUNT_MAX
            && self.filled + length <= BYTES_MAX;
        if !fits {
            let start = self.filled;
            self.flush(device);
            self.bytes.copy_within(start..start + length, 0);
            self.to = Some(to);
            self.stride = length;
        }
        self.is_closed = length < self.stride;
        self.filled += length;
        self.count += 1;
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self, device: &Device) {
        let waiting = &self.bytes[..self.filled];
        if let Some(to) = self.to.filter(|_| self.count > 0)
            && (self.count == 1 || !send_all(device, waiting, self.stride, to))
        {
            for datagram in waiting.chunks(self.stride) {
                device.send(datagram, to);
            }
        }
        (self.filled, self.count, self.is_closed) = (0, 0, false);
    }
}

/// Sends datagrams of one size with one call; false if this way cannot (an old kernel, a path with a smaller MTU).
fn send_all(device: &Device, datagrams: &[u8], stride: usize, to: SocketAddr) -> bool {
    let Ok(stride) = u16::try_from(stride) else {
        return false;
    };
    let parts = [std::io::IoSlice::new(datagrams)];
    let sent = sendmsg(
        device.socket.as_raw_fd(),
        &parts,
        &[ControlMessage::UdpGsoSegments(&stride)],
        MsgFlags::empty(),
        Some(&SockaddrStorage::from(to)),
    );
    !matches!(
        sent,
        Err(nix::Error::EINVAL | nix::Error::EMSGSIZE | nix::Error::EIO | nix::Error::EOPNOTSUPP)
    )
}
