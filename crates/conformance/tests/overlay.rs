//! What packets do: names, virtual addresses, separation and published ports of services on three nodes.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use skep_conformance::{Cluster, images, until};

/// Longest wait for what should take well below a second. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(40);
/// Requests that reach each of a few tasks at least once when each is led to any of them.
const TURNS_MAX: usize = 100;
/// Requests after all have answered: nobody else may.
const MORE_TURNS: usize = 5;

/// Three nodes, all managers' work on the first, with the server `skep/web` loaded.
fn start() -> Cluster {
    let cluster = Cluster::with_daemon_flags(3, 1, "--metrics-addr 127.0.0.1:9323");
    let archive = images().join("web.tar");
    cluster.skep_ok(&format!("local load {}", archive.display()));
    cluster
}

/// Creates a service of `skep/web` and waits until all its tasks run.
#[track_caller]
fn serve(cluster: &Cluster, name: &str, replicas: usize, flags: &str) {
    let line = format!("--name {name} --replicas {replicas} --no-healthcheck {flags} skep/web");
    cluster.node(1).create(&line);
    cluster.placed(1, name, replicas);
}

/// Creates a service that does nothing, with one task on each node.
#[track_caller]
fn idle(cluster: &Cluster, name: &str, flags: &str) {
    let line = format!("--name {name} --mode global {flags} skep/busybox sleep 10000");
    cluster.node(1).create(&line);
    cluster.placed(1, name, 3);
}

/// The one container of a service on a node.
#[track_caller]
fn container(cluster: &Cluster, number: usize, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let ids = cluster
        .node(number)
        .docker_ok(&format!("ps -q --no-trunc -f {filter}"));
    assert_eq!(
        ids.lines().count(),
        1,
        "containers of {service} on node{number}: {ids}"
    );
    ids
}

/// Runs a shell line in the one container of a service on a node; says whether that succeeded and what was printed.
#[track_caller]
fn try_run(cluster: &Cluster, number: usize, service: &str, script: &str) -> (bool, String) {
    let id = container(cluster, number, service);
    let output = cluster
        .node(number)
        .docker(&format!("exec {id} sh -c '{script}'"));
    (output.status == 0, output.text())
}

/// As [`try_run`], which must succeed.
#[track_caller]
fn run(cluster: &Cluster, number: usize, service: &str, script: &str) -> String {
    let (is_fine, text) = try_run(cluster, number, service, script);
    assert!(is_fine, "{service} on node{number}: {script}: {text}");
    text.trim().to_owned()
}

/// The addresses a name has in a container; none when it is unknown there.
#[track_caller]
fn addresses(cluster: &Cluster, number: usize, service: &str, name: &str) -> BTreeSet<IpAddr> {
    let (_, text) = try_run(
        cluster,
        number,
        service,
        &format!("nslookup -type=a {name}"),
    );
    // The server's own address comes with a port.
    let found = text
        .lines()
        .filter_map(|line| line.strip_prefix("Address:")?.trim().parse().ok());
    found.collect()
}

/// Waits until a name has so many addresses in a container; returns them.
#[track_caller]
fn resolved(
    cluster: &Cluster,
    (number, service): (usize, &str),
    name: &str,
    count: usize,
) -> BTreeSet<IpAddr> {
    let what = format!("{name} has {count} addresses in {service} on node{number}");
    until(&what, PATIENCE, || {
        let found = addresses(cluster, number, service, name);
        if found.len() == count {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    })
}

/// Asks a service, each time anew, until `count` of its tasks have answered, and then some times more; returns who
/// answered and the clients they saw.
#[track_caller]
fn ask(count: usize, answer: impl Fn() -> String) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let (mut servers, mut clients) = (BTreeSet::new(), BTreeSet::new());
    let mut left = TURNS_MAX;
    while left > 0 {
        let text = answer();
        let words: Vec<&str> = text.split_whitespace().collect();
        let [server, client] = words.as_slice() else {
            panic!("no answer of the server: {text}");
        };
        let is_new = servers.insert((*server).to_owned());
        let client: IpAddr = client
            .parse()
            .unwrap_or_else(|_| panic!("no address: {text}"));
        clients.insert(client);
        left = match is_new && servers.len() == count {
            true => MORE_TURNS,
            false => left - 1,
        };
    }
    assert_eq!(
        servers.len(),
        count,
        "{servers:?} answered, seen by {clients:?}"
    );
    (servers, clients)
}

