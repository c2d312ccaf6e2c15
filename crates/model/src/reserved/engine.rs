//! What a node says of itself that Swarm's description has no field for: labels of its engine.

use std::{collections::BTreeMap, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Labels;
use crate::object::NodeDescription;

/// Address where tunnels to the node end.
const DATA_PATH: &str = "skep.data-path";
/// All addresses of the node, separated by commas.
const ADDRESSES: &str = "skep.addresses";
/// WireGuard public keys in base64, separated by commas: the one in force, then the next.
const TUNNEL_KEYS: &str = "skep.tunnel-keys";
/// Labels an operator may not give an engine.
pub const ENGINE_FAMILY: &str = "skep.";

/// How other nodes reach a node's data plane, as it says itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataPlane {
    /// Where tunnels to it end.
    pub data_path: Option<IpAddr>,
    /// All its addresses, sorted, without those of containers' bridges.
    pub addresses: Vec<IpAddr>,
    /// WireGuard keys (Curve25519, public) of its tunnel: the one in force, then the next.
    pub tunnel_keys: Vec<[u8; 32]>,
}

// === impl DataPlane ===

impl DataPlane {
    /// What a description says. What cannot be read was not said.
    pub fn of(description: &NodeDescription) -> Self {
        let label = |key| description.engine.labels.get(key).map(String::as_str);
        let parts = |key| label(key).into_iter().flat_map(|text| text.split(','));
        Self {
            data_path: label(DATA_PATH).and_then(|text| text.parse().ok()),
            addresses: parts(ADDRESSES).filter_map(|ip| ip.parse().ok()).collect(),
            tunnel_keys: parts(TUNNEL_KEYS).filter_map(key).collect(),
        }
    }

    /// Says it in the labels of an engine.
    pub fn store(&self, labels: &mut BTreeMap<String, String>) {
        let mut put = |key: &str, parts: Vec<String>| {
            if parts.is_empty() {
                labels.remove(key);
            } else {
                labels.insert(key.to_owned(), parts.join(","));
            }
        };
        let text = |ip: &IpAddr| ip.to_string();
        put(DATA_PATH, self.data_path.iter().map(text).collect());
        put(ADDRESSES, self.addresses.iter().map(text).collect());
        let keys = self.tunnel_keys.iter().map(|key| STANDARD.encode(key));
        put(TUNNEL_KEYS, keys.collect());
    }
}

/// Whether an operator may give an engine the label `key`.
pub fn is_free_engine_label(key: &str) -> bool {
    !key.starts_with(ENGINE_FAMILY)
}

/// The labels of `labels` that are the operator's.
pub fn operator_labels(labels: &Labels) -> impl Iterator<Item = (&String, &String)> {
    labels.iter().filter(|(key, _)| is_free_engine_label(key))
}

fn key(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read() {
        let said = DataPlane {
            data_path: Some([192, 0, 2, 1].into()),
            addresses: vec![[192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap()],
            tunnel_keys: vec![[7; 32], [8; 32]],
        };
        let mut description = NodeDescription::default();
        let labels = &mut description.engine.labels;
        labels.insert("disk".to_owned(), "ssd".to_owned());
        said.store(labels);
        assert_eq!(DataPlane::of(&description), said);
        let own: Vec<_> = operator_labels(&description.engine.labels).collect();
        assert_eq!(own.len(), 1);
        DataPlane::default().store(&mut description.engine.labels);
        assert_eq!(description.engine.labels.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_was_not_said() {
        let mut description = NodeDescription::default();
        let labels = [
            (DATA_PATH, "eth0"),
            (ADDRESSES, "192.0.2.1,,x"),
            (TUNNEL_KEYS, "AAAA"),
        ];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned()));
        description.engine.labels = labels.into();
        let read = DataPlane::of(&description);
        assert_eq!(read.data_path, None);
        assert_eq!(read.addresses, [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(read.tunnel_keys, [[0_u8; 32]; 0]);
    }
}
