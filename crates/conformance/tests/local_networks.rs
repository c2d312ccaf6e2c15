//! Networks that a node has for itself, and the cluster's networks made of them, through the docker command.

use std::time::Duration;

use serde_json::{Value, json};
use skep_conformance::{Engine, Node, Options, until};

/// Longest wait for what should take well below a second. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(40);

/// Runs the docker command, which must fail and print a text.
#[track_caller]
fn refused(engine: &Engine, line: &str, text: &str) {
    let said = engine.docker_fails(line);
    assert!(said.contains(text), "{line}: {said}");
}

/// A network as the docker command shows it.
#[track_caller]
fn network(engine: &Engine, name: &str) -> Value {
    let text = engine.docker_ok(&format!("network inspect {name}"));
    let shown: Value = serde_json::from_str(&text).expect("it prints JSON");
    shown[0].clone()
}

/// Waits until an event of networks was told.
#[track_caller]
fn told(engine: &Engine, expected: &[&str]) {
    until("all of it is told", PATIENCE, || {
        let told = engine.docker_ok("events --since 1h --until 0s --filter type=network");
        match expected.iter().find(|text| !told.contains(**text)) {
            None => Ok(()),
            Some(missing) => Err(format!("no {missing} in {told}")),
        }
    });
}

const BRIDGE: &str = "network create --subnet 10.60.0.0/24 --gateway 10.60.0.9 --ip-range 10.60.0.128/25 \
    --aux-address host=10.60.0.130 --label tier=a -o com.docker.network.bridge.name=br7 \
    -o com.docker.network.bridge.enable_icc=false \
    -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1 \
    -o com.docker.network.driver.mtu=1400 red";

#[test]
fn a_bridge_has_what_it_was_made_with_whatever_becomes_of_the_daemon() {
    let mut node = Node::start();
    let id = node.docker_ok(BRIDGE);
    let check = |node: &Node| {
        let red = network(node, "red");
        for (key, value) in [
            ("Id", json!(id)),
            ("Scope", json!("local")),
            ("Driver", json!("bridge")),
            ("Internal", json!(false)),
            ("EnableIPv6", json!(false)),
            ("Labels", json!({"tier": "a"})),
            (
                "Options",
                json!({"com.docker.network.bridge.enable_icc": "false",
                    "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
                    "com.docker.network.bridge.name": "br7", "com.docker.network.driver.mtu": "1400"}),
            ),
        ] {
            assert_eq!(red[key], value, "{key}");
        }
        let config = json!([{"Subnet": "10.60.0.0/24", "IPRange": "10.60.0.128/25",
            "Gateway": "10.60.0.9", "AuxiliaryAddresses": {"host": "10.60.0.130"}}]);
        assert_eq!(red["IPAM"]["Config"], config);
        let link = node.inside_ok("ip -o addr show br7; ip -o link show br7");
        assert!(
            link.contains("10.60.0.9/24") && link.contains("mtu 1400"),
            "{link}"
        );
    };
    check(&node);
    node.docker_ok("network create -d macvlan --internal --ipv6 own");
    node.kill_daemon();
    node.inside_ok("ip link del br7");
    node.start_daemon();
    check(&node);
    let own = network(&node, "own");
    assert_eq!(
        (&own["Driver"], &own["Internal"]),
        (&json!("macvlan"), &json!(true))
    );
    assert_eq!(
        own["IPAM"]["Config"].as_array().map(Vec::len),
        Some(2),
        "{own}"
    );
    let named =
        node.docker_ok("network ls -f scope=local -f type=custom --format '{{.Name}}/{{.Driver}}'");
    assert_eq!(named, "own/macvlan\nred/bridge\nskep_gwbridge/bridge");
    assert_eq!(node.docker_ok("network rm red"), "red");
    let said = node.docker_ok("network prune -f");
    assert!(said.contains("own"), "{said}");
    let links = node.inside_ok("ip -br link; nft list tables");
    assert!(
        !links.contains("br7") && !links.contains("skep_local"),
        "{links}"
    );
    told(
        &node,
        &[
            &format!("network destroy {id} (name=red, type=bridge)"),
            "name=own, type=macvlan",
        ],
    );
}

