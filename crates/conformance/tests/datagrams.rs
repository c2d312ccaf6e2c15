//! Published ports without connections: UDP, and SCTP as far as this kernel has it. Every node answers, servers see their clients' own
//! addresses.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::IpAddr,
    path::Path,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use skep_conformance::{Cluster, until};

/// Longest wait for what takes some seconds at most. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait of a client that goes on with one port for tasks that run already. Below the two minutes for which the kernel
/// remembers a flow that was answered once.
const MOVE_PATIENCE: Duration = Duration::from_secs(20);

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
    check_replacement(&cluster);
}

/// The containers of the servers, as they call themselves.
fn servers(cluster: &Cluster) -> BTreeSet<String> {
    let on = |number| {
        let filter = "label=com.docker.swarm.service.name=web";
        let node = cluster.node(number);
        node.docker_ok(&format!("ps -q -f status=running -f {filter}"))
    };
    let ids: Vec<String> = cluster.numbers().map(on).collect();
    ids.iter()
        .flat_map(|text| text.split_whitespace().map(str::to_owned))
        .collect()
}

/// A client on the machine that asks through one node again and again, always from one port.
#[derive(Debug)]
struct Persistent {
    number: usize,
    child: Child,
    answers: mpsc::Receiver<String>,
}

impl Persistent {
    fn start(cluster: &Cluster, number: usize) -> Self {
        // Errors are what ICMP says while nobody is there.
        let bash = "exec 3<>/dev/udp/$1/8080; while :; do echo x >&3; timeout 0.5 dd bs=1500 count=1 status=none <&3; \
                    sleep 0.05; done 2>/dev/null";
        let mut command = cluster.inside(Path::new("bash"));
        command.args(["-c", bash, "ask", &address(number)]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash can be run");
        let output = child.stdout.take().expect("a pipe");
        let (sender, answers) = mpsc::channel();
        // Ends with the client, whose pipe it reads, or with the test.
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        Self {
            number,
            child,
            answers,
        }
    }

    /// Waits until one of these servers has answered.
    #[track_caller]
    fn met(&self, wanted: &BTreeSet<String>) {
        let deadline = Instant::now() + MOVE_PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.answers.recv_timeout(left);
            let line =
                line.unwrap_or_else(|_| panic!("node{} leads to none of {wanted:?}", self.number));
            if read(&line).is_some_and(|(server, _)| wanted.contains(&server)) {
                return;
            }
        }
    }
}

impl Drop for Persistent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Between the old tasks and the new ones there is nobody, and the kernel would remember that of a client that goes on with one port.
fn check_replacement(cluster: &Cluster) {
    let old = servers(cluster);
    let clients: Vec<_> = cluster
        .numbers()
        .map(|number| Persistent::start(cluster, number))
        .collect();
    clients.iter().for_each(|client| client.met(&old));
    cluster.node(1).docker_ok(
        "service update -q --force --update-order stop-first --update-parallelism 0 --update-monitor 500ms web",
    );
    cluster.placed(1, "web", 2);
    let new = servers(cluster);
    assert!(new.len() == 2 && new.is_disjoint(&old), "{new:?} {old:?}");
    clients.iter().for_each(|client| client.met(&new));
    for number in cluster.numbers() {
        for asked in cluster.numbers() {
            // The port is the one of before.
            clients_seen(cluster, Asker::Container(number), &address(asked));
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
