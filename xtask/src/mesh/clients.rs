//! Whom a server behind a published port sees, and writes into its log: from this machine, from nodes, from containers.
//!
//! What is expected is the table of `docs/design/mesh.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::json;

use super::faults::{Count, Faults};
use super::lab::{Lab, Place, Task, WEB_PORT};

/// Requests to one node: with three tasks behind a port one of them is missed once in a million times.
const REQUEST_COUNT: usize = 36;
/// The bridge of the node network.
const BRIDGE: &str = "skep0";
/// Length of a container's host name.
const HOST_NAME_LENGTH: usize = 12;

/// One client and one node that it asks.
struct Case {
    client: String,
    place: Place,
    target: SocketAddr,
    /// Whom each task, by the number of its node, must see.
    expected: BTreeMap<usize, IpAddr>,
}

/// Asks from everywhere through every node, and reads the logs.
pub(super) fn check(lab: &Lab, faults: &mut Faults) -> anyhow::Result<()> {
    let mode = json!({ "Global": {} });
    let mut probe = lab.web(&mode, "stop-first");
    probe["Name"] = "probe".into();
    probe["EndpointSpec"] = json!({});
    let count = lab.cluster.nodes().count();
    let tasks = lab.create(&lab.web(&mode, "stop-first"), count)?;
    let probes = lab.create(&probe, count)?;
    let servers: BTreeMap<String, usize> = tasks
        .iter()
        .map(|task| (task.container[..HOST_NAME_LENGTH].to_owned(), task.node))
        .collect();
    let mut said = BTreeSet::new();
    for case in cases(lab, &probes)? {
        let count = ask(lab, &case, &servers, &mut said)?;
        faults.add("clients' addresses", &case.client, count);
    }
    faults.add(
        "clients' addresses",
        "the servers' logs",
        logged(lab, &said)?,
    );
    lab.remove("probe")?;
    lab.remove("web")
}

fn ask(
    lab: &Lab,
    case: &Case,
    servers: &BTreeMap<String, usize>,
    said: &mut BTreeSet<String>,
) -> anyhow::Result<Count> {
    let (target, times) = (case.target.to_string(), REQUEST_COUNT.to_string());
    let words = ["ask", "--times", &times, &target];
    let mut count = Count::default();
    let mut asked = BTreeSet::new();
    let answers = match lab.peer_says(case.place, &words) {
        Ok(answers) => answers,
        Err(error) => {
            count.failed.insert("no answer", 1);
            count.told.push(format!("{target}: {error:#}"));
            return Ok(count);
        }
    };
    for line in answers.lines() {
        let (server, client) = line.split_once(' ').context("an answer of two words")?;
        let node = servers.get(server).context("an unknown server")?;
        asked.insert(*node);
        let expected = case.expected.get(node).context("a node")?;
        if *expected == client.parse::<IpAddr>()? {
            count.answered += 1;
            said.insert(line.to_owned());
        } else {
            *count.failed.entry("address").or_default() += 1;
            let told = format!("{target}: task on node{node} saw {client}, not {expected}");
            if !count.told.contains(&told) {
                count.told.push(told);
            }
        }
    }
    let missed = servers.values().filter(|node| !asked.contains(node));
    for node in missed {
        *count.failed.entry("not reached").or_default() += 1;
        count
            .told
            .push(format!("{target}: never the task on node{node}"));
    }
    Ok(count)
}

