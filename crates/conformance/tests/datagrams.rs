//! Published ports without connections: UDP, and SCTP as far as this kernel has it. Every node answers, servers see their clients' own
//! addresses.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, time::Duration};

use skep_conformance::{Cluster, until};

/// Longest wait for what takes some seconds at most. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers behind UDP port 8080, and a client in a container on each node.
fn start() -> Cluster {
    let cluster = Cluster::start(3, 1);
    cluster.load("web");
    let manager = cluster.node(1);
    manager.create(
        "--name web --replicas 2 --no-healthcheck --label skep.drain=0s --publish 8080:80/udp skep/web",
    );
    manager.create("--name client --mode global --no-healthcheck skep/web");
    cluster.placed(1, "web", 2);
    cluster.placed(1, "client", 3);
    cluster
}

fn address(number: usize) -> String {
    format!("10.78.0.{number}")
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Machine,
    Node(usize),
    /// In the container of `client` on a node.
    Container(usize),
}

/// What is answered to one datagram: the server and the client it saw.
fn answer(cluster: &Cluster, from: Asker, to: &str) -> Result<(String, IpAddr), String> {
    // A datagram is read whole or lost, which bash's own `read` would not do.
    let bash = "exec 3<>/dev/udp/$1/8080; echo x >&3; timeout 2 dd bs=1500 count=1 status=none <&3";
    let output = match from {
        Asker::Machine => {
            let mut command = cluster.inside(Path::new("bash"));
            command.args(["-c", bash, "ask", to]).output()
        }
        Asker::Node(number) => {
            let line = format!("local exec node{number} bash -c '{bash}' ask {to}");
            cluster.skep_command(&line).output()
        }
        Asker::Container(number) => {
            let filter = "label=com.docker.swarm.service.name=client";
            let id = cluster
                .node(number)
                .docker_ok(&format!("ps -q --no-trunc -f {filter}"));
            let output = cluster
                .node(number)
                .docker(&format!("exec {id} web udp {to}:8080 5555"));
            return read(&output.stdout).ok_or_else(|| output.text());
        }
    };
    let output = output.expect("the command can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    read(&text).ok_or_else(|| text + &String::from_utf8_lossy(&output.stderr))
}

fn read(line: &str) -> Option<(String, IpAddr)> {
    let (server, client) = line.trim().split_once(' ')?;
    Some((server.to_owned(), client.parse().ok()?))
}

/// Waits until both servers have answered; returns the clients they saw.
#[track_caller]
fn clients_seen(cluster: &Cluster, from: Asker, to: &str) -> BTreeSet<IpAddr> {
    let (mut servers, mut clients) = (BTreeSet::new(), BTreeSet::new());
    // A container asks from one port, so one server answers it as long as the kernel remembers.
    let count = match from {
        Asker::Container(_) => 1,
        Asker::Machine | Asker::Node(_) => 2,
    };
    let what = format!("{from:?} is answered by {to}");
    until(&what, PATIENCE, || {
        let (server, client) = answer(cluster, from, to)?;
        servers.insert(server);
        clients.insert(client);
        match servers.len() >= count {
            true => Ok(()),
            false => Err(format!("{servers:?} answered")),
        }
    });
    clients
}

#[test]
fn udp_is_answered_by_every_node_and_servers_see_their_clients() {
    let cluster = start();
    let machine: IpAddr = "10.78.0.254".parse().unwrap();
    for number in cluster.numbers() {
        let to = address(number);
        let own: IpAddr = to.parse().unwrap();
        assert_eq!(
            clients_seen(&cluster, Asker::Machine, &to),
            [machine].into(),
            "through node{number}"
        );
        assert_eq!(
            clients_seen(&cluster, Asker::Node(number), &to),
            [own].into(),
            "node{number} asks itself"
        );
        clients_seen(&cluster, Asker::Node(number), "127.0.0.1");
        for asked in cluster.numbers() {
            clients_seen(&cluster, Asker::Container(number), &address(asked));
        }
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test must be loud")]
fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}

/// Without SCTP in the kernel nobody can listen; what the nodes' tables lead to can be seen all the same.
#[test]
fn sctp_ports_are_led_to_their_tasks() {
    let cluster = Cluster::start(2, 1);
    cluster.load("web");
    let manager = cluster.node(1);
    manager.create("--name web --replicas 2 --no-healthcheck --publish 8080:80/sctp skep/web");
    cluster.placed(1, "web", 2);
    for number in cluster.numbers() {
        until("the port leads to both tasks", PATIENCE, || {
            let list = |map: &str| {
                let line = format!("local exec node{number} nft list map ip skep_mesh {map}");
                cluster.skep_ok(&line)
            };
            let (ports, slots) = (list("ports"), list("slots"));
            let leads = ports.contains("sctp . 8080 : goto n2")
                && slots.matches("sctp . 8080 . ").count() == 2
                && slots.matches(" . 80").count() >= 2;
            match leads {
                true => Ok(()),
                false => Err(ports + &slots),
            }
        });
    }
    if !fs::read_to_string("/proc/net/protocols").is_ok_and(|list| list.contains("SCTP")) {
        skip("this kernel has no SCTP sockets, so no association was tried");
    }
}
