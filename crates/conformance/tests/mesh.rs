//! Published ports of a cluster: every node answers, servers see their clients' own addresses, no request is lost while services and
//! nodes change, and what others break is mended.

use std::{collections::BTreeSet, path::Path, time::Duration};

use skep_conformance::{Cluster, Output, Requests, until};

/// Longest wait for what takes some seconds at most. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service of web servers, published at port 8080; labels keep its updates short.
fn create_web(cluster: &Cluster, flags: &str) {
    cluster.load("web");
    cluster.node(1).docker_ok("network create -d overlay back");
    cluster.node(1).docker_ok(&format!(
        "service create -d --no-resolve-image --name web --network back -p 8080:80 --label skep.drain=1s \
         --update-monitor 500ms {flags} skep/web"
    ));
}

/// What the servers answer to requests from the machine or a node; every server must have answered.
#[track_caller]
fn answers(
    cluster: &Cluster,
    node: Option<usize>,
    address: &str,
    servers: usize,
) -> BTreeSet<(String, String)> {
    let url = format!("http://{address}:8080/");
    let what = format!("all servers answer {node:?} at {url}");
    let mut all = BTreeSet::new();
    until(&what, PATIENCE, || {
        let mut command = match node {
            None => cluster.inside(Path::new("curl")),
            Some(number) => cluster.skep_command(&format!("local exec node{number} curl \"$@\"")),
        };
        if node.is_some() {
            command.arg("curl");
        }
        command.args(["-sS", "--max-time", "5", &url]);
        let output: Output = command.output().expect("curl can be run").into();
        let (server, client) = output.stdout.trim().split_once(' ').ok_or(output.stderr)?;
        all.insert((server.to_owned(), client.to_owned()));
        let found: BTreeSet<&String> = all.iter().map(|(server, _)| server).collect();
        match found.len() == servers {
            true => Ok(()),
            false => Err(format!("{all:?}")),
        }
    });
    all
}

#[test]
fn servers_see_their_clients_through_every_node() {
    let cluster = Cluster::start(3, 1);
    create_web(&cluster, "--mode global");
    cluster.placed(1, "web", 3);
    let first = cluster.address(1);
    let (network, _) = first.rsplit_once('.').expect("an IPv4 address");
    let machine = format!("{network}.254");
    let mut said = BTreeSet::new();
    for number in cluster.numbers() {
        let own = cluster.address(number);
        for (server, client) in answers(&cluster, None, &own, 3) {
            assert_eq!(client, machine, "through node{number}");
            said.insert(format!("{server} {client}"));
        }
        for (_, client) in answers(&cluster, Some(number), &own, 3) {
            assert_eq!(client, own, "node{number} asks itself by its address");
        }
        // 127.0.0.1 cannot leave the node, so it is the node's gateway that is seen.
        let gateway = cluster.skep_ok(&format!(
            "local exec node{number} sh -c \"ip -4 -o addr show dev skep0 | awk '{{print \\$4}}' | cut -d / -f 1\""
        ));
        for (_, client) in answers(&cluster, Some(number), "127.0.0.1", 3) {
            assert_eq!(client, gateway, "node{number} asks itself by 127.0.0.1");
        }
    }
    until("the logs name the client", PATIENCE, || {
        let log = cluster.node(1).docker_ok("service logs --raw web");
        match said.iter().find(|line| !log.contains(line.as_str())) {
            None => Ok(()),
            Some(line) => Err(format!("no `{line}` in {log}")),
        }
    });
}

/// Nothing of what is done is noticed by clients.
#[track_caller]
fn unnoticed(cluster: &Cluster, what: &str, work: impl FnOnce()) {
    Requests::unnoticed(cluster, (8080, "/"), what, work);
}

#[test]
fn no_request_fails_while_a_service_changes_or_a_daemon_dies() {
    let cluster = Cluster::start(3, 1);
    create_web(&cluster, "--replicas 2");
    cluster.placed(1, "web", 2);
    let manager = cluster.node(1);
    unnoticed(&cluster, "update, stop-first", || {
        manager.docker_ok("service update -q --force --update-order stop-first web");
        cluster.converged(1, "web", 2);
    });
    unnoticed(&cluster, "update, start-first", || {
        manager.docker_ok("service update -q --force --update-order start-first web");
        cluster.converged(1, "web", 2);
    });
    unnoticed(&cluster, "scale", || {
        for count in [3, 1] {
            manager.docker_ok(&format!("service scale -d web={count}"));
            cluster.placed(1, "web", count);
            cluster.converged(1, "web", count);
        }
    });
    manager.docker_ok("service scale -d web=3");
    cluster.converged(1, "web", 3);
    unnoticed(&cluster, "a daemon killed", || {
        cluster.skep_ok("local stop --kill node2");
        cluster.skep_ok("local start node2");
    });
    check_repairs(&cluster);
}

/// Tables as Docker, firewalld or iptables-nft leave them.
const THEIRS: &str = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy accept; }; \
                      add rule ip filter FORWARD ip saddr 192.0.2.0/24 counter drop; add table ip nat; \
                      add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }; \
                      add rule ip nat POSTROUTING ip saddr 172.17.0.0/16 oifname != docker0 counter masquerade";

/// What others break of ours on a node is mended; what is theirs is left alone.
fn check_repairs(cluster: &Cluster) {
    let on = |line: &str| cluster.skep_ok(&format!("local exec node3 {line}"));
    let is_mended = || {
        let all = answers(cluster, None, &cluster.address(3), 3);
        assert_eq!(all.len(), 3, "{all:?}");
    };
    on("nft flush ruleset");
    is_mended();
    on(&format!("nft '{THEIRS}'"));
    let theirs = || ["filter", "nat"].map(|name| on(&format!("nft list table ip {name}")));
    let before = theirs();
    on("ip link del skep0");
    is_mended();
    on("nft delete table ip skep_mesh");
    is_mended();
    assert_eq!(theirs(), before);
}

#[test]
fn published_port_survives_a_node_that_is_cut_off() {
    let cluster = Cluster::start(3, 1);
    create_web(&cluster, "--replicas 3");
    cluster.placed(1, "web", 3);
    let addresses: Vec<String> = cluster.numbers().map(|n| cluster.address(n)).collect();
    let serves = |number: usize| {
        let target = &addresses[number - 1];
        let line = format!(
            "for _ in $(seq 30); do curl -fsS --max-time 1 http://{target}:8080/ || exit; done"
        );
        until(&format!("node{number} serves"), PATIENCE, || {
            let output = cluster
                .inside(Path::new("bash"))
                .args(["-c", &line])
                .output();
            let output = output.expect("bash can be run");
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        });
    };
    serves(3);
    cluster.skep_ok("local cut node3");
    serves(1);
    serves(2);
    let mut curl = cluster.inside(Path::new("curl"));
    curl.args([
        "-s",
        "--max-time",
        "1",
        &format!("http://{}:8080/", addresses[2]),
    ]);
    let status = curl.status().expect("curl can be run");
    assert!(!status.success(), "a node that is cut off cannot answer");
    cluster.skep_ok("local heal");
    for number in cluster.numbers() {
        serves(number);
    }
}
