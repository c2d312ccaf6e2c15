//! Health of a container: which check applies, when the next probe is due, what its result means.
//!
//! Pure: no IO and no clock. `prober` runs the probes and acts on what is decided here. Rules and
//! defaults are Docker's. Design: `docs/design/health.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_model::{HealthConfig, Timestamp, reserved::service::readiness::ReadinessPolicy};

use crate::image::Healthcheck;

#[cfg(test)]
mod tests;

/// Docker's default time between two probes.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
/// Docker's default time a probe may take.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Docker's default time between two probes in the start period.
const START_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// Docker's default count of failures in a row that make a container unhealthy.
const RETRIES_DEFAULT: u32 = 3;
/// Time between two probes of readiness of a task that runs and is not ready; a longer one would waste it.
const READINESS_START_INTERVAL: Duration = Duration::from_secs(1);
/// Characters of a probe's output shown with a task, which every manager stores.
const REASON_LENGTH_MAX: usize = 200;
/// Shell of `CMD-SHELL`.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Results kept and shown, as by Docker. More would make `docker inspect` long; nobody counts on it.
pub(super) const LOG_LENGTH_MAX: usize = 5;
/// Bytes of a probe's output kept, as by Docker: the log is in memory for every container.
pub(super) const OUTPUT_BYTES_MAX: usize = 4096;
/// Exit code of a probe that gave none, as Docker's.
pub(super) const NO_EXIT_CODE: i32 = -1;

/// How a container is probed, with every setting filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Program and arguments.
    pub command: Vec<String>,
    /// From the end of a probe to the begin of the next.
    pub interval: Duration,
    /// Time a probe may take.
    pub timeout: Duration,
    /// Time after the start in which failures do not count, until the first success.
    pub start_period: Duration,
    /// `interval` during that time.
    pub start_interval: Duration,
    /// Failures in a row until unhealthy; at least 1.
    pub retries: u32,
}

/// What is known of a container's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// The last probe that counts succeeded.
    Healthy,
    /// Too many probes in a row failed.
    Unhealthy,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// When it began; nanoseconds since the epoch.
    pub started_at_ns: i64,
    /// When it ended.
    pub ended_at_ns: i64,
    /// 0: healthy; -1: it gave none.
    pub exit_code: i32,
    /// What it wrote, at most 4,096 bytes and `...`; or why it could not run.
    pub output: String,
}

/// A container's health. What is shown, and stored over restarts of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is known.
    pub status: HealthStatus,
    /// Failures that count since the last success.
    pub failing_streak: u32,
    /// The last results, oldest first.
    pub log: Vec<ProbeResult>,
}

/// Decides over one run of a container: a core without IO. The owner probes at
/// [`Self::next_probe`], one probe at a time, and hands in each result.
#[derive(Debug, Clone)]
pub(super) struct HealthMachine {
    check: HealthCheck,
    /// Start of the container.
    started_at: Timestamp,
    /// End of the last probe, or the start.
    waiting_since: Timestamp,
    health: Health,
}

/// What followed from a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The status is another: tell everybody.
    pub(super) has_turned: bool,
    /// Status or count of failures changed: a restart of the daemon must not forget it.
    pub(super) is_news: bool,
}

/// The check that applies: each setting the service leaves out is the image's, as in Docker.
/// `["NONE"]` is kept: it is shown, and runs nothing.
pub(super) fn merge(
    service: Option<&HealthConfig>,
    image: Option<&Healthcheck>,
) -> Option<Healthcheck> {
    let image = image.cloned();
    let Some(service) = service.map(Healthcheck::from) else {
        return image;
    };
    let image = image.unwrap_or_default();
    let or = |own: i64, image: i64| if own == 0 { image } else { own };
    let has_test = !service.test.is_empty();
    Some(Healthcheck {
        test: if has_test { service.test } else { image.test },
        interval: or(service.interval, image.interval),
        timeout: or(service.timeout, image.timeout),
        start_period: or(service.start_period, image.start_period),
        start_interval: or(service.start_interval, image.start_interval),
        retries: or(service.retries, image.retries),
    })
}

/// Why a probe failed, in a line.
pub(super) fn shortened(result: &ProbeResult) -> String {
    let line = result
        .output
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty());
    let said: String = line
        .unwrap_or_default()
        .chars()
        .take(REASON_LENGTH_MAX)
        .collect();
    let code = match result.exit_code {
        NO_EXIT_CODE => String::new(),
        code => format!(" ({code})"),
    };
    let separator = if said.is_empty() { "" } else { ": " };
    format!("not ready{code}{separator}{said}")
}

// === impl HealthCheck ===

