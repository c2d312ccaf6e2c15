//! What an operator can choose about the node network, and its validation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Longest bridge name: an interface name has 15 bytes, and links of endpoints are called `<bridge>-<offset in hexadecimal>`,
/// with up to six digits for the largest subnet we accept. A longer name would make two endpoints' links collide.
const BRIDGE_NAME_BYTES_MAX: usize = 8;

/// Largest subnet, as prefix length: 16 million addresses, six hexadecimal digits in a link's name.
const PREFIX_LEN_MIN: u8 = 8;

/// Smallest subnet, as prefix length: network, gateway, one endpoint, broadcast.
const PREFIX_LEN_MAX: u8 = 30;

/// Smallest IPv6 subnet, as prefix length: an endpoint has the same place in both subnets, so both must have as many.
const PREFIX_LEN_V6_MAX: u8 = 96;

/// Smallest MTU every IPv4 host must accept (RFC 791).
const MTU_MIN: u32 = 576;

/// Smallest MTU of a link that carries IPv6 (RFC 8200).
const MTU_V6_MIN: u32 = 1280;

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
    /// The addresses, until `Network::resize` says otherwise.
    pub layout: Layout,
}

/// What of the node network changes when the node joins or leaves a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The node's IPv4 addresses; the first is the gateway's.
    pub v4: Ipv4Net,
    /// The node's IPv6 addresses, if it has any; the first is the gateway's. An endpoint has the same place in both.
    pub v6: Option<Ipv6Net>,
    /// Whether a cluster's leader gives out the upper half of both. The node's own choice is then the lower half.
    pub is_shared: bool,
    /// MTU of the bridge and of containers' interfaces, in bytes.
    pub mtu: u32,
}

/// Addresses that the leader gave an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address; without one it follows from the place of the other, if the node has IPv6 addresses.
    pub v6: Option<Ipv6Addr>,
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
    /// The IPv6 subnet is too small.
    #[error("subnet `{0}` must have a prefix length of at most {PREFIX_LEN_V6_MAX}")]
    Subnet6(Ipv6Net),
    /// The MTU is out of range.
    #[error("mtu {0} must be between {MTU_MIN} and {MTU_MAX}")]
    Mtu(u32),
}

// === impl Config ===

impl Config {
    /// The defaults: `skep0`, and the default layout.
    pub fn new(run_dir: impl Into<PathBuf>) -> Config {
        Config {
            run_dir: run_dir.into(),
            bridge: "skep0".to_owned(),
            layout: Layout::default(),
        }
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
        errors.extend(self.layout.check());
        errors
    }
}

// === impl Layout ===

impl Default for Layout {
    /// `10.255.0.0/16`, no IPv6, all the node's own, MTU 1500.
    fn default() -> Layout {
        let v4 = "10.255.0.0/16".parse();
        Layout {
            v4: v4.expect("the default subnet is well-formed"),
            v6: None,
            is_shared: false,
            mtu: 1500,
        }
    }
}

impl Layout {
    /// The gateway's address: the first of the subnet.
    pub fn gateway(&self) -> IpAddr {
        self.place(1).into()
    }

    /// The gateway's IPv6 address.
    pub fn gateway6(&self) -> Option<IpAddr> {
        self.v6.map(|net| place6(net, 1).into())
    }

    /// All mistakes, none if the layout is usable.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if !(PREFIX_LEN_MIN..=PREFIX_LEN_MAX).contains(&self.v4.prefix_len()) {
            errors.push(ConfigError::Subnet(self.v4.into()));
        }
        if let Some(v6) = self.v6.filter(|v6| v6.prefix_len() > PREFIX_LEN_V6_MAX) {
            errors.push(ConfigError::Subnet6(v6));
        }
        let mtu_min = if self.v6.is_some() {
            MTU_V6_MIN
        } else {
            MTU_MIN
        };
        if !(mtu_min..=MTU_MAX).contains(&self.mtu) {
            errors.push(ConfigError::Mtu(self.mtu));
        }
        errors
    }

    /// Whether both have the same addresses, whoever gives them out.
    pub(crate) fn has_addresses_of(&self, other: &Layout) -> bool {
        (self.v4.trunc(), self.v6.map(|net| net.trunc()))
            == (other.v4.trunc(), other.v6.map(|net| net.trunc()))
    }

    /// The IPv6 address with the same place as an IPv4 address.
    pub(crate) fn partner(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let offset = u32::from(address).wrapping_sub(u32::from(self.v4.network()));
        self.v6.map(|net| place6(net, offset))
    }

    /// An address with its subnet's prefix length; its own outside.
    pub(crate) fn in_subnet(&self, address: IpAddr) -> IpNet {
        let prefix_len = match address {
            IpAddr::V4(_) => Some(self.v4.prefix_len()),
            IpAddr::V6(_) => self.v6.map(|net| net.prefix_len()),
        };
        prefix_len
            .and_then(|length| IpNet::new(address, length).ok())
            .unwrap_or_else(|| IpNet::from(address))
    }

    fn place(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.v4.network()).wrapping_add(offset))
    }
}

fn place6(net: Ipv6Net, offset: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(net.network()).wrapping_add(u128::from(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        let config = Config::new("/run/skep");
        assert_eq!(config.check(), []);
        assert_eq!(config.layout.gateway().to_string(), "10.255.0.1");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let config = Config {
            bridge: "much-too-long-a-name".to_owned(),
            layout: Layout {
                v4: "10.0.0.0/31".parse().unwrap(),
                v6: Some("fd00::/120".parse().unwrap()),
                is_shared: false,
                mtu: 1000,
            },
            ..Config::new("/run/skep")
        };
        assert_eq!(config.check().len(), 4);
    }

    #[test]
    fn an_endpoint_has_the_same_place_in_both_subnets() {
        let layout = Layout {
            v4: "10.252.3.0/24".parse().unwrap(),
            v6: Some("fd00:1:2:3::/64".parse().unwrap()),
            ..Layout::default()
        };
        assert_eq!(layout.gateway6().unwrap().to_string(), "fd00:1:2:3::1");
        let partner = layout.partner([10, 252, 3, 200].into()).unwrap();
        assert_eq!(partner.to_string(), "fd00:1:2:3::c8");
        assert_eq!(
            layout.in_subnet(partner.into()).to_string(),
            "fd00:1:2:3::c8/64"
        );
    }
}