/// Every client with every node it asks.
fn cases(lab: &Lab, probes: &[Task]) -> anyhow::Result<Vec<Case>> {
    let numbers: Vec<usize> = lab.cluster.nodes().collect();
    let all = |address: IpAddr| numbers.iter().map(|number| (*number, address)).collect();
    let mut gateways = BTreeMap::new();
    for number in &numbers {
        gateways.insert(*number, gateway(lab, *number)?);
    }
    let mut cases = Vec::new();
    for (index, asked) in numbers.iter().enumerate() {
        let address = IpAddr::from(lab.addresses[index]);
        let target = SocketAddr::from((address, WEB_PORT));
        let mut add = |client: &str, place, target, expected| {
            let client = client.to_owned();
            cases.push(Case {
                client,
                place,
                target,
                expected,
            });
        };
        add("this machine", Place::Machine, target, all(lab.own));
        let own = Place::Node(*asked);
        add("a node, its own address", own, target, all(address));
        let loopback = SocketAddr::from(([127, 0, 0, 1], WEB_PORT));
        let gateway = gateways[asked];
        add("a node, 127.0.0.1", own, loopback, all(gateway));
        for other in numbers.iter().filter(|other| *other != asked) {
            // The task's node may be the client, so what is led on to another node comes from the gateway.
            let own = IpAddr::from(lab.addresses[other - 1]);
            let seen = |task| if task == *asked { own } else { gateway };
            let expected = numbers.iter().map(|task| (*task, seen(*task))).collect();
            add(
                "a node, another's address",
                Place::Node(*other),
                target,
                expected,
            );
        }
        for probe in probes {
            let place = lab.place(probe)?;
            if probe.node == *asked {
                let own = node_address(lab, probe, place)?;
                let seen = |task| if task == *asked { gateway } else { own };
                let expected = numbers.iter().map(|task| (*task, seen(*task))).collect();
                add("a container, its own node", place, target, expected);
            } else {
                let node = IpAddr::from(lab.addresses[probe.node - 1]);
                let seen = |task| if task == *asked { node } else { gateway };
                let expected = numbers.iter().map(|task| (*task, seen(*task))).collect();
                add("a container, another node", place, target, expected);
            }
        }
        if let Some((own, target)) = v6(lab, *asked)? {
            add("this machine, IPv6", Place::Machine, target, all(own));
        }
    }
    Ok(cases)
}

/// A node's gateway of the node network.
fn gateway(lab: &Lab, number: usize) -> anyhow::Result<IpAddr> {
    let words = ["-4", "-o", "addr", "show", "dev", BRIDGE];
    let mut command = lab.cluster.inside(number, Path::new("ip"));
    let output = command.args(words).output().context("failed to run ip")?;
    address_in(&String::from_utf8_lossy(&output.stdout), "inet")
}

/// A container's address on the node network.
fn node_address(lab: &Lab, task: &Task, place: Place) -> anyhow::Result<IpAddr> {
    let Place::Process { node, pid } = place else {
        anyhow::bail!("a container is a process");
    };
    let mut command = lab.cluster.inside(node, Path::new("nsenter"));
    let words = ["-n", "--", "ip", "-4", "-o", "addr", "show", "dev", "eth0"];
    command.args(["-t", &pid.to_string()]).args(words);
    let output = command.output().context("failed to run ip")?;
    let text = String::from_utf8_lossy(&output.stdout);
    address_in(&text, "inet").with_context(|| format!("container of {}", task.id))
}

/// The first address in what `ip -o addr` prints.
fn address_in(text: &str, family: &str) -> anyhow::Result<IpAddr> {
    let mut words = text.split_whitespace();
    let address = words.find(|word| *word == family).and(words.next());
    let address = address.and_then(|text| text.split('/').next());
    Ok(address.context("no address")?.parse()?)
}

/// This machine's and a node's IPv6 addresses on the network between them, once it has some.
fn v6(lab: &Lab, number: usize) -> anyhow::Result<Option<(IpAddr, SocketAddr)>> {
    let words = ["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"];
    let mut command = lab.cluster.inside(number, Path::new("ip"));
    let output = command.args(words).output().context("failed to run ip")?;
    let Ok(address) = address_in(&String::from_utf8_lossy(&output.stdout), "inet6") else {
        return Ok(None);
    };
    let socket = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).context("no IPv6")?;
    socket.connect((address, 9)).context("no route to a node")?;
    let own = socket.local_addr().context("an address")?.ip();
    Ok(Some((own, SocketAddr::from((address, WEB_PORT)))))
}

/// Whether the logs have every line that was answered.
fn logged(lab: &Lab, said: &BTreeSet<String>) -> anyhow::Result<Count> {
    ensure!(!said.is_empty(), "no answer was right");
    let mut missing = String::new();
    let found = lab.wait("all answers are logged", || {
        let mut client = lab.cluster.connect(1)?;
        let path = "/services/web/logs?stdout=1&tail=all";
        let log = client.request("GET", path, None)?;
        let log = String::from_utf8_lossy(log);
        let absent = said.iter().find(|line| !log.contains(line.as_str()));
        missing = absent.cloned().unwrap_or_default();
        ensure!(missing.is_empty(), "`{missing}` is not logged");
        Ok(())
    });
    let mut count = Count {
        answered: u64::try_from(said.len())?,
        ..Count::default()
    };
    if let Err(error) = found {
        count.failed.insert("not logged", 1);
        count.told.push(format!("{error:#}"));
    }
    Ok(count)
}
