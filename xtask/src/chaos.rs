//! `cargo xtask chaos`: managers of a real cluster are killed, stopped, cut off and switched off at random while clients create
//! services. At the end every acknowledged service is there, none twice, on every manager, and what shall run runs, once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::local_cluster::{LocalCluster, service};

/// How long a manager may leave a command unanswered before the client gives it up.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Replicas of the service that has containers.
const REPLICA_COUNT: usize = 10;
/// How long the end may take to settle.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How long, and how hard.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The program.
    #[arg(long, default_value = "target/release/skep")]
    skep: PathBuf,
    /// Minutes of disturbances.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Managers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=9))]
    managers: u8,
    /// Which disturbances, in which order. The clusters' timing is the machine's, so a run is not repeated exactly.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds between two commands of a client; each manager has one.
    #[arg(long, default_value_t = 50)]
    pause: u64,
}

/// What one client knows.
#[derive(Debug, Default)]
struct Client {
    /// Ids and names of acknowledged services.
    acknowledged: BTreeMap<String, String>,
    /// Names of services of unknown fate.
    unknown: BTreeSet<String>,
    /// Commands that were refused: certainly not carried out.
    refused: BTreeSet<String>,
    /// The longest a command was unanswered.
    longest: Duration,
}

/// A generator of numbers from a seed (SplitMix64).
#[derive(Debug)]
struct Random(u64);

/// Disturbs a cluster, then checks it.
#[expect(clippy::print_stdout, reason = "the outcome is the command's output")]
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let count = usize::from(options.managers);
    let cluster = LocalCluster::start(&options.skep, "chaos", count, count)?;
    let body = service("steady", REPLICA_COUNT);
    cluster
        .connect(1)?
        .request("POST", "/services/create", Some(&body))?;
    let is_over = AtomicBool::new(false);
    let (clients, disturbed) = thread::scope(|scope| {
        let clients: Vec<_> = cluster
            .managers()
            .map(|number| {
                let (cluster, is_over) = (&cluster, &is_over);
                let pause = Duration::from_millis(options.pause);
                scope.spawn(move || create(cluster, number, pause, is_over))
            })
            .collect();
        let disturbed = disturb(&cluster, options);
        is_over.store(true, Ordering::Relaxed);
        let clients: Vec<Client> = clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"))
            .collect();
        (clients, disturbed)
    });
    let counts = disturbed?;
    let start = Instant::now();
    cluster.skep(&["up"])?;
    cluster.wait_whole()?;
    println!("whole again after {:.1} s", start.elapsed().as_secs_f64());
    for (what, count) in counts {
        println!("{what}: {count}");
    }
    check(&cluster, &clients)
}

/// Creates services on one manager, whatever becomes of it.
fn create(cluster: &LocalCluster, number: usize, pause: Duration, is_over: &AtomicBool) -> Client {
    let mut client = Client::default();
    let mut connection = None;
    for index in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(pause);
        let Some(connected) = &mut connection else {
            connection = cluster.connect_for(number, ANSWER_TIME_MAX).ok();
            continue;
        };
        let name = format!("c{number}-{index}");
        let start = Instant::now();
        let answer = connected.request("POST", "/services/create", Some(&service(&name, 0)));
        client.longest = client.longest.max(start.elapsed());
        match answer.map(serde_json::from_slice::<Value>) {
            Ok(Ok(answer)) => {
                let id = answer["ID"].as_str().unwrap_or_default().to_owned();
                client.acknowledged.insert(id, name);
            }
            Ok(Err(_)) => {
                client.unknown.insert(name);
            }
            Err(error) => {
                // 503 is the promise that nothing was done.
                let is_refused = error.to_string().contains(": 503 ");
                let set = if is_refused {
                    &mut client.refused
                } else {
                    &mut client.unknown
                };
                set.insert(name);
                connection = None;
            }
        }
    }
    client
}

