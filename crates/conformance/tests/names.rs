//! The name server of containers: what they are told of it, what it answers and asks others, and that what floods it harms nobody else.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use skep_conformance::{Cluster, Node, images, until};

/// Longest wait for what should take well below a second. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(40);
/// Queries of the flood.
const FLOOD_COUNT: u32 = 50_000;
/// Longest wait for a name while another container floods. A limit for a slow machine, not a figure.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// The one container of a service on the first node.
fn container(cluster: &Cluster, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let node = cluster.node(1);
    node.docker_ok(&format!("ps -q --no-trunc -f {filter}"))
}

#[test]
fn a_container_that_floods_its_name_server_harms_nobody() {
    let cluster = Cluster::start(1, 1);
    cluster.load("web");
    let node = cluster.node(1);
    node.docker_ok("network create -d overlay back");
    for name in ["noisy", "quiet"] {
        node.create(&format!(
            "--name {name} --no-healthcheck --network back skep/web"
        ));
        cluster.placed(1, name, 1);
    }
    let (noisy, quiet) = (container(&cluster, "noisy"), container(&cluster, "quiet"));
    for name in ["quiet", "nobody.example.org"] {
        let answered = thread::scope(|scope| {
            let line = format!("exec {noisy} web flood {name} {FLOOD_COUNT}");
            let flood = scope.spawn(move || node.docker_ok(&line));
            let mut count = 0;
            // At least so many while the flood may still be on.
            while !flood.is_finished() || count < 5 {
                let begin = Instant::now();
                let text = node.docker_ok(&format!("exec {quiet} nslookup -type=a noisy"));
                assert!(text.contains("Address"), "{text}");
                let took = begin.elapsed();
                assert!(took < ANSWER_WITHIN, "answered after {took:?}");
                count += 1;
            }
            flood.join().expect("the flood ends")
        });
        let answered: u32 = answered.parse().expect("a number");
        assert!(answered > 0, "the flood of {name} is not answered at all");
        assert!(
            answered < FLOOD_COUNT / 2,
            "{answered} of {FLOOD_COUNT} queries for {name} were answered"
        );
    }
    // The limit is of queries per second, so it is over soon.
    let text = node.docker_ok(&format!("exec {noisy} nslookup -type=a quiet"));
    assert!(text.contains("Address"), "{text}");
}

#[test]
fn names_are_looked_for_as_their_service_says() {
    let node = Node::start();
    node.docker_ok(&format!("load -i {}", images().join("web.tar").display()));
    node.docker_ok("network create -d overlay back");
    check_files(&node);
    node.create(
        "--name upstream --no-healthcheck --network name=back,alias=other skep/web web names",
    );
    let format = "{{(index .NetworkSettings.Networks \"back\").IPAddress}}";
    let container = node.container("upstream");
    let server = node.docker_ok(&format!("inspect -f '{format}' {container}"));
    let client = |name: &str, flags: &str| {
        node.create(&format!(
            "--name {name} --no-healthcheck --network back --dns {server} --dns-search one.test {flags} skep/web sleep 10000"
        ));
        node.container(name);
    };
    client(
        "client",
        "--dns-search two.test --dns-option ndots:2 --dns-option timeout:1 --dns-option attempts:3 --dns-option rotate",
    );
    client("plain", "");
    for (name, expected) in [
        (
            "client",
            "nameserver 127.0.0.11\nsearch one.test two.test\noptions ndots:2 timeout:1 attempts:3 rotate",
        ),
        (
            "plain",
            "nameserver 127.0.0.11\nsearch one.test\noptions ndots:0",
        ),
    ] {
        assert_eq!(node.exec(name, "cat /etc/resolv.conf"), expected);
    }
    check_searches(&node);
    check_transports(&node);
    check_own_names(&node, &server);
}

/// What containers find in their files, with and without a network whose names we know.
fn check_files(node: &Node) {
    let flags = "--host db:192.0.2.7 --host six:2001:db8::7 --dns 192.0.2.53 --dns-search example.test \
                 --dns-option ndots:2 --hostname me";
    for (service, network, server) in [
        ("alone", "", "192.0.2.53"),
        ("told", "--network back", "127.0.0.11"),
    ] {
        node.create(&format!(
            "--name {service} {network} {flags} skep/busybox sleep 10000"
        ));
        let hosts = node.exec(service, "cat /etc/hosts");
        let entries: Vec<Vec<&str>> = hosts
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        for entry in [["192.0.2.7", "db"], ["2001:db8::7", "six"]] {
            assert!(
                entries.iter().any(|words| *words == entry),
                "{service}: {hosts}"
            );
        }
        assert!(
            entries.iter().any(|words| words.contains(&"me")),
            "{service}: {hosts}"
        );
        let expected = format!("nameserver {server}\nsearch example.test\noptions ndots:2");
        assert_eq!(node.exec(service, "cat /etc/resolv.conf"), expected);
    }
}

/// Has the C library of a container look for a name, which leads to `address`, or nowhere.
#[track_caller]
fn looked_up(node: &Node, service: &str, name: &str, address: Option<&str>) {
    let container = node.container(service);
    let text = node
        .docker(&format!("exec {container} ping -c 1 -W 1 {name}"))
        .text();
    match address {
        Some(address) => assert!(text.contains(&format!("({address})")), "{name}: {text}"),
        None => assert!(text.contains("bad address"), "{name}: {text}"),
    }
}