/// What a node's metrics say of something.
#[track_caller]
fn counted(cluster: &Cluster, number: usize, what: &str) -> u64 {
    let line = format!("local exec node{number} curl -sS http://127.0.0.1:9323/metrics");
    let text = cluster.skep_ok(&line);
    let mut counts = text.lines().filter_map(|line| line.strip_prefix(what));
    let count = counts.next().and_then(|count| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("no {what} in {text}"))
}

/// A line that fetches a page, with a short time limit.
fn fetch(host: &str) -> String {
    format!("timeout 5 busybox wget -q -O - http://{host}/")
}

/// The address of a container on a network.
#[track_caller]
fn place(cluster: &Cluster, number: usize, service: &str, network: &str) -> IpAddr {
    let id = container(cluster, number, service);
    let format = format!("'{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}'");
    let text = cluster
        .node(number)
        .docker_ok(&format!("inspect -f {format} {id}"));
    text.parse()
        .unwrap_or_else(|_| panic!("{service} on node{number} has `{text}` on {network}"))
}

#[test]
fn names_lead_to_services_of_the_same_network_only() {
    let cluster = start();
    let manager = cluster.node(1);
    for name in ["back", "other"] {
        manager.docker_ok(&format!("network create -d overlay {name}"));
    }
    serve(&cluster, "vip", 3, "--network name=back,alias=www");
    serve(&cluster, "rr", 3, "--network back --endpoint-mode dnsrr");
    idle(&cluster, "client", "--network back");
    idle(&cluster, "stranger", "--network other");
    check_names(&cluster);
    check_balance(&cluster);
    check_turns(&cluster);
    check_separation(&cluster);
    check_views(&cluster);
    check_updates(&cluster);
}

fn check_names(cluster: &Cluster) {
    let vips = cluster
        .node(1)
        .docker_ok("service inspect vip -f '{{range .Endpoint.VirtualIPs}}{{.Addr}}{{end}}'");
    let (vip, _) = vips.split_once('/').expect("an address with its prefix");
    let vip: IpAddr = vip.parse().expect("an address");
    for number in [1, 2, 3] {
        let at = (number, "client");
        assert_eq!(resolved(cluster, at, "vip", 1), BTreeSet::from([vip]));
        assert_eq!(resolved(cluster, at, "www", 1), BTreeSet::from([vip]));
        let tasks = resolved(cluster, at, "tasks.vip", 3);
        assert!(!tasks.contains(&vip), "{tasks:?}");
        assert_eq!(resolved(cluster, at, "tasks.www", 3), tasks);
        assert_eq!(
            resolved(cluster, at, "rr", 3),
            resolved(cluster, at, "tasks.rr", 3)
        );
        let first = resolved(cluster, at, "1.rr", 1);
        assert!(
            first.is_subset(&resolved(cluster, at, "rr", 3)),
            "{first:?}"
        );
        assert!(addresses(cluster, number, "client", "nobody").is_empty());
        assert!(addresses(cluster, number, "client", "stranger").is_empty());
    }
}

fn check_balance(cluster: &Cluster) {
    for number in [1, 2, 3] {
        let own = place(cluster, number, "client", "back");
        for host in ["vip", "www"] {
            let (_, clients) = ask(3, || run(cluster, number, "client", &fetch(host)));
            assert_eq!(clients, BTreeSet::from([own]), "{host} from node{number}");
        }
        let counted = |what: &str| counted(cluster, number, what);
        let connections = "skep_service_connections_total{network=\"back\",service=\"vip\"}";
        assert!(counted(connections) >= 6);
        assert!(counted("skep_network_sent_bytes_total{network=\"back\"}") > 1000);
    }
}

/// Clients that take the first address they are given come to all tasks in turn.
fn check_turns(cluster: &Cluster) {
    let wanted = resolved(cluster, (2, "client"), "rr", 3);
    let mut first = BTreeSet::new();
    for _ in 0..TURNS_MAX {
        let (_, text) = try_run(cluster, 2, "client", "nslookup -type=a rr");
        let mut addresses = text
            .lines()
            .filter_map(|line| line.strip_prefix("Address:"));
        first.extend(addresses.find_map(|address| address.trim().parse::<IpAddr>().ok()));
        if first.len() == wanted.len() {
            break;
        }
    }
    assert_eq!(first, wanted);
    for ip in wanted {
        ask(1, || run(cluster, 3, "client", &fetch(&ip.to_string())));
    }
}

