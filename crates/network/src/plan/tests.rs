//! Snapshots of plans, and the property that a performed plan leaves nothing to do.

use proptest::prelude::*;

use super::*;
use crate::ports::Protocol;

fn endpoint(layout: &Layout, address: Option<IpAddr>, ports: Vec<HostPort>) -> DesiredEndpoint {
    let partner = |address| match address {
        IpAddr::V4(ip) => layout.partner(ip),
        IpAddr::V6(_) => None,
    };
    DesiredEndpoint {
        address,
        address6: address.and_then(partner),
        ports,
    }
}

fn desired(endpoints: &[(&str, Option<&str>, &[u16])]) -> Desired {
    let mut desired = Desired::new(&Config::new("/run/skep"));
    for (id, address, ports) in endpoints {
        let port = |&published| HostPort {
            protocol: Protocol::Tcp,
            host_ip: [0, 0, 0, 0].into(),
            published,
            target: 80,
        };
        let address = address.map(|text| text.parse().unwrap());
        let ports = ports.iter().map(port).collect();
        let endpoint = endpoint(&desired.layout, address, ports);
        desired.endpoints.insert((*id).to_owned(), endpoint);
    }
    desired
}

/// What a kernel would show after the steps: a model of the kernel, not of the planner.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of step")]
fn perform(observed: &mut Observed, steps: &[Step]) {
    for step in steps {
        match step.clone() {
            Step::EnableForwarding => observed.is_forwarding = true,
            Step::EnableForwarding6 => observed.is_forwarding6 = true,
            Step::RemoveRules6 => assert!(observed.rules6.take().is_some()),
            Step::CreateBridge { mac, mtu, .. } => {
                assert!(observed.bridge.is_none(), "bridge exists");
                observed.bridge = Some(ObservedBridge {
                    is_up: true,
                    mac: Some(mac),
                    mtu,
                    addresses: BTreeSet::new(),
                    routes: BTreeSet::new(),
                    is_localhost_routed: false,
                });
            }
            Step::SetBridge { mac, mtu, .. } => {
                let bridge = observed.bridge.as_mut().unwrap();
                (bridge.is_up, bridge.mac, bridge.mtu) = (true, Some(mac), mtu);
            }
            Step::RemoveBridgeAddress { address, .. } => {
                assert!(observed.bridge.as_mut().unwrap().addresses.remove(&address));
            }
            Step::AddBridgeAddress { address, .. } => {
                let bridge = observed.bridge.as_mut().unwrap();
                bridge.addresses.insert(address);
                bridge.routes.insert(address.trunc());
            }
            Step::AddBridgeRoute { subnet, .. } => {
                let bridge = observed.bridge.as_mut().unwrap();
                assert!(bridge.routes.insert(subnet));
            }
            Step::RouteLocalhost { .. } => {
                observed.bridge.as_mut().unwrap().is_localhost_routed = true;
            }
            Step::ReplaceRules { ruleset, ports } => {
                let rules = Some(ObservedRules {
                    digest: ruleset.digest(),
                    ports,
                });
                match ruleset.table() {
                    "ip skep" => observed.rules = rules,
                    _ => observed.rules6 = rules,
                }
            }
            Step::ChangePorts { remove, add } => {
                for (is_v6, rules) in [(false, &mut observed.rules), (true, &mut observed.rules6)] {
                    for port in remove.iter().filter(|port| port.is_v6() == is_v6) {
                        let is_removed = rules.as_mut().unwrap().ports.remove(port);
                        assert!(is_removed, "nft refuses to delete what is not there");
                    }
                    for &port in add.iter().filter(|port| port.is_v6() == is_v6) {
                        rules.as_mut().unwrap().ports.insert(port);
                    }
                }
            }
            Step::DeleteLinks { names } => observed.links.retain(|name, _| !names.contains(name)),
            Step::DeleteNetns { id } => assert!(observed.netns.remove(&id).is_some()),
            Step::CreateNetns { id } => {
                observed.netns.insert(id, true);
            }
            Step::CreateVeth(Veth {
                id,
                link,
                is_isolated,
                ..
            }) => {
                assert!(observed.bridge.is_some() && observed.netns[&id]);
                let made = ObservedLink {
                    alias: None,
                    is_in_bridge: true,
                    is_isolated,
                    is_up: true,
                };
                assert!(observed.links.insert(link, made).is_none(), "link exists");
            }
            Step::ConfigureNetns { id, .. } => assert!(observed.netns[&id]),
            Step::ActivateLink {
                id,
                link,
                enslave_to,
                is_isolated,
            } => {
                let link = observed.links.get_mut(&link).unwrap();
                link.is_in_bridge |= enslave_to.is_some();
                link.is_up = true;
                link.is_isolated = is_isolated;
                link.alias = Some(alias(&id));
            }
        }
    }
}

