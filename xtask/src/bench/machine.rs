//! What the kernel says of processor time and memory: of the daemon's processes, of the driver, of all others.
//!
//! A daemon's containers do not stay below it: their monitors are adopted by the first process of the pid namespace. So the daemon
//! should run in a pid namespace of its own; then everything below that namespace's first process, ended children included, is the
//! daemon's. In the driver's own namespace only the daemon itself is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;

/// The kernel's unit of processor time in `/proc`, per second. It is 100 on every Linux that reports `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time at one moment, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    at: Instant,
    busy: u64,
    total: u64,
    daemon: Option<u64>,
    driver: u64,
}

/// Processor time between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Seconds the daemon's processes used; all but the driver's when the daemon's are not known.
    pub(crate) cpu_seconds: f64,
    /// Share of the machine, 0 to 1, that neither the daemon nor the driver used. Not known when the daemon's processes are not.
    pub(crate) foreign: Option<f64>,
    /// Seconds of the clock.
    pub(crate) seconds: f64,
}

/// Memory of one or several processes, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) rss_kib: u64,
    pub(crate) pss_kib: u64,
    pub(crate) private_kib: u64,
}

/// One line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy)]
struct Process {
    parent: u32,
    /// User and system time, its own and of the children it has waited for.
    ticks: u64,
}

// === impl Usage ===

impl Usage {
    /// Now.
    pub(crate) fn now(root: Option<u32>) -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("failed to read `/proc/stat`")?;
        let fields = stat.lines().next().unwrap_or_default().split_whitespace();
        // user nice system idle iowait irq softirq steal; guest time is part of user's.
        let fields: Vec<u64> = fields.skip(1).take(8).flat_map(str::parse).collect();
        let total = fields.iter().sum();
        let idle: u64 = fields.iter().skip(3).take(2).sum();
        let driver = process(std::process::id()).map_or(0, |process| process.ticks);
        Ok(Self {
            at: Instant::now(),
            busy: total - idle,
            total,
            daemon: root.map(tree_ticks),
            driver,
        })
    }

    /// What was spent since.
    pub(crate) fn spent(self, root: Option<u32>) -> anyhow::Result<Spent> {
        let now = Self::now(root)?;
        let busy = ticks(now.busy.saturating_sub(self.busy));
        let total = ticks(now.total.saturating_sub(self.total));
        let driver = ticks(now.driver.saturating_sub(self.driver));
        let daemon = now.daemon.zip(self.daemon);
        let daemon = daemon.map(|(now, then)| ticks(now.saturating_sub(then)));
        Ok(Spent {
            cpu_seconds: daemon.unwrap_or(busy - driver),
            foreign: daemon
                .filter(|_| total > 0.0)
                .map(|daemon| ((busy - driver - daemon) / total).max(0.0)),
            seconds: (now.at - self.at).as_secs_f64(),
        })
    }
}

fn ticks(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / TICKS_PER_SECOND
}

/// Time of a process and all below it.
fn tree_ticks(root: u32) -> u64 {
    let all = processes();
    tree(&all, root)
        .iter()
        .filter_map(|id| all.get(id))
        .map(|process| process.ticks)
        .sum()
}

fn tree(all: &BTreeMap<u32, Process>, root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let children = all
            .iter()
            .filter(|(id, process)| found.contains(&process.parent) && !found.contains(id));
        let children: Vec<u32> = children.map(|(id, _)| *id).collect();
        if children.is_empty() {
            return found;
        }
        found.extend(children);
    }
}

fn processes() -> BTreeMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, process(id)?)))
        .collect()
}

fn process(id: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name is in parentheses and may hold anything; what follows the last one is numbers: state, parent, …
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    // utime is the 12th after the name, then stime, cutime, cstime.
    let ticks = fields.skip(9).take(4).flat_map(str::parse::<u64>).sum();
    Some(Process { parent, ticks })
}

/// The first process of the daemon's pid namespace, or the daemon when that namespace is the driver's.
pub(crate) fn root_of(daemon: u32) -> u32 {
    let namespace = |id: &str| fs::read_link(format!("/proc/{id}/ns/pid")).ok();
    let own: Option<PathBuf> = namespace(&daemon.to_string());
    if own == namespace("self") {
        return daemon;
    }
    let mut root = daemon;
    while let Some(process) = process(root) {
        if process.parent == 0 || namespace(&process.parent.to_string()) != own {
            break;
        }
        root = process.parent;
    }
    root
}

/// The processes below `root` that each hold one container: `skep monitor` or containerd's shim.
pub(crate) fn monitors(root: u32) -> Vec<u32> {
    let is_monitor = |id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        program.ends_with(b"containerd-shim-runc-v2")
            || (program.ends_with(b"skep") && words.next() == Some(b"monitor"))
    };
    tree(&processes(), root)
        .into_iter()
        .filter(is_monitor)
        .collect()
}

/// The memory of a process.
pub(crate) fn memory(id: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{id}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read `{path}`"))?;
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Ok(Memory {
        rss_kib: field("Rss:"),
        pss_kib: field("Pss:"),
        private_kib: field("Private_Clean:") + field("Private_Dirty:"),
    })
}

/// The one-minute load average.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|load| load.parse().ok());
    first.unwrap_or(f64::NAN)
}
