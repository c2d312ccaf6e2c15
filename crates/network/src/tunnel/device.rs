//! What a node's two WireGuard devices should be, and what leads there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Config;
use super::key::{PrivateKey, PublicKey, Slot};

/// Keys a node may have at once. What it tells beyond that is not heard.
const KEY_COUNT_MAX: usize = 2;

/// One device: one of the node's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) slot: Slot,
    pub(crate) key: PrivateKey,
    /// Where its datagrams leave and arrive.
    pub(crate) endpoint: SocketAddr,
    pub(crate) peers: BTreeMap<PublicKey, DevicePeer>,
}

/// One key of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DevicePeer {
    pub(crate) endpoint: SocketAddr,
    /// The only inner address it may have.
    pub(crate) address: Ipv4Addr,
    /// Whether it is greeted at once and there is always a session.
    pub(crate) is_kept_alive: bool,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceState {
    /// None before it got a key.
    pub(crate) key: Option<PublicKey>,
    pub(crate) port: u16,
    pub(crate) peers: BTreeMap<PublicKey, PeerState>,
}

/// What a device knows of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerState {
    /// None if it has other addresses than one, or no endpoint.
    pub(crate) peer: Option<DevicePeer>,
    /// Since the last handshake; none if there was none.
    pub(crate) handshake: Option<Duration>,
}

/// What leads from a device's peers to those it should have. What is not named is not touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerChanges {
    pub(crate) set: BTreeMap<PublicKey, DevicePeer>,
    /// Those of them that get another inner address. While the kernel replaces one, packets are lost.
    pub(crate) moved: BTreeSet<PublicKey>,
    pub(crate) remove: BTreeSet<PublicKey>,
}

/// The inner address of a node's key: of its slot and the node's number. The tunnels' namespace has nothing else, so any will do.
pub(crate) fn address(number: u16, slot: Slot) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, slot.number(), high, low)
}

/// The two devices of a node that exchanges packets with `nodes`.
pub(crate) fn devices(config: &Config, own: IpAddr, nodes: &BTreeSet<IpAddr>) -> [Device; 2] {
    let usable = usable_keys(config);
    Slot::ALL.map(|slot| {
        let is_greeting = slot == config.keys.slot() || config.keys.is_preparing();
        let mut peers = BTreeMap::new();
        for (number, peer) in config
            .peers
            .iter()
            .filter(|(_, peer)| nodes.contains(&peer.node))
        {
            let keys = usable.get(number).into_iter().flatten();
            for (index, key) in keys.enumerate() {
                let device_peer = DevicePeer {
                    endpoint: SocketAddr::new(peer.node, key.slot().port(config.port)),
                    address: address(*number, key.slot()),
                    is_kept_alive: index == 0 && is_greeting,
                };
                peers.insert(*key, device_peer);
            }
        }
        Device {
            slot,
            key: config.keys.of(slot).clone(),
            endpoint: SocketAddr::new(own, slot.port(config.port)),
            peers,
        }
    })
}

/// Each node's keys, without those another node has told too (the lower number keeps it), our own, and a second one of the same slot.
pub(crate) fn usable_keys(config: &Config) -> BTreeMap<u16, Vec<PublicKey>> {
    let mut seen = BTreeSet::new();
    let mut usable = BTreeMap::new();
    for (&number, peer) in &config.peers {
        let mut keys: Vec<PublicKey> = Vec::new();
        for &key in peer.keys.iter().take(KEY_COUNT_MAX) {
            let is_double = keys.iter().any(|other| other.slot() == key.slot());
            if number != config.number && !is_double && !config.keys.is_own(key) && seen.insert(key)
            {
                keys.push(key);
            }
        }
        usable.insert(number, keys);
    }
    usable
}

// === impl Device ===

impl Device {
    /// What must change of the peers.
    pub(crate) fn changes(&self, state: Option<&DeviceState>) -> PeerChanges {
        let nobody = BTreeMap::new();
        let known = state.map_or(&nobody, |state| &state.peers);
        let is_same = |key: &PublicKey, peer: &DevicePeer| {
            known
                .get(key)
                .is_some_and(|state| state.peer.as_ref() == Some(peer))
        };
        let set = self.peers.iter().filter(|(key, peer)| !is_same(key, peer));
        let is_moved = |(key, peer): &(&PublicKey, &DevicePeer)| {
            let known = known.get(key).and_then(|state| state.peer);
            known.is_none_or(|known| known.address != peer.address)
        };
        let moved = self.peers.iter().filter(is_moved);
        let gone = known.keys().filter(|key| !self.peers.contains_key(key));
        PeerChanges {
            set: set.map(|(&key, &peer)| (key, peer)).collect(),
            moved: moved.map(|(&key, _)| key).collect(),
            remove: gone.copied().collect(),
        }
    }
}

