//! Resource use of a container at one moment.

use std::collections::BTreeMap;

use skep_model::Timestamp;

/// How often to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsMode {
    /// Every second until the client goes.
    Stream,
    /// Two samples a second apart, so that rates can be computed; the API sends the second.
    Twice,
    /// One sample at once.
    Once,
}

/// One measurement. The API pairs it with the one before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatsSample {
    /// Container id.
    pub id: String,
    /// Container name without slash.
    pub name: String,
    /// When it was taken; zero for a container that does not run.
    pub time: Timestamp,
    /// CPU.
    pub cpu: CpuSample,
    /// Memory.
    pub memory: MemorySample,
    /// Processes and threads.
    pub pids_current: u64,
    /// Their limit; 0 is none.
    pub pids_limit: u64,
    /// Bytes by device and operation.
    pub io_service_bytes: Vec<BlockIoEntry>,
    /// Operations by device and operation.
    pub io_serviced: Vec<BlockIoEntry>,
    /// Interfaces by name.
    pub networks: BTreeMap<String, NetworkSample>,
}

/// CPU use so far, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSample {
    /// All.
    pub total_ns: u64,
    /// In the kernel.
    pub kernel_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// Of the whole host, all CPUs together.
    pub system_ns: u64,
    /// CPUs online.
    pub online_cpus: u32,
    /// Enforcement periods so far.
    pub periods: u64,
    /// Periods in which it was held back.
    pub throttled_periods: u64,
    /// Time it was held back.
    pub throttled_ns: u64,
}

/// Memory use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemorySample {
    /// Bytes in use, page cache included.
    pub usage_bytes: u64,
    /// Its maximum; 0 where the kernel does not tell (cgroup v2).
    pub max_usage_bytes: u64,
    /// Limit in bytes; the host's memory without one.
    pub limit_bytes: u64,
    /// Times the limit was hit (cgroup v1).
    pub fail_count: u64,
    /// `memory.stat` as is; clients subtract `total_inactive_file` (v1) or `inactive_file` (v2).
    pub stats: BTreeMap<String, u64>,
}

/// One counter of a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIoEntry {
    /// Device major number.
    pub major: u64,
    /// Device minor number.
    pub minor: u64,
    /// `read`, `write`, ….
    pub operation: String,
    /// Counter.
    pub value: u64,
}

/// Counters of a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSample {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Received but dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// To be sent but dropped.
    pub tx_dropped: u64,
}
