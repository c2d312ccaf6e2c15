//! The one system call wrapper that no safe library offers: signals by any number, real-time ones included.
#![expect(
    unsafe_code,
    reason = "rustix constructs real-time signals unsafely only"
)]

use rustix::{
    io::{self, Errno},
    process::{Pid, Signal, kill_process},
};

/// Highest signal number of Linux.
const SIGNAL_MAX: i32 = 64;

/// Sends `signal` (1–64) to a process; anything else is `EINVAL`.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(Errno::SRCH)?;
    if !(1..=SIGNAL_MAX).contains(&signal) {
        return Err(Errno::INVAL);
    }
    // SAFETY: the number is a valid signal, and it is only sent, never installed as this process's handler.
    let signal = unsafe { Signal::from_raw_unchecked(signal) };
    kill_process(pid, signal)
}
