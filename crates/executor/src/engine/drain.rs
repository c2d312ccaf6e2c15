//! Before a task's stop signal: waiting until nobody is connected to it any more.
//!
//! New connections are led elsewhere by every node's data plane as soon as the leader wants the task
//! to end; those it has may end by themselves. What is decided is pure ([`Drain`]); the connections
//! are the kernel's own list of the container's network namespace. Design: `docs/design/engine.md`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, Instant},
};

use skep_model::{PublishMode, Task, Timestamp, reserved::service::drain_limit};
use tracing::{debug, warn};

use super::{Container, Engine, HealthStatus, places::NodeMode, record::replace_file};

#[cfg(test)]
mod tests;

/// A task keeps running at least this long after it was told to stop, connections or not: nodes that
/// have not heard of it yet still lead new ones to it. News take some ten milliseconds in one place,
/// a few hundred around the world. Longer makes every update slower, shorter breaks connections.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// Between two looks at the connections. Longer delays every stop by half of it.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// The pause is at least this many times what the look before took: looking costs at most a
/// twentieth of a core, however many connections there are.
const LOOK_COST_FACTOR: u32 = 20;
/// A stored begin is a decimal number.
const FILE_BYTES_MAX: u64 = 32;
/// Name of the file with the begin of the drain in the container's directory.
const FILE: &str = "draining";

/// TCP states of `/proc/net/tcp`, as in the kernel's `tcp_states.h`.
mod state {
    pub(super) const ESTABLISHED: u8 = 0x01;
    /// We have closed; what was written before is still being sent, and lost with the namespace.
    pub(super) const FIN_WAIT1: u8 = 0x04;
    /// The peer sends no more but may wait for its answer.
    pub(super) const CLOSE_WAIT: u8 = 0x08;
    /// As `FIN_WAIT1`, after the peer's end.
    pub(super) const LAST_ACK: u8 = 0x09;
    pub(super) const LISTEN: u8 = 0x0a;
    /// As `FIN_WAIT1`, both ends at once.
    pub(super) const CLOSING: u8 = 0x0b;
}

/// How long a task may go on serving after it was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drain {
    /// At least, while connections may still come in.
    settle: Duration,
    /// At most.
    limit: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The stop signal.
    Stop,
    /// Look after a pause.
    Wait(Duration),
}

/// One line of the kernel's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    local: (IpAddr, u16),
    remote: IpAddr,
    state: u8,
    /// Bytes not yet acknowledged.
    unsent: u64,
}

impl Engine {
    /// Lets a container serve the connections it has, as long as `drain` allows. Dropped and called
    /// again, also by another daemon, it goes on: the begin is stored.
    pub(super) async fn drain(&self, container: &Container, drain: Drain) {
        let since = container.drain_since(self.now());
        let dir = self.files_of(container);
        if let Err(error) = replace_file(&dir.join(FILE), since.0.to_string().as_bytes()) {
            // Another daemon would begin anew.
            warn!(container.id = %container.record().id, %error, "Failed to note a drain");
        }
        // In steps of this process' own clock: the other may be set.
        let (before, begin) = (self.now().since(since), Instant::now());
        if !drain.settle.is_zero() {
            // The time to settle is for the news; this node's own maps can be waited for.
            let left = drain.limit.saturating_sub(before);
            let id = &container.record().id;
            tokio::select! {
                biased;
                _ = container.ended() => return,
                () = container.unhealthy() => return,
                _ = tokio::time::timeout(left, self.dataplane().parted(id.as_str())) => {}
            }
        }
        let mut listeners = BTreeSet::new();
        let mut count = None;
        while let Next::Wait(pause) = drain.next(before + begin.elapsed(), count) {
            tokio::select! {
                biased;
                _ = container.ended() => return,
                // What it answers is of no use.
                () = container.unhealthy() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if !drain.is_settled(before + begin.elapsed()) {
                continue;
            }
            let (pid, known) = (container.status().pid, std::mem::take(&mut listeners));
            let look = tokio::task::spawn_blocking(move || Look::at(pid, known)).await;
            let Ok(look) = look else { return };
            debug!(container.id = %container.record().id, connection.count = look.count, "Draining");
            listeners = look.listeners;
            count = Some((look.count, look.cost));
        }
    }
}

/// When an earlier daemon began to drain the container of directory `dir`, if one did.
pub(super) fn stored_begin(dir: &Path) -> Option<Timestamp> {
    let path = dir.join(FILE);
    let meta = fs::metadata(&path).ok()?;
    let text = fs::read_to_string(path)
        .ok()
        .filter(|_| meta.len() <= FILE_BYTES_MAX)?;
    text.parse().ok().map(Timestamp)
}

// === impl Drain ===

impl Drain {
    /// Whether and how `task` is drained: when it has been told to stop and is reached through
    /// published ports or virtual addresses.
    ///
    /// With ports of its own node alone there is no news that other nodes must hear.
    pub(super) fn of(task: &Task) -> Option<Self> {
        let limit = drain_limit(task)?;
        let endpoint = task.endpoint.as_ref()?;
        let mut ports = endpoint.ports.iter();
        let is_led_to = !endpoint.virtual_ips.is_empty()
            || ports.any(|port| port.publish_mode == PublishMode::Ingress);
        let settle = match is_led_to {
            true => SETTLE.min(limit),
            false => Duration::ZERO,
        };
        Some(Self { settle, limit })
    }

