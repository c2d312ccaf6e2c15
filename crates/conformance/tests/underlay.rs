//! What lies below the overlays: nodes that know each other by IPv6, and paths that carry less than they should.

use std::{collections::BTreeSet, path::Path, time::Duration};

use skep_conformance::{Cluster, Engine, until};

/// Longest wait for what takes some seconds at most. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a look at the paths: it comes within half a minute and takes some ten seconds.
const PATH_PATIENCE: Duration = Duration::from_secs(120);

/// A node's IPv6 address; 254 is the machine's.
fn address6(number: usize) -> String {
    format!("fd78::{number:x}")
}

/// The one container of a service on a node.
#[track_caller]
fn container(cluster: &Cluster, number: usize, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let node = cluster.node(number);
    let id = node.docker_ok(&format!("ps -q --no-trunc -f {filter}"));
    assert_eq!(id.lines().count(), 1, "{service} on node{number}: {id}");
    id
}

/// Three nodes whose cluster knows IPv6 addresses only.
fn start() -> Cluster {
    let cluster = Cluster::outsiders(3);
    cluster.inside_ok("ip -6 addr add fd78::fe/64 dev skl0 nodad");
    for number in cluster.numbers() {
        let address = address6(number);
        cluster.skep_ok(&format!(
            "local exec node{number} ip -6 addr add {address}/64 dev eth0 nodad"
        ));
    }
    cluster
        .node(1)
        .docker_ok("swarm init --listen-addr [::]:2377 --advertise-addr fd78::1");
    let token = cluster.node(1).docker_ok("swarm join-token -q worker");
    for number in [2, 3] {
        cluster.node(number).docker_ok(&format!(
            "swarm join --token {token} --listen-addr [::]:2377 --advertise-addr {} [fd78::1]:2377",
            address6(number)
        ));
    }
    cluster.load("web");
    cluster
}

#[test]
fn overlays_names_and_published_ports_work_between_nodes_that_have_ipv6() {
    let cluster = start();
    let manager = cluster.node(1);
    for number in cluster.numbers() {
        let info = cluster.node(number).json("/info");
        assert_eq!(info["Swarm"]["NodeAddr"], address6(number).as_str());
    }
    manager.docker_ok("network create -d overlay back");
    manager.create(
        "--name web --mode global --no-healthcheck --network back --publish 8080:80 skep/web",
    );
    cluster.placed(1, "web", 3);
    for number in cluster.numbers() {
        let id = container(&cluster, number, "web");
        // Every task answers through the virtual address, and by its own.
        let mut servers = BTreeSet::new();
        until("all tasks answer by name", PATIENCE, || {
            let line = format!("exec {id} timeout 5 busybox wget -q -O - http://web/");
            let output = cluster.node(number).docker(&line);
            let (server, _) = output.stdout.trim().split_once(' ').ok_or(output.text())?;
            servers.insert(server.to_owned());
            match servers.len() {
                3 => Ok(()),
                _ => Err(format!("node{number}: {servers:?}")),
            }
        });
        let text = cluster
            .node(number)
            .docker_ok(&format!("exec {id} nslookup -type=a tasks.web"));
        assert_eq!(text.matches("Address: 10.").count(), 3, "{text}");
        for (to, client) in [
            (format!("[{}]", address6(number)), "fd78::fe"),
            (format!("10.78.0.{number}"), "10.78.0.254"),
        ] {
            check_published(&cluster, &to, client);
        }
    }
    until("the doctor is content", PATIENCE, || {
        let output = cluster.skep("net doctor --all");
        match output.status == 0 {
            true => Ok(()),
            false => Err(output.text()),
        }
    });
    check_nodes_inside(manager);
}

/// The nodes are known by their IPv6 addresses, so a network may have the others, which its containers cannot reach then.
fn check_nodes_inside(manager: &Engine) {
    let said = manager.docker_fails("network create -d overlay --ipv6 --subnet fd78::/64 odd");
    let text = "fd78::/64 has address fd78::";
    assert!(said.contains(text), "{said}");
    manager.docker_ok("network create -d overlay --subnet 10.78.0.0/24 inside");
    manager.create(
        "--name inside --constraint node.hostname==node1 --network inside skep/busybox sleep 10000",
    );
    until("the network is named", PATIENCE, || {
        let text = manager.docker("info").text();
        let wanted = "network `inside` has addresses of nodes in its subnet (10.78.0.1, 10.78.0.2, 10.78.0.3)";
        match text.contains(wanted) {
            true => Ok(()),
            false => Err(text),
        }
    });
}

