//! The index against a plain set.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn network(number: u8) -> NetworkId {
    format!("{number:0>25}").parse().unwrap()
}

fn node(number: u8) -> Holder {
    Holder::Node(format!("{number:0>25}").parse().unwrap())
}

/// Addresses around the end of one family and the start of the other.
fn address(number: u8) -> IpAddr {
    if number < 24 {
        IpAddr::V4((u32::MAX - 23 + u32::from(number)).into())
    } else {
        IpAddr::V6(u128::from(number - 24).into())
    }
}

proptest! {
    #[test]
    fn runs_say_what_a_plain_set_says(
        steps in prop::collection::vec((any::<bool>(), 0u8..2, 0u8..48, 0u8..2), 0..120),
        from in 0u8..48,
        to in 0u8..48,
    ) {
        let mut index = Addresses::default();
        let mut plain: BTreeSet<(NetworkId, IpAddr, Holder)> = BTreeSet::new();
        for (is_insert, n, ip, holder) in steps {
            let (n, ip, holder) = (network(n), address(ip), node(holder));
            if is_insert {
                index.insert(n, ip, holder);
                plain.insert((n, ip, holder));
            } else {
                index.remove(n, ip, holder);
                plain.remove(&(n, ip, holder));
            }
        }
        for n in [network(0), network(1)] {
            let held: BTreeSet<IpAddr> =
                plain.iter().filter(|(m, _, _)| *m == n).map(|(_, ip, _)| *ip).collect();
            let of: Vec<_> = index.of_network(n).collect();
            let all: Vec<_> =
                plain.iter().filter(|(m, _, _)| *m == n).map(|(_, ip, h)| (*ip, *h)).collect();
            prop_assert_eq!(of, all);
            // A range lies in one family.
            let (from, to) = (address(from.min(to)), address(from.max(to)));
            if from.is_ipv4() != to.is_ipv4() {
                continue;
            }
            let range: Vec<IpAddr> = (0..48).map(address).filter(|ip| (from..=to).contains(ip)).collect();
            let free = range.iter().find(|ip| !held.contains(ip)).copied();
            prop_assert_eq!(index.first_free(n, from, to), free);
            let last = range.iter().rev().find(|ip| held.contains(ip)).copied();
            prop_assert_eq!(index.last_held(n, from, to), last);
        }
    }
}
