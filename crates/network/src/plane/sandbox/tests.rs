//! The plan without a kernel.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::plane::desired::{Container, Place, Remote};

fn desired() -> Desired {
    let data_path = DataPath {
        address: [192, 0, 2, 1].into(),
        port: 4789,
    };
    let mut desired = Desired::new(1, data_path);
    let remote = Remote {
        node: [192, 0, 2, 2].into(),
        addresses: vec![[10, 0, 1, 3].into()],
    };
    let overlay = Overlay {
        vni: 4097,
        mtu: None,
        is_encrypted: false,
        subnets: vec![
            "10.0.1.0/24".parse().unwrap(),
            "10.0.2.0/24".parse().unwrap(),
        ],
        remotes: [(Mac([2, 0, 0, 0, 0, 3]), remote)].into(),
        services: BTreeMap::new(),
        names: Arc::new(crate::dns::Zone::new("red", Vec::new())),
    };
    let place = Place {
        interface: "eth1".to_owned(),
        mac: Mac([2, 0, 0, 0, 0, 2]),
        addresses: vec![[10, 0, 1, 2].into()],
    };
    let container = Container {
        netns_path: "/run/netns/a".into(),
        attachments: [("red".to_owned(), place)].into(),
        upstreams: Vec::new(),
        zones: Vec::new(),
    };
    desired.networks = [("red".to_owned(), Arc::new(overlay))].into();
    desired.containers = [("a".to_owned(), Arc::new(container))].into();
    desired
}

fn wish() -> Wish {
    let desired = desired();
    Wish::new(&desired, "red", &desired.networks["red"], 1450)
}

fn text(actions: &[Action]) -> String {
    let lines: Vec<String> = actions.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn a_new_network_gets_everything_in_order() {
    insta::assert_snapshot!(text(&plan(&wish(), None)));
}

#[test]
fn a_fulfilled_wish_needs_nothing() {
    assert_eq!(plan(&wish(), Some(&wish().fulfilled())), []);
}

#[test]
fn another_port_makes_the_tunnel_anew_with_all_its_tables() {
    let mut state = wish().fulfilled();
    state.tunnel.as_mut().unwrap().0.port = 8472;
    insta::assert_snapshot!(text(&plan(&wish(), Some(&state))));
}

proptest! {
    /// The oracle plays the kernel's tables: after the plan they are the wish's, and entries with the right value were not touched.
    #[test]
    fn tables_become_the_wished_ones_by_the_fewest_changes(
        wished in prop::collection::btree_map(0u8..20, 0u8..4, 0..15),
        held in prop::collection::btree_map(0u8..20, 0u8..4, 0..15),
    ) {
        let table = |map: &BTreeMap<u8, u8>| -> BTreeMap<Mac, IpAddr> {
            map.iter().map(|(&k, &v)| (Mac([2, 0, 0, 0, 0, k]), [192, 0, 2, v].into())).collect()
        };
        let mut wish = wish();
        wish.forwarding = table(&wished);
        let mut state = wish.clone().fulfilled();
        state.forwarding = table(&held);
        let mut kernel = state.forwarding.clone();
        let mut changes = 0;
        for action in plan(&wish, Some(&state)) {
            let Action::ChangeRemotes(remotes) = action else { panic!("{action}") };
            for (mac, node) in remotes.forward { kernel.insert(mac, node); changes += 1; }
            for mac in remotes.drop.keys() { kernel.remove(mac).unwrap(); changes += 1; }
        }
        prop_assert_eq!(&kernel, &wish.forwarding);
        let keys: BTreeSet<u8> = wished.keys().chain(held.keys()).copied().collect();
        let differing = keys.iter().filter(|key| wished.get(key) != held.get(key)).count();
        prop_assert_eq!(changes, differing);
    }
}