    /// What to do `elapsed` after the begin; `count`: connections as of the last look, and what that
    /// took.
    fn next(&self, elapsed: Duration, count: Option<(usize, Duration)>) -> Next {
        let left = self.limit.saturating_sub(elapsed);
        let pause = match count {
            _ if left.is_zero() => return Next::Stop,
            None => self.settle.saturating_sub(elapsed),
            Some((0, _)) => return Next::Stop,
            Some((_, cost)) => LOOK_PERIOD.max(cost.saturating_mul(LOOK_COST_FACTOR)),
        };
        Next::Wait(pause.min(left))
    }

    fn is_settled(&self, elapsed: Duration) -> bool {
        elapsed >= self.settle
    }
}

/// Whether a container may be serving at all: it is not when it never became healthy, or is no
/// longer; with the host's network its connections are not told from the host's.
pub(super) fn is_serving(container: &Container) -> bool {
    let health = container.health();
    container.record().node_mode != NodeMode::Host
        && container.status().is_running()
        && health.is_none_or(|health| health.status == HealthStatus::Healthy)
}

/// What a look at a container's connections found.
#[derive(Debug)]
struct Look {
    /// Ports it listens on, or did at an earlier look.
    listeners: BTreeSet<u16>,
    count: usize,
    cost: Duration,
}

// === impl Look ===

impl Look {
    /// Counts the connections in the network namespace of process `pid`. None when there is no such
    /// process. Blocking.
    fn at(pid: i32, mut listeners: BTreeSet<u16>) -> Self {
        let begin = Instant::now();
        let tables = ["tcp", "tcp6"].map(|name| format!("/proc/{pid}/net/{name}"));
        let counts = tables.iter().map(|path| {
            let table = BufReader::new(File::open(path)?);
            count_connections(table, &mut listeners)
        });
        let count = counts.map(Result::<_, io::Error>::unwrap_or_default).sum();
        Self {
            listeners,
            count,
            cost: begin.elapsed(),
        }
    }
}

/// Connections of others to ports of `listeners`, to which those of the table are added first: the
/// kernel lists them before all others.
fn count_connections(table: impl BufRead, listeners: &mut BTreeSet<u16>) -> io::Result<usize> {
    let mut count = 0;
    for line in table.lines().skip(1) {
        let Some(socket) = Socket::parse(&line?) else {
            continue;
        };
        if socket.state == state::LISTEN {
            listeners.insert(socket.local.1);
        } else if socket.is_in_use() && listeners.contains(&socket.local.1) {
            count += 1;
        }
    }
    Ok(count)
}

// === impl Socket ===

impl Socket {
    /// Reads a line; `None` for what is none.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = address(fields.next()?)?;
        let (remote, _) = address(fields.next()?)?;
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        let (unsent, _) = fields.next()?.split_once(':')?;
        let unsent = u64::from_str_radix(unsent, 16).ok()?;
        Some(Self {
            local,
            remote,
            state,
            unsent,
        })
    }

    /// Whether somebody outside the container is connected or waits for the rest.
    fn is_in_use(&self) -> bool {
        let is_own = self.remote.is_loopback() || self.remote == self.local.0;
        let is_open = match self.state {
            state::ESTABLISHED | state::CLOSE_WAIT => true,
            state::FIN_WAIT1 | state::CLOSING | state::LAST_ACK => self.unsent > 0,
            _ => false,
        };
        is_open && !is_own
    }
}

/// `0100007F:0050`: an address as words in the byte order of the machine, and a port. IPv4 in IPv6
/// becomes IPv4.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (digits, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = digits.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match digits.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}