/// Disturbs until the time is over; how often what was done.
fn disturb(
    cluster: &LocalCluster,
    options: &Options,
) -> anyhow::Result<BTreeMap<&'static str, usize>> {
    let mut random = Random(options.seed);
    let mut counts = BTreeMap::new();
    let end = Instant::now() + Duration::from_secs(60 * options.minutes);
    let managers = cluster.managers().count();
    while Instant::now() < end {
        // Up to a minority at once, and now and then one more: then nothing may be acknowledged.
        let minority = (managers - 1) / 2;
        let most = minority + usize::from(random.below(8) == 0);
        let count = 1 + random.below(most);
        let mut victims = BTreeSet::new();
        while victims.len() < count {
            victims.insert(1 + random.below(managers));
        }
        for victim in victims {
            let node = format!("node{victim}");
            let (what, arguments): (_, &[&str]) = match random.below(6) {
                0 => ("cut off", &["cut", &node]),
                1 => ("cut one way, in", &["cut", "--one-way", "in", &node]),
                2 => ("cut one way, out", &["cut", "--one-way", "out", &node]),
                3 => ("stopped", &["stop", &node]),
                4 => ("switched off", &["stop", "--power-off", &node]),
                _ => ("killed", &["stop", "--kill", &node]),
            };
            cluster.skep(arguments)?;
            *counts.entry(what).or_default() += 1;
            thread::sleep(Duration::from_millis(random.below(500) as u64));
        }
        thread::sleep(Duration::from_millis(500 + random.below(4000) as u64));
        cluster.skep(&["heal"])?;
        let all: Vec<String> = cluster
            .managers()
            .map(|number| format!("node{number}"))
            .collect();
        let mut start = vec!["start"];
        start.extend(all.iter().map(String::as_str));
        cluster.skep(&start)?;
        thread::sleep(Duration::from_millis(500 + random.below(4000) as u64));
    }
    Ok(counts)
}

/// What must hold at the end.
#[expect(clippy::print_stdout, reason = "the outcome is the command's output")]
fn check(cluster: &LocalCluster, clients: &[Client]) -> anyhow::Result<()> {
    let mut listed: Option<BTreeMap<String, String>> = None;
    for number in cluster.managers() {
        let own = services(cluster, number)?;
        match &listed {
            None => listed = Some(own),
            Some(first) if *first == own => {}
            Some(_) => bail!("node{number} lists other services than node1"),
        }
    }
    let listed = listed.context("no managers")?;
    let names: BTreeSet<&String> = listed.values().collect();
    if names.len() != listed.len() {
        bail!("a name is there twice");
    }
    let mut sums = [0; 4];
    let mut longest = Duration::ZERO;
    for client in clients {
        for (id, name) in &client.acknowledged {
            if listed.get(id) != Some(name) {
                bail!("{name} ({id}) was acknowledged and is lost");
            }
        }
        if let Some(name) = client.refused.iter().find(|name| names.contains(name)) {
            bail!("{name} was refused and is there");
        }
        let appeared = client.unknown.iter().filter(|name| names.contains(name));
        let counts = [
            client.acknowledged.len(),
            client.refused.len(),
            client.unknown.len(),
            appeared.count(),
        ];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
        longest = longest.max(client.longest);
    }
    let [acknowledged, refused, unknown, appeared] = sums;
    // The one service that is not a client's.
    if listed.len() != acknowledged + appeared + 1 {
        bail!(
            "{} services are listed, {acknowledged} acknowledged, {appeared} of unknown fate",
            listed.len()
        );
    }
    check_containers(cluster)?;
    println!(
        "acknowledged {acknowledged}, all there, none twice; refused {refused}, none there; unknown {unknown}, {appeared} there; \
         longest answer {:.2} s; {REPLICA_COUNT} replicas run, once each",
        longest.as_secs_f64()
    );
    Ok(())
}

/// Names by id, as a manager lists them.
fn services(cluster: &LocalCluster, number: usize) -> anyhow::Result<BTreeMap<String, String>> {
    let list = cluster.connect(number)?.json("/services")?;
    let list = list.as_array().context("no list of services")?;
    let one = |service: &Value| {
        let id = service["ID"].as_str()?.to_owned();
        Some((id, service["Spec"]["Name"].as_str()?.to_owned()))
    };
    Ok(list.iter().filter_map(one).collect())
}

/// Waits until the nodes together run each replica once.
fn check_containers(cluster: &LocalCluster) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let mut slots = Vec::new();
        for number in cluster.nodes() {
            let list = cluster.connect(number)?.json("/containers/json")?;
            for container in list.as_array().map(Vec::as_slice).unwrap_or_default() {
                let name = container["Labels"]["com.docker.swarm.task.name"].as_str();
                let name = name.unwrap_or_default();
                slots.push(
                    name.rsplit_once('.')
                        .map_or("", |(slot, _)| slot)
                        .to_owned(),
                );
            }
        }
        slots.sort();
        let distinct: BTreeSet<&String> = slots.iter().collect();
        if slots.len() == REPLICA_COUNT && distinct.len() == REPLICA_COUNT {
            return Ok(());
        }
        if start.elapsed() > SETTLE_TIME_MAX {
            bail!("{REPLICA_COUNT} replicas shall run, and these do: {slots:?}");
        }
        thread::sleep(LOOK_PAUSE);
    }
}

// === impl Random ===

impl Random {
    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let limit = u64::try_from(limit.max(1)).unwrap_or(1);
        usize::try_from((z ^ (z >> 31)) % limit).unwrap_or(0)
    }
}
