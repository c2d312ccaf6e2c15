//! The maps without a kernel.

use proptest::prelude::*;

use super::*;

fn vip(last: u8) -> IpAddr {
    [10, 0, 9, last].into()
}

fn backends(count: u16) -> Backends {
    let ip = |n: u16| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    Backends {
        ready: (0..count).map(ip).collect(),
        leaving: BTreeSet::new(),
        silent: BTreeSet::new(),
    }
}

#[test]
fn the_tables_are_as_written() {
    insta::assert_snapshot!(format!("{}{}", script(Family::V4), script(Family::V6)));
}

#[test]
fn every_backend_is_about_equally_likely() {
    for count in [1, 2, 3, 20, 64, 65, 100, 128, 129, 256, 300, 1024] {
        let elements = Elements::of([(&vip(1), &backends(count))]);
        let mut shares: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for backend in elements.slots.values() {
            *shares.entry(*backend).or_default() += 1;
        }
        assert_eq!(shares.len(), usize::from(count));
        let (least, most) = (
            shares.values().min().unwrap(),
            shares.values().max().unwrap(),
        );
        assert!(4 * most <= 5 * least, "{count}: {least} to {most}");
        let chain = format!("n{}", elements.slots.len());
        assert_eq!(elements.vips[&vip(1)], chain);
        assert!(script(Family::V4).contains(&format!("chain {chain} {{")));
    }
}

#[test]
fn without_a_ready_backend_connections_are_refused() {
    let mut backends = backends(2);
    backends.leaving = std::mem::take(&mut backends.ready);
    let elements = Elements::of([(&vip(1), &backends)]);
    assert_eq!(elements.vips[&vip(1)], "refuse");
    assert!(elements.slots.is_empty());
}

#[test]
fn a_service_has_backends_of_its_virtual_addresses_family_only() {
    let v6: IpAddr = "fd00::1".parse().unwrap();
    let mut both = backends(1);
    both.ready.insert("fd00::2".parse().unwrap());
    let elements = Elements::of([(&vip(1), &both), (&v6, &both)]);
    assert_eq!(elements.slots.len(), 2);
    assert!(
        elements
            .slots
            .iter()
            .all(|((vip, _), ip)| vip.is_ipv4() == ip.is_ipv4())
    );
}

#[test]
fn flows_are_kept_as_long_as_they_can_be() {
    let (ready, leaving, gone, silent) = (vip(2), vip(3), vip(4), vip(5));
    let backends = Backends {
        ready: [ready].into(),
        leaving: [leaving].into(),
        silent: [silent].into(),
    };
    let vips: Vips = [(vip(1), backends)].into();
    let flow = |protocol, destination, answerer| Flow {
        protocol,
        destination,
        destination_port: 80,
        answerer,
        answerer_port: 80,
        is_answered: true,
    };
    let check = |protocol, destination, answerer| {
        let flow = flow(protocol, destination, answerer);
        is_doomed(&flow, &vips)
    };
    let check_unanswered = |answerer| {
        let flow = Flow {
            is_answered: false,
            ..flow(6, vip(1), answerer)
        };
        is_doomed(&flow, &vips)
    };
    assert!(!check(6, vip(1), ready));
    assert!(!check(6, vip(1), leaving));
    assert!(check(6, vip(1), gone));
    assert!(!check(UDP, vip(1), ready));
    assert!(check(UDP, vip(1), leaving));
    assert!(!check(6, vip(1), silent));
    assert!(check(UDP, vip(1), silent));
    assert!(check_unanswered(silent));
    assert!(!check_unanswered(leaving));
    assert!(!check_unanswered(ready));
    // Sent before the address was a service's.
    assert!(check(UDP, vip(1), vip(1)));
    // Not a service's.
    assert!(!check(6, gone, gone));
}

fn any_vips() -> impl Strategy<Value = Vips> {
    let backends = prop::collection::btree_set(any::<u8>(), 0..80).prop_map(|set| Backends {
        ready: set
            .into_iter()
            .map(|n| IpAddr::from([10, 0, 1, n]))
            .collect(),
        leaving: BTreeSet::new(),
        silent: BTreeSet::new(),
    });
    prop::collection::btree_map((0u8..5).prop_map(vip), backends, 0..5)
}

proptest! {
    /// The oracle is a kernel that refuses to add what it has and to delete what it has not.
    #[test]
    fn changes_lead_from_one_to_the_other(old in any_vips(), new in any_vips()) {
        let (old, new) = (Elements::of(&old), Elements::of(&new));
        let as_map = |elements: &Elements| -> BTreeMap<(&str, Vec<u8>), Data> {
            let vips = elements.vips.iter().map(|(vip, chain)| ((VIPS, octets(*vip)), Data::Goto(chain.clone())));
            let slots = elements.slots.iter().map(|((vip, slot), ip)| {
                let key = [octets(*vip), slot.to_ne_bytes().to_vec()].concat();
                ((SLOTS, key), Data::Value(octets(*ip)))
            });
            let counted = elements.counted.iter();
            let counted = counted.map(|vip| ((CONNECTIONS, octets(*vip)), Data::Nothing));
            vips.chain(slots).chain(counted).collect()
        };
        let mut kernel = as_map(&old);
        for change in changes(&old, &new).into_values().flatten() {
            let key = (change.map, change.key);
            match change.verb {
                Verb::Add(data) => prop_assert_eq!(kernel.insert(key, data), None),
                Verb::Delete => prop_assert!(kernel.remove(&key).is_some()),
            }
        }
        prop_assert_eq!(kernel, as_map(&new));
    }
}