fn check_separation(cluster: &Cluster) {
    let tasks = resolved(cluster, (1, "client"), "tasks.vip", 3);
    let vip = resolved(cluster, (1, "client"), "vip", 1);
    for number in [1, 2] {
        assert!(addresses(cluster, number, "stranger", "vip").is_empty());
        for ip in tasks.iter().chain(&vip) {
            let script = format!("timeout 1 busybox wget -q -O - http://{ip}/");
            let (is_reached, text) = try_run(cluster, number, "stranger", &script);
            assert!(
                !is_reached,
                "a stranger on node{number} reached {ip}: {text}"
            );
        }
    }
}

/// What the docker command shows of it, on a manager and on a worker.
fn check_views(cluster: &Cluster) {
    for number in [1, 3] {
        let node = cluster.node(number);
        let names =
            node.docker_ok("network ls -f scope=swarm -f driver=overlay --format '{{.Name}}'");
        assert!(
            names.lines().any(|name| name == "back"),
            "node{number}: {names}"
        );
        let back = &node.json("/networks/back?verbose=true");
        assert_eq!(back["Peers"].as_array().map(Vec::len), Some(3), "{back}");
        assert_eq!(
            back["Services"]["vip"]["Tasks"].as_array().map(Vec::len),
            Some(3),
            "{back}"
        );
        let id = container(cluster, number, "client");
        let place = &back["Containers"][&id];
        let ip = self::place(cluster, number, "client", "back").to_string();
        assert_eq!(place["IPv4Address"], format!("{ip}/24"), "{back}");
        let macs = run(cluster, number, "client", "cat /sys/class/net/*/address");
        let mac = place["MacAddress"].as_str().unwrap_or_default();
        assert!(macs.lines().any(|found| found == mac), "{macs}: {back}");
    }
}

fn check_updates(cluster: &Cluster) {
    let manager = cluster.node(1);
    manager.docker_ok("service scale -d vip=5");
    cluster.placed(1, "vip", 5);
    resolved(cluster, (2, "client"), "tasks.vip", 5);
    manager.docker_ok("service scale -d vip=0 rr=1");
    resolved(cluster, (2, "client"), "tasks.vip", 0);
    resolved(cluster, (2, "client"), "rr", 1);
    manager.docker_ok("service update -d --network-add other rr");
    until("the service is on both networks", PATIENCE, || {
        let seen = addresses(cluster, 2, "stranger", "rr");
        let known = addresses(cluster, 2, "client", "rr");
        match (seen.len(), known.len()) {
            (1, 1) if seen != known => Ok(()),
            _ => Err(format!("{seen:?} {known:?}")),
        }
    });
    run(cluster, 2, "stranger", &fetch("rr"));
    manager.docker_ok("service rm vip rr");
    resolved(cluster, (3, "client"), "rr", 0);
}

#[test]
fn internal_networks_have_no_way_out() {
    let cluster = start();
    let manager = cluster.node(1);
    manager.docker_ok("network create -d overlay --internal closed");
    manager.docker_ok("network create -d overlay open");
    idle(&cluster, "inside", "--network closed");
    idle(&cluster, "outside", "--network open");
    serve(&cluster, "web", 2, "--network closed");
    // The machine that the nodes are on answers at its own address.
    let ping = "ping -c 1 -W 2 10.78.0.254";
    run(&cluster, 2, "outside", ping);
    let (is_reached, text) = try_run(&cluster, 2, "inside", ping);
    assert!(!is_reached, "{text}");
    resolved(&cluster, (3, "inside"), "tasks.web", 2);
    ask(2, || run(&cluster, 3, "inside", &fetch("web")));
}

#[test]
fn published_ports_answer_on_every_node_with_the_clients_address() {
    let cluster = start();
    serve(&cluster, "web", 2, "-p 8080:80 -p 80");
    let machine: IpAddr = "10.78.0.254".parse().unwrap();
    let chosen = cluster
        .node(1)
        .docker_ok("service ls -f name=web --format '{{.Ports}}'");
    assert!(
        chosen.contains("*:8080->80/tcp") && chosen.contains("*:30000->80/tcp"),
        "{chosen}"
    );
    for number in [1, 2, 3] {
        for port in [8080, 30_000] {
            let host = format!("10.78.0.{number}:{port}");
            answered(&cluster, &host);
            let (_, clients) = ask(2, || cluster.inside_ok(&fetch(&host)));
            assert_eq!(clients, BTreeSet::from([machine]), "{host}");
        }
        let line = format!("local exec node{number} {}", fetch("127.0.0.1:8080"));
        ask(2, || cluster.skep_ok(&line));
        let connections =
            "skep_published_connections_total{service=\"web\",port=\"8080\",protocol=\"tcp\"}";
        assert!(counted(&cluster, number, connections) >= 4);
    }
    cluster.node(1).logged("web", "10.78.0.254");
    check_clients_in_containers(&cluster);
    check_changes_of_ports(&cluster);
}

