//! Reads and sets network sysctls. `/proc/sys/net` shows the namespace of the reading thread, whoever mounted it.

use std::io;
use std::path::PathBuf;

/// A sysctl that cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("failed to set `{}`", .path.display())]
pub struct SysctlError {
    path: PathBuf,
    source: io::Error,
}

impl From<SysctlError> for io::Error {
    fn from(error: SysctlError) -> io::Error {
        error.source
    }
}

/// `net.ipv4.ip_forward`.
pub(crate) const IP_FORWARD: &str = "ipv4/ip_forward";

/// `net.ipv6.conf.all.forwarding`.
pub(crate) const IP6_FORWARD: &str = "ipv6/conf/all/forwarding";

/// `net.bridge.bridge-nf-call-iptables`; does not exist without the `br_netfilter` module.
pub(crate) const BRIDGE_FILTER: &str = "bridge/bridge-nf-call-iptables";

/// `net.bridge.bridge-nf-call-ip6tables`.
pub(crate) const BRIDGE_FILTER6: &str = "bridge/bridge-nf-call-ip6tables";

/// Whether IP and ARP rules see bridged packets.
pub(crate) const BRIDGE_FILTERS: [&str; 3] = [
    BRIDGE_FILTER,
    BRIDGE_FILTER6,
    "bridge/bridge-nf-call-arptables",
];

/// `net.ipv6.conf.<interface>.disable_ipv6`.
pub(crate) fn disable_ipv6(interface: &str) -> String {
    format!("ipv6/conf/{interface}/disable_ipv6")
}

/// Whether this kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    path("ipv6/conf").exists()
}

/// Turns IPv6 forwarding on. A router does not listen to routers; interfaces that do are told to go on, or the node would lose
/// its default route.
pub(crate) fn forward_ipv6() -> Result<(), SysctlError> {
    let interfaces = std::fs::read_dir(path("ipv6/conf")).into_iter().flatten();
    for interface in interfaces.flatten() {
        if let Some(name) = interface.file_name().to_str() {
            let key = format!("ipv6/conf/{name}/accept_ra");
            if is(&key, "1") {
                set(&key, "2")?;
            }
        }
    }
    turn_on(IP6_FORWARD)
}

/// `net.ipv4.conf.<interface>.route_localnet`.
pub(crate) fn route_localnet(interface: &str) -> String {
    format!("ipv4/conf/{interface}/route_localnet")
}

/// Whether a switch is on; one that does not exist is off.
pub(crate) fn is_on(key: &str) -> bool {
    std::fs::read_to_string(path(key)).is_ok_and(|value| value.trim() != "0")
}

/// Turns a switch on. A switch that is on is not written, so a read-only `/proc/sys` is fine when it is set up well.
pub(crate) fn turn_on(key: &str) -> Result<(), SysctlError> {
    if is_on(key) {
        return Ok(());
    }
    std::fs::write(path(key), "1").map_err(|source| SysctlError {
        path: path(key),
        source,
    })
}

/// Whether a sysctl has a value; one that does not exist has none.
pub(crate) fn is(key: &str, value: &str) -> bool {
    std::fs::read_to_string(path(key)).is_ok_and(|old| old.trim() == value)
}

/// Writes a value, unless it is there already.
pub(crate) fn set(key: &str, value: &str) -> Result<(), SysctlError> {
    if is(key, value) {
        return Ok(());
    }
    std::fs::write(path(key), value).map_err(|source| SysctlError {
        path: path(key),
        source,
    })
}

/// The lowest and highest port the kernel picks by itself.
pub(crate) fn ephemeral_ports() -> std::ops::RangeInclusive<u16> {
    let range = std::fs::read_to_string(path("ipv4/ip_local_port_range")).unwrap_or_default();
    let mut bounds = range.split_whitespace().map(str::parse);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(low)), Some(Ok(high))) => low..=high,
        _ => 32_768..=60_999,
    }
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(key)
}
