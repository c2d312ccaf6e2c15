//! A process as it is remembered between two runs of the command: by pid and start time, so that a
//! recycled pid is never taken for it.

use std::{
    fs, io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Between two looks at a process that is to end.
const END_POLL: Duration = Duration::from_millis(5);

/// One process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks after boot, field 22 of `/proc/<pid>/stat`.
    start: u64,
}

// === impl Process ===

impl Process {
    /// The process that has `pid` now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = Stat::read(pid)?;
        Ok(Self {
            pid,
            start: stat.start,
        })
    }

    /// Whether it runs. One that has ended but was not waited for does not.
    pub(crate) fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.start == self.start && !stat.is_dead)
    }

    /// Sends a signal; a process that has ended is fine.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(handle) = self.open()? else {
            return Ok(());
        };
        match pidfd_send_signal(handle, signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until it has ended; whether it has within `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(END_POLL);
        }
        true
    }

    /// A handle of this very process: it is opened before the start time is looked at.
    fn open(&self) -> io::Result<Option<OwnedFd>> {
        let raw = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = raw.ok_or(io::ErrorKind::InvalidData)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) if self.is_alive() => Ok(Some(handle)),
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What `/proc/<pid>/stat` says.
struct Stat {
    start: u64,
    is_dead: bool,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the name in parentheses and may have anything in it.
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?;
        // Fields are counted from one; the state is the third.
        let start = fields.nth(22 - 4)?.parse().ok()?;
        Some(Self {
            start,
            is_dead: matches!(state, "Z" | "X"),
        })
    }
}

/// The pid here of the process that has `inner` in the pid namespace of `holder`.
pub(crate) fn pid_of(inner: u32, holder: &Process) -> io::Result<Option<u32>> {
    let space = fs::read_link(format!("/proc/{}/ns/pid", holder.pid))?;
    let inner = inner.to_string();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("NSpid:"));
        let is_named = line.and_then(|line| line.split_whitespace().last()) == Some(inner.as_str());
        if is_named && fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|own| own == space) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Identifies this boot: pids and start times of another mean nothing.
pub(crate) fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_shift_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.start, stat.is_dead), (4711, false));
    }

    #[test]
    fn a_recycled_pid_is_another_process() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        let earlier = Process {
            start: process.start - 1,
            ..process
        };
        assert!(process.is_alive() && !earlier.is_alive());
        earlier.signal(Signal::KILL).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it was not meant");
        process.signal(Signal::KILL).unwrap();
        assert!(process.wait(Duration::from_secs(20)));
        child.wait().unwrap();
        process.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn an_ended_process_nobody_waited_for_is_not_alive() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.wait(Duration::from_secs(20)));
        child.wait().unwrap();
    }
}
