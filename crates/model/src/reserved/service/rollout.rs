//! Labels of services about their updates, the revisions kept of them and crash loops, and the labels
//! of tasks in which the control plane notes what a restart depends on.
//!
//! Decisions are in `skep_control`; here is what the labels say and the text people are shown.

use std::time::Duration;

use super::{
    super::{Labels, text},
    schedule::EXPIRED_LABEL,
};
use crate::{
    object::Task,
    spec::{RestartCondition, RestartPolicy},
    state::TaskState,
    time::Timestamp,
};

/// By when a task of a new revision must have run, as a Go duration (`15m`); `0` for no deadline.
pub const UPDATE_DEADLINE: &str = "skep.update.deadline";
/// How many specs of the service are kept to return to.
pub const REVISIONS: &str = "skep.revisions";
/// How long the restart delay of a crash loop may become, as a Go duration; `0` keeps it fixed.
pub const RESTART_BACKOFF_MAX: &str = "skep.restart.backoff.max";

/// Labels of services read here.
pub const KNOWN: [&str; 3] = [UPDATE_DEADLINE, REVISIONS, RESTART_BACKOFF_MAX];

/// On a task: how many tasks before it failed quickly, one after the other. Kept with the task,
/// as history is not kept for long enough to count them.
pub const FAILURES_LABEL: &str = "skep.restart.failures";
/// Beside [`FAILURES_LABEL`]: why the last of them failed, in short. History may be gone by the time
/// somebody asks.
pub const CAUSE_LABEL: &str = "skep.restart.cause";
/// Characters of a failure that are repeated elsewhere: enough for the reasons of a scheduler, and no
/// burden for a store that has it on every task of a crash loop.
pub const CAUSE_LENGTH_MAX: usize = 200;
/// On a task: how many restarts of its revision led to it, where attempts are limited and have no window.
pub const ATTEMPT_LABEL: &str = "skep.restart.attempt";
/// On an ended task: the attempts its restart policy allows, which are used up.
pub const EXHAUSTED_LABEL: &str = "skep.restart.exhausted";

/// [`UPDATE_DEADLINE`] where nothing is said: longer than pulling a large image takes.
pub const UPDATE_DEADLINE_DEFAULT: Duration = Duration::from_secs(600);
/// Longest [`UPDATE_DEADLINE`]: an update that takes a month is not being watched.
pub const UPDATE_DEADLINE_MAX: Duration = Duration::from_secs(720 * 3600);
/// [`REVISIONS`] where nothing is said.
pub const REVISIONS_DEFAULT: usize = 10;
/// Most [`REVISIONS`]: each is a whole spec in every manager's memory and snapshot.
pub const REVISIONS_MAX: usize = 100;
/// [`RESTART_BACKOFF_MAX`] where nothing is said.
pub const RESTART_BACKOFF_DEFAULT: Duration = Duration::from_secs(300);
/// Longest [`RESTART_BACKOFF_MAX`]: a service that is mended should come back within the day.
pub const RESTART_BACKOFF_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// A task that ran this long, and at least as long as it had to wait, was no quick failure.
pub const QUICK_FAILURE: Duration = Duration::from_secs(60);
/// Quick failures in a row after which the restart delay begins to grow.
pub const QUICK_FAILURES_FREE: u32 = 3;
/// What a restart delay of zero grows from.
const BACKOFF_START: Duration = Duration::from_secs(1);

/// What the labels of a service say about its updates and restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutPolicy {
    /// See [`UPDATE_DEADLINE`].
    pub update_deadline: Option<Duration>,
    /// See [`REVISIONS`].
    pub revision_count_max: usize,
    /// See [`RESTART_BACKOFF_MAX`]; zero for none.
    pub backoff_max: Duration,
}

/// A label that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRollout {
    /// Not a duration up to [`UPDATE_DEADLINE_MAX`].
    #[error("label `{UPDATE_DEADLINE}`: `{0}` is not a duration like `10m` of at most 720h")]
    Deadline(String),
    /// Not a count up to [`REVISIONS_MAX`].
    #[error("label `{REVISIONS}`: `{0}` is not a number between 0 and {REVISIONS_MAX}")]
    Revisions(String),
    /// Not a duration up to [`RESTART_BACKOFF_LIMIT`].
    #[error("label `{RESTART_BACKOFF_MAX}`: `{0}` is not a duration like `5m` of at most 24h")]
    Backoff(String),
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            update_deadline: Some(UPDATE_DEADLINE_DEFAULT),
            revision_count_max: REVISIONS_DEFAULT,
            backoff_max: RESTART_BACKOFF_DEFAULT,
        }
    }
}

// === impl RolloutPolicy ===

