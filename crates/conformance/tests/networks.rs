//! Networks and services' use of them as the docker command manages them. What packets do is in `overlay.rs`.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use skep_conformance::{Cluster, Engine, Node, until};

/// Runs the docker command, which must fail and print a text.
#[track_caller]
fn refused(engine: &Engine, line: &str, text: &str) {
    let said = engine.docker_fails(line);
    assert!(said.contains(text), "{line}: {said}");
}

/// What the docker command prints, as JSON.
#[track_caller]
fn shown(engine: &Engine, line: &str) -> Value {
    let text = engine.docker_ok(line);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

/// The lines the docker command prints.
#[track_caller]
fn lines(engine: &Engine, line: &str) -> Vec<String> {
    engine.docker_ok(line).lines().map(str::to_owned).collect()
}

const NO_TASKS: &str = "service create -d --no-resolve-image --replicas 0";

#[test]
fn network_has_all_options_it_was_created_with() {
    let node = Node::start();
    let id = node.docker_ok(
        "network create -d overlay --attachable --internal --label tier=b --subnet 10.11.0.0/24 \
         --gateway 10.11.0.254 --ip-range 10.11.0.128/25 --aux-address host=10.11.0.130 \
         -o com.docker.network.driver.mtu=1400 \
         -o com.docker.network.driver.overlay.vxlanid_list=500 back",
    );
    for term in ["back", &id, &id[..6]] {
        let back = &shown(&node, &format!("network inspect {term}"))[0];
        assert_eq!(back["Id"], id.as_str());
        for (key, value) in [
            ("Scope", json!("swarm")),
            ("Driver", json!("overlay")),
            ("Attachable", json!(true)),
            ("Internal", json!(true)),
            ("EnableIPv6", json!(false)),
            ("Labels", json!({"tier": "b"})),
            (
                "Options",
                json!({"com.docker.network.driver.mtu": "1400",
                    "com.docker.network.driver.overlay.vxlanid_list": "500"}),
            ),
        ] {
            assert_eq!(back[key], value, "{key}");
        }
        let config = json!([{"Subnet": "10.11.0.0/24", "IPRange": "10.11.0.128/25",
            "Gateway": "10.11.0.254", "AuxiliaryAddresses": {"host": "10.11.0.130"}}]);
        assert_eq!(back["IPAM"]["Config"], config);
    }
    node.docker_ok("network create -d overlay --ipv6 --subnet fd00:1::/64 six");
    node.docker_ok("network create -d overlay --subnet 10.12.0.0/24 --subnet 10.13.0.0/24 two");
    let subnets = |name: &str| {
        let format = "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}};{{end}}";
        node.docker_ok(&format!("network inspect -f '{format}' {name}"))
    };
    let six = subnets("six");
    assert!(
        six.contains("fd00:1::/64 fd00:1::1;") && six.contains("10."),
        "{six}"
    );
    // The command sends them in any order.
    let two = subnets("two");
    let two: BTreeSet<&str> = two.split_terminator(';').collect();
    assert_eq!(
        two,
        BTreeSet::from(["10.12.0.0/24 10.12.0.1", "10.13.0.0/24 10.13.0.1"])
    );
}

#[test]
fn networks_are_listed_filtered_pruned_and_told_of() {
    let node = Node::start();
    for line in ["--label tier=b back", "--label tier=f front", "spare"] {
        node.docker_ok(&format!("network create -d overlay {line}"));
    }
    node.create("--name web --replicas 0 --network back skep/busybox");
    for (filter, expected) in [
        ("driver=overlay", vec!["back", "front", "ingress", "spare"]),
        ("scope=swarm", vec!["back", "front", "ingress", "spare"]),
        ("type=builtin", vec!["bridge", "host", "none"]),
        ("label=tier", vec!["back", "front"]),
        ("label=tier=f", vec!["front"]),
        ("name=^spare$", vec!["spare"]),
        ("name=a", vec!["back", "spare"]),
        ("dangling=true", vec!["front", "spare"]),
    ] {
        let line = format!("network ls --format '{{{{.Name}}}}' -f {filter}");
        assert_eq!(lines(&node, &line), expected, "{filter}");
    }
    refused(
        &node,
        "network ls -f type=odd",
        "invalid filter: 'type'='odd'",
    );
    let said = node.docker_ok("network prune -f --filter label=tier=f");
    assert_eq!(said, "Deleted Networks:\nfront");
    let said = node.docker_ok("network prune -f");
    assert_eq!(said, "Deleted Networks:\nspare");
    let left = lines(&node, "network ls -f scope=swarm --format '{{.Name}}'");
    assert_eq!(left, ["back", "ingress"]);
    // The command asks for whole seconds only.
    until("all of it is told", Duration::from_secs(20), || {
        let told = node.docker_ok("events --since 1h --until 0s --filter type=network");
        let expected = [
            "network create ",
            "(name=back)",
            "network remove ",
            "(name=spare)",
            "network prune",
        ];
        match expected.iter().all(|text| told.contains(text)) {
            true => Ok(()),
            false => Err(told),
        }
    });
}

/// Networks that would break something, and what is said of each.
const HARMFUL: [(&str, &str); 13] = [
    (
        "create -d overlay skep_gwbridge",
        "operation is not permitted on predefined skep_gwbridge network",
    ),
    (
        "create -d overlay -o colour=red odd",
        "unknown option \"colour\" of network driver overlay",
    ),
    (
        "create -d overlay --ipam-opt colour=red odd",
        "unknown option \"colour\" of address manager default",
    ),
    (
        "create -d overlay --subnet 127.5.0.0/16 odd",
        "subnet 127.5.0.0/16 has loopback addresses (127.0.0.0/8)",
    ),
    (
        "create -d overlay --subnet 239.0.0.0/16 odd",
        "has multicast addresses (224.0.0.0/4)",
    ),
    (
        "create -d overlay --subnet 169.254.9.0/24 odd",
        "has link-local addresses (169.254.0.0/16)",
    ),
    (
        "create -d overlay --subnet 0.0.0.0/8 odd",
        "has addresses of no host (0.0.0.0/8)",
    ),
    (
        "create -d overlay --ipv6 --subnet fe80::/64 odd",
        "has link-local addresses (fe80::/10)",
    ),
    (
        "create -d overlay --subnet 10.14.0.0/24 --gateway 10.14.0.0 odd",
        "gateway 10.14.0.0 is the network address of subnet 10.14.0.0/24",
    ),
    (
        "create -d overlay --subnet 10.14.0.0/24 --gateway 10.14.0.255 odd",
        "gateway 10.14.0.255 is the broadcast address of subnet 10.14.0.0/24",
    ),
    (
        "create -d overlay --subnet 10.14.0.0/24 --ip-range 10.15.0.0/25 odd",
        "no matching subnet for range 10.15.0.0/25",
    ),
    (
        "create -d overlay --subnet 10.14.0.0/24 --gateway 10.14.0.1 --aux-address a=10.14.0.1 odd",
        "auxiliary address a=10.14.0.1 is the gateway of subnet 10.14.0.0/24",
    ),
    (
        "create -d overlay --subnet 10.14.0.0/16 --subnet 10.14.3.0/24 odd",
        "overlap",
    ),
];

#[test]
fn networks_in_the_way_or_in_use_are_refused() {
    let node = Node::start();
    node.docker_ok("network create -d overlay --subnet 10.11.0.0/24 back");
    node.create("--name web --replicas 0 --network back --publish 8080:80 skep/busybox");
    for (line, text) in [
        (
            "create -d overlay back",
            "network with name back already exists",
        ),
        (
            "create -d overlay none",
            "operation is not permitted on predefined none network",
        ),
        (
            "create -d overlay --subnet 10.11.0.0/16 wide",
            "Pool overlaps with other one on this address space",
        ),
        (
            "create -d overlay --subnet 10.14.0.3/24 odd",
            "invalid subnet 10.14.0.3/24: it should be 10.14.0.0/24",
        ),
        (
            "create -d overlay --subnet 10.14.0/24 odd",
            "invalid CIDR block notation",
        ),
        (
            "create -d overlay --subnet 10.14.0.0/31 odd",
            "is too small: at most /30",
        ),
        (
            "create -d overlay -o com.docker.network.driver.mtu=99999 odd",
            "must be 1280-65535",
        ),
        ("create -d ipvlan odd", "not supported yet: Driver=ipvlan"),
        ("create -d weave odd", "plugin \"weave\" not found"),
        (
            "create -d overlay --scope local odd",
            "cannot downgrade network scope",
        ),
        (
            "create -d overlay --ipv4=false odd",
            "IPv4 cannot be disabled",
        ),
        ("create -d overlay --ingress odd", "is already present"),
        (
            "create -d overlay 'odd name'",
            "name must be valid as a DNS name component",
        ),
        ("rm nowhere", "network nowhere not found"),
        (
            "rm host",
            "host is a pre-defined network and cannot be removed",
        ),
        ("rm back", "is in use by service"),
        (
            "rm ingress <<< y",
            "ingress network cannot be removed because service",
        ),
    ] {
        refused(&node, &format!("network {line}"), text);
    }
    for (line, text) in HARMFUL {
        refused(&node, &format!("network {line}"), text);
    }
    let named = lines(&node, "network ls -f scope=swarm --format '{{.Name}}'");
    assert_eq!(
        named,
        ["back", "ingress"],
        "nothing is left of what was refused"
    );
}

#[test]
fn addresses_and_containers_that_are_not_there_are_refused() {
    let node = Node::start();
    refused(
        &node,
        "network connect bridge nobody",
        "No such container: nobody",
    );
    // The command itself finds that no subnet matches.
    let outside = json!({"Name": "odd", "Driver": "overlay",
        "IPAM": {"Config": [{"Subnet": "10.14.0.0/24", "Gateway": "10.15.0.1"}]}});
    let answer = node.http("POST", "/networks/create", Some(&outside.to_string()));
    let text = "invalid network config:\ninvalid gateway 10.15.0.1: parent subnet 10.14.0.0/24 doesn't \
                contain this address";
    assert_eq!((answer.status, answer.message().as_str()), (400, text));
}

#[test]
fn used_up_addresses_are_said_and_given_back() {
    let node = Node::start();
    node.docker_ok("swarm leave --force");
    node.docker_ok(
        "swarm init --advertise-addr 127.0.0.1 --default-addr-pool 10.20.0.0/22 \
         --default-addr-pool-mask-length 24",
    );
    // The first subnet is that of ingress.
    for name in ["a", "b", "c"] {
        node.docker_ok(&format!("network create -d overlay {name}"));
    }
    refused(
        &node,
        "network create -d overlay d",
        "could not find an available, non-overlapping address pool",
    );
    node.docker_ok("network rm b");
    node.docker_ok("network create -d overlay d");
}

#[test]
fn the_network_for_published_ports_is_replaced() {
    let node = Node::start();
    node.docker_ok("network rm ingress <<< y");
    assert_eq!(node.docker_ok("network ls -q -f driver=overlay"), "");
    node.docker_ok(
        "network create -d overlay --ingress --subnet 10.31.0.0/16 --gateway 10.31.0.2 mine",
    );
    let mine = &shown(&node, "network inspect mine")[0];
    assert_eq!(mine["Ingress"], true);
    node.docker_ok(&format!("{NO_TASKS} --name web -p 8080:80 skep/busybox"));
    let format = "'{{(index .Endpoint.VirtualIPs 0).Addr}}'";
    let vip = node.docker_ok(&format!("service inspect web -f {format}"));
    assert!(vip.starts_with("10.31.0.") && vip.ends_with("/16"), "{vip}");
    refused(
        &node,
        "network create -d overlay --ingress --attachable x",
        "attachable",
    );
}

#[test]
fn services_are_shown_with_their_networks_and_ports() {
    let node = Node::start();
    for name in ["back", "front"] {
        node.docker_ok(&format!("network create -d overlay {name}"));
    }
    node.docker_ok(&format!(
        "{NO_TASKS} --name web --network name=back,alias=www,alias=w3 --network front \
         -p 8080:80 -p 53:53/udp --publish target=70,published=7070,mode=host -p 9000-9002:9000-9002 -p 81 \
         skep/busybox"
    ));
    let ports = node.docker_ok("service ls --format '{{.Ports}}'");
    assert_eq!(
        ports,
        "*:8080->80/tcp, *:9000-9002->9000-9002/tcp, *:30000->81/tcp, *:53->53/udp"
    );
    let pretty = node.docker_ok("service inspect --pretty web");
    assert!(
        pretty.contains("Endpoint Mode:\tvip") && pretty.contains("PublishedPort = 7070"),
        "{pretty}"
    );
    let networks = pretty
        .lines()
        .find(|line| line.starts_with("Networks:"))
        .unwrap();
    assert!(
        networks.contains("back") && networks.contains("front"),
        "{networks}"
    );
    let web = &shown(&node, "service inspect web")[0];
    let id = |name: &str| node.docker_ok(&format!("network inspect -f '{{{{.Id}}}}' {name}"));
    let mut wanted = web["Spec"]["TaskTemplate"]["Networks"]
        .as_array()
        .unwrap()
        .clone();
    wanted.sort_by_key(|network| network["Aliases"].is_null());
    let expected = json!([{"Target": id("back"), "Aliases": ["www", "w3"]},
        {"Target": id("front")}]);
    assert_eq!(Value::Array(wanted), expected);
    let vips = web["Endpoint"]["VirtualIPs"].as_array().unwrap();
    let on: Vec<&str> = vips
        .iter()
        .map(|vip| vip["NetworkID"].as_str().unwrap())
        .collect();
    assert_eq!(on.len(), 3);
    for name in ["back", "front", "ingress"] {
        assert!(on.contains(&id(name).as_str()), "{name}: {vips:?}");
    }

    node.docker_ok(
        "service update -d --network-rm back --publish-rm 8080:80 --publish-add 8081:80 web",
    );
    let web = &shown(&node, "service inspect web")[0];
    let wanted = json!([{"Target": id("front")}]);
    assert_eq!(web["Spec"]["TaskTemplate"]["Networks"], wanted);
    let ports = node.docker_ok("service ls --format '{{.Ports}}'");
    assert!(
        ports.contains("*:8081->80/tcp") && !ports.contains("8080"),
        "{ports}"
    );
    assert!(
        ports.contains("*:30000->81/tcp"),
        "a chosen port is kept: {ports}"
    );
    node.docker_ok("service update -d --network-add name=back,alias=x web");
    let web = &shown(&node, "service inspect web")[0];
    assert_eq!(web["Endpoint"]["VirtualIPs"].as_array().unwrap().len(), 3);
    refused(
        &node,
        "service update -d --endpoint-mode dnsrr web",
        "port published with ingress mode can't be used with dnsrr mode",
    );
}

#[test]
fn services_that_cannot_have_ports_or_networks_are_refused() {
    let node = Node::start();
    node.docker_ok(&format!("{NO_TASKS} --name web -p 8080:80 skep/busybox"));
    for (flags, text) in [
        (
            "-p 8080:81",
            "port '8080' is already in use by service 'web'",
        ),
        (
            "--publish mode=host,target=80,published=8080",
            "port '8080' is already in use by service 'web'",
        ),
        (
            "-p 80 --endpoint-mode dnsrr",
            "can't be used with dnsrr mode",
        ),
        ("--network nowhere", "network nowhere not found"),
        ("--network none", "network none not found"),
        (
            "--network ingress",
            "Service cannot be explicitly attached to the ingress network",
        ),
        ("--network skep_gwbridge", "skep_gwbridge"),
        ("-p 192.0.2.1:90:80", "host"),
    ] {
        refused(
            &node,
            &format!("{NO_TASKS} --name other {flags} skep/busybox"),
            text,
        );
    }
    let labels = "--label skep.drain=soon --label skep.publish.address=eth0 --label skep.odd=1";
    let said = node.docker_fails(&format!("{NO_TASKS} --name other {labels} skep/busybox"));
    for text in [
        "unknown label `skep.odd`",
        "`eth0` is not an IP address",
        "`soon` is not a duration",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert_eq!(node.docker_ok("service ls --format '{{.Name}}'"), "web");
    for number in [1, 2] {
        let address = format!("--label skep.publish.address=192.0.2.{number}");
        node.docker_ok(&format!(
            "{NO_TASKS} --name at{number} -p 9090:80 {address} skep/busybox"
        ));
    }
    let update = "service update -d --label-add skep.publish.address=192.0.2.1 at2";
    refused(
        &node,
        update,
        "port '9090' is already in use by service 'at1'",
    );
}

#[test]
fn networks_of_the_cluster_are_made_on_managers_and_seen_by_all_of_them() {
    let cluster = Cluster::start(3, 2);
    let worker = cluster.node(3);
    let text = "This node is not a swarm manager.";
    refused(worker, "network create -d overlay back", text);
    cluster.node(2).docker_ok("network create -d overlay back");
    cluster.node(1).docker_ok("network create -d overlay front");
    for manager in [1, 2] {
        let listed = lines(
            cluster.node(manager),
            "network ls -f scope=swarm --format '{{.Name}}'",
        );
        assert_eq!(listed, ["back", "front", "ingress"]);
    }
    let own = lines(
        worker,
        "network ls -f type=builtin --format '{{.Name}} {{.Driver}} {{.Scope}}'",
    );
    assert_eq!(
        own,
        ["bridge bridge local", "host host local", "none null local"]
    );
    refused(worker, "network inspect back", "network back not found");
}