fn check_clients_in_containers(cluster: &Cluster) {
    idle(cluster, "client", "");
    for number in [1, 2, 3] {
        let line = fetch(&format!("10.78.0.{number}:8080"));
        ask(2, || run(cluster, 2, "client", &line));
    }
}

fn check_changes_of_ports(cluster: &Cluster) {
    let manager = cluster.node(1);
    manager.docker_ok("service scale -d web=6");
    cluster.placed(1, "web", 6);
    ask(6, || cluster.inside_ok(&fetch("10.78.0.3:8080")));
    manager.docker_ok("service scale -d web=1");
    cluster.placed(1, "web", 1);
    until("one answers", PATIENCE, || {
        let mut answers = (0..MORE_TURNS).map(|_| cluster.inside_ok(&fetch("10.78.0.2:8080")));
        let first = answers.next();
        match answers.all(|answer| Some(answer) == first) {
            true => Ok(()),
            false => Err("several answer".to_owned()),
        }
    });
    manager.docker_ok("service update -d --publish-rm 8080:80 --publish-add 8081:80 web");
    answered(cluster, "10.78.0.2:8081");
    until("the old port is closed", PATIENCE, || {
        let output = cluster.skep(&format!("local exec node2 {}", fetch("127.0.0.1:8080")));
        if output.status == 0 {
            Err(output.text())
        } else {
            Ok(())
        }
    });
}

/// Waits until a published port answers the machine.
#[track_caller]
fn answered(cluster: &Cluster, host: &str) {
    until(&format!("{host} answers"), PATIENCE, || {
        // The status is that of the pipe's last command: this always succeeds.
        let text = cluster.inside_ok(&format!("{} 2>&1 | cat", fetch(host)));
        if text.contains("10.78.0.254") {
            Ok(())
        } else {
            Err(text)
        }
    });
}

#[test]
fn published_ports_and_names_survive_a_cut() {
    let cluster = start();
    let manager = cluster.node(1);
    manager.docker_ok("network create -d overlay back");
    let line = "--name web --mode global --no-healthcheck --network back -p 8080:80 skep/web";
    manager.create(line);
    cluster.placed(1, "web", 3);
    idle(&cluster, "client", "--network back");
    for number in [1, 2, 3] {
        resolved(&cluster, (number, "client"), "tasks.web", 3);
    }
    cluster.skep_ok("local cut node3");
    resolved(&cluster, (1, "client"), "tasks.web", 2);
    for number in [1, 2] {
        ask(2, || {
            cluster.inside_ok(&fetch(&format!("10.78.0.{number}:8080")))
        });
        ask(2, || run(&cluster, number, "client", &fetch("web")));
    }
    cluster.skep_ok("local heal node3");
    for number in [1, 2, 3] {
        resolved(&cluster, (number, "client"), "tasks.web", 3);
        answered(&cluster, &format!("10.78.0.{number}:8080"));
        ask(3, || {
            cluster.inside_ok(&fetch(&format!("10.78.0.{number}:8080")))
        });
        ask(3, || run(&cluster, number, "client", &fetch("web")));
    }
}

#[test]
fn one_port_leads_to_two_services_by_address() {
    let cluster = start();
    for number in [1, 2] {
        let address = format!("--label skep.publish.address=10.78.0.{number}");
        serve(
            &cluster,
            &format!("at{number}"),
            1,
            &format!("-p 9090:80 --hostname at{number} {address}"),
        );
    }
    for number in [1, 2] {
        let host = format!("10.78.0.{number}:9090");
        answered(&cluster, &host);
        let (servers, _) = ask(1, || cluster.inside_ok(&fetch(&host)));
        assert_eq!(servers, BTreeSet::from([format!("at{number}")]));
    }
}