/// Networks of a node that cannot be, and what is said of each.
const IMPOSSIBLE: [(&str, &str); 26] = [
    ("create red", "network with name red already exists"),
    (
        "create none",
        "operation is not permitted on predefined none network",
    ),
    (
        "create skep_gwbridge",
        "operation is not permitted on predefined skep_gwbridge network",
    ),
    (
        "create -d host odd",
        "only one instance of \"host\" network is allowed",
    ),
    (
        "create -d null odd",
        "only one instance of \"null\" network is allowed",
    ),
    ("create -d weave odd", "plugin \"weave\" not found"),
    (
        "create --ipv4=false odd",
        "not supported yet: EnableIPv4=false",
    ),
    (
        "create --subnet 10.60.0.0/16 odd",
        "invalid pool request: Pool overlaps with other one on this address space",
    ),
    (
        "create --subnet 10.77.0.0/24 odd",
        "has address 10.77.0.3 of the node's link lo",
    ),
    ("create --subnet 127.0.0.0/24 odd", "has loopback addresses"),
    (
        "create --subnet 10.62.0.0/24 --gateway 10.62.0.255 odd",
        "is the broadcast address",
    ),
    (
        "create -o com.docker.network.bridge.name=br7 odd",
        "networks have same bridge name",
    ),
    (
        "create -o com.docker.network.bridge.name=skep0 odd",
        "it is the bridge of the node network",
    ),
    (
        "create -o com.docker.network.bridge.name=a/b odd",
        "cannot be the name of a link",
    ),
    (
        "create -o com.docker.network.bridge.enable_icc=maybe odd",
        "failed to parse com.docker.network.bridge.enable_icc value: maybe",
    ),
    (
        "create -o colour=red odd",
        "unknown option \"colour\" of network driver bridge",
    ),
    (
        "create -o com.docker.network.driver.mtu=5 odd",
        "must be 68-65535",
    ),
    (
        "create -d macvlan -o parent=lo odd",
        "loopback interface is not a valid macvlan parent link",
    ),
    (
        "create -d macvlan -o parent=nowhere odd",
        "link `nowhere` of the node does not exist",
    ),
    (
        "create -d macvlan -o macvlan_mode=odd odd",
        "requested macvlan mode",
    ),
    (
        "create --config-only --internal odd",
        "configuration network can only contain network specific fields",
    ),
    (
        "create --config-only --config-from cfg odd",
        "a configuration network cannot depend on another configuration network",
    ),
    (
        "create --config-from cfg --subnet 10.63.0.0/24 odd",
        "user specified configurations are not supported",
    ),
    (
        "create --config-from cfg -o parent=x odd",
        "network driver options are not supported",
    ),
    (
        "create --config-from nowhere odd",
        "configuration network \"nowhere\" does not exist",
    ),
    ("rm cfg", "configuration network \"cfg\" is in use"),
];

#[test]
fn networks_of_a_node_that_cannot_be_are_refused() {
    let node = Node::start();
    node.docker_ok(BRIDGE);
    node.docker_ok("network create --config-only --subnet 10.61.0.0/24 cfg");
    node.docker_ok("network create --config-from cfg user");
    node.inside_ok("ip addr add 10.77.0.3/24 dev lo");
    for (line, text) in IMPOSSIBLE {
        refused(&node, &format!("network {line}"), text);
    }
    refused(
        &node,
        "service create -d --no-resolve-image --network red skep/busybox",
        "network red not found",
    );
    let named = node.docker_ok("network ls -f scope=local -f type=custom --format '{{.Name}}'");
    assert_eq!(
        named, "cfg\nred\nskep_gwbridge\nuser",
        "nothing is left of what was refused"
    );
    let settings = network(&node, "cfg");
    assert_eq!(
        (&settings["ConfigOnly"], &settings["Driver"]),
        (&json!(true), &json!("null"))
    );
    let user = network(&node, "user");
    assert_eq!(user["IPAM"]["Config"][0]["Gateway"], "10.61.0.1");
    assert_eq!(user["ConfigFrom"]["Network"], "cfg");
    node.docker_ok("network rm user cfg");
}

#[test]
fn services_are_on_a_macvlan_with_each_nodes_settings() {
    let mut node = Node::start();
    node.inside_ok(
        "ip link add lan0 type veth peer name lan1 && ip link set lan0 up && ip link set lan1 up",
    );
    node.docker_ok("network create -d macvlan --scope swarm --config-from cfg lan");
    node.create("--name early --network lan skep/busybox sleep 10000");
    node.task("early", "is told why", |task| {
        task.to_string()
            .contains("configuration network \\\"cfg\\\" does not exist")
    });
    node.docker_ok("service rm early");
    node.docker_ok(
        "network create --config-only --subnet 10.50.0.0/24 --gateway 10.50.0.1 \
         --ip-range 10.50.0.128/25 -o parent=lan0 cfg",
    );
    node.create("--name server --network name=lan,alias=www skep/httpd");
    node.create("--name client --network lan skep/busybox sleep 10000");
    node.running("server", 1);
    node.running("client", 1);
    let name = node.docker_ok("ps -f name=^server --format '{{.Names}}'");
    let format = "{{(index .NetworkSettings.Networks \"lan\").IPAddress}}";
    let address = node.docker_ok(&format!("inspect -f '{format}' {name}"));
    assert!(address.starts_with("10.50.0.1"), "{address}");
    let route = node.exec("client", "ip route");
    assert!(route.contains("default via 10.50.0.1 dev eth0"), "{route}");
    for target in [name.as_str(), "www", address.as_str()] {
        let said = node.exec("client", &format!("ping -c 1 -W 5 {target}"));
        assert!(said.contains("1 packets received"), "{target}: {said}");
    }
    told(&node, &["network connect ", "name=lan, type=macvlan"]);
    node.kill_daemon();
    node.start_daemon();
    let said = node.exec("client", "ping -c 1 -W 5 www");
    assert!(said.contains("1 packets received"), "{said}");
    refused(&node, "network rm lan", "is in use by service");
    refused(
        &node,
        "network rm cfg",
        "configuration network \"cfg\" is in use",
    );
    node.docker_ok("service rm server client");
    node.empty();
    until("the settings are free again", PATIENCE, || {
        let output = node.docker("network rm cfg");
        match output.status {
            0 => Ok(()),
            _ => Err(output.text()),
        }
    });
    node.docker_ok("network rm lan");
}

