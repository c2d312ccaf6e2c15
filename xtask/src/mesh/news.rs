//! How soon a task that comes or goes is seen in names and behind virtual addresses, by containers on every node.
//!
//! A task has come when its node says it runs; it goes with the command that scales the service down. The slowest node counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use serde_json::json;

use super::around;
use super::lab::{Lab, NETWORK, Peer, Task};
use crate::bench::sample::Report;

/// Replicas between changes: few, so that new connections soon meet each.
const REPLICA_COUNT: usize = 3;
/// How long news may take.
const NEWS_TIME_MAX: Duration = Duration::from_secs(20);
/// Silence after which a task that went is not met any more.
const QUIET: Duration = Duration::from_millis(500);
/// Lines of watchers that wait to be read.
const LINE_COUNT_MAX: usize = 10_000;
/// Length of a container's host name.
const HOST_NAME_LENGTH: usize = 12;

/// What a watcher saw, at nanoseconds since 1970.
#[derive(Debug)]
struct Sight {
    watcher: usize,
    at: u128,
    what: What,
}

#[derive(Debug)]
enum What {
    Names(BTreeSet<Ipv4Addr>),
    Server(String),
    Failed(String),
}

/// Watchers in a container of each node.
struct Watchers {
    sights: Receiver<Sight>,
    count: usize,
    _peers: Vec<Peer>,
    _readers: Vec<JoinHandle<()>>,
}

/// Milliseconds, one per change.
#[derive(Debug, Default)]
struct Times {
    names_come: Vec<f64>,
    servers_come: Vec<f64>,
    names_go: Vec<f64>,
    servers_go: Vec<f64>,
    failed: Vec<String>,
}

/// Adds and removes one endpoint again and again.
pub(super) fn measure(lab: &Lab, count: usize, report: &mut Report) -> anyhow::Result<()> {
    let replicas = |count: usize| json!({ "Replicated": { "Replicas": count } });
    let mut tasks = lab.create(
        &lab.web(&replicas(REPLICA_COUNT), "stop-first"),
        REPLICA_COUNT,
    )?;
    let watchers = Watchers::start(lab)?;
    let mut times = Times::default();
    for _ in 0..count {
        super::changes::scale(lab, "web", REPLICA_COUNT + 1)?;
        let now = lab.settled("web", REPLICA_COUNT + 1)?;
        let is_new = |task: &&Task| tasks.iter().all(|old| old.id != task.id);
        let task = now.iter().find(is_new).context("a new task")?.clone();
        watchers.came(&task, &mut times)?;
        let at = nanos_now();
        super::changes::scale(lab, "web", REPLICA_COUNT)?;
        let left = lab.settled("web", REPLICA_COUNT)?;
        let is_gone = |task: &&Task| left.iter().all(|kept| kept.id != task.id);
        let gone = now.iter().find(is_gone).context("a task less")?;
        watchers.went(gone, at, &mut times)?;
        tasks = left;
    }
    drop(watchers);
    lab.remove("probe")?;
    lab.remove("web")?;
    let rows = [
        ("endpoint added: in DNS after", &times.names_come),
        ("endpoint added: behind VIP after", &times.servers_come),
        ("endpoint removed: not in DNS after", &times.names_go),
        ("endpoint removed: not behind VIP after", &times.servers_go),
    ];
    for (name, times) in rows {
        report.add(name, "ms", times, around());
    }
    ensure!(
        times.failed.is_empty(),
        "watchers failed {} times, first: {}",
        times.failed.len(),
        times.failed[0]
    );
    Ok(())
}

// === impl Watchers ===