#[test]
fn published_ports_stay_on_the_node_asked_when_told_to() {
    let cluster = start();
    serve(
        &cluster,
        "near",
        3,
        "-p 8080:80 --label skep.publish.local-first=true",
    );
    for number in [1, 2, 3] {
        let host = format!("10.78.0.{number}:8080");
        answered(&cluster, &host);
        let own = container(&cluster, number, "near")[..12].to_owned();
        until("only the node's own task answers", PATIENCE, || {
            let answers = (0..10).map(|_| cluster.inside_ok(&fetch(&host)));
            match answers.into_iter().find(|answer| !answer.starts_with(&own)) {
                None => Ok(()),
                Some(other) => Err(other),
            }
        });
    }
    // Without one of its own a node leads to others.
    cluster.node(1).docker_ok("service scale -d near=1");
    cluster.placed(1, "near", 1);
    for number in [1, 2, 3] {
        answered(&cluster, &format!("10.78.0.{number}:8080"));
    }
}

#[test]
fn networks_with_ipv6_have_both_families() {
    let cluster = start();
    cluster
        .node(1)
        .docker_ok("network create -d overlay --ipv6 --subnet fd00:7::/64 six");
    serve(&cluster, "web", 2, "--network six");
    idle(&cluster, "client", "--network six");
    for number in [1, 2, 3] {
        let text = until("there is an address", PATIENCE, || {
            let (_, text) = try_run(&cluster, number, "client", "nslookup -type=aaaa web");
            if text.contains("fd00:7::") {
                Ok(text)
            } else {
                Err(text)
            }
        });
        let mut found = text
            .lines()
            .filter_map(|line| line.strip_prefix("Address:"));
        let vip = found
            .find(|address| address.contains("fd00:7::"))
            .unwrap_or_default();
        let (_, clients) = ask(2, || {
            run(
                &cluster,
                number,
                "client",
                &fetch(&format!("[{}]", vip.trim())),
            )
        });
        assert!(clients.iter().all(IpAddr::is_ipv6), "{clients:?}");
        resolved(&cluster, (number, "client"), "web", 1);
        ask(2, || run(&cluster, number, "client", &fetch("web")));
    }
}

#[test]
fn encrypted_networks_carry_what_others_do() {
    let cluster = start();
    let manager = cluster.node(1);
    manager.docker_ok("network create -d overlay -o encrypted secret");
    let shown = manager.docker_ok("network inspect -f '{{json .Options}}' secret");
    assert!(shown.contains("\"encrypted\":\"\""), "{shown}");
    serve(&cluster, "web", 3, "--network secret");
    idle(&cluster, "client", "--network secret");
    for number in [1, 2, 3] {
        resolved(&cluster, (number, "client"), "tasks.web", 3);
        let own = place(&cluster, number, "client", "secret");
        let (_, clients) = ask(3, || run(&cluster, number, "client", &fetch("web")));
        assert_eq!(clients, BTreeSet::from([own]));
    }
}

#[test]
fn tasks_use_what_each_node_has_for_itself_when_told_to() {
    let cluster = start();
    check_host_network(&cluster);
    check_bridges(&cluster);
    check_macvlans(&cluster);
}

fn check_host_network(cluster: &Cluster) {
    serve(cluster, "web", 3, "--network host --env PORT=8088");
    for number in [1, 2, 3] {
        let host = format!("10.78.0.{number}:8088");
        answered(cluster, &host);
        let (servers, _) = ask(1, || cluster.inside_ok(&fetch(&host)));
        assert_eq!(servers, BTreeSet::from([format!("node{number}")]));
    }
}

/// A bridge of each node, with the settings that the node has under one name. Worker nodes have them without any manager's knowledge.
fn check_bridges(cluster: &Cluster) {
    for number in [1, 2, 3] {
        let settings =
            format!("--config-only --subnet 10.9{number}.0.0/24 --label of={number} settings");
        let node = cluster.node(number);
        node.docker_ok(&format!("network create {settings}"));
    }
    let manager = cluster.node(1);
    manager.docker_ok("network create -d bridge --scope swarm --config-from settings yard");
    let flags = "--network yard --mode global --no-healthcheck --publish 8090:80";
    manager.create(&format!("--name yard {flags} skep/web"));
    cluster.placed(1, "yard", 3);
    for number in [1, 2, 3] {
        let own = place(cluster, number, "yard", "yard").to_string();
        assert!(
            own.starts_with(&format!("10.9{number}.0.")),
            "node{number}: {own}"
        );
        // The node reaches its own part, which ends there; published ports lead to all parts from everywhere.
        let ask_own = format!("local exec node{number} {}", fetch(&own));
        ask(1, || cluster.skep_ok(&ask_own));
        let host = format!("10.78.0.{number}:8090");
        answered(cluster, &host);
        ask(3, || cluster.inside_ok(&fetch(&host)));
    }
    let first = place(cluster, 1, "yard", "yard");
    let (is_reached, text) = try_run(cluster, 2, "yard", &format!("ping -c 1 -W 1 {first}"));
    assert!(!is_reached, "{text}");
}