/// Waits until all three servers have answered through an address; they must have seen this client.
#[track_caller]
fn check_published(cluster: &Cluster, to: &str, client: &str) {
    let mut servers = BTreeSet::new();
    let url = format!("http://{to}:8080/");
    until(&format!("all answer at {url}"), PATIENCE, || {
        let mut command = cluster.inside(Path::new("curl"));
        let output = command.args(["-sSg", "--max-time", "5", &url]).output();
        let output = output.expect("curl can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (server, seen) = text
            .trim()
            .split_once(' ')
            .ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        assert_eq!(seen, client, "through {to}");
        servers.insert(server.to_owned());
        match servers.len() {
            3 => Ok(()),
            _ => Err(format!("{servers:?}")),
        }
    });
}

/// Counts what a node sends for networks, to the port that was chosen and to the usual one.
const COUNT: &str = "nft 'add table ip count; add chain ip count out { type filter hook output priority 0; }; \
                     add rule ip count out ip daddr 10.79.0.0/24 udp dport 5789 counter; \
                     add rule ip count out udp dport 4789 counter'";

/// Two nodes whose tunnels have addresses and a port of their own.
fn start_beside() -> Cluster {
    let cluster = Cluster::outsiders(2);
    for number in cluster.numbers() {
        let on = |line: &str| cluster.skep_ok(&format!("local exec node{number} {line}"));
        on(&format!("ip addr add 10.79.0.{number}/24 dev eth0"));
        on(COUNT);
    }
    cluster.node(1).docker_ok(
        "swarm init --advertise-addr 10.78.0.1 --data-path-addr 10.79.0.1 --data-path-port 5789",
    );
    let token = cluster.node(1).docker_ok("swarm join-token -q worker");
    cluster.node(2).docker_ok(&format!(
        "swarm join --token {token} --advertise-addr 10.78.0.2 --data-path-addr 10.79.0.2 10.78.0.1:2377"
    ));
    cluster
}

#[test]
fn a_data_path_of_its_own_is_used_and_named_when_it_carries_too_little() {
    let cluster = start_beside();
    // What node1 sends is lost at the end of the way, as where a tunnel between sites tells nobody of its limit.
    cluster.skep_ok("local exec node2 ip link set eth0 mtu 1400");
    let manager = cluster.node(1);
    manager.docker_ok("network create -d overlay --opt com.docker.network.driver.mtu=1420 big");
    manager.create("--name idle --mode global --network big skep/busybox sleep 10000");
    cluster.placed(1, "idle", 2);
    let own = container(&cluster, 1, "idle");
    let other = cluster.node(2).json(&format!(
        "/containers/{}/json",
        container(&cluster, 2, "idle")
    ));
    let other = &other["NetworkSettings"]["Networks"]["big"]["IPAddress"];
    let ping = format!(
        "exec {own} ping -c 1 -W 2 {}",
        other.as_str().unwrap_or_default()
    );
    until("small packets arrive", PATIENCE, || {
        let output = manager.docker(&ping);
        match output.status {
            0 => Ok(()),
            _ => Err(output.text()),
        }
    });
    for number in cluster.numbers() {
        let text = cluster.skep_ok(&format!("local exec node{number} nft list table ip count"));
        let counts: Vec<&str> = text
            .split("packets ")
            .skip(1)
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        assert!(
            counts.len() == 2 && counts[0] != "0" && counts[1] == "0",
            "{text}"
        );
    }
    until("node1 names the path to node2", PATH_PATIENCE, || {
        let text = manager.docker("info").text();
        let wanted = [
            // The link takes four bytes more than it says, for a VLAN's header.
            "the path to node 10.79.0.2 carries packets of 1404 bytes, but 1500 are needed",
            "network `big` asks for MTU 1420, the path to node 10.79.0.2 carries 1354",
            "Data Path Port: 5789",
        ];
        match wanted.iter().find(|wanted| !text.contains(*wanted)) {
            None => Ok(()),
            Some(wanted) => Err(format!("no `{wanted}` in {text}")),
        }
    });
    let found = cluster.skep_fails("net doctor --node node1");
    assert!(found.contains("the path to node 10.79.0.2"), "{found}");
}
