//! One reading of a container's resource use, from cgroup v1 or v2 files and `/proc`, in the quantities Docker's stats need.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    cgroup::{Hierarchies, Mode, value_of},
    error::Error,
    handle::Handle,
};

/// v1 counts CPU time of modes in ticks of 1/100 s.
const NANOS_PER_TICK: u64 = 10_000_000;

/// What v1 shows as memory limit when there is none: anything near it.
const UNLIMITED_BYTES_MIN: u64 = 1 << 60;

/// A reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nanoseconds since the epoch.
    pub read_at: i64,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
    pub block_io: Vec<BlockIo>,
    /// By interface name; empty with the host's network.
    pub networks: BTreeMap<String, NetworkStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    pub total_nanos: u64,
    pub user_nanos: u64,
    pub kernel_nanos: u64,
    /// v1 only.
    pub per_cpu_nanos: Vec<u64>,
    /// All time all CPUs of the host have spent, for percentages.
    pub system_nanos: u64,
    pub online_cpus: u32,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_nanos: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub usage_bytes: u64,
    /// v1 only.
    pub max_usage_bytes: Option<u64>,
    /// The container's limit, or the host's memory when it has none.
    pub limit_bytes: u64,
    pub failure_count: u64,
    /// `memory.stat` as it is; clients subtract `total_inactive_file` (v1) or `inactive_file` (v2) from the usage.
    pub stat: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    /// `None`: unlimited.
    pub limit: Option<u64>,
}

/// Bytes moved to or from one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockIo {
    pub major: u64,
    pub minor: u64,
    /// `read`, `write`, …, in lower case.
    pub operation: String,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl Handle {
    /// Reads the files now; some twenty small ones.
    pub fn stats(&self) -> Result<Stats, Error> {
        let not_running = || Error::NotRunning(self.id().clone());
        let pid = self.pid().ok_or_else(not_running)?;
        let cgroup = self.settings().cgroup_path(self.id());
        let mut stats = read_cgroups(&self.settings().hierarchies, &cgroup);
        stats.read_at = crate::monitor::unix_nanos();
        let host = fs::read_to_string("/proc/stat").unwrap_or_default();
        (stats.cpu.system_nanos, stats.cpu.online_cpus) = parse_proc_stat(&host);
        if stats.memory.limit_bytes == 0 || stats.memory.limit_bytes >= UNLIMITED_BYTES_MIN {
            let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
            stats.memory.limit_bytes = parse_mem_total(&text);
        }
        if self.config().namespaces.network != super::config::NetworkNamespace::Host {
            let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
            stats.networks = parse_net_dev(&text);
        }
        Ok(stats)
    }
}

/// Everything the cgroup files say. A missing file leaves its numbers at 0.
fn read_cgroups(hierarchies: &Hierarchies, cgroup: &str) -> Stats {
    let dir = |controller: &str| hierarchies.dir_of(controller, cgroup).unwrap_or_default();
    let pids = dir("pids");
    let mut stats = Stats {
        pids: PidsStats {
            current: number(&pids, "pids.current").unwrap_or(0),
            limit: number(&pids, "pids.max"),
        },
        ..Stats::default()
    };
    match hierarchies.mode() {
        Mode::V2 => read_v2(&pids, &mut stats),
        Mode::V1 | Mode::Hybrid => read_v1(&dir, &mut stats),
    }
    stats
}

fn read_v1(dir: &dyn Fn(&str) -> PathBuf, stats: &mut Stats) {
    let (acct, cpu, memory, block) = (dir("cpuacct"), dir("cpu"), dir("memory"), dir("blkio"));
    stats.cpu.total_nanos = number(&acct, "cpuacct.usage").unwrap_or(0);
    let per_cpu = text(&acct, "cpuacct.usage_percpu");
    stats.cpu.per_cpu_nanos = per_cpu.split_whitespace().flat_map(str::parse).collect();
    let modes = text(&acct, "cpuacct.stat");
    let mode = |key| {
        value_of(&modes, key)
            .unwrap_or(0)
            .saturating_mul(NANOS_PER_TICK)
    };
    (stats.cpu.user_nanos, stats.cpu.kernel_nanos) = (mode("user"), mode("system"));
    let throttling = text(&cpu, "cpu.stat");
    stats.cpu.periods = value_of(&throttling, "nr_periods").unwrap_or(0);
    stats.cpu.throttled_periods = value_of(&throttling, "nr_throttled").unwrap_or(0);
    stats.cpu.throttled_nanos = value_of(&throttling, "throttled_time").unwrap_or(0);
    stats.memory.usage_bytes = number(&memory, "memory.usage_in_bytes").unwrap_or(0);
    stats.memory.max_usage_bytes = number(&memory, "memory.max_usage_in_bytes");
    stats.memory.limit_bytes = number(&memory, "memory.limit_in_bytes").unwrap_or(0);
    stats.memory.failure_count = number(&memory, "memory.failcnt").unwrap_or(0);
    stats.memory.stat = keyed(&text(&memory, "memory.stat"));
    let recursive = text(&block, "blkio.throttle.io_service_bytes_recursive");
    stats.block_io = match recursive.is_empty() {
        true => parse_blkio_v1(&text(&block, "blkio.throttle.io_service_bytes")),
        false => parse_blkio_v1(&recursive),
    };
}