impl Watchers {
    fn start(lab: &Lab) -> anyhow::Result<Self> {
        let mut probe = lab.web(&json!({ "Global": {} }), "stop-first");
        probe["Name"] = "probe".into();
        probe["EndpointSpec"] = json!({});
        let probes = lab.create(&probe, lab.cluster.nodes().count())?;
        let target = SocketAddr::from((lab.vip("web")?, 80)).to_string();
        let (sender, sights) = sync_channel(LINE_COUNT_MAX);
        let (mut peers, mut readers) = (Vec::new(), Vec::new());
        for (watcher, probe) in probes.iter().enumerate() {
            let name = format!("tasks.web.{NETWORK}");
            let mut peer = lab.peer(lab.place(probe)?, &["watch", &name, &target])?;
            let output = peer.child.stdout.take().context("a peer has an output")?;
            let sender = sender.clone();
            readers.push(thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let sight = sight(watcher, &line);
                    if sight.is_none_or(|sight| sender.send(sight).is_err()) {
                        break;
                    }
                }
            }));
            peers.push(peer);
        }
        Ok(Self {
            sights,
            count: peers.len(),
            _peers: peers,
            _readers: readers,
        })
    }

    /// Waits until all have seen a task that came.
    fn came(&self, task: &Task, times: &mut Times) -> anyhow::Result<()> {
        let address = task.address.context("a task has an address")?;
        let since = nanos(&task.running_since)?;
        let (mut names, mut servers) = (BTreeMap::new(), BTreeMap::new());
        let start = Instant::now();
        while names.len() < self.count || servers.len() < self.count {
            let Some(sight) = self.next(start, NEWS_TIME_MAX)? else {
                bail!("a new task is not seen: names {names:?}, servers {servers:?}");
            };
            match sight.what {
                What::Names(found) if found.contains(&address) => {
                    names.entry(sight.watcher).or_insert(sight.at);
                }
                What::Server(server) if is_of(&server, task) => {
                    servers.entry(sight.watcher).or_insert(sight.at);
                }
                What::Failed(text) => times.failed.push(text),
                What::Names(_) | What::Server(_) => {}
            }
        }
        times.names_come.push(latest(&names, since));
        times.servers_come.push(latest(&servers, since));
        Ok(())
    }

    /// Waits until none sees a task any more that went.
    fn went(&self, task: &Task, since: u128, times: &mut Times) -> anyhow::Result<()> {
        let address = task.address.context("a task has an address")?;
        let (mut names, mut servers) = (BTreeMap::new(), BTreeMap::new());
        let start = Instant::now();
        // Those that are read until then were seen before, so all there is has been read.
        let mut quiet_since = nanos_now();
        loop {
            let Some(sight) = self.next(start, NEWS_TIME_MAX)? else {
                bail!("a task that went is still seen: names {names:?}");
            };
            match sight.what {
                What::Names(found) if found.contains(&address) => {
                    names.remove(&sight.watcher);
                }
                What::Names(_) => {
                    names.insert(sight.watcher, sight.at);
                }
                What::Server(server) if is_of(&server, task) && sight.at > since => {
                    servers.insert(sight.watcher, sight.at);
                    quiet_since = quiet_since.max(sight.at);
                }
                What::Failed(text) => times.failed.push(text),
                What::Server(_) => {}
            }
            let is_quiet = sight.at > quiet_since + QUIET.as_nanos();
            if names.len() == self.count && is_quiet {
                break;
            }
        }
        times.names_go.push(latest(&names, since));
        times.servers_go.push(latest(&servers, since));
        Ok(())
    }

    fn next(&self, start: Instant, limit: Duration) -> anyhow::Result<Option<Sight>> {
        match self
            .sights
            .recv_timeout(limit.saturating_sub(start.elapsed()))
        {
            Ok(sight) => Ok(Some(sight)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("all watchers ended"),
        }
    }
}

fn is_of(server: &str, task: &Task) -> bool {
    task.container.get(..HOST_NAME_LENGTH) == Some(server)
}

fn sight(watcher: usize, line: &str) -> Option<Sight> {
    let (kind, rest) = line.split_once(' ')?;
    let (at, rest) = rest.split_once(' ')?;
    let what = match kind {
        "dns" => What::Names(rest.split_whitespace().flat_map(str::parse).collect()),
        "vip" => What::Server(rest.to_owned()),
        _ => What::Failed(rest.to_owned()),
    };
    let at = at.parse().ok()?;
    Some(Sight { watcher, at, what })
}

/// Milliseconds until the last of them.
fn latest(times: &BTreeMap<usize, u128>, since: u128) -> f64 {
    let last = times.values().max().copied().unwrap_or(since);
    let micros = last.saturating_sub(since) / 1000;
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1e3
}

fn nanos_now() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_nanos()
}

/// Nanoseconds since 1970 of a time such as `2026-11-21T18:59:44.123456789Z`.
fn nanos(text: &str) -> anyhow::Result<u128> {
    let context = || format!("`{text}` is no time");
    let (date, time) = text.split_once('T').with_context(context)?;
    let time = time.strip_suffix('Z').with_context(context)?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, separator| -> anyhow::Result<Vec<u64>> {
        let parts = text.split(separator).map(str::parse::<u64>);
        parts.collect::<Result<_, _>>().with_context(context)
    };
    let (date, time) = (numbers(date, '-')?, numbers(whole, ':')?);
    let ([year, month, day], [hour, minute, second]) = (&date[..], &time[..]) else {
        bail!(context());
    };
    // The year begins in March, so that the leap day is its last; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let (year, month) = match month {
        3.. => (*year, month - 3),
        _ => (year - 1, month + 9),
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468).with_context(context)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let fraction: u128 = format!("{fraction:0<9}").parse().with_context(context)?;
    Ok(u128::from(seconds) * 1_000_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let check = |text, expected| assert_eq!(nanos(text).unwrap(), expected, "{text}");
        check("1970-01-01T00:00:00Z", 0);
        check("2000-02-29T12:00:00.5Z", 951_825_600_500_000_000);
        check("2026-11-21T18:59:44.123456789Z", 1_795_287_584_123_456_789);
        assert!(nanos("yesterday").is_err());
    }
}
