//! Labels of services in a job mode: when they run, how long, and how many runs are kept.

use std::time::Duration;

use super::super::{Labels, text};
use crate::{
    cron::{self, Pattern, Schedule},
    object::Service,
    spec::ServiceMode,
    time::Timestamp,
};

/// When the job runs: five cron fields, or `@daily` and its like.
pub const SCHEDULE: &str = "skep.job.schedule";
/// In which time zone: an IANA name. Default `UTC`.
pub const TIMEZONE: &str = "skep.job.timezone";
/// What an instant does while a run is under way: `allow`, `forbid` or `replace`.
pub const CONCURRENCY: &str = "skep.job.concurrency";
/// How late a missed instant still runs, as a Go duration.
pub const STARTING_DEADLINE: &str = "skep.job.starting-deadline";
/// How long a run may take, as a Go duration.
pub const DEADLINE: &str = "skep.job.deadline";
/// How many runs are kept, the current one included.
pub const HISTORY: &str = "skep.job.history";
/// `true`: instants pass unheeded.
pub const SUSPEND: &str = "skep.job.suspend";

/// Of a task, not a service: stopped because its run took longer than this.
pub const EXPIRED_LABEL: &str = "skep.job.expired";

/// All of them.
pub const KNOWN: [&str; 7] = [
    SCHEDULE,
    TIMEZONE,
    CONCURRENCY,
    STARTING_DEADLINE,
    DEADLINE,
    HISTORY,
    SUSPEND,
];
/// What a schedule is made of: a change of these makes a new one.
pub const OF_SCHEDULE: [&str; 3] = [SCHEDULE, TIMEZONE, SUSPEND];

const FAMILY: &str = "skep.job.";

/// [`STARTING_DEADLINE`] where nothing is said: an outage of an ordinary length delays a run, a long one skips it.
pub const STARTING_DEADLINE_DEFAULT: Duration = Duration::from_secs(3600);
/// Least [`STARTING_DEADLINE`]: a change of leader takes seconds, and must not swallow a run.
pub const STARTING_DEADLINE_MIN: Duration = Duration::from_secs(10);
/// Greatest [`STARTING_DEADLINE`]: so much is searched for missed instants.
pub const STARTING_DEADLINE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Least [`DEADLINE`]: the clock of deadlines is the leader's, and tasks take a second to start.
pub const DEADLINE_MIN: Duration = Duration::from_secs(1);
/// Most runs kept: each may hold as many tasks as the job has completions.
pub const HISTORY_MAX: usize = 1000;

/// What an instant does while a run is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// Starts a second run beside the first.
    Allow,
    /// Waits for the end of the run, as long as the starting deadline lets it.
    Forbid,
    /// Stops the run.
    Replace,
}

/// A label of a job that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// The pattern.
    #[error("label `{SCHEDULE}`: `{0}` {1}")]
    Pattern(String, cron::Invalid),
    /// The zone.
    #[error("label `{TIMEZONE}`: `{0}` {1}")]
    Zone(String, cron::Invalid),
    /// Not one of three words.
    #[error("label `{CONCURRENCY}`: `{0}` is none of `allow`, `forbid`, `replace`")]
    Concurrency(String),
    /// Not a duration, or out of bounds.
    #[error("label `{STARTING_DEADLINE}`: `{0}` is not a duration like `10m` between 10s and 168h")]
    StartingDeadline(String),
    /// Not a duration, or too short.
    #[error("label `{DEADLINE}`: `{0}` is not a duration like `30m` of at least 1s")]
    Deadline(String),
    /// Not a number in bounds.
    #[error("label `{HISTORY}`: `{0}` is not a number between 1 and {HISTORY_MAX}")]
    History(String),
    /// Neither `true` nor `false`.
    #[error("label `{SUSPEND}`: `{0}` is neither `true` nor `false`")]
    Suspend(String),
    /// Says something of a schedule that is not there.
    #[error("label `{0}`: has no meaning without `{SCHEDULE}`")]
    NoSchedule(&'static str),
    /// The service is no job.
    #[error("label `{0}`: only jobs have it (`--mode replicated-job` or `--mode global-job`)")]
    NoJob(String),
}

