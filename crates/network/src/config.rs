//! What an operator can choose about the node network, and its validation.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// Longest bridge name: an interface name has 15 bytes, and links of endpoints are called `<bridge>-<offset in hexadecimal>`,
/// with up to six digits for the largest subnet we accept. A longer name would make two endpoints' links collide.
const BRIDGE_NAME_BYTES_MAX: usize = 8;

/// Largest subnet, as prefix length: 16 million addresses, six hexadecimal digits in a link's name.
const PREFIX_LEN_MIN: u8 = 8;

/// Smallest subnet, as prefix length: network, gateway, one endpoint, broadcast.
const PREFIX_LEN_MAX: u8 = 30;

/// Smallest MTU every IPv4 host must accept (RFC 791).
const MTU_MIN: u32 = 576;

/// Largest MTU an Ethernet-like device takes.
const MTU_MAX: u32 = 65_535;

/// Configuration of the node network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory for the state file and the namespaces' mount points; made if missing. It must live as long as the kernel does
    /// and no longer (below `/run`), and belongs to one node.
    pub run_dir: PathBuf,
    /// Name of the bridge.
    pub bridge: String,
    /// The node's addresses; the first is the gateway's.
    pub subnet: IpNet,
    /// MTU of the bridge and of containers' interfaces, in bytes.
    pub mtu: u32,
}

/// A mistake in a [`Config`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The bridge's name is not usable.
    #[error(
        "bridge name `{0}` must have 1 to {BRIDGE_NAME_BYTES_MAX} letters, digits or underscores"
    )]
    Bridge(String),
    /// The subnet's size is out of range.
    #[error("subnet `{0}` must have a prefix length between {PREFIX_LEN_MIN} and {PREFIX_LEN_MAX}")]
    Subnet(IpNet),
    /// IPv6 is not built yet.
    #[error("subnet `{0}` is not IPv4")]
    Family(IpNet),
    /// The MTU is out of range.
    #[error("mtu {0} must be between {MTU_MIN} and {MTU_MAX}")]
    Mtu(u32),
}

// === impl Config ===

impl Config {
    /// The defaults: `skep0`, `10.255.0.0/16`, MTU 1500.
    pub fn new(run_dir: impl Into<PathBuf>) -> Config {
        Config {
            run_dir: run_dir.into(),
            bridge: "skep0".to_owned(),
            subnet: "10.255.0.0/16"
                .parse()
                .expect("the default subnet is well-formed"),
            mtu: 1500,
        }
    }

    /// The gateway's address: the first of the subnet.
    pub fn gateway(&self) -> IpAddr {
        self.subnet
            .hosts()
            .next()
            .expect("a subnet has a first host")
    }

    /// All mistakes, none if the configuration is usable.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.bridge.is_empty()
            || self.bridge.len() > BRIDGE_NAME_BYTES_MAX
            || !self.bridge.chars().all(is_name_char)
        {
            errors.push(ConfigError::Bridge(self.bridge.clone()));
        }
        if self.subnet.network().is_ipv6() {
            errors.push(ConfigError::Family(self.subnet));
        } else if !(PREFIX_LEN_MIN..=PREFIX_LEN_MAX).contains(&self.subnet.prefix_len()) {
            errors.push(ConfigError::Subnet(self.subnet));
        }
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu) {
            errors.push(ConfigError::Mtu(self.mtu));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        let config = Config::new("/run/skep");
        assert_eq!(config.check(), []);
        assert_eq!(config.gateway().to_string(), "10.255.0.1");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let config = Config {
            bridge: "much-too-long-a-name".to_owned(),
            subnet: "10.0.0.0/31".parse().unwrap(),
            mtu: 20,
            ..Config::new("/run/skep")
        };
        assert_eq!(config.check().len(), 3);
    }

    #[test]
    fn a_v6_subnet_is_refused_for_now() {
        let config = Config {
            subnet: "fd00::/64".parse().unwrap(),
            ..Config::new("/run/skep")
        };
        assert_eq!(config.check(), [ConfigError::Family(config.subnet)]);
    }
}