impl HealthCheck {
    /// The check of a service's readiness: failures before the first success mean nothing.
    pub(super) fn of_readiness(policy: &ReadinessPolicy) -> Self {
        let shell = SHELL.iter().map(|word| (*word).to_owned());
        Self {
            command: shell.chain([policy.command.clone()]).collect(),
            interval: policy.interval,
            timeout: policy.timeout,
            start_period: Duration::MAX,
            start_interval: policy.interval.min(READINESS_START_INTERVAL),
            retries: policy.retries,
        }
    }

    /// The check that `config` asks for; `None` when it asks for none, or in words nobody knows (an
    /// image may say anything; Docker ignores it too).
    pub(super) fn of(config: &Healthcheck) -> Option<Self> {
        let (kind, words) = config.test.split_first()?;
        let shell: &[&str] = match kind.as_str() {
            "CMD" => &[],
            "CMD-SHELL" => &SHELL,
            _ => return None,
        };
        let shell = shell.iter().map(|word| (*word).to_owned());
        let or = |nanos: i64, default: Duration| match u64::try_from(nanos) {
            Ok(nanos @ 1..) => Duration::from_nanos(nanos),
            _ => default,
        };
        Some(Self {
            command: shell.chain(words.iter().cloned()).collect(),
            interval: or(config.interval, INTERVAL_DEFAULT),
            timeout: or(config.timeout, TIMEOUT_DEFAULT),
            start_period: or(config.start_period, Duration::ZERO),
            start_interval: or(config.start_interval, START_INTERVAL_DEFAULT),
            retries: match u32::try_from(config.retries) {
                Ok(retries @ 1..) => retries,
                _ => RETRIES_DEFAULT,
            },
        })
    }
}

// === impl HealthStatus ===

impl HealthStatus {
    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

// === impl HealthMachine ===

impl HealthMachine {
    /// For a container that runs since `started_at`, with the health an earlier daemon left.
    pub(super) fn new(
        check: HealthCheck,
        started_at: Timestamp,
        health: Health,
        now: Timestamp,
    ) -> Self {
        let last_end = health.log.last().map(|last| Timestamp(last.ended_at_ns));
        Self {
            check,
            started_at,
            // A clock that was set back must not put off the next probe.
            waiting_since: last_end.unwrap_or(started_at).min(now),
            health,
        }
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// When the next probe is due.
    pub(super) fn next_probe(&self) -> Timestamp {
        let is_early = self.waiting_since.since(self.started_at) < self.check.start_period;
        let pause = match self.health.status {
            HealthStatus::Starting if is_early => self.check.start_interval,
            HealthStatus::Starting | HealthStatus::Healthy | HealthStatus::Unhealthy => {
                self.check.interval
            }
        };
        self.waiting_since + pause
    }

    /// Takes a probe's result.
    pub(super) fn handle(&mut self, result: ProbeResult) -> Verdict {
        let before = (self.health.status, self.health.failing_streak);
        self.waiting_since = Timestamp(result.ended_at_ns);
        if result.exit_code == 0 {
            self.health.failing_streak = 0;
            self.health.status = HealthStatus::Healthy;
        } else if self.counts(&result) {
            self.health.failing_streak = self.health.failing_streak.saturating_add(1);
            if self.health.failing_streak >= self.check.retries {
                self.health.status = HealthStatus::Unhealthy;
            }
        }
        let excess = (self.health.log.len() + 1).saturating_sub(LOG_LENGTH_MAX);
        self.health.log.drain(..excess);
        self.health.log.push(result);
        Verdict {
            has_turned: before.0 != self.health.status,
            is_news: before != (self.health.status, self.health.failing_streak),
        }
    }

    /// Whether a failure counts: not in the start period, unless the container was healthy once.
    fn counts(&self, failure: &ProbeResult) -> bool {
        let age = Timestamp(failure.started_at_ns).since(self.started_at);
        self.health.status != HealthStatus::Starting || age >= self.check.start_period
    }
}

// === impl Healthcheck ===

impl From<&HealthConfig> for Healthcheck {
    fn from(config: &HealthConfig) -> Self {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self {
            test: config.test.clone(),
            interval: nanos(config.interval),
            timeout: nanos(config.timeout),
            start_period: nanos(config.start_period),
            start_interval: nanos(config.start_interval),
            retries: i64::from(config.retries),
        }
    }
}

impl From<&Healthcheck> for HealthConfig {
    /// What is out of range becomes the nearest that is not: images may say anything.
    fn from(check: &Healthcheck) -> Self {
        let duration = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        Self {
            test: check.test.clone(),
            interval: duration(check.interval),
            timeout: duration(check.timeout),
            retries: i32::try_from(check.retries.max(0)).unwrap_or(i32::MAX),
            start_period: duration(check.start_period),
            start_interval: duration(check.start_interval),
        }
    }
}
