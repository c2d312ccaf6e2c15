//! Runs a container's probes: by exec in the container, one at a time, for as long as it runs.
//!
//! What a result means is decided by `health`. A probe that hangs is killed with its process group
//! by its exec helper, which also does so when the daemon dies, so probes never outlive who counts
//! them. Design: `docs/design/health.md`.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use skep_model::{Timestamp, reserved::service::readiness::ReadinessPolicy};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, sleep_until, timeout},
};
use tracing::warn;

use super::{
    Container, Engine,
    health::{
        self, Health, HealthCheck, HealthMachine, HealthStatus, NO_EXIT_CODE, OUTPUT_BYTES_MAX,
        ProbeResult,
    },
    record::replace_file,
};
use crate::runtime::{self, Exec, ExecConfig};

/// Name of the stored health in the container's directory.
const FILE: &str = "health.json";
/// Longest stored health read back: five results, whose bytes JSON may write with six each.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Probes that are being *started* at once per core. Starting one takes two processes and an OCI
/// runtime, some 20 ms of a core; what runs after that is not limited, so one that hangs delays no
/// other container's.
pub(super) const STARTS_PER_CORE: usize = 2;
/// A process that was killed is gone at once, unless the kernel is stuck with it.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);
/// Exit code of a process that was killed.
const KILLED: i32 = 137;
/// From the death of a container's processes to its end being seen it takes some milliseconds; longer
/// only delays what follows from a probe that really failed.
const END_WAIT_MAX: Duration = Duration::from_millis(500);
/// How long output is read after the probe's end: what it wrote is there; a child it left behind may
/// hold the pipe open for ever.
const OUTPUT_WAIT_MAX: Duration = Duration::from_millis(100);

/// Probes one running container.
struct Prober<'a> {
    engine: &'a Arc<Engine>,
    container: &'a Arc<Container>,
    check: HealthCheck,
    /// A probe that was killed and has not ended: the next one waits for it.
    stuck: Option<Exec>,
    /// The wall clock as of the begin, so that a clock that is set does not disturb intervals.
    epoch: (Timestamp, Instant),
}

/// What the two streams of a probe said.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    is_truncated: bool,
}

impl Engine {
    /// Probes a running container for ever, or waits for ever when there is nothing to probe. May be
    /// dropped at any time: a probe under way is killed.
    pub(super) async fn probe(self: &Arc<Self>, container: &Arc<Container>) {
        let Some(check) = container.health_check().cloned() else {
            return std::future::pending().await;
        };
        Box::pin(self.prober(container, check).run()).await;
    }

    /// Asks a running container once whether it is ready; why not, if it is not. May be dropped at any time.
    pub(super) async fn ask_readiness(
        self: &Arc<Self>,
        container: &Arc<Container>,
        policy: &ReadinessPolicy,
    ) -> Result<(), String> {
        let check = HealthCheck::of_readiness(policy);
        let mut prober = self.prober(container, check);
        let result = Box::pin(prober.result()).await;
        match result.exit_code {
            0 => Ok(()),
            _ => Err(health::shortened(&result)),
        }
    }

    /// Asks a running container whether it is ready until the answer is another than `is_ready`; returns why it
    /// is not ready, if it is not. One without a policy is. May be dropped at any time.
    pub(super) async fn readiness_turn(
        self: &Arc<Self>,
        container: &Arc<Container>,
        policy: Option<&ReadinessPolicy>,
        is_ready: bool,
    ) -> Option<String> {
        match policy {
            None if is_ready => std::future::pending().await,
            None => None,
            Some(policy) => {
                let check = HealthCheck::of_readiness(policy);
                Box::pin(self.prober(container, check).turn(is_ready)).await
            }
        }
    }

    fn prober<'a>(
        self: &'a Arc<Self>,
        container: &'a Arc<Container>,
        check: HealthCheck,
    ) -> Prober<'a> {
        Prober {
            engine: self,
            container,
            check,
            stuck: None,
            epoch: (self.now(), Instant::now()),
        }
    }

    /// Stores a container's health for the next daemon. What it says of the past is worth little, so
    /// a failure costs no container its life.
    pub(super) fn store_health(&self, container: &Container) {
        let Some(health) = container.health() else {
            return;
        };
        let dir = self.files_of(container);
        let stored = serde_json::to_vec(&*health)
            .map_err(io::Error::from)
            .and_then(|bytes| replace_file(&dir.join(FILE), &bytes));
        // Its directory goes with the container.
        if let Err(error) = stored
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(container.id = %container.record().id, %error, "Failed to store health");
        }
    }
}

