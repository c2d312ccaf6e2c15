//! The plan of tunnels, without a kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::*;
use crate::dns::Zone;
use crate::endpoint::Mac;
use crate::plane::desired::{DataPath, Overlay, Remote};
use crate::tunnel::{Keys, Launch, Peer, PeerState};

const OTHER: [u8; 4] = [192, 0, 2, 2];

/// Node 1 with an encrypted network that has a container on node 2.
struct Bed {
    own: tempfile::TempDir,
    other: tempfile::TempDir,
}

impl Bed {
    fn new() -> Bed {
        Bed {
            own: tempfile::tempdir().unwrap(),
            other: tempfile::tempdir().unwrap(),
        }
    }

    fn keys(dir: &tempfile::TempDir) -> Keys {
        Keys::open(dir.path(), UNIX_EPOCH).unwrap()
    }

    fn desired(&self) -> Desired {
        let data_path = DataPath {
            address: [192, 0, 2, 1].into(),
            port: 4789,
        };
        let remote = Remote {
            node: OTHER.into(),
            addresses: vec![[10, 0, 1, 3].into()],
        };
        let network = Overlay {
            vni: 4097,
            mtu: None,
            is_encrypted: true,
            subnets: vec!["10.0.1.0/24".parse().unwrap()],
            remotes: [(Mac([2, 0, 0, 0, 0, 1]), remote)].into(),
            services: BTreeMap::new(),
            names: Arc::new(Zone::new("red", Vec::new())),
        };
        let keys = Bed::keys(&self.other).public();
        let peer = Peer {
            node: OTHER.into(),
            keys: keys.into_iter().filter_map(PublicKey::new).collect(),
        };
        let config = Config {
            number: 1,
            port: 4796,
            keys: Bed::keys(&self.own),
            peers: [(2, peer)].into(),
            launch: Launch::default(),
        };
        let mut desired = Desired::new(1, data_path);
        desired.networks = [("red".to_owned(), Arc::new(network))].into();
        desired.tunnel = Some(Arc::new(config));
        desired
    }

    fn wish(&self) -> Box<Wish> {
        match Wanted::new(&self.desired(), 1500) {
            Wanted::Devices(wish) => wish,
            other => panic!("{other:?}"),
        }
    }
}

/// The state in which nothing is left to do, with handshakes of some age on both devices.
fn fulfilled(wish: &Wish, kind: Kind, ages: [Option<u64>; 2]) -> State {
    let device = |device: &Device| {
        let age = ages[device.slot.index()].map(Duration::from_secs);
        let peers = device.peers.iter().map(|(key, peer)| {
            let state = PeerState {
                peer: Some(*peer),
                handshake: age,
            };
            (*key, state)
        });
        let state = DeviceState {
            key: Some(device.key.public()),
            port: device.endpoint.port(),
            peers: peers.collect(),
        };
        (device.slot, state)
    };
    let link = |slot: Slot| {
        let state = LinkState {
            mtu: wish.mtu,
            is_ready: true,
        };
        let address = IpNet::from(IpAddr::V4(wish.addresses[slot.index()]));
        (slot, (state, [address].into()))
    };
    State {
        has_namespace: true,
        kind: Some(kind),
        links: Slot::ALL.map(link).into(),
        devices: wish.devices.iter().map(device).collect(),
        routes: wish.targets.keys().map(|ip| (*ip, wish.slot)).collect(),
    }
}

fn texts(wish: &Wish, state: &State) -> Vec<String> {
    let wanted = Wanted::Devices(Box::new(wish.clone()));
    let names = |action: &Action| {
        let text = action.to_string();
        // Keys differ in each run.
        text.split(" key ").next().unwrap_or_default().to_owned()
    };
    plan(&wanted, state).iter().map(names).collect()
}

#[test]
fn everything_is_made_in_order_and_then_nothing_is_left_to_do() {
    let wish = Bed::new().wish();
    assert_eq!(
        texts(&wish, &State::default()),
        [
            "create namespace",
            "start",
            "configure wg0",
            "set link wg0 address 10.0.0.1 mtu 1420",
            "configure wg1",
            "set link wg1 address 10.1.0.1 mtu 1420",
            "change routes: 10.0.0.2 through wg0; 10.1.0.2 through wg0;",
        ]
    );
    for kind in [Kind::Kernel, Kind::Process] {
        assert_eq!(
            texts(&wish, &fulfilled(&wish, kind, [Some(1), None])),
            [""; 0]
        );
    }
}

