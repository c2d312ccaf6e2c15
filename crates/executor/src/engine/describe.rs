//! What this node is: capacity, platform, drivers. Read from the kernel, described for the cluster.

use std::{fs, io};

use skep_model::{
    EngineDescription, NODE_NETWORK_DRIVER, NodeDescription, NodeTlsInfo, OVERLAY_DRIVER, Platform,
    Plugin, Resources,
};

use super::{Engine, volumes::LOCAL_DRIVER};

/// Facts about the node that do not change while the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Host name.
    pub hostname: String,
    /// `uname -m`.
    pub architecture: String,
    /// Kernel release.
    pub kernel_version: String,
    /// CPUs this process may run on.
    pub cpu_count: u32,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub operating_system: String,
    /// `VERSION_ID` of `/etc/os-release`.
    pub os_version: String,
}

/// Reads the facts.
///
/// # Errors
/// `/proc` is not readable.
pub fn node_facts() -> io::Result<NodeFacts> {
    let uname = rustix::system::uname();
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let cpus = std::thread::available_parallelism()?;
    Ok(NodeFacts {
        hostname: uname.nodename().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        cpu_count: u32::try_from(cpus.get()).unwrap_or(u32::MAX),
        memory_bytes: memory_bytes(&fs::read_to_string("/proc/meminfo")?),
        operating_system: os_field(&os_release, "PRETTY_NAME").unwrap_or("Linux".to_owned()),
        os_version: os_field(&os_release, "VERSION_ID").unwrap_or_default(),
    })
}

/// Name and platform of this node.
pub(super) fn identity() -> (String, Platform) {
    let uname = rustix::system::uname();
    let platform = Platform {
        architecture: uname.machine().to_string_lossy().into_owned(),
        os: "linux".to_owned(),
    };
    (uname.nodename().to_string_lossy().into_owned(), platform)
}

/// What the cluster is told.
pub(super) fn description(engine: &Engine, tls: NodeTlsInfo) -> io::Result<NodeDescription> {
    let facts = node_facts()?;
    let plugin = |kind: &str, name: &str| Plugin {
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let volume_plugins = engine.volumes().plugins().names();
    let volume_plugins = volume_plugins.borrow().clone();
    let mut plugins = vec![
        plugin("Log", "json-file"),
        plugin("Log", "none"),
        plugin("Network", "bridge"),
        plugin("Network", "host"),
        plugin("Network", "macvlan"),
        plugin("Network", "null"),
        plugin("Network", OVERLAY_DRIVER),
        plugin("Network", NODE_NETWORK_DRIVER),
        plugin("Volume", LOCAL_DRIVER),
    ];
    plugins.extend(volume_plugins.iter().map(|name| plugin("Volume", name)));
    Ok(NodeDescription {
        hostname: facts.hostname,
        platform: Platform {
            architecture: facts.architecture,
            os: "linux".to_owned(),
        },
        resources: Resources {
            nano_cpus: i64::from(facts.cpu_count) * 1_000_000_000,
            memory_bytes: facts.memory_bytes,
            generic: engine.config().generic_resources.clone(),
        },
        engine: EngineDescription {
            engine_version: engine.config().version.clone(),
            labels: engine.config().labels.clone(),
            plugins,
        },
        tls_info: Some(tls),
        is_fips: false,
    })
}

fn memory_bytes(meminfo: &str) -> i64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line
        .and_then(|line| line.trim().split(' ').next())
        .and_then(|kib| kib.parse().ok());
    kib.map_or(0, |kib: i64| kib.saturating_mul(1024))
}

fn os_field(os_release: &str, key: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_system_are_read() {
        assert_eq!(
            memory_bytes("MemFree: 1 kB\nMemTotal:       2048 kB\n"),
            2 << 20
        );
        let release = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n";
        assert_eq!(
            os_field(release, "PRETTY_NAME").as_deref(),
            Some("Debian GNU/Linux 12")
        );
        assert_eq!(os_field(release, "VERSION_ID"), None);
    }
}