#[test]
fn services_are_on_a_bridge_of_each_node() {
    let node = Node::start();
    node.docker_ok("network create -d bridge --scope swarm red");
    node.create("--name web --network red --publish 8080:80 skep/httpd");
    node.create("--name client --network red skep/busybox sleep 10000");
    node.running("web", 1);
    node.running("client", 1);
    let name = node.docker_ok("ps -f name=^web --format '{{.Names}}'");
    let said = node.exec("client", &format!("ping -c 1 -W 5 {name}"));
    assert!(said.contains("1 packets received"), "{said}");
    let red = network(&node, "red");
    assert_eq!(red["IPAM"]["Config"][0]["Gateway"], "172.18.0.1", "{red}");
    let bridge = node.inside_ok("ip -br link show type bridge");
    assert!(bridge.contains("br-"), "{bridge}");
    // Its published ports lead through the node network.
    until("the port answers", PATIENCE, || {
        let output = node.inside("curl -s -m 2 http://127.0.0.1:8080/");
        match output.status {
            0 => Ok(()),
            _ => Err(output.text()),
        }
    });
    node.docker_ok("service rm web client");
    node.empty();
    until("the bridge goes with the last container", PATIENCE, || {
        let bridges = node.inside_ok("ip -br link show type bridge");
        match bridges.contains("br-") {
            false => Ok(()),
            true => Err(bridges),
        }
    });
}

#[test]
fn wishes_of_services_for_networks_that_cannot_be_are_refused() {
    let node = Node::start();
    node.docker_ok("network create -d overlay back");
    let create = "service create -d --no-resolve-image";
    refused(
        &node,
        &format!("{create} --network name=back,driver-opt=colour=red skep/busybox"),
        "not supported yet: TaskTemplate.Networks[0].DriverOpts[colour]",
    );
    refused(
        &node,
        &format!("{create} --network back --network back skep/busybox"),
        "network \"back\" is specified multiple times",
    );
    let listener = node.spawn_inside("busybox", &["nc", "-l", "-p", "8080"]);
    node.create("--name web --publish 8080:80 skep/httpd");
    node.running("web", 1);
    until("people are told", PATIENCE, || {
        let told = node.docker_ok("info --format '{{json .Warnings}}'");
        match told
            .contains("port 8080/tcp is published by a service, but a program of this node has it")
        {
            true => Ok(()),
            false => Err(told),
        }
    });
    drop(listener);
    let listener = node.spawn_inside("busybox", &["nc", "-l", "-p", "8081"]);
    node.create("--name held --publish published=8081,target=80,mode=host skep/httpd");
    node.task("held", "is told why", |task| {
        task.to_string()
            .contains("failed to bind host port 0.0.0.0:8081/tcp")
    });
    drop(listener);
}

#[test]
fn containers_are_found_by_patterns_and_slots_by_short_names() {
    let node = Node::start();
    node.docker_ok("network create -d overlay stack_back");
    node.create("--name stack_web --network name=stack_back,alias=web skep/busybox sleep 10000");
    node.running("stack_web", 1);
    for (pattern, count) in [
        ("^stack_web.1", 1),
        ("^/stack", 1),
        ("web[.][0-9]", 1),
        ("(odd|web)", 1),
        ("^web", 0),
        ("w{3}", 0),
    ] {
        let found = node.docker_ok(&format!("ps -q -f 'name={pattern}'"));
        assert_eq!(found.lines().count(), count, "{pattern}");
    }
    for name in ["1.stack_web", "1.web", "1.web.stack_back"] {
        let said = node.exec("stack_web", &format!("nslookup {name}"));
        assert!(said.contains("Address: 10."), "{name}: {said}");
    }
    let format = "'{{.Type}} {{.TotalCount}} {{.Active}}'";
    let used = node.docker_ok(&format!("system df --format {format}"));
    assert!(used.contains("Images 2 1"), "{used}");
}

#[test]
fn a_node_network_in_the_way_of_the_clusters_pools_is_refused() {
    let node = Node::with(Options {
        flags: vec!["--bridge-subnet".to_owned(), "10.20.0.0/16".to_owned()],
        is_bare: true,
        ..Options::default()
    });
    let init = "swarm init --advertise-addr 127.0.0.1";
    refused(
        &node,
        &format!("{init} --default-addr-pool 10.20.0.0/14"),
        "node network 10.20.0.0/16 (--bridge-subnet of the daemon) overlaps address pool 10.20.0.0/14",
    );
    node.docker_ok(init);
}
