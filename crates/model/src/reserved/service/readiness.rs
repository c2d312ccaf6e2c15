//! Labels of services about when their tasks take load: readiness, apart from being alive.
//!
//! A task that fails its health check is replaced; one that is not ready is spared new connections until it
//! is. Swarm knows only the first. Design: `docs/design/health.md`, "Readiness".

use std::{ops::RangeInclusive, time::Duration};

use super::super::{Labels, text};

/// A command of the container, run by its `/bin/sh -c`: 0 says ready.
pub const COMMAND: &str = "skep.ready.cmd";
/// From the end of a probe to the begin of the next, as a Go duration.
pub const INTERVAL: &str = "skep.ready.interval";
/// How long a probe may take, as a Go duration.
pub const TIMEOUT: &str = "skep.ready.timeout";
/// Failures in a row after which a ready task is not ready any more.
pub const RETRIES: &str = "skep.ready.retries";

/// Labels of services read here.
pub const KNOWN: [&str; 4] = [COMMAND, INTERVAL, TIMEOUT, RETRIES];

/// [`INTERVAL`] where nothing is said: a probe costs some 20 ms of a core.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// [`TIMEOUT`] where nothing is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// [`RETRIES`] where nothing is said: one lost probe of a busy task is no reason.
pub const RETRIES_DEFAULT: u32 = 2;
/// Range of [`INTERVAL`] and [`TIMEOUT`]: Docker's shortest time of health checks; an hour is no readiness.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
/// Most [`RETRIES`].
const RETRIES_MAX: u32 = 1000;

/// What the labels of a service say about readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadinessPolicy {
    /// See [`COMMAND`].
    pub command: String,
    /// See [`INTERVAL`].
    pub interval: Duration,
    /// See [`TIMEOUT`].
    pub timeout: Duration,
    /// See [`RETRIES`]; at least 1.
    pub retries: u32,
}

/// A label that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReadiness {
    /// No command, or one that cannot be run.
    #[error("label `{COMMAND}`: a command without zero bytes is required")]
    Command,
    /// Not a duration, or out of range.
    #[error("label `{label}`: `{value}` is not a duration like `5s` between 1ms and 1h")]
    Duration {
        /// The label.
        label: &'static str,
        /// What it says.
        value: String,
    },
    /// Not a count.
    #[error("label `{RETRIES}`: `{0}` is not a number between 1 and {RETRIES_MAX}")]
    Retries(String),
    /// It would mean nothing.
    #[error("label `{0}` has no effect without `{COMMAND}`")]
    Alone(&'static str),
}

// === impl ReadinessPolicy ===

impl ReadinessPolicy {
    /// What the labels of a service say; `None`: a running task is ready.
    pub fn of(labels: &Labels) -> Option<Self> {
        Self::read(labels).0
    }

    /// Everything wrong with these labels.
    pub fn problems(labels: &Labels) -> Vec<InvalidReadiness> {
        Self::read(labels).1
    }

    /// Whether tasks made by the one and the other differ, as with another health check.
    pub fn differs(one: &Labels, other: &Labels) -> bool {
        KNOWN.iter().any(|key| one.get(*key) != other.get(*key))
    }

    fn read(labels: &Labels) -> (Option<Self>, Vec<InvalidReadiness>) {
        let mut problems = Vec::new();
        let Some(command) = labels.get(COMMAND) else {
            let alone = KNOWN.into_iter().filter(|key| labels.contains_key(*key));
            return (None, alone.map(InvalidReadiness::Alone).collect());
        };
        if command.trim().is_empty() || command.contains('\0') {
            problems.push(InvalidReadiness::Command);
            return (None, problems);
        }
        let mut time = |label, default| {
            let Some(value) = labels.get(label) else {
                return default;
            };
            let read = text::duration(value).filter(|time| TIMES.contains(time));
            read.unwrap_or_else(|| {
                let value = value.clone();
                problems.push(InvalidReadiness::Duration { label, value });
                default
            })
        };
        let interval = time(INTERVAL, INTERVAL_DEFAULT);
        let timeout = time(TIMEOUT, TIMEOUT_DEFAULT);
        let mut retries = RETRIES_DEFAULT;
        if let Some(value) = labels.get(RETRIES) {
            let is_decimal = value.bytes().all(|byte| byte.is_ascii_digit());
            let count = value.parse().ok().filter(|_| is_decimal);
            match count.filter(|count| (1..=RETRIES_MAX).contains(count)) {
                Some(count) => retries = count,
                None => problems.push(InvalidReadiness::Retries(value.clone())),
            }
        }
        let policy = Self {
            command: command.clone(),
            interval,
            timeout,
            retries,
        };
        (Some(policy), problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: Option<ReadinessPolicy>, problems: &[&str]) {
        let labels: Labels = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let found = ReadinessPolicy::problems(&labels);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, problems);
        assert_eq!(ReadinessPolicy::of(&labels), expected);
    }

    fn policy(interval: u64, timeout: u64, retries: u32) -> Option<ReadinessPolicy> {
        Some(ReadinessPolicy {
            command: "test -e /ready".to_owned(),
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(timeout),
            retries,
        })
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        check(&[("app", "web")], None, &[]);
        let command = (COMMAND, "test -e /ready");
        check(&[command], policy(5, 5, 2), &[]);
        let all = [command, (INTERVAL, "1s"), (TIMEOUT, "2s"), (RETRIES, "1")];
        check(&all, policy(1, 2, 1), &[]);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let command = (COMMAND, "test -e /ready");
        check(
            &[command, (INTERVAL, "0s"), (TIMEOUT, "2h"), (RETRIES, "+1")],
            policy(5, 5, 2),
            &[
                "label `skep.ready.interval`: `0s` is not a duration like `5s` between 1ms and 1h",
                "label `skep.ready.timeout`: `2h` is not a duration like `5s` between 1ms and 1h",
                "label `skep.ready.retries`: `+1` is not a number between 1 and 1000",
            ],
        );
        check(
            &[(COMMAND, " ")],
            None,
            &["label `skep.ready.cmd`: a command without zero bytes is required"],
        );
        check(
            &[(RETRIES, "3")],
            None,
            &["label `skep.ready.retries` has no effect without `skep.ready.cmd`"],
        );
    }
}
