//! Limits in OCI form.

use serde_json::{Value, json};

use super::{Host, defaults::DEVICE_RULES};
use crate::runtime::config::{ContainerConfig, Resources};

/// Docker's scheduling period for `--cpus`.
const CPU_PERIOD_US: u64 = 100_000;

/// CPUs are counted in billionths.
const NANO_CPUS: u64 = 1_000_000_000;

/// The `resources` object.
pub(super) fn value(config: &ContainerConfig, host: &Host) -> Value {
    let limits = &config.resources;
    json!({
        "devices": device_rules(config, host),
        "cpu": cpu(limits),
        "memory": memory(limits, host),
        "pids": (limits.pids_max > 0).then(|| json!({ "limit": limits.pids_max })),
        "blockIO": (limits.blkio_weight > 0).then(|| json!({ "weight": limits.blkio_weight })),
    })
}

fn device_rules(config: &ContainerConfig, host: &Host) -> Vec<Value> {
    if config.security.is_privileged {
        return vec![json!({ "allow": true, "access": "rwm" })];
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(DEVICE_RULES.iter().map(|(kind, major, minor, access)| {
        json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access })
    }));
    // Pseudo terminals.
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    rules.extend(host.devices.iter().map(|device| {
        let kind = if device.is_block { "b" } else { "c" };
        json!({ "allow": true, "type": kind, "major": device.major, "minor": device.minor,
            "access": device.permissions })
    }));
    rules
}

fn cpu(limits: &Resources) -> Option<Value> {
    let (quota, period) = match (limits.cpu_quota_us, limits.nano_cpus) {
        (0, 0) => (
            None,
            (limits.cpu_period_us > 0).then_some(limits.cpu_period_us),
        ),
        (0, nanos) => {
            let quota = u128::from(nanos) * u128::from(CPU_PERIOD_US) / u128::from(NANO_CPUS);
            (
                Some(i64::try_from(quota).unwrap_or(i64::MAX)),
                Some(CPU_PERIOD_US),
            )
        }
        (quota, _) => (
            Some(quota),
            (limits.cpu_period_us > 0).then_some(limits.cpu_period_us),
        ),
    };
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let value = json!({
        "shares": (limits.cpu_shares > 0).then_some(limits.cpu_shares),
        "quota": quota,
        "period": period,
        "cpus": text(&limits.cpuset_cpus),
        "mems": text(&limits.cpuset_mems),
    });
    has_any(value)
}

fn memory(limits: &Resources, host: &Host) -> Option<Value> {
    let bytes = |bytes: u64| (bytes > 0).then(|| i64::try_from(bytes).unwrap_or(i64::MAX));
    let limit = bytes(limits.memory_bytes);
    let swap = match (limits.memory_swap_bytes, limit) {
        (0, Some(limit)) => Some(limit.saturating_mul(2)),
        (0, None) => None,
        (swap, _) => Some(swap),
    };
    let swap = swap.filter(|_| host.has_swap_limit);
    let value = json!({
        "limit": limit,
        "reservation": bytes(limits.memory_reservation_bytes),
        "swap": swap,
        "swappiness": limits.memory_swappiness,
        "disableOOMKiller": limits.is_oom_kill_disabled.then_some(true),
    });
    has_any(value)
}

fn has_any(value: Value) -> Option<Value> {
    let is_empty = value
        .as_object()
        .is_none_or(|map| map.values().all(Value::is_null));
    (!is_empty).then_some(value)
}
