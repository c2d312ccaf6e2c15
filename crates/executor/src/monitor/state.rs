//! `state.json`: what is known of a container, durable across the daemon and the monitor.
//!
//! Written by rename, so a reader sees one whole version. The final record is fsynced.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// File name inside the container's directory.
pub const STATE_FILE: &str = "state.json";

/// The version of `state.json` this code writes.
pub const STATE_VERSION: u32 = 1;

/// A state file is below 2 KiB; more is corruption.
const STATE_BYTES_MAX: u64 = 64 << 10;

/// Everything known of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub version: u32,
    /// `/proc/sys/kernel/random/boot_id` of the writer: pids mean nothing after a restart of the host.
    pub boot_id: String,
    pub monitor: ProcessId,
    pub phase: Phase,
    /// The container's first process, in the host's pid namespace.
    pub process: Option<ProcessId>,
    /// Nanoseconds since the epoch, as all times here.
    pub created_at: i64,
    pub started_at: Option<i64>,
    /// Present in the final phases only.
    pub exit: Option<Exit>,
    /// Log entries lost to failed writes.
    #[serde(default)]
    pub log_dropped: u64,
}

/// Where a container is in its life; never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Creating,
    Created,
    Running,
    /// The container's process ended. Final.
    Exited,
    /// It never came to be. Final.
    Failed,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0–255; 128 + n for signal n.
    pub code: i32,
    pub is_oom_killed: bool,
    pub finished_at: i64,
    /// Empty unless something other than the container's own end was the cause.
    #[serde(default)]
    pub error: String,
}

/// A pid that cannot be mistaken for a later process of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

// === impl State ===

impl State {
    /// A container about to be created by this process.
    pub fn creating() -> io::Result<Self> {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        Ok(Self {
            version: STATE_VERSION,
            boot_id: boot_id()?,
            monitor: ProcessId::observe(pid)?,
            phase: Phase::Creating,
            process: None,
            created_at: super::unix_nanos(),
            started_at: None,
            exit: None,
            log_dropped: 0,
        })
    }

    /// Whether the phase is final.
    pub fn is_final(&self) -> bool {
        matches!(self.phase, Phase::Exited | Phase::Failed)
    }

    /// Replaces `state.json` in `dir`; a final state is on disk when this returns.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let temporary = dir.join("state.json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        if self.is_final() {
            file.sync_all()?;
        }
        fs::rename(&temporary, dir.join(STATE_FILE))?;
        if self.is_final() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Reads `state.json` in `dir`.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(STATE_FILE);
        if fs::metadata(&path)?.len() > STATE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "state.json is too large",
            ));
        }
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

// === impl ProcessId ===

impl ProcessId {
    /// Reads the start time of a living process.
    pub fn observe(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_ticks = parse_start(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable process stat"))?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether this very process still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        parse_start(&stat) == Some(self.start_ticks) && !is_zombie(&stat)
    }
}

/// This boot's identity.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// The fields after the command name, which may itself hold blanks and parentheses.
fn fields_after_name(stat: &str) -> Option<&str> {
    stat.rsplit_once(')').map(|(_, rest)| rest.trim_start())
}

fn parse_start(stat: &str) -> Option<u64> {
    fields_after_name(stat)?.split(' ').nth(19)?.parse().ok()
}

fn is_zombie(stat: &str) -> bool {
    fields_after_name(stat).is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_a_hostile_process_name() {
        let mut fields = vec!["S".to_owned()];
        fields.extend((4..=21).map(|n| n.to_string()));
        fields.push("777".to_owned());
        let stat = format!("12 (a) Z 1 (b) {}", fields.join(" "));
        assert_eq!(parse_start(&stat), Some(777));
        assert!(!is_zombie(&stat));
    }

    #[test]
    fn reused_pid_is_not_the_same_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = ProcessId::observe(pid).unwrap();
        assert!(me.is_alive());
        assert!(
            !ProcessId {
                start_ticks: me.start_ticks + 1,
                ..me
            }
            .is_alive()
        );
    }

    #[test]
    fn state_of_version_one_stays_readable() {
        let dir = tempfile::tempdir().unwrap();
        let golden = r#"{"version":1,"boot_id":"b","monitor":{"pid":7,"start_ticks":9},"phase":"exited",
            "process":{"pid":8,"start_ticks":10},"created_at":1,"started_at":2,
            "exit":{"code":137,"is_oom_killed":true,"finished_at":3,"error":""},"log_dropped":4}"#;
        fs::write(dir.path().join(STATE_FILE), golden).unwrap();
        let state = State::read(dir.path()).unwrap();
        assert_eq!(state.exit.as_ref().unwrap().code, 137);
        state.write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), state);
    }
}
