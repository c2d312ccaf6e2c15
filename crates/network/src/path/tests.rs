//! The search against any path, and on real links.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::testbed::cluster::{node6, on_cluster};
use crate::testbed::{inside, run};

/// What a search says of a path that carries `limit` bytes and loses the requests that `is_lost` says.
fn search(needed: u32, limit: u32, mut is_lost: impl FnMut() -> bool) -> (Carries, u32) {
    let mut search = Search::new(needed);
    let mut sent = 0;
    while let Some(size) = search.next() {
        sent += 1;
        if size <= limit && !is_lost() {
            search.answered();
        } else {
            search.missed();
        }
    }
    (search.outcome().unwrap(), sent)
}

proptest! {
    #[test]
    fn a_search_finds_what_a_path_carries(needed in 1280u32..=65_535, limit in 0u32..=70_000) {
        let expect = match limit {
            _ if limit >= needed => Carries::Enough,
            _ if limit < SMALL_BYTES => Carries::Unknown,
            _ => Carries::AtMost(limit),
        };
        let (carries, sent) = search(needed, limit, || false);
        prop_assert_eq!(carries, expect);
        prop_assert!(sent <= 3 * TRY_COUNT + 16 * TRY_COUNT, "{}", sent);
    }
}

#[test]
fn a_packet_lost_now_and_then_is_not_a_limit() {
    let mut number = 0;
    let every_other = || {
        number += 1;
        number % 2 == 1
    };
    assert_eq!(search(1500, 1500, every_other).0, Carries::Enough);
    // All of the first size are lost, the rest is not.
    let mut number = 0;
    let first = || {
        number += 1;
        number <= TRY_COUNT
    };
    assert_eq!(search(1500, 1500, first).0, Carries::Enough);
}

/// What node 1 finds.
fn found(local: IpAddr, nodes: &[IpAddr]) -> Paths {
    let nodes = nodes.iter().copied().collect();
    let netns = "/run/netns/node1";
    inside(Some(netns.as_ref()), move || {
        measure(local, &nodes, &AtomicBool::new(false)).unwrap()
    })
}

#[test]
fn a_narrow_path_is_found_in_both_families() {
    on_cluster(3, async |_| {
        // The link between switch and node 2 drops what is larger, as a tunnel on the way would that tells nobody.
        run("ip link set n2 mtu 1400");
        for local in ["192.0.2.1".parse().unwrap(), node6(1)] {
            let node = |number: u8| match local {
                IpAddr::V4(_) => IpAddr::from([192, 0, 2, number]),
                IpAddr::V6(_) => node6(usize::from(number)),
            };
            let silent = node(9);
            let Paths { needed, paths } = found(local, &[node(2), node(3), silent]);
            assert_eq!(needed, 1500);
            let expect = [
                (node(2), Carries::AtMost(1400)),
                (node(3), Carries::Enough),
                (silent, Carries::Unknown),
            ];
            assert_eq!(paths, expect.into());
        }
    });
}

#[test]
fn a_stopped_round_ends_with_what_it_knows() {
    on_cluster(1, async |_| {
        let local = IpAddr::from([192, 0, 2, 1]);
        let nodes = [IpAddr::from([192, 0, 2, 9])].into();
        let found = inside(Some("/run/netns/node1".as_ref()), move || {
            measure(local, &nodes, &AtomicBool::new(true)).unwrap()
        });
        assert_eq!(
            found.paths.into_values().collect::<Vec<_>>(),
            [Carries::Unknown]
        );
    });
}