/// Containers of all nodes on the nodes' own wire, each with an address of its node's range.
fn check_macvlans(cluster: &Cluster) {
    for number in [1, 2, 3] {
        let range = 64 + 16 * number;
        cluster.node(number).docker_ok(&format!(
            "network create --config-only --subnet 10.78.0.0/24 --gateway 10.78.0.254 --ip-range 10.78.0.{range}/28 \
             -o parent=eth0 wire"
        ));
    }
    let manager = cluster.node(1);
    manager.docker_ok("network create -d macvlan --scope swarm --config-from wire lan");
    manager.create("--name lan --network lan --mode global --no-healthcheck skep/web");
    cluster.placed(1, "lan", 3);
    let places: Vec<IpAddr> = [1, 2, 3]
        .map(|number| place(cluster, number, "lan", "lan"))
        .into();
    let machine = IpAddr::from([10, 78, 0, 254]);
    for (number, own) in [1, 2, 3].into_iter().zip(&places) {
        let range = own.to_string().rsplit_once('.').map(|(_, host)| {
            let host: usize = host.parse().expect("a number");
            host / 16
        });
        assert_eq!(range, Some(4 + number), "{own}");
        let (_, clients) = ask(1, || cluster.inside_ok(&fetch(&own.to_string())));
        assert_eq!(clients, BTreeSet::from([machine]));
        for other in &places {
            let (_, clients) = ask(1, || {
                run(cluster, number, "lan", &fetch(&other.to_string()))
            });
            assert_eq!(clients, BTreeSet::from([*own]), "node{number} asks {other}");
        }
    }
    for name in ["yard", "lan"] {
        manager.docker_ok(&format!("service rm {name}"));
    }
    // A node's part goes with its last container, and with it what held the settings.
    for (number, name) in [1, 2, 3]
        .map(|number| [(number, "settings"), (number, "wire")])
        .concat()
    {
        let what = format!("the settings of node{number} are free again");
        until(&what, PATIENCE, || {
            let output = cluster.node(number).docker(&format!("network rm {name}"));
            match output.status {
                0 => Ok(()),
                _ => Err(output.text()),
            }
        });
    }
}

#[test]
fn containers_show_the_networks_they_are_on() {
    let cluster = Cluster::start(1, 1);
    let node = cluster.node(1);
    node.docker_ok("network create -d overlay back");
    for (service, flags, expected) in [
        ("alone", "", vec!["bridge"]),
        ("plain", "--network bridge", vec!["bridge"]),
        ("own", "--network host", vec!["host"]),
        ("one", "--network back", vec!["back"]),
        ("both", "--network back -p 8080:80", vec!["back", "ingress"]),
    ] {
        node.create(&format!(
            "--name {service} {flags} skep/busybox sleep 10000"
        ));
        let task = &node.running(service, 1)[0];
        let container = node.container(service);
        let shown = node.json(&format!("/containers/{container}/json"));
        let networks = shown["NetworkSettings"]["Networks"]
            .as_object()
            .expect("a map");
        let names: Vec<&str> = networks.keys().map(String::as_str).collect();
        assert_eq!(names, expected, "{service}");
        let places = task["NetworksAttachments"].as_array().into_iter().flatten();
        let names: BTreeSet<&str> = places
            .filter_map(|place| place["Network"]["Spec"]["Name"].as_str())
            .collect();
        assert!(!names.contains("skep_gwbridge"), "{service}: {names:?}");
        for (name, network) in networks.iter().filter(|(name, _)| *name != "host") {
            let ip = network["IPAddress"].as_str().unwrap_or_default();
            let seen = node.exec(service, "ip address");
            assert!(
                !ip.is_empty() && seen.contains(&format!(" {ip}/")) || name == "ingress",
                "{name}: {seen}"
            );
            assert_eq!(
                network["NetworkID"],
                node.json(&format!("/networks/{name}"))["Id"]
            );
        }
    }
}