fn read_v2(dir: &Path, stats: &mut Stats) {
    let cpu = text(dir, "cpu.stat");
    let micros = |key| value_of(&cpu, key).unwrap_or(0).saturating_mul(1000);
    stats.cpu.total_nanos = micros("usage_usec");
    stats.cpu.user_nanos = micros("user_usec");
    stats.cpu.kernel_nanos = micros("system_usec");
    stats.cpu.throttled_nanos = micros("throttled_usec");
    stats.cpu.periods = value_of(&cpu, "nr_periods").unwrap_or(0);
    stats.cpu.throttled_periods = value_of(&cpu, "nr_throttled").unwrap_or(0);
    stats.memory.usage_bytes = number(dir, "memory.current").unwrap_or(0);
    stats.memory.limit_bytes = number(dir, "memory.max").unwrap_or(0);
    stats.memory.failure_count = value_of(&text(dir, "memory.events"), "oom").unwrap_or(0);
    stats.memory.stat = keyed(&text(dir, "memory.stat"));
    stats.block_io = parse_io_v2(&text(dir, "io.stat"));
}

fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_default()
}

/// A file with one number; `max` is none.
fn number(dir: &Path, name: &str) -> Option<u64> {
    text(dir, name).trim().parse().ok()
}

fn keyed(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// `8:0 Read 4096`; the sums (`Total`) are left out.
fn parse_blkio_v1(text: &str) -> Vec<BlockIo> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let operation = fields.next()?.to_ascii_lowercase();
        Some(BlockIo {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            operation,
            bytes: fields.next()?.parse().ok()?,
        })
    };
    text.lines()
        .filter_map(entry)
        .filter(|io| io.operation != "total")
        .collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 …`.
fn parse_io_v2(text: &str) -> Vec<BlockIo> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let device = fields.next().and_then(|device| device.split_once(':'));
        let numbers = device.and_then(|(a, b)| a.parse().ok().zip(b.parse().ok()));
        let Some((major, minor)) = numbers else {
            continue;
        };
        for field in fields {
            let operation = match field.split_once('=') {
                Some(("rbytes", value)) => ("read", value),
                Some(("wbytes", value)) => ("write", value),
                _ => continue,
            };
            if let Ok(bytes) = operation.1.parse() {
                found.push(BlockIo {
                    major,
                    minor,
                    operation: operation.0.to_owned(),
                    bytes,
                });
            }
        }
    }
    found
}

/// Time of all CPUs in all modes but guests' (already in `user`), and the number of CPUs.
fn parse_proc_stat(text: &str) -> (u64, u32) {
    let ticks = text
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .map_or(0, |rest| {
            rest.split_whitespace()
                .take(8)
                .filter_map(|field| field.parse::<u64>().ok())
                .sum()
        });
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let cpus = text.lines().filter(is_cpu).count();
    (
        ticks * NANOS_PER_TICK,
        u32::try_from(cpus).unwrap_or(u32::MAX),
    )
}

fn parse_mem_total(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn parse_net_dev(text: &str) -> BTreeMap<String, NetworkStats> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().flat_map(str::parse).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx @ ..,
        ] = &numbers[..]
        else {
            return None;
        };
        let [tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = tx else {
            return None;
        };
        Some((
            name.trim().to_owned(),
            NetworkStats {
                rx_bytes: *rx_bytes,
                rx_packets: *rx_packets,
                rx_errors: *rx_errors,
                rx_dropped: *rx_dropped,
                tx_bytes: *tx_bytes,
                tx_packets: *tx_packets,
                tx_errors: *tx_errors,
                tx_dropped: *tx_dropped,
            },
        ))
    };
    text.lines()
        .filter_map(interface)
        .filter(|(name, _)| name != "lo")
        .collect()
}

#[cfg(test)]
mod tests;