/// What an earlier daemon stored in `dir`; unknown when it cannot be read.
pub(super) fn stored_health(dir: &Path) -> Health {
    let path = dir.join(FILE);
    let is_sane = fs::metadata(&path).is_ok_and(|meta| meta.len() <= FILE_BYTES_MAX);
    let bytes = is_sane.then(|| fs::read(&path).ok()).flatten();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

// === impl Prober ===

impl Prober<'_> {
    async fn run(mut self) {
        let status = self.container.status();
        let health = self.container.health().unwrap_or_default();
        let started_at = status.started_at.unwrap_or(self.epoch.0);
        let mut machine = HealthMachine::new(
            self.check.clone(),
            started_at,
            Health::clone(&health),
            self.epoch.0,
        );
        loop {
            sleep_until(self.instant(machine.next_probe())).await;
            let verdict = machine.handle(self.result().await);
            self.container.set_health(machine.health().clone());
            if verdict.is_news {
                self.engine.store_health(self.container);
            }
            if verdict.has_turned {
                let status = machine.health().status.name();
                let action = format!("health_status: {status}");
                self.engine.note_container(self.container, &action, &[]);
            }
        }
    }

    /// Runs one probe.
    async fn result(&mut self) -> ProbeResult {
        let started_at_ns = self.now().0;
        let (exit_code, output) = self.probe().await;
        if [NO_EXIT_CODE, KILLED].contains(&exit_code) {
            // A container that ends takes its probe along: no sign of bad health. Whoever sees
            // the end drops this.
            let _ = timeout(END_WAIT_MAX, self.container.ended()).await;
        }
        ProbeResult {
            started_at_ns,
            ended_at_ns: self.now().0,
            exit_code,
            output,
        }
    }

    /// Probes until readiness is another than `is_ready`; returns why it is not ready, if it is not.
    async fn turn(mut self, is_ready: bool) -> Option<String> {
        let known = Health {
            status: match is_ready {
                true => HealthStatus::Healthy,
                false => HealthStatus::Starting,
            },
            ..Health::default()
        };
        let mut machine = HealthMachine::new(self.check.clone(), self.epoch.0, known, self.epoch.0);
        loop {
            sleep_until(self.instant(machine.next_probe())).await;
            let result = self.result().await;
            let why = health::shortened(&result);
            if machine.handle(result).has_turned {
                let is_ready = machine.health().status == HealthStatus::Healthy;
                return Some(why).filter(|_| !is_ready);
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.epoch.0 + self.epoch.1.elapsed()
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.epoch.1 + at.since(self.epoch.0)
    }

    /// One probe: exit code and output as Docker shows them.
    async fn probe(&mut self) -> (i32, String) {
        if let Some(stuck) = &mut self.stuck {
            if timeout(Duration::ZERO, stuck.wait()).await.is_err() {
                let text = "Health check not run: the one before cannot be killed";
                return (NO_EXIT_CODE, text.to_owned());
            }
            self.stuck = None;
        }
        let config = ExecConfig {
            args: self.check.command.clone(),
            time_limit: Some(self.check.timeout),
            ..ExecConfig::default()
        };
        let permit = self.engine.probe_starts.acquire().await;
        let started = self.container.handle().exec(config).await;
        drop(permit);
        let mut exec = match started {
            Ok(exec) => exec,
            Err(error) => return (NO_EXIT_CODE, error.to_string()),
        };
        let said = Mutex::new(Output::default());
        let ending = listen(&mut exec, self.check.timeout, &said).await;
        let output = said.into_inner().unwrap_or_else(PoisonError::into_inner);
        let output = output.into_text();
        match ending {
            Some(Ok(code)) => (code, output),
            Some(Err(runtime::Error::TimeLimit)) => {
                (NO_EXIT_CODE, over_time(self.check.timeout, &output))
            }
            Some(Err(error)) => (NO_EXIT_CODE, error.to_string()),
            None => {
                self.stuck = Some(exec);
                (NO_EXIT_CODE, over_time(self.check.timeout, &output))
            }
        }
    }
}

/// Follows a probe to its end and collects what it writes. `None`: it does not even end by a kill.
async fn listen(
    exec: &mut Exec,
    limit: Duration,
    said: &Mutex<Output>,
) -> Option<Result<i32, runtime::Error>> {
    let outputs = (exec.stdout.take(), exec.stderr.take());
    let reading = async { tokio::join!(collect(outputs.0, said), collect(outputs.1, said)) };
    tokio::pin!(reading);
    let ended = timeout(limit + KILL_WAIT_MAX, exec.wait());
    tokio::pin!(ended);
    let ending = tokio::select! {
        ending = &mut ended => {
            let _ = timeout(OUTPUT_WAIT_MAX, reading).await;
            ending
        }
        _ = &mut reading => ended.await,
    };
    ending.ok()
}

/// Reads to the end; what is too much is read and dropped, so that the probe is not held up.
async fn collect(stream: Option<impl AsyncRead + Unpin>, said: &Mutex<Output>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; OUTPUT_BYTES_MAX];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push(&buffer[..count]);
    }
}

