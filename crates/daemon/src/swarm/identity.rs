//! Who this node is in its cluster, as stored in `identity.json`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use skep_model::{ClusterId, NodeId, Rng, Timestamp};

use super::address::{self, Addresses};

/// Version written. 2 added everything about listening, and nodes without manager.
const VERSION: u32 = 2;

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node_id: NodeId,
    pub(crate) cluster_id: ClusterId,
    /// Raft id of this node's manager; `None` when it has not joined the group.
    pub(crate) raft_id: Option<u64>,
    /// Raft ids whose logs this node deleted. It has forgotten what it voted under them, so it must
    /// never be a member under one of them again.
    pub(super) former_raft_ids: Vec<u64>,
    pub(super) addresses: Addresses,
}

/// Why stored identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("identity is malformed")]
    Malformed(#[from] serde_json::Error),
    #[error("identity has unknown version {0}")]
    Version(u32),
    #[error("identity has a malformed id `{0}`")]
    Id(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    node_id: String,
    cluster_id: String,
    /// 0: none.
    raft_id: u64,
    #[serde(default)]
    former_raft_ids: Vec<u64>,
    addr: IpAddr,
    port: u16,
    #[serde(default = "listen_everywhere")]
    listen: SocketAddr,
    #[serde(default)]
    interface: String,
    #[serde(default)]
    data_path_addr: Option<IpAddr>,
}

/// What version 1 did, which listened nowhere yet.
fn listen_everywhere() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address::PORT)
}

impl Identity {
    /// Reads what [`encode`](Self::encode) wrote, now or in an earlier version.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let stored: Stored = serde_json::from_slice(bytes)?;
        if !(1..=VERSION).contains(&stored.version) {
            return Err(IdentityError::Version(stored.version));
        }
        let addresses = Addresses {
            advertised: SocketAddr::new(stored.addr, stored.port),
            listen: stored.listen,
            interface: stored.interface,
            data_path: stored.data_path_addr.unwrap_or(stored.addr),
        };
        Ok(Self {
            node_id: parse(&stored.node_id)?,
            cluster_id: parse(&stored.cluster_id)?,
            raft_id: (stored.raft_id != 0).then_some(stored.raft_id),
            former_raft_ids: stored.former_raft_ids,
            addresses,
        })
    }

    /// The file's content.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Addresses {
            advertised,
            listen,
            interface,
            data_path,
        } = &self.addresses;
        let stored = Stored {
            version: VERSION,
            node_id: self.node_id.to_string(),
            cluster_id: self.cluster_id.to_string(),
            raft_id: self.raft_id.unwrap_or(0),
            former_raft_ids: self.former_raft_ids.clone(),
            addr: advertised.ip(),
            port: advertised.port(),
            listen: *listen,
            interface: interface.clone(),
            data_path_addr: Some(*data_path),
        };
        serde_json::to_vec_pretty(&stored).expect("plain values are JSON")
    }

    /// Address others reach this node at.
    pub(crate) fn addr(&self) -> IpAddr {
        self.addresses.advertised.ip()
    }

    /// `host:port` of this node's control port.
    pub(crate) fn manager_addr(&self) -> String {
        self.addresses.advertised.to_string()
    }

    /// The same node without its manager, whose log is about to be deleted.
    pub(super) fn without_manager(mut self) -> Self {
        self.former_raft_ids.extend(self.raft_id.take());
        self
    }

    /// The same node after its system's addresses changed: an address that was read from an
    /// interface is read anew, others stay as they were told.
    pub(super) fn readdressed(mut self) -> Self {
        let interface = &self.addresses.interface;
        if let Some(ip) = address::interface_address(interface).filter(|_| !interface.is_empty()) {
            if self.addresses.data_path == self.addr() {
                self.addresses.data_path = ip;
            }
            self.addresses.advertised.set_ip(ip);
        }
        self
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, IdentityError> {
    text.parse().map_err(|_| IdentityError::Id(text.to_owned()))
}

/// A new raft id: 63 bits and not zero, as SwarmKit chooses them.
pub(super) fn new_raft_id() -> u64 {
    (Rng::from_seed(entropy()).next_u64() >> 1) + 1
}

/// Upper bits of a manager's request ids: never zero, which is what Docker's managers use.
pub(super) fn request_prefix(raft_id: u64) -> u16 {
    u16::try_from(raft_id >> 48).unwrap_or(0) | 1
}

/// 64 bits of the kernel's randomness.
pub(super) fn entropy() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u64::from_ne_bytes(bytes)
}

/// The wall clock.
pub(super) fn now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::ZERO + elapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first version wrote.
    const GOLDEN_1: &str = r#"{"version":1,"node_id":"8l4db4kgsryvb0q0vah4cr1if",
        "cluster_id":"epsdoe9d3p4uw2bcs2z53z4ln","raft_id":77,"addr":"192.0.2.1","port":2377}"#;
    /// What the second writes.
    const GOLDEN_2: &str = r#"{"version":2,"node_id":"8l4db4kgsryvb0q0vah4cr1if",
        "cluster_id":"epsdoe9d3p4uw2bcs2z53z4ln","raft_id":0,"former_raft_ids":[5],"addr":"192.0.2.1","port":2377,
        "listen":"0.0.0.0:99","interface":"lo","data_path_addr":"192.0.2.5"}"#;

    #[test]
    fn both_versions_are_read() {
        let first = Identity::decode(GOLDEN_1.as_bytes()).unwrap();
        assert_eq!(first.raft_id, Some(77));
        assert_eq!(first.addresses.listen.to_string(), "0.0.0.0:2377");
        assert_eq!(first.addresses.data_path.to_string(), "192.0.2.1");
        let second = Identity::decode(GOLDEN_2.as_bytes()).unwrap();
        assert_eq!(
            (second.raft_id, &second.former_raft_ids[..]),
            (None, &[5][..])
        );
        let manager = Identity {
            raft_id: Some(6),
            ..second.clone()
        };
        let without = manager.without_manager();
        assert_eq!(
            (without.raft_id, &without.former_raft_ids[..]),
            (None, &[5, 6][..])
        );
        assert_eq!(second.manager_addr(), "192.0.2.1:2377");
        assert_eq!(second.addresses.listen.to_string(), "0.0.0.0:99");
        let read: serde_json::Value = serde_json::from_slice(&second.encode()).unwrap();
        let golden: serde_json::Value = serde_json::from_str(GOLDEN_2).unwrap();
        assert_eq!(read, golden);
        for (from, to, text) in [
            ("\"version\":2", "\"version\":3", "unknown version 3"),
            ("8l4d", "!l4d", "malformed id"),
            ("\"port\":2377,", "", "malformed"),
            ("\"port\"", "\"surprise\":1,\"port\"", "malformed"),
        ] {
            let error = Identity::decode(GOLDEN_2.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn an_interface_is_looked_at_again_and_given_addresses_stay() {
        let identity = Identity::decode(GOLDEN_2.as_bytes()).unwrap();
        let moved = identity.clone().readdressed();
        assert_eq!(moved.manager_addr(), "127.0.0.1:2377");
        assert_eq!(moved.addresses.data_path.to_string(), "192.0.2.5");
        let given = Identity::decode(GOLDEN_1.as_bytes()).unwrap();
        assert_eq!(given.clone().readdressed(), given);
    }
}