impl RolloutPolicy {
    /// What is said, with the default for what is not said or cannot be read.
    pub fn of(labels: &Labels) -> Self {
        Self::read(labels).0
    }

    /// Everything wrong with these labels.
    pub fn problems(labels: &Labels) -> Vec<InvalidRollout> {
        Self::read(labels).1
    }

    fn read(labels: &Labels) -> (Self, Vec<InvalidRollout>) {
        let mut policy = Self::default();
        let mut problems = Vec::new();
        if let Some(value) = labels.get(UPDATE_DEADLINE) {
            match text::duration(value).filter(|time| *time <= UPDATE_DEADLINE_MAX) {
                Some(time) => policy.update_deadline = Some(time).filter(|time| !time.is_zero()),
                None => problems.push(InvalidRollout::Deadline(value.clone())),
            }
        }
        if let Some(value) = labels.get(REVISIONS) {
            let is_decimal = value.bytes().all(|byte| byte.is_ascii_digit());
            let count = value.parse().ok().filter(|_| is_decimal);
            match count.filter(|count| *count <= REVISIONS_MAX) {
                Some(count) => policy.revision_count_max = count,
                None => problems.push(InvalidRollout::Revisions(value.clone())),
            }
        }
        if let Some(value) = labels.get(RESTART_BACKOFF_MAX) {
            match text::duration(value).filter(|time| *time <= RESTART_BACKOFF_LIMIT) {
                Some(time) => policy.backoff_max = time,
                None => problems.push(InvalidRollout::Backoff(value.clone())),
            }
        }
        (policy, problems)
    }

    /// How long a task waits that follows `failures` quick ones. With a number of attempts the
    /// policy has an end of its own, counted in a window of time perhaps, and the delay stays.
    pub fn restart_delay(&self, restart: &RestartPolicy, failures: u32) -> Duration {
        let has_end = restart.max_attempts > 0 || restart.condition == RestartCondition::None;
        let doublings = failures.saturating_sub(QUICK_FAILURES_FREE);
        if has_end || self.backoff_max.is_zero() || doublings == 0 {
            return restart.delay;
        }
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let grown = restart.delay.max(BACKOFF_START).saturating_mul(factor);
        grown.min(self.backoff_max).max(restart.delay)
    }
}

