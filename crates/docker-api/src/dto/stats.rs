//! Resource use of a container.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    backend::{BlockIoEntry, CpuSample, MemorySample, NetworkSample, StatsSample},
    dto::is_default,
    http::timestamp::{NEVER, rfc3339_nano},
};

/// One measurement, with the CPU part of the one before so that clients can compute rates.
#[derive(Debug, Serialize)]
pub(crate) struct Stats<'a> {
    name: String,
    id: &'a str,
    read: String,
    preread: String,
    pids_stats: Pids,
    blkio_stats: BlockIo<'a>,
    num_procs: u32,
    storage_stats: BTreeMap<String, u64>,
    cpu_stats: Cpu,
    precpu_stats: Cpu,
    memory_stats: Memory<'a>,
    #[serde(skip_serializing_if = "is_default")]
    networks: BTreeMap<&'a str, Network>,
}

#[derive(Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    current: u64,
    #[serde(skip_serializing_if = "is_default")]
    limit: u64,
}

#[derive(Debug, Serialize)]
struct BlockIo<'a> {
    io_service_bytes_recursive: Option<Vec<Entry<'a>>>,
    io_serviced_recursive: Option<Vec<Entry<'a>>>,
    io_queue_recursive: Option<()>,
    io_service_time_recursive: Option<()>,
    io_wait_time_recursive: Option<()>,
    io_merged_recursive: Option<()>,
    io_time_recursive: Option<()>,
    sectors_recursive: Option<()>,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    major: u64,
    minor: u64,
    op: &'a str,
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    cpu_usage: CpuUsage,
    #[serde(skip_serializing_if = "is_default")]
    system_cpu_usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    online_cpus: u32,
    throttling_data: Throttling,
}

#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    total_usage: u64,
    usage_in_kernelmode: u64,
    usage_in_usermode: u64,
}

#[derive(Debug, Default, Serialize)]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Debug, Serialize)]
struct Memory<'a> {
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max_usage: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stats: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_default")]
    failcnt: u64,
    #[serde(skip_serializing_if = "is_default")]
    limit: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Network {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

impl<'a> Stats<'a> {
    /// `sample` after `previous`.
    pub(crate) fn new(sample: &'a StatsSample, previous: Option<&StatsSample>) -> Self {
        let networks = sample
            .networks
            .iter()
            .map(|(name, counters)| (name.as_str(), counters.into()));
        Self {
            name: format!("/{}", sample.name),
            id: &sample.id,
            read: rfc3339_nano(sample.time),
            preread: previous.map_or(NEVER.to_owned(), |previous| rfc3339_nano(previous.time)),
            pids_stats: Pids {
                current: sample.pids_current,
                limit: sample.pids_limit,
            },
            blkio_stats: BlockIo {
                io_service_bytes_recursive: entries(&sample.io_service_bytes),
                io_serviced_recursive: entries(&sample.io_serviced),
                io_queue_recursive: None,
                io_service_time_recursive: None,
                io_wait_time_recursive: None,
                io_merged_recursive: None,
                io_time_recursive: None,
                sectors_recursive: None,
            },
            num_procs: 0,
            storage_stats: BTreeMap::new(),
            cpu_stats: (&sample.cpu).into(),
            precpu_stats: previous
                .map(|previous| (&previous.cpu).into())
                .unwrap_or_default(),
            memory_stats: (&sample.memory).into(),
            networks: networks.collect(),
        }
    }
}

/// `null` when there is nothing, as Go writes a nil slice.
fn entries<'a>(entries: &'a [BlockIoEntry]) -> Option<Vec<Entry<'a>>> {
    let entry = |entry: &'a BlockIoEntry| Entry {
        major: entry.major,
        minor: entry.minor,
        op: &entry.operation,
        value: entry.value,
    };
    (!entries.is_empty()).then(|| entries.iter().map(entry).collect())
}

impl From<&CpuSample> for Cpu {
    fn from(sample: &CpuSample) -> Self {
        Self {
            cpu_usage: CpuUsage {
                total_usage: sample.total_ns,
                usage_in_kernelmode: sample.kernel_ns,
                usage_in_usermode: sample.user_ns,
            },
            system_cpu_usage: sample.system_ns,
            online_cpus: sample.online_cpus,
            throttling_data: Throttling {
                periods: sample.periods,
                throttled_periods: sample.throttled_periods,
                throttled_time: sample.throttled_ns,
            },
        }
    }
}

impl<'a> From<&'a MemorySample> for Memory<'a> {
    fn from(sample: &'a MemorySample) -> Self {
        Self {
            usage: sample.usage_bytes,
            max_usage: sample.max_usage_bytes,
            stats: &sample.stats,
            failcnt: sample.fail_count,
            limit: sample.limit_bytes,
        }
    }
}

impl From<&NetworkSample> for Network {
    fn from(sample: &NetworkSample) -> Self {
        Self {
            rx_bytes: sample.rx_bytes,
            rx_packets: sample.rx_packets,
            rx_errors: sample.rx_errors,
            rx_dropped: sample.rx_dropped,
            tx_bytes: sample.tx_bytes,
            tx_packets: sample.tx_packets,
            tx_errors: sample.tx_errors,
            tx_dropped: sample.tx_dropped,
        }
    }
}