#[test]
fn a_node_with_ipv6_gets_both_families() {
    let mut desired = desired(&[]);
    desired.layout.v6 = Some("fd00:7::/64".parse().unwrap());
    let endpoint = endpoint(&desired.layout, Some([10, 255, 0, 2].into()), Vec::new());
    desired.endpoints.insert("a".to_owned(), endpoint);
    insta::assert_snapshot!(printed(&plan(&desired, &Observed::default())));
}

fn printed(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

#[test]
fn a_fresh_node_gets_everything_in_order() {
    let desired = desired(&[("a", Some("10.255.0.2"), &[8080]), ("b", None, &[])]);
    insta::assert_snapshot!(printed(&plan(&desired, &Observed::default())));
}

#[test]
fn a_half_made_endpoint_is_finished_and_orphans_go() {
    let mut observed = Observed::default();
    let before = desired(&[("gone", Some("10.255.0.9"), &[9]), ("b", None, &[])]);
    perform(&mut observed, &plan(&before, &Observed::default()));
    observed.netns.insert("a".to_owned(), true);
    observed
        .links
        .insert("skep0-2".to_owned(), ObservedLink::default());
    let desired = desired(&[("a", Some("10.255.0.2"), &[8080]), ("b", None, &[])]);
    insta::assert_snapshot!(printed(&plan(&desired, &observed)));
}

/// An endpoint with the address `10.255.0.<last>`, so that ids and addresses change hands between two states.
fn endpoints() -> impl Strategy<Value = Desired> {
    let endpoint = (
        2u8..8,
        any::<bool>(),
        prop::collection::btree_set(1u16..4, 0..3),
    );
    let endpoints = prop::collection::btree_map("[a-e]", endpoint, 0..5);
    (endpoints, any::<bool>()).prop_map(|(endpoints, has_v6)| {
        let mut desired = desired(&[]);
        desired.layout.v6 = has_v6.then(|| "fd00:7::/64".parse().unwrap());
        let mut used = BTreeSet::new();
        for (id, (last, has_network, ports)) in endpoints {
            let address =
                (has_network && used.insert(last)).then(|| IpAddr::from([10, 255, 0, last]));
            let free = ports.into_iter().filter(|&port| {
                address.is_some() && used.insert(100 + u8::try_from(port).unwrap())
            });
            let port = |published| HostPort {
                protocol: Protocol::Udp,
                host_ip: [0, 0, 0, 0].into(),
                published,
                target: 53,
            };
            let ports = free.map(port).collect();
            let endpoint = self::endpoint(&desired.layout, address, ports);
            desired.endpoints.insert(id, endpoint);
        }
        desired
    })
}

proptest! {
    /// From any desired state, half performed and damaged, to any other: one plan suffices, and no step is impossible.
    #[test]
    fn a_performed_plan_leaves_nothing_to_do(
        first in endpoints(),
        second in endpoints(),
        performed in 0usize..40,
        damage in prop::collection::vec(0u8..11, 0..4),
    ) {
        let mut observed = Observed::default();
        let steps = plan(&first, &observed);
        perform(&mut observed, &steps[..performed.min(steps.len())]);
        for damage in damage {
            match damage {
                0 => observed.rules = None,
                1 => observed.bridge = None,
                2 => observed.is_forwarding = false,
                3 => observed.links.values_mut().for_each(|link| link.is_up = false),
                4 => observed.links.clear(),
                7 => observed.rules6 = None,
                9 => observed.bridge.iter_mut().for_each(|bridge| bridge.routes.clear()),
                8 => observed.rules6 = Some(ObservedRules::default()),
                5 => observed.is_bridge_filtered = !observed.is_bridge_filtered,
                6 => observed.rules.iter_mut().for_each(|rules| rules.ports.clear()),
                _ => observed.links.values_mut().for_each(|link| link.alias = None),
            }
            if observed.bridge.is_none() {
                observed.links.values_mut().for_each(|link| link.is_in_bridge = false);
            }
        }
        let steps = plan(&second, &observed);
        perform(&mut observed, &steps);
        prop_assert_eq!(plan(&second, &observed), vec![]);
    }
}
