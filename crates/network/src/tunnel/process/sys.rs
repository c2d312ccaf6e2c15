//! The system calls that no safe library offers: those of TUN devices.
#![expect(unsafe_code, reason = "an ioctl reads a structure of ours")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::OFlag;

/// A layer-3 device.
const IFF_TUN: u16 = 0x1;
/// Packets come without a header of their own.
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq`, as far as the kernel looks at it here.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(tun_set_interface, 0x4004_54ca, InterfaceRequest);

/// Makes a TUN device in the calling thread's namespace; it lives as long as the file is open. Reads and writes do not block.
pub(super) fn open_tun(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open("/dev/net/tun")?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    for (to, from) in request.name.iter_mut().take(15).zip(name.as_bytes()) {
        *to = *from;
    }
    // SAFETY: the kernel reads and writes a `struct ifreq`, 40 bytes, which `request` is and outlives the call.
    unsafe { tun_set_interface(file.as_raw_fd(), &raw const request) }?;
    Ok(file)
}
