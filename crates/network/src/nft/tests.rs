//! Listings of `nft -j` as seen in the wild, and damaged ones.

use serde_json::json;

use super::*;
use crate::config::Layout;

fn ruleset() -> Ruleset {
    Ruleset::new("skep0", &Layout::default(), false).unwrap()
}

fn listing(elements: &Value, rule_count: usize) -> Value {
    let digest = format!("{DIGEST_PREFIX}{}", ruleset().digest());
    let mut objects = vec![
        json!({"metainfo": {"version": "1.0.6"}}),
        json!({"table": {"family": "ip", "name": "skep"}}),
        json!({"chain": {"family": "ip", "table": "skep", "name": digest}}),
        json!({"map": {"name": "ports_any", "elem": elements}}),
        json!({"map": {"name": "ports_addr"}}),
    ];
    objects.extend((0..rule_count).map(|_| json!({"rule": {"family": "ip"}})));
    json!({"nftables": objects})
}

#[test]
fn elements_are_read_back() {
    let elements = json!([
        [{"concat": ["sctp", 9]}, {"concat": ["10.255.0.2", 81]}],
        [{"concat": ["127.0.0.1", "tcp", 8080]}, {"concat": ["10.255.0.2", 80]}]
    ]);
    let observed = parse(&listing(&elements, ruleset().rule_count()), &ruleset()).unwrap();
    let printed: Vec<String> = observed.ports.iter().map(ToString::to_string).collect();
    assert_eq!(
        printed,
        [
            "sctp . 9 : 10.255.0.2 . 81",
            "127.0.0.1 . tcp . 8080 : 10.255.0.2 . 80"
        ]
    );
}

#[test]
fn a_table_that_lacks_something_is_no_table() {
    let complete = ruleset().rule_count();
    assert!(parse(&listing(&json!([]), complete), &ruleset()).is_some());
    assert!(parse(&listing(&json!([]), complete - 1), &ruleset()).is_none());
    assert!(parse(&listing(&json!([["nonsense"]]), complete), &ruleset()).is_none());
    assert!(parse(&json!({"nftables": []}), &ruleset()).is_none());
    assert!(parse(&json!(null), &ruleset()).is_none());
}

#[test]
fn only_foreign_dropping_chains_on_forward_are_obstacles() {
    let chain = |family: &str, table: &str, hook: &str, policy: &str| json!({"chain": {"family": family, "table": table, "name": "C", "hook": hook, "policy": policy}});
    let listing = json!({"nftables": [
        chain("ip", "filter", "forward", "drop"),
        chain("ip", "filter", "input", "drop"),
        chain("inet", "firewalld", "forward", "accept"),
        chain("ip", "skep", "forward", "drop"),
        {"chain": {"family": "ip", "table": "nat", "name": "DOCKER"}},
    ]});
    assert_eq!(parse_obstacles(&listing), ["ip filter C"]);
}
