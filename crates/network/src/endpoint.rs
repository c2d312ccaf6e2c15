//! An endpoint's identity: its id, its MAC address, and what its owner learns of it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::ports::HostPort;

/// Longest endpoint id. Container ids have 64 bytes; the id is a file name and, with a prefix, a link's alias (255 bytes).
const ENDPOINT_ID_BYTES_MAX: usize = 128;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// What `attach` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Bind mount of the container's network namespace, for the OCI runtime's configuration.
    pub netns_path: PathBuf,
    /// The container's address with the subnet's prefix length.
    pub address: IpNet,
    /// Default route.
    pub gateway: IpAddr,
    /// The container's IPv6 address with the subnet's prefix length, if the node network has any.
    pub address6: Option<IpNet>,
    /// Default route of IPv6.
    pub gateway6: Option<IpAddr>,
    /// Address of the container's interface `eth0`.
    pub mac: Mac,
    /// Published ports, in the order of the request, with port 0 replaced by the port chosen.
    pub ports: Vec<HostPort>,
}

/// What exists for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointInfo {
    /// A namespace on the node network.
    Attached(Attachment),
    /// A namespace with a loopback interface only.
    None {
        /// Bind mount of the namespace.
        netns_path: PathBuf,
    },
}

/// An endpoint id that cannot be a file name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "endpoint id `{0}` must have 1 to {ENDPOINT_ID_BYTES_MAX} letters, digits, dots, hyphens or \
     underscores and start with a letter or digit"
)]
pub struct EndpointIdError(pub String);

/// Refuses ids that would leave the run directory or confuse a link's alias.
pub(crate) fn check_id(id: &str) -> Result<(), EndpointIdError> {
    let is_id_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let starts_well = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && id.len() <= ENDPOINT_ID_BYTES_MAX && id.chars().all(is_id_char) {
        Ok(())
    } else {
        let shown: String = id.chars().take(ENDPOINT_ID_BYTES_MAX).collect();
        Err(EndpointIdError(shown))
    }
}

// === impl Mac ===

impl Mac {
    /// A locally administered address made of the IP address, so that an address keeps its MAC and peers' ARP entries stay
    /// right when a link is made again.
    pub fn from_ip(ip: IpAddr) -> Mac {
        let [a, b, c, d] = match ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                [octets[12], octets[13], octets[14], octets[15]]
            }
        };
        Mac([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_made_of_the_address() {
        let mac = Mac::from_ip("10.255.0.17".parse().unwrap());
        assert_eq!(mac.to_string(), "02:42:0a:ff:00:11");
    }

    #[test]
    fn ids_that_are_no_file_names_are_refused() {
        for id in ["a", "4b1f", "web.1.x-y_z", &"a".repeat(128)] {
            assert_eq!(check_id(id), Ok(()), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "ä",
            &"a".repeat(129),
        ] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