/// How many tasks before this one failed quickly, one after the other.
pub fn failures_before(task: &Task) -> u32 {
    let label = task.annotations.labels.get(FAILURES_LABEL);
    label.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// How many restarts of its revision led to the task, where that is noted.
pub fn attempt(task: &Task) -> Option<u64> {
    task.annotations.labels.get(ATTEMPT_LABEL)?.parse().ok()
}

/// Why the task before this one failed, if it did so quickly.
pub fn cause_before(task: &Task) -> &str {
    let label = task.annotations.labels.get(CAUSE_LABEL);
    label.map_or("", String::as_str)
}

/// Why an ended task failed, in one short line: `exit 1`, `exit 137: OOMKilled`, or what its node said.
pub fn cause(task: &Task) -> String {
    short(&task.status.err)
}

fn short(error: &str) -> String {
    let exit = error
        .strip_prefix("task: non-zero exit (")
        .and_then(|rest| rest.split_once(')'));
    let text = match exit {
        Some((code, more)) => {
            let more = more.replacen("dockerexec: ", "", 1);
            format!("exit {code}{more}")
        }
        None => error.to_owned(),
    };
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(CAUSE_LENGTH_MAX).collect()
}

/// What a crash loop is called: what ends it each time, how often it has, and the next try, if it is
/// waited for.
pub fn crash_loop_text(failures: u32, cause: &str, next_try_in: Option<Duration>) -> String {
    let cause = match cause {
        "" => String::new(),
        cause => format!(": {cause}"),
    };
    let next = next_try_in.map(|delay| format!(", next try in {}", text::shown(delay)));
    let next = next.unwrap_or_default();
    format!("crash-looping{cause} ({failures} failures{next})")
}

/// How long the task waits, or has waited, before it may start.
pub fn restart_delay(task: &Task) -> Duration {
    let failures = failures_before(task);
    if failures <= QUICK_FAILURES_FREE {
        return task.spec.restart.delay;
    }
    let policy = RolloutPolicy::of(&task.service_annotations.labels);
    policy.restart_delay(&task.spec.restart, failures)
}

/// Whether the delay of the task has grown.
pub fn is_crash_looping(task: &Task) -> bool {
    restart_delay(task) > task.spec.restart.delay
}

/// Whether a task of a crash loop waits for its start or has not yet run for so long that the loop
/// is over.
pub fn is_in_crash_loop(task: &Task, now: Timestamp) -> bool {
    if task.desired_state > TaskState::Running || !is_crash_looping(task) {
        return false;
    }
    let delay = restart_delay(task);
    let lived = now.since(task.meta.created_at + delay);
    lived < delay.max(QUICK_FAILURE)
}

/// Whether the slot of an ended task stays as it is because no attempt is left.
pub fn is_exhausted(task: &Task) -> bool {
    task.annotations.labels.contains_key(EXHAUSTED_LABEL)
}

/// The error of a task as people are shown it: what its node reported, and what the restart policy
/// or the deadline of its job makes of it.
pub fn shown_error(task: &Task) -> String {
    let is_waiting = task.desired_state == TaskState::Ready && !task.status.state.is_terminal();
    let remark = if is_waiting && is_crash_looping(task) {
        let delay = Some(restart_delay(task));
        crash_loop_text(failures_before(task), cause_before(task), delay)
    } else if let Some(attempts) = task.annotations.labels.get(EXHAUSTED_LABEL) {
        format!("restart attempts exhausted ({attempts} of {attempts})")
    } else if let Some(deadline) = task.annotations.labels.get(EXPIRED_LABEL) {
        format!("the run of its job took longer than {deadline}")
    } else {
        return task.status.err.clone();
    };
    match task.status.err.as_str() {
        "" => remark,
        err => format!("{err}; {remark}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: Result<RolloutPolicy, &str>) {
        let labels: Labels = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let problems = RolloutPolicy::problems(&labels);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        match expected {
            Ok(policy) => {
                assert_eq!(problems, [""; 0]);
                assert_eq!(RolloutPolicy::of(&labels), policy);
            }
            Err(problem) => assert_eq!(problems, [problem]),
        }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        check(&[("app", "web")], Ok(RolloutPolicy::default()));
        let said = RolloutPolicy {
            update_deadline: None,
            revision_count_max: 3,
            backoff_max: Duration::from_secs(90),
        };
        let labels = [
            (UPDATE_DEADLINE, "0"),
            (REVISIONS, "3"),
            (RESTART_BACKOFF_MAX, "1m30s"),
        ];
        check(&labels, Ok(said));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        check(
            &[(UPDATE_DEADLINE, "-1s")],
            Err("label `skep.update.deadline`: `-1s` is not a duration like `10m` of at most 720h"),
        );
        check(
            &[(REVISIONS, "101")],
            Err("label `skep.revisions`: `101` is not a number between 0 and 100"),
        );
        check(
            &[(RESTART_BACKOFF_MAX, "25h")],
            Err(
                "label `skep.restart.backoff.max`: `25h` is not a duration like `5m` of at most 24h",
            ),
        );
    }

    #[test]
    fn the_delay_of_a_crash_loop_doubles_up_to_its_limit() {
        let policy = RolloutPolicy::default();
        let seconds =
            |restart: &RestartPolicy, failures| policy.restart_delay(restart, failures).as_secs();
        let restart = RestartPolicy::default();
        let delays: Vec<u64> = (0..11).map(|n| seconds(&restart, n)).collect();
        assert_eq!(delays, [5, 5, 5, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(seconds(&restart, u32::MAX), 300);
        let none = RestartPolicy {
            delay: Duration::ZERO,
            ..restart.clone()
        };
        let delays: Vec<u64> = (3..7).map(|n| seconds(&none, n)).collect();
        assert_eq!(delays, [0, 2, 4, 8]);
        let slow = RestartPolicy {
            delay: Duration::from_secs(3600),
            ..restart.clone()
        };
        assert_eq!(seconds(&slow, 20), 3600);
        let counted = RestartPolicy {
            max_attempts: 50,
            ..restart
        };
        assert_eq!(seconds(&counted, 20), 5);
    }

    #[track_caller]
    fn check_cause(err: &str, expected: &str) {
        assert_eq!(short(err), expected);
    }

    #[test]
    fn an_exit_is_told_in_short_and_the_rest_in_one_line() {
        check_cause("task: non-zero exit (3)", "exit 3");
        check_cause(
            "task: non-zero exit (137): OOMKilled",
            "exit 137: OOMKilled",
        );
        let unhealthy = "task: non-zero exit (137): dockerexec: unhealthy container";
        check_cause(unhealthy, "exit 137: unhealthy container");
        check_cause("No such image: a\nb", "No such image: a b");
        check_cause(&"x".repeat(999), &"x".repeat(CAUSE_LENGTH_MAX));
    }

    #[test]
    fn a_crash_loop_is_told_with_what_is_known() {
        let minute = Some(Duration::from_secs(60));
        let text = crash_loop_text(4, "exit 3", minute);
        assert_eq!(text, "crash-looping: exit 3 (4 failures, next try in 1m0s)");
        assert_eq!(crash_loop_text(4, "", None), "crash-looping (4 failures)");
    }
}
