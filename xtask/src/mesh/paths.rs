//! What ways between containers cost beside the wire below them: throughput, latency, connections; an overlay by address and by
//! virtual address, an encrypted one, a published port, Docker's overlay.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::docker_lab::DockerLab;
use super::lab::{Lab, Peer, Place, Task};
use super::{Options, around};
use crate::bench::sample::Report;
use crate::local_cluster::LocalCluster;

/// Where servers listen in their namespaces.
pub(super) const SERVER_PORT: u16 = 7000;
/// Where the server's port is published.
const PUBLISHED_PORT: u16 = 7001;
/// How long a server may take to listen.
const LISTEN_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// A way from a client to a server's address.
#[derive(Debug)]
pub(super) struct Way<'a> {
    pub(super) name: &'static str,
    pub(super) cluster: &'a LocalCluster,
    pub(super) client: Place,
    pub(super) target: SocketAddr,
    /// The name of the way it is compared with.
    pub(super) beside: Option<&'static str>,
}

/// Samples of a way: Gb/s, microseconds, connections a second.
type Samples = [Vec<f64>; 3];

/// Measures all ways in turn, again and again.
pub(super) fn measure(lab: &Lab, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let docker = match options.no_docker {
        true => None,
        false => docker(options),
    };
    let sealed = json!({"Name": "sealed", "Driver": "overlay", "Options": {"encrypted": ""}});
    let sealed = lab.post("/networks/create", &sealed)?;
    let sealed = sealed["Id"].as_str().context("a network's id")?;
    let one = on_node(lab, ("one", sealed), 1, &json!({}))?;
    let ports = json!({ "Ports": [{
        "Protocol": "tcp",
        "TargetPort": SERVER_PORT,
        "PublishedPort": PUBLISHED_PORT,
        "PublishMode": "ingress",
    }] });
    let two = on_node(lab, ("two", sealed), 2, &ports)?;
    let mut servers = Vec::new();
    for place in [Place::Node(2), lab.place(&two)?] {
        servers.push(serve(&lab.cluster, place)?);
    }
    let mut ways = ways(lab, &one, &two, sealed)?;
    if let Some(docker) = &docker {
        servers.extend(docker.serve()?);
        ways.extend(docker.ways());
    }
    for way in &ways {
        wait_for(way)?;
    }
    let mut samples: Vec<Samples> = ways.iter().map(|_| Samples::default()).collect();
    for _ in 0..options.rounds {
        for (way, samples) in ways.iter().zip(&mut samples) {
            let figures = figures(way, options.millis)?;
            for (samples, figure) in samples.iter_mut().zip(figures) {
                samples.push(figure);
            }
        }
    }
    add(&ways, &samples, report);
    drop(servers);
    lab.remove("one")?;
    lab.remove("two")
}

/// Docker beside, or why not.
#[expect(clippy::print_stderr, reason = "progress belongs on standard error")]
fn docker(options: &Options) -> Option<DockerLab> {
    match DockerLab::start(&options.skep) {
        Ok(docker) => Some(docker),
        Err(error) => {
            eprintln!("without Docker's overlay network: {error:#}");
            None
        }
    }
}

/// A service with one task on one node, also on a further network.
fn on_node(
    lab: &Lab,
    (name, network): (&str, &str),
    number: usize,
    endpoint: &Value,
) -> anyhow::Result<Task> {
    let mut spec = lab.web(&json!({ "Replicated": { "Replicas": 1 } }), "stop-first");
    spec["Name"] = name.into();
    spec["EndpointSpec"] = endpoint.clone();
    spec["TaskTemplate"]["Networks"] = json!([{ "Target": lab.network }, { "Target": network }]);
    spec["TaskTemplate"]["Placement"] =
        json!({ "Constraints": [format!("node.hostname==node{number}")] });
    let tasks = lab.create(&spec, 1)?;
    tasks.into_iter().next().context("a task")
}

fn ways<'a>(lab: &'a Lab, one: &Task, two: &Task, sealed: &str) -> anyhow::Result<Vec<Way<'a>>> {
    let client = lab.place(one)?;
    let task = two.address.context("a task has an address")?;
    let vip = lab.vip("two")?;
    let node = |number: usize| lab.addresses[number - 1];
    let way = |name, client, address: Ipv4Addr, port, beside| Way {
        name,
        cluster: &lab.cluster,
        client,
        target: SocketAddr::from((address, port)),
        beside,
    };
    let encrypted = lab.address_on(two, sealed)?;
    let raw = Some(WIRE);
    let machine = Place::Machine;
    let wire = Some(MACHINE_WIRE);
    Ok(vec![
        way(WIRE, Place::Node(1), node(2), SERVER_PORT, None),
        way(TASK, client, task, SERVER_PORT, raw),
        way(
            "overlay, virtual address",
            client,
            vip,
            SERVER_PORT,
            Some(TASK),
        ),
        way(
            "overlay, encrypted",
            client,
            encrypted,
            SERVER_PORT,
            Some(TASK),
        ),
        way(MACHINE_WIRE, machine, node(2), SERVER_PORT, None),
        way(
            "published port, task there",
            machine,
            node(2),
            PUBLISHED_PORT,
            wire,
        ),
        way(
            "published port, task elsewhere",
            machine,
            node(1),
            PUBLISHED_PORT,
            wire,
        ),
    ])
}

/// Names others are compared with.
const WIRE: &str = "wire, node to node";
const TASK: &str = "overlay, task address";
const MACHINE_WIRE: &str = "wire, machine to node";

/// Starts a server.
pub(super) fn serve(cluster: &LocalCluster, place: Place) -> anyhow::Result<Peer> {
    let any = SocketAddr::from((IpAddr::from([0, 0, 0, 0]), SERVER_PORT));
    Peer::start(cluster, place, &["serve", &any.to_string()])
}

/// Waits until the server at the other end answers.
fn wait_for(way: &Way<'_>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match figures(way, 1) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > LISTEN_TIME_MAX => {
                bail!("{} leads nowhere: {error:#}", way.name)
            }
            Err(_) => thread::sleep(LOOK_PAUSE),
        }
    }
}

fn figures(way: &Way<'_>, millis: u64) -> anyhow::Result<[f64; 3]> {
    let (target, millis) = (way.target.to_string(), millis.to_string());
    let words = ["measure", "--millis", &millis, &target];
    let text = Peer::start(way.cluster, way.client, &words)?.finish()?;
    let figures: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
    figures.try_into().ok().context("three figures")
}

/// Medians, and medians of each round's ratio to the way beside.
fn add(ways: &[Way<'_>], samples: &[Samples], report: &mut Report) {
    let units = [("", "Gb/s"), (": p50", "us"), (": connections", "1/s")];
    for (way, own) in ways.iter().zip(samples) {
        for ((suffix, unit), values) in units.iter().zip(own) {
            report.add(format!("{}{suffix}", way.name), unit, values, around());
        }
    }
    for (way, own) in ways.iter().zip(samples) {
        let beside = ways.iter().zip(samples);
        let beside = beside
            .filter(|(other, _)| Some(other.name) == way.beside)
            .map(|(_, samples)| samples);
        for other in beside {
            for ((suffix, _), (own, other)) in units.iter().zip(own.iter().zip(other)) {
                let ratios: Vec<f64> = own
                    .iter()
                    .zip(other)
                    .map(|(own, other)| own / other)
                    .collect();
                let name = format!(
                    "{}{suffix}, to {}",
                    way.name,
                    way.beside.unwrap_or_default()
                );
                report.add(name, "ratio", &ratios, around());
            }
        }
    }
}