/// All the server of `--dns` was asked for addresses until it was asked for `last`, which it knows: transports and names.
#[track_caller]
fn asked(node: &Node, last: &str) -> Vec<String> {
    looked_up(node, "plain", last, Some("203.0.113.7"));
    let log = node.logged("upstream", &format!("udp 1 {last}\n"));
    let lines = log.lines().map(|line| line.replacen(" 1 ", " ", 1));
    // Questions for IPv6 addresses come beside.
    let lines = lines.filter(|line| line.split(' ').count() == 2);
    lines.collect()
}

fn check_searches(node: &Node) {
    let found = Some("203.0.113.7");
    looked_up(node, "client", "here.a", found);
    looked_up(node, "client", "here.a.b", found);
    looked_up(node, "client", "nowhere.a.b", None);
    looked_up(node, "client", "silent.a.b.", None);
    // Names of our own come last, if the user wants names with so few dots to be searched for, or first.
    let vip =
        node.docker_ok("service inspect upstream -f '{{(index .Endpoint.VirtualIPs 0).Addr}}'");
    let vip = vip.split('/').next();
    looked_up(node, "client", "upstream", vip);
    looked_up(node, "plain", "other", vip);
    looked_up(node, "plain", "nowhere", None);
    let questions = asked(node, "here.end");
    let expected = [
        // One dot: as it is only when it is in no search domain.
        "udp here.a.one.test",
        "udp here.a.two.test",
        // Two dots: as it is first.
        "udp here.a.b",
        "udp nowhere.a.b",
        "udp nowhere.a.b.one.test",
        "udp nowhere.a.b.two.test",
        // As many attempts as were wished for.
        "udp silent.a.b",
        "udp silent.a.b",
        "udp silent.a.b",
        "udp upstream.one.test",
        "udp upstream.two.test",
        // Without wishes: as it is first. Our own names are not told to others.
        "udp nowhere",
        "udp nowhere.one.test",
        "udp here.end",
    ];
    assert_eq!(questions, expected);
}

/// An answer that is too long for a datagram is fetched by stream, from the other server as well.
fn check_transports(node: &Node) {
    let before = asked(node, "here.before").len();
    looked_up(node, "plain", "long.a.b", Some("203.0.113.8"));
    let questions = asked(node, "here.after");
    let expected = ["udp long.a.b", "tcp long.a.b", "udp here.after"];
    assert_eq!(questions[before..], expected);
}

/// The name of a service whose three tasks do not fit into a datagram.
const WIDE: &str = "wide-wide-wide-wide-wide-wide-wide-wide-wide-wide-wide-wide-xyz";

/// Answers by number of the type: no data, no such name, addresses' names, named ports; whole by stream.
fn check_own_names(node: &Node, server: &str) {
    let spec = json!({ "Name": WIDE,
        "TaskTemplate": {
            "ContainerSpec": { "Image": "skep/busybox", "Args": ["sleep", "10000"], "StopSignal": "KILL" },
            "Networks": [{ "Target": "back" }],
        },
        "Mode": { "Replicated": { "Replicas": 6 } },
        "EndpointSpec": { "Ports": [{ "Name": "web", "TargetPort": 80, "PublishedPort": 8080 }] } });
    let answer = node.http("POST", "/services/create", Some(&spec.to_string()));
    assert_eq!(answer.status, 201, "{answer:?}");
    node.running(WIDE, 6);
    let container = node.container("client");
    let resolve = |words: &str| node.docker_ok(&format!("exec {container} web resolve {words}"));
    let ports = format!("_web._tcp.{WIDE}");
    until("all tasks are known", PATIENCE, || {
        let said = resolve(&format!("tcp 33 {ports}"));
        match said.as_str() {
            "code=0 cut=0 answers=6 more=6" => Ok(()),
            _ => Err(said),
        }
    });
    let said = resolve(&format!("udp 33 {ports}"));
    assert!(said.starts_with("code=0 cut=1 "), "{said}");
    let reversed = |address: &str| {
        let parts: Vec<&str> = address.split('.').rev().collect();
        parts.join(".") + ".in-addr.arpa"
    };
    let (subnet, _) = server.rsplit_once('.').expect("an IPv4 address");
    for transport in ["udp", "tcp"] {
        for (question, expected) in [
            ("1 upstream".to_owned(), "code=0 cut=0 answers=1 more=0"),
            ("28 upstream".to_owned(), "code=0 cut=0 answers=0 more=0"),
            (
                "15 tasks.upstream".to_owned(),
                "code=0 cut=0 answers=0 more=0",
            ),
            (
                "33 _odd._tcp.upstream".to_owned(),
                "code=3 cut=0 answers=0 more=0",
            ),
            (
                format!("12 {}", reversed(server)),
                "code=0 cut=0 answers=1 more=0",
            ),
            (
                format!("12 {}", reversed(&format!("{subnet}.250"))),
                "code=3 cut=0 answers=0 more=0",
            ),
        ] {
            let said = resolve(&format!("{transport} {question}"));
            assert_eq!(said, expected, "{transport} {question}");
        }
    }
    let name = node.exec("client", &format!("nslookup {server}"));
    assert!(name.contains("name = upstream.1."), "{name}");
    // Addresses of the network are nobody else's business.
    let questions = asked(node, "here.last");
    assert!(
        !questions.iter().any(|line| line.contains("arpa")),
        "{questions:?}"
    );
}