/// What the labels of a job say. The default is Swarm's job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPolicy {
    /// When it runs; `None`: when it is made or updated.
    pub schedule: Option<Schedule>,
    /// See [`CONCURRENCY`].
    pub concurrency: Concurrency,
    /// See [`STARTING_DEADLINE`].
    pub starting_deadline: Duration,
    /// See [`DEADLINE`].
    pub deadline: Option<Duration>,
    /// See [`HISTORY`]; `None`: the cluster's limit.
    pub history: Option<usize>,
    /// See [`SUSPEND`].
    pub is_suspended: bool,
}

impl Default for JobPolicy {
    fn default() -> Self {
        Self {
            schedule: None,
            concurrency: Concurrency::Replace,
            starting_deadline: STARTING_DEADLINE_DEFAULT,
            deadline: None,
            history: None,
            is_suspended: false,
        }
    }
}

/// When a job runs next.
#[derive(Debug, Clone, PartialEq)]
pub enum NextRun<'a> {
    /// It has no schedule.
    Unscheduled,
    /// Not before its schedule counts again.
    Suspended,
    /// Its schedule has no instant left.
    Never,
    /// At this instant, or later if something holds it up.
    At(Timestamp, &'a Schedule),
}

/// The instant after which a schedule's instants count: the last run's, or when the schedule was set.
pub fn heeded_until(service: &Service) -> Timestamp {
    let last = service.job_status.as_ref().and_then(|s| s.last_execution);
    scheduled_since(service).max(last.unwrap_or_default())
}

/// Since when the instants of the schedule count. Jobs have no updates, so the status of the last
/// update keeps it.
pub fn scheduled_since(service: &Service) -> Timestamp {
    let status = service.update_status.as_ref();
    let set = status.and_then(|status| status.started_at);
    set.unwrap_or(service.meta.created_at)
}

// === impl JobPolicy ===

impl JobPolicy {
    /// What is said, with the default for what is not said or cannot be read.
    pub fn of(labels: &Labels) -> Self {
        Self::read(labels).0
    }