/// Docker's text.
fn over_time(limit: Duration, output: &str) -> String {
    let separator = if output.is_empty() { "" } else { ": " };
    format!(
        "Health check exceeded timeout ({}){separator}{output}",
        GoDuration(limit)
    )
}

/// A duration as Go prints it: `1h0m0s`, `1m30s`, `1.5s`, `20ms`.
struct GoDuration(Duration);

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fraction = |count: u128, unit: u128| {
            let text = format!(
                "{}.{:0width$}",
                count / unit,
                count % unit,
                width = digits(unit)
            );
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let nanos = self.0.as_nanos();
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", fraction(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", fraction(nanos, 1_000_000)),
            _ => {
                let minutes = self.0.as_secs() / 60;
                let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => write!(f, "{seconds}s"),
                    (0, minutes) => write!(f, "{minutes}m{seconds}s"),
                    (hours, minutes) => write!(f, "{hours}h{minutes}m{seconds}s"),
                }
            }
        }
    }
}

/// Digits of a power of ten's remainders.
fn digits(unit: u128) -> usize {
    unit.to_string().len() - 1
}

// === impl Output ===

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        let room = OUTPUT_BYTES_MAX - self.bytes.len();
        let kept = bytes.len().min(room);
        self.bytes.extend_from_slice(&bytes[..kept]);
        self.is_truncated |= kept < bytes.len();
    }

    fn into_text(self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.is_truncated {
            text.push_str("...");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(nanos: u64, expected: &str) {
        assert_eq!(
            GoDuration(Duration::from_nanos(nanos)).to_string(),
            expected
        );
    }

    #[test]
    fn durations_read_as_gos() {
        check(0, "0s");
        check(1_500, "1.5µs");
        check(20_000_000, "20ms");
        check(1_000_000_000, "1s");
        check(1_500_000_000, "1.5s");
        check(61_000_000_001, "1m1.000000001s");
        check(3_600_000_000_000, "1h0m0s");
    }

    #[test]
    fn output_is_cut_where_docker_cuts_it() {
        let mut output = Output::default();
        output.push(&[b'a'; 4_000]);
        output.push(&[b'b'; 96]);
        assert_eq!(output.bytes.len(), 4_096);
        assert!(!output.is_truncated);
        output.push(b"c");
        let text = output.into_text();
        assert!(
            text.ends_with("bb...") && text.len() == 4_099,
            "{}",
            text.len()
        );
    }

    #[test]
    fn what_was_stored_is_read_back_and_damage_is_unknown_health() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(stored_health(dir.path()), Health::default());
        let health = Health {
            failing_streak: 2,
            ..Health::default()
        };
        fs::write(dir.path().join(FILE), serde_json::to_vec(&health).unwrap()).unwrap();
        assert_eq!(stored_health(dir.path()), health);
        fs::write(dir.path().join(FILE), "{\"status\":").unwrap();
        assert_eq!(stored_health(dir.path()), Health::default());
    }
}
