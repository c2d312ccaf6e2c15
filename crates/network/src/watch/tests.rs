//! What counts as somebody's doing, told by a kernel.

use super::*;
use crate::testbed::{on_node, run};

#[test]
fn losses_of_ours_are_noticed_and_the_rest_is_not() {
    on_node(async |_| {
        run("ip link add skep0 type bridge && ip link set skep0 up");
        run("ip addr add 10.9.0.1/24 dev skep0");
        let mut watch = Watch::open(Interest {
            links: vec!["skep0".to_owned()],
            link_prefix: Some("skep0-".to_owned()),
            has_neighbours: true,
            rules_from: Some("skep0".to_owned()),
            tables: &["skep"],
            is_everything: false,
        })
        .unwrap();
        for (command, is_noticed) in [
            (
                "ip link add other type bridge && ip link set other up",
                false,
            ),
            ("ip addr add 10.8.0.1/24 dev other", false),
            ("ip addr flush dev other && ip link del other", false),
            (
                "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev skep0",
                false,
            ),
            ("ip neigh del 10.9.0.2 dev skep0", true),
            ("ip route add 10.7.0.0/24 dev skep0", false),
            ("ip route del 10.7.0.0/24", true),
            ("ip rule add iif skep0 fwmark 9 lookup 9", false),
            ("ip rule del iif skep0 fwmark 9 lookup 9", true),
            ("ip rule add iif lo fwmark 9 lookup 9", false),
            ("ip rule del iif lo fwmark 9 lookup 9", false),
            ("ip addr del 10.9.0.1/24 dev skep0", true),
            ("nft add table ip other && nft delete table ip other", false),
            ("nft add table ip skep", true),
            ("nft flush ruleset", true),
            (
                "ip link add skep0-2 type veth peer name x2 && ip link set skep0-2 up",
                true,
            ),
            ("ip link del skep0-2", true),
            ("ip link set skep0 down", true),
            ("ip link del skep0", true),
        ] {
            run(command);
            assert_eq!(watch.look(), is_noticed, "{command}");
            assert!(!watch.look(), "{command}");
        }
    });
}