#[test]
fn what_is_missing_is_made_and_the_rest_stays() {
    let wish = Bed::new().wish();
    let mut state = fulfilled(&wish, Kind::Kernel, [Some(1), None]);
    state.links.remove(&Slot::Odd);
    state.devices.remove(&Slot::Odd);
    assert_eq!(
        texts(&wish, &state),
        [
            "start",
            "configure wg1",
            "set link wg1 address 10.1.0.1 mtu 1420"
        ]
    );
    // The process makes its links itself: one that was deleted takes a new process.
    let mut state = fulfilled(&wish, Kind::Process, [Some(1), None]);
    state.links.remove(&Slot::Odd);
    assert_eq!(texts(&wish, &state).len(), 6);
    state.links.clear();
    (state.kind, state.devices) = (None, BTreeMap::new());
    state.routes.clear();
    assert_eq!(texts(&wish, &state)[0], "start");
}

#[test]
fn packets_move_to_a_new_key_when_it_has_been_answered() {
    let bed = Bed::new();
    let mut keys = Bed::keys(&bed.own);
    let before = bed.wish();
    for _ in 0..2 {
        keys.advance(UNIX_EPOCH).unwrap();
    }
    let after = bed.wish();
    assert_eq!((before.slot, after.slot), (Slot::Even, Slot::Odd));
    let check = |ages, expect: &[&str]| {
        let mut state = fulfilled(&after, Kind::Process, ages);
        state.routes = before.targets.keys().map(|ip| (*ip, Slot::Even)).collect();
        assert_eq!(texts(&after, &state), expect, "{ages:?}");
    };
    let moved = ["change routes: 10.0.0.2 through wg1; 10.1.0.2 through wg1;"];
    check([Some(10), Some(10)], &moved);
    check([None, Some(10)], &moved);
    check([Some(10), None], &[]);
    check([Some(10), Some(200)], &[]);
    check([None, None], &[]);
}

#[test]
fn a_renewed_key_takes_the_routes_of_its_device_in_the_process_only() {
    let bed = Bed::new();
    let before = bed.wish();
    let mut keys = Bed::keys(&bed.own);
    for _ in 0..3 {
        keys.advance(UNIX_EPOCH).unwrap();
    }
    let after = bed.wish();
    assert_eq!(before.devices[1].key, after.devices[1].key);
    assert_ne!(before.devices[0].key, after.devices[0].key);
    for (kind, routes) in [(Kind::Process, true), (Kind::Kernel, false)] {
        let mut state = fulfilled(&before, kind, [Some(10), None]);
        // Not moved yet: the worst case.
        state.routes = before.targets.keys().map(|ip| (*ip, Slot::Even)).collect();
        let has_routes = texts(&after, &state)
            .iter()
            .any(|text| text.starts_with("change routes"));
        assert_eq!(has_routes, routes, "{kind:?}");
    }
}

#[test]
fn a_node_without_need_has_nothing_and_one_without_number_a_dead_end() {
    let bed = Bed::new();
    let state = fulfilled(&bed.wish(), Kind::Kernel, [None, None]);
    let mut desired = bed.desired();
    desired.tunnel = None;
    let wanted = Wanted::new(&desired, 1500);
    assert_eq!(wanted, Wanted::Namespace);
    assert_eq!(plan(&wanted, &State::default()), [Action::CreateNamespace]);
    assert_eq!(plan(&wanted, &state), []);
    assert_eq!(
        warnings(&desired),
        ["encrypted networks reach no other node: this one has no part of the node network"]
    );
    desired.networks.clear();
    let wanted = Wanted::new(&desired, 1500);
    assert_eq!(wanted, Wanted::Nothing);
    assert_eq!(plan(&wanted, &State::default()), []);
    assert_eq!(plan(&wanted, &state), [Action::Remove]);
    assert_eq!(warnings(&desired), [""; 0]);
}

#[test]
fn who_has_no_key_or_does_not_answer_is_named() {
    let bed = Bed::new();
    let mut desired = bed.desired();
    assert_eq!(warnings(&desired), [""; 0]);
    let wish = bed.wish();
    let silent = |ages| wish.silent(&fulfilled(&wish, Kind::Kernel, ages));
    assert_eq!(silent([Some(179), None]), BTreeSet::new());
    assert_eq!(silent([Some(180), Some(1)]), [OTHER.into()].into());
    assert_eq!(silent([None, None]), [OTHER.into()].into());
    let config = Arc::make_mut(desired.tunnel.as_mut().unwrap());
    config.peers.get_mut(&2).unwrap().keys.clear();
    assert_eq!(
        warnings(&desired),
        ["packets of encrypted networks to node 192.0.2.2 are dropped: it has told no usable key"]
    );
}

#[test]
fn no_private_key_is_shown() {
    let bed = Bed::new();
    let wish = bed.wish();
    let shown = format!(
        "{:?}",
        plan(&Wanted::Devices(wish.clone()), &State::default())
    );
    for device in &wish.devices {
        assert!(!shown.contains(device.key.to_text().as_str()));
    }
}