    /// When `service`, whose policy this is, runs next.
    pub fn next_run(&self, service: &Service) -> NextRun<'_> {
        match &self.schedule {
            None => NextRun::Unscheduled,
            Some(_) if self.is_suspended => NextRun::Suspended,
            Some(schedule) => match schedule.next_after(heeded_until(service)) {
                Some(at) => NextRun::At(at, schedule),
                None => NextRun::Never,
            },
        }
    }

    /// Everything wrong with the labels of a service in `mode`.
    pub fn problems(labels: &Labels, mode: ServiceMode) -> Vec<InvalidSchedule> {
        match mode {
            ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => Self::read(labels).1,
            ServiceMode::Replicated { .. } | ServiceMode::Global => {
                let named = labels.keys().filter(|key| KNOWN.contains(&key.as_str()));
                named
                    .map(|key| InvalidSchedule::NoJob(key.clone()))
                    .collect()
            }
        }
    }

    fn read(labels: &Labels) -> (Self, Vec<InvalidSchedule>) {
        let mut policy = Self::default();
        let mut problems = Vec::new();
        // Most jobs have none, and this is asked often.
        let first = labels.range(FAMILY.to_owned()..).next();
        if !first.is_some_and(|(key, _)| key.starts_with(FAMILY)) {
            return (policy, problems);
        }
        policy.read_schedule(labels, &mut problems);
        policy.read_limits(labels, &mut problems);
        (policy, problems)
    }

    fn read_schedule(&mut self, labels: &Labels, problems: &mut Vec<InvalidSchedule>) {
        let zone = labels.get(TIMEZONE).map_or("UTC", String::as_str);
        if let Some(text) = labels.get(SCHEDULE) {
            self.concurrency = Concurrency::Forbid;
            match Pattern::parse(text) {
                Ok(pattern) => match Schedule::new(pattern, zone) {
                    Ok(schedule) => self.schedule = Some(schedule),
                    Err(error) => problems.push(InvalidSchedule::Zone(zone.to_owned(), error)),
                },
                Err(error) => problems.push(InvalidSchedule::Pattern(text.clone(), error)),
            }
        } else {
            let idle = [TIMEZONE, CONCURRENCY, STARTING_DEADLINE, SUSPEND];
            let idle = idle.into_iter().filter(|key| labels.contains_key(*key));
            problems.extend(idle.map(InvalidSchedule::NoSchedule));
        }
        match labels.get(CONCURRENCY).map(String::as_str) {
            None => {}
            Some("allow") => self.concurrency = Concurrency::Allow,
            Some("forbid") => self.concurrency = Concurrency::Forbid,
            Some("replace") => self.concurrency = Concurrency::Replace,
            Some(other) => problems.push(InvalidSchedule::Concurrency(other.to_owned())),
        }
        match labels.get(SUSPEND).map(String::as_str) {
            None | Some("false") => {}
            Some("true") => self.is_suspended = true,
            Some(other) => problems.push(InvalidSchedule::Suspend(other.to_owned())),
        }
    }

    fn read_limits(&mut self, labels: &Labels, problems: &mut Vec<InvalidSchedule>) {
        if let Some(value) = labels.get(STARTING_DEADLINE) {
            let bounds = STARTING_DEADLINE_MIN..=STARTING_DEADLINE_MAX;
            match text::duration(value).filter(|limit| bounds.contains(limit)) {
                Some(limit) => self.starting_deadline = limit,
                None => problems.push(InvalidSchedule::StartingDeadline(value.clone())),
            }
        }
        if let Some(value) = labels.get(DEADLINE) {
            match text::duration(value).filter(|limit| *limit >= DEADLINE_MIN) {
                Some(limit) => self.deadline = Some(limit),
                None => problems.push(InvalidSchedule::Deadline(value.clone())),
            }
        }
        if let Some(value) = labels.get(HISTORY) {
            let count = value.parse().ok();
            match count.filter(|count| (1..=HISTORY_MAX).contains(count)) {
                Some(count) => self.history = Some(count),
                None => problems.push(InvalidSchedule::History(value.clone())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: ServiceMode = ServiceMode::GlobalJob;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], mode: ServiceMode, expected: &[&str]) {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let problems = JobPolicy::problems(&pairs.collect(), mode);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, expected);
    }

    #[test]
    fn what_is_said_is_kept() {
        let labels = Labels::from([
            (SCHEDULE.to_owned(), "@daily".to_owned()),
            (CONCURRENCY.to_owned(), "allow".to_owned()),
            (DEADLINE.to_owned(), "90m".to_owned()),
            (HISTORY.to_owned(), "3".to_owned()),
            (SUSPEND.to_owned(), "true".to_owned()),
        ]);
        let policy = JobPolicy::of(&labels);
        assert!(policy.schedule.is_some());
        assert_eq!(policy.concurrency, Concurrency::Allow);
        assert_eq!(policy.deadline, Some(Duration::from_secs(5400)));
        assert_eq!(policy.history, Some(3));
        assert!(policy.is_suspended);
        assert_eq!(JobPolicy::of(&Labels::new()), JobPolicy::default());
    }

    #[test]
    fn a_schedule_forbids_two_runs_unless_told() {
        let labels = Labels::from([(SCHEDULE.to_owned(), "* * * * *".to_owned())]);
        assert_eq!(JobPolicy::of(&labels).concurrency, Concurrency::Forbid);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        check(
            &[(SCHEDULE, "61 * * * *"), (DEADLINE, "0s")],
            JOB,
            &[
                "label `skep.job.schedule`: `61 * * * *` minute `61` is not within 0-59",
                "label `skep.job.deadline`: `0s` is not a duration like `30m` of at least 1s",
            ],
        );
        check(
            &[(SCHEDULE, "@daily"), (TIMEZONE, "Mars/Olympus")],
            JOB,
            &["label `skep.job.timezone`: `Mars/Olympus` is no time zone like `Europe/Berlin`"],
        );
        check(
            &[(SUSPEND, "true")],
            JOB,
            &["label `skep.job.suspend`: has no meaning without `skep.job.schedule`"],
        );
        check(
            &[(SCHEDULE, "@daily")],
            ServiceMode::Global,
            &[
                "label `skep.job.schedule`: only jobs have it (`--mode replicated-job` or \
               `--mode global-job`)",
            ],
        );
    }
}
