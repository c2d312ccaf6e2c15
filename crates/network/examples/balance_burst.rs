//! Measures virtual addresses: how long it takes to program many services with many backends, and to change one backend.
//!
//! `cargo run --release -p skep-network --example balance_burst [services] [backends] [containers]` as root; it makes namespaces of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use skep_network::Mac;
use skep_network::dns::Zone;
use skep_network::plane::{Container, DataPath, Desired, Health, Overlay, Place, Plane, Service};

/// Changes of one backend that are measured.
const CHANGE_COUNT: usize = 200;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (services, backends) = (next(1000)?, next(20)?);
    let containers = next(1)?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("needs root")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    run("ip link set lo up && ip addr add 192.0.2.1/32 dev lo")?;
    for index in 0..containers {
        run(&format!(
            "ip netns add c{index} && ip -n c{index} link set lo up"
        ))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(measure(services, backends, containers))
}

fn run(command: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", command]).status()?;
    ensure!(status.success(), "`{command}` failed");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a measuring tool prints")]
async fn measure(services: u32, backends: u32, containers: u32) -> anyhow::Result<()> {
    let plane = Plane::open("/run/plane").await?;
    let mut desired = node(containers);
    plane.update(desired.clone()).await?;
    change(&mut desired, |network| {
        let all =
            (0..services).map(|index| (format!("s{index}"), Arc::new(service(index, 0..backends))));
        network.services = all.collect();
    })?;
    let start = Instant::now();
    let report = plane.update(desired.clone()).await?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    println!(
        "{services} services with {backends} backends in {containers} containers: {:?}",
        start.elapsed()
    );
    let mut additions = Vec::new();
    let mut removals = Vec::new();
    for turn in (0..services).cycle().take(CHANGE_COUNT) {
        for (count, times) in [(backends + 1, &mut additions), (backends, &mut removals)] {
            change(&mut desired, |network| {
                let changed = Arc::new(service(turn, 0..count));
                network.services.insert(format!("s{turn}"), changed);
            })?;
            let value = desired.clone();
            let start = Instant::now();
            let report = plane.update(value).await?;
            times.push(start.elapsed());
            ensure!(report.failures.is_empty(), "{:?}", report.failures);
        }
    }
    println!("one backend added: {}", percentiles(additions));
    println!(
        "one backend gone, its flows looked for: {}",
        percentiles(removals)
    );
    let start = Instant::now();
    let findings = plane.doctor().await?;
    ensure!(findings.is_empty(), "{findings:?}");
    println!("everything compared with the kernel: {:?}", start.elapsed());
    Ok(plane.remove().await?)
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let (middle, last) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    format!("p50 {middle:?}, p99 {last:?}")
}

fn change(desired: &mut Desired, change: impl FnOnce(&mut Overlay)) -> anyhow::Result<()> {
    desired.generation += 1;
    let network = desired
        .networks
        .get_mut("net")
        .context("there is a network")?;
    change(Arc::make_mut(network));
    Ok(())
}

fn node(containers: u32) -> Desired {
    let data_path = DataPath {
        address: [192, 0, 2, 1].into(),
        port: 4789,
    };
    let mut desired = Desired::new(1, data_path);
    let subnet = "10.0.0.0/8".parse().expect("a subnet");
    let overlay = Overlay {
        vni: 4097,
        mtu: None,
        is_encrypted: false,
        subnets: vec![subnet],
        remotes: BTreeMap::new(),
        services: BTreeMap::new(),
        names: Arc::new(Zone::new("net", vec![subnet])),
    };
    desired.networks.insert("net".to_owned(), Arc::new(overlay));
    for index in 0..containers {
        let address = address(1, index + 2);
        let place = Place {
            interface: "eth1".to_owned(),
            mac: Mac::from_ip(address),
            addresses: vec![address],
        };
        let container = Container {
            netns_path: format!("/run/netns/c{index}").into(),
            attachments: [("net".to_owned(), place)].into(),
            upstreams: Vec::new(),
            zones: Vec::new(),
        };
        desired
            .containers
            .insert(format!("c{index}"), Arc::new(container));
    }
    desired
}

fn service(index: u32, backends: std::ops::Range<u32>) -> Service {
    let backends = backends.map(|n| (address(3 + n / 200, index * 64 + n % 200), Health::Ready));
    Service {
        vips: vec![address(2, index)],
        backends: backends.collect(),
    }
}

fn address(block: u32, number: u32) -> IpAddr {
    Ipv4Addr::from((10 << 24) + (block << 18) + number).into()
}
