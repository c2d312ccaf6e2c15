//! Registering descriptors with the async runtime.
#![expect(unsafe_code, reason = "tokio's registration of descriptors is unsafe")]

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Makes a non-blocking descriptor usable in async code.
pub(super) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open file for as long as it lives, and `AsyncFd` owns it.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}
