//! Every key, both operators, and Swarm's texts for what does not parse.

use super::*;
use crate::{
    id::NodeId,
    object::{Certificate, Meta, NodeDescription, NodeStatus},
    rng::Rng,
    spec::{Annotations, NodeSpec},
};

fn node() -> Node {
    let mut node = Node {
        id: NodeId::random(&mut Rng::from_seed(1)),
        meta: Meta::default(),
        spec: NodeSpec {
            annotations: Annotations::default(),
            ..NodeSpec::default()
        },
        description: Some(NodeDescription {
            hostname: "Alpha".to_owned(),
            platform: Platform {
                architecture: "x86_64".to_owned(),
                os: "linux".to_owned(),
            },
            ..NodeDescription::default()
        }),
        status: NodeStatus {
            addr: "192.168.1.20".to_owned(),
            ..NodeStatus::default()
        },
        manager_status: None,
        certificate: Certificate::default(),
        role: Role::Manager,
        attachments: Vec::new(),
        vxlan_udp_port: 0,
    };
    let labels = &mut node.spec.annotations.labels;
    labels.insert("Zone".to_owned(), "East".to_owned());
    let description = node.description.as_mut().unwrap();
    let labels = &mut description.engine.labels;
    labels.insert("disk".to_owned(), "ssd".to_owned());
    node
}

#[track_caller]
fn check(expression: &str, expected: bool) {
    let constraints = parse(&[expression.to_owned()]).unwrap();
    assert_eq!(matches(&constraints, &node()), expected, "{expression}");
}

#[track_caller]
fn refuse(expression: &str, text: &str) {
    let error = parse(&[expression.to_owned()]).unwrap_err();
    assert_eq!(error.to_string(), text, "{expression}");
}

#[test]
fn keys_compare_without_case() {
    check("node.hostname == alpha", true);
    check("NODE.HOSTNAME==ALPHA", true);
    check("node.hostname != alpha", false);
    check("node.role == Manager", true);
    check("node.role != worker", true);
    check("node.platform.os == Linux", true);
    check("node.platform.arch == x86_64", true);
    check("node.platform.arch == amd64", false);
    let id = node().id;
    check(&format!("node.id == {id}"), true);
}

#[test]
fn label_names_keep_their_case_and_values_do_not() {
    check("node.labels.Zone == east", true);
    check("Node.Labels.Zone == EAST", true);
    check("node.labels.zone == east", false);
    check("engine.labels.disk == SSD", true);
    check("engine.labels.disk != ssd", false);
}

#[test]
fn a_missing_label_equals_nothing() {
    check("node.labels.rack == a", false);
    check("node.labels.rack != a", true);
    check("engine.labels.rack != a", true);
}

#[test]
fn addresses_match_singly_and_by_subnet() {
    check("node.ip == 192.168.1.20", true);
    check("node.ip == ::ffff:192.168.1.20", true);
    check("node.ip != 192.168.1.20", false);
    check("node.ip == 192.168.0.0/16", true);
    check("node.ip != 192.168.0.0/16", false);
    check("node.ip == 10.0.0.0/8", false);
    check("node.ip == 2001:db8::/32", false);
}

#[test]
fn unreadable_addresses_and_unknown_keys_match_no_node() {
    check("node.ip != 192.168.1", false);
    check("node.ip == 192.168.1.20/99", false);
    check("node.colour != red", false);
    check("node.labels. == red", false);
}

#[test]
fn malformed_expressions_are_refused_with_swarms_texts() {
    refuse("node.id", "constraint expected one operator from ==, !=");
    refuse(
        "node.id = a",
        "constraint expected one operator from ==, !=",
    );
    refuse("no de == a", "key 'no de' is invalid");
    refuse("1node == a", "key '1node' is invalid");
    refuse("n == a", "key 'n' is invalid");
    refuse("node.id == ", "value '' is invalid");
    refuse("node.id == a<b", "value 'a<b' is invalid");
    refuse("node.id != a == b", "key 'node.id != a' is invalid");
}

#[test]
fn all_constraints_must_hold() {
    let both = ["node.role == manager", "node.hostname == beta"].map(str::to_owned);
    assert!(!matches(&parse(&both).unwrap(), &node()));
    assert!(matches(&[], &node()));
}

#[test]
fn preferences_see_labels_only() {
    let node = node();
    assert_eq!(spread_value("node.labels.Zone", &node), Some("East"));
    assert_eq!(spread_value("node.labels.none", &node), Some(""));
    assert_eq!(spread_value("ENGINE.labels.disk", &node), Some("ssd"));
    assert_eq!(spread_value("node.hostname", &node), None);
}