// === impl PeerChanges ===

impl PeerChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::{Keys, Launch, Peer};
    use super::*;

    fn public(slot: Slot) -> PublicKey {
        PrivateKey::generate(slot).unwrap().public()
    }

    fn node(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn config(dir: &tempfile::TempDir) -> Config {
        Config {
            number: 1,
            port: 4000,
            keys: Keys::open(dir.path(), UNIX_EPOCH).unwrap(),
            peers: BTreeMap::new(),
            launch: Launch::default(),
        }
    }

    #[test]
    fn each_key_of_a_node_has_its_own_port_and_address_on_both_devices() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        let keys = vec![public(Slot::Odd), public(Slot::Even)];
        let peer = |last, keys: &Vec<PublicKey>| Peer {
            node: node(last),
            keys: keys.clone(),
        };
        config.peers = [(0x1203, peer(3, &keys)), (4, peer(4, &Vec::new()))].into();
        let nodes = [node(3), node(4)].into();
        let [even, odd] = devices(&config, node(1), &nodes);
        assert_eq!(even.endpoint, "192.0.2.1:4000".parse().unwrap());
        assert_eq!(odd.endpoint, "192.0.2.1:4001".parse().unwrap());
        let expect = |is_kept_alive: [bool; 2]| {
            let odd = DevicePeer {
                endpoint: "192.0.2.3:4001".parse().unwrap(),
                address: [10, 1, 0x12, 3].into(),
                is_kept_alive: is_kept_alive[0],
            };
            let even = DevicePeer {
                endpoint: "192.0.2.3:4000".parse().unwrap(),
                address: [10, 0, 0x12, 3].into(),
                is_kept_alive: is_kept_alive[1],
            };
            BTreeMap::from([(keys[0], odd), (keys[1], even)])
        };
        // The keys in force of both sides are kept in touch.
        assert_eq!(even.peers, expect([true, false]));
        assert_eq!(odd.peers, expect([false, false]));
        config.keys.advance(UNIX_EPOCH).unwrap();
        let [even, odd] = devices(&config, node(1), &nodes);
        assert_eq!(even.peers, expect([true, false]));
        assert_eq!(odd.peers, expect([true, false]));
        // Who is not talked to is not known.
        let [even, _] = devices(&config, node(1), &[node(4)].into());
        assert_eq!(even.peers, BTreeMap::new());
    }

    #[test]
    fn keys_that_are_told_twice_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        let own = PublicKey::new(config.keys.public()[0]).unwrap();
        let (a, b, c) = (public(Slot::Even), public(Slot::Even), public(Slot::Odd));
        let peer = |keys: &[PublicKey]| Peer {
            node: node(9),
            keys: keys.to_vec(),
        };
        config.peers = [
            (1, peer(&[c])),
            (2, peer(&[a, b])),
            (3, peer(&[a, c])),
            (4, peer(&[own])),
        ]
        .into();
        let expect = [(1, vec![]), (2, vec![a]), (3, vec![c]), (4, vec![])];
        assert_eq!(usable_keys(&config), expect.into());
    }

    #[test]
    fn only_what_differs_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        let keys = [public(Slot::Even), public(Slot::Odd)];
        let peer = Peer {
            node: node(3),
            keys: keys.to_vec(),
        };
        config.peers = [(3, peer)].into();
        let [device, _] = devices(&config, node(1), &[node(3)].into());
        let stranger = public(Slot::Odd);
        let state = |peer| PeerState {
            peer,
            handshake: None,
        };
        let state = DeviceState {
            key: None,
            port: 0,
            peers: [
                (keys[0], state(Some(device.peers[&keys[0]]))),
                (stranger, state(None)),
            ]
            .into(),
        };
        let changes = device.changes(Some(&state));
        assert_eq!(changes.set, [(keys[1], device.peers[&keys[1]])].into());
        assert_eq!(changes.remove, [stranger].into());
        assert_eq!(changes.moved, [keys[1]].into());
        let all = device.changes(None);
        assert_eq!((all.set.len(), all.moved.len()), (2, 2));
        let mut elsewhere = state.clone();
        let peer = device.peers[&keys[1]];
        let endpoint = "192.0.2.9:1".parse().unwrap();
        let known = PeerState {
            peer: Some(DevicePeer { endpoint, ..peer }),
            handshake: None,
        };
        elsewhere.peers.insert(keys[1], known);
        let changes = device.changes(Some(&elsewhere));
        assert_eq!(changes.set, [(keys[1], peer)].into());
        assert!(changes.moved.is_empty());
    }
}
