//! What a service lacks, in words somebody can act on. A pure function of the service, its tasks and
//! the names of nodes.
//!
//! Two kinds: what is *stuck* does not mend itself (a paused update, a crash loop, attempts used up),
//! and *waits* tell what keeps the rest. Docker shows them one task at a time, in the error column.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use skep_model::{
    NodeId, RestartCondition, Service, ServiceMode, Slot, Task, TaskState, Timestamp, UpdateState,
    object::NOT_READY_MESSAGE,
    reserved::{go_duration_text, service::rollout},
};

/// Different findings of each kind that are told of one service; of a service with many slots the first
/// ones say what is to be done.
const FINDINGS_MAX: usize = 8;

/// What is read.
pub(super) struct Subject<'a> {
    pub(super) service: &'a Service,
    /// Its tasks.
    pub(super) tasks: &'a [Arc<Task>],
    /// What a node is called.
    pub(super) node_name: &'a dyn Fn(NodeId) -> String,
    pub(super) now: Timestamp,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// Does not mend itself.
    pub(super) stuck: Vec<String>,
    /// Is waited for, or good to know.
    pub(super) waits: Vec<String>,
}

/// Findings that differ in their place only, with the first one's words.
#[derive(Default)]
struct Grouped(BTreeMap<String, (Finding, usize)>);

/// What is the case in one place.
struct Finding {
    /// For the order of findings.
    place: Slot,
    /// Equal for findings that are told once.
    reason: String,
    text: String,
}

/// Reads the condition of a service.
pub(super) fn of(subject: &Subject<'_>) -> Condition {
    let mut condition = Condition::default();
    subject.read_update(&mut condition);
    let (mut stuck, mut waits) = (Grouped::default(), Grouped::default());
    let places = subject.places();
    for (place, tasks) in &places {
        let Some(newest) = tasks.last() else { continue };
        let earlier = &tasks[..tasks.len() - 1];
        if let Some(finding) = subject.stuck(*place, newest, earlier) {
            stuck.add(finding);
        } else if let Some(finding) = subject.waits(*place, newest, earlier) {
            waits.add(finding);
        }
    }
    condition.stuck.extend(stuck.told());
    condition.waits.extend(waits.told());
    if matches!(subject.service.spec.mode, ServiceMode::Global) && places.is_empty() {
        condition.waits.push("no node is to run it".to_owned());
    }
    condition
}

// === impl Subject ===

impl Subject<'_> {
    fn read_update(&self, condition: &mut Condition) {
        let Some(status) = &self.service.update_status else {
            return;
        };
        match status.state {
            UpdateState::Updating
            | UpdateState::Paused
            | UpdateState::RollbackStarted
            | UpdateState::RollbackPaused => condition.stuck.push(status.message.clone()),
            // It is over, but what was wished is not what runs.
            UpdateState::RollbackCompleted => {
                let reason = status.message.strip_prefix("rollback completed: ");
                condition.waits.extend(reason.map(str::to_owned));
            }
            UpdateState::Unknown | UpdateState::Completed => {}
        }
    }

    /// Tasks of each place, oldest first; of a job those of its present run.
    fn places(&self) -> BTreeMap<Slot, Vec<&Task>> {
        let run = self.service.job_status.as_ref().map(|s| s.job_iteration);
        let is_job = self.is_job();
        let mut places: BTreeMap<Slot, Vec<&Task>> = BTreeMap::new();
        for task in self.tasks {
            let is_past = is_job && task.job_iteration != run;
            let place = match (self.service.spec.mode, task.node_id) {
                (ServiceMode::Replicated { .. } | ServiceMode::ReplicatedJob { .. }, _) => {
                    Slot::Number(task.slot)
                }
                (ServiceMode::Global | ServiceMode::GlobalJob, Some(node)) => Slot::Node(node),
                (ServiceMode::Global | ServiceMode::GlobalJob, None) => continue,
            };
            if !is_past && task.desired_state < TaskState::Remove {
                places.entry(place).or_default().push(task);
            }
        }
        for tasks in places.values_mut() {
            tasks.sort_by_key(|task| (task.meta.created_at, task.id));
        }
        places
    }

    fn is_job(&self) -> bool {
        match self.service.spec.mode {
            ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => true,
            ServiceMode::Replicated { .. } | ServiceMode::Global => false,
        }
    }

    /// What of a place does not mend itself.
    fn stuck(&self, place: Slot, newest: &Task, earlier: &[&Task]) -> Option<Finding> {
        let name = self.name(place);
        let failed = self.failure(newest, earlier);
        let finding = |verb: &str, cause: &str, text: String| Finding {
            place,
            reason: format!("{verb} {cause}"),
            text: format!("{name} {text}"),
        };
        if rollout::is_in_crash_loop(newest, self.now) {
            let text = rollout::crash_loop_text(
                rollout::failures_before(newest),
                &failed,
                self.next_try_in(newest),
            );
            return Some(finding("loop", &failed, format!("is {text}")));
        }
        let cause = match failed.as_str() {
            "" => String::new(),
            failed => format!(": {failed}"),
        };
        if rollout::is_exhausted(newest) {
            let text = format!("has no restart attempts left{cause}");
            return Some(finding("exhausted", &failed, text));
        }
        let has_failed = matches!(newest.status.state, TaskState::Failed | TaskState::Rejected);
        // The restart policy looks at an ended task before anything else happens to it.
        let is_left = newest.desired_state > TaskState::Complete && has_failed;
        let text = format!("failed and is not restarted{cause}");
        (is_left && !self.is_job_place_elsewhere(newest)).then(|| finding("failed", &failed, text))
    }

    /// A job's tasks are told to end where they are complete elsewhere.
    fn is_job_place_elsewhere(&self, task: &Task) -> bool {
        let is_complete = |other: &&Arc<Task>| {
            other.slot == task.slot
                && other.job_iteration == task.job_iteration
                && other.status.state == TaskState::Complete
        };
        matches!(self.service.spec.mode, ServiceMode::ReplicatedJob { .. })
            && self.tasks.iter().any(|other| is_complete(&other))
    }

    /// What a place waits for.
    fn waits(&self, place: Slot, newest: &Task, earlier: &[&Task]) -> Option<Finding> {
        let name = self.name(place);
        let finding = |reason: String, text: String| Finding {
            place,
            reason,
            text: format!("{name}{text}"),
        };
        let state = newest.status.state;
        if newest.desired_state > TaskState::Complete {
            let condition = newest.spec.restart.condition;
            let is_done = state == TaskState::Complete
                && !self.is_job()
                && condition != RestartCondition::Any;
            let text = " has completed and is not restarted";
            return is_done.then(|| finding("completed".to_owned(), text.to_owned()));
        }
        if state == TaskState::Running && newest.status.message == NOT_READY_MESSAGE {
            let text = " runs but is not ready";
            return Some(finding("not ready".to_owned(), text.to_owned()));
        }
        let has_failed = matches!(state, TaskState::Failed | TaskState::Rejected);
        if has_failed && newest.desired_state == TaskState::Ready {
            let cause = self.failure(newest, earlier);
            let when = self.next_try_in(newest).map(go_duration_text);
            let when = when.map_or(String::new(), |left| format!(" in {left}"));
            let text = format!(" is restarted{when}: {cause}");
            return Some(finding(format!("restarted {cause}"), text));
        }
        if state >= TaskState::Running {
            return None;
        }
        let error = rollout::shown_error(newest);
        if !error.is_empty() {
            let text = format!(": {error}");
            return Some(finding(error, text));
        }
        let cause = rollout::cause_before(newest);
        if let Some(delay) = self.next_try_in(newest).filter(|_| !cause.is_empty()) {
            let text = format!(" is restarted in {}: {cause}", go_duration_text(delay));
            return Some(finding(format!("restarted {cause}"), text));
        }
        let old = earlier.iter().rev().find(|old| {
            old.desired_state > TaskState::Complete && old.status.state == TaskState::Running
        });
        if let Some(old) = old.filter(|_| newest.desired_state < TaskState::Running) {
            let node = old.node_id.map_or(String::new(), |id| (self.node_name)(id));
            let text = format!(" waits for its task on {node} to stop");
            return Some(finding("stop".to_owned(), text));
        }
        let health = match newest.spec.container.health {
            Some(_) if state == TaskState::Starting => " and not healthy yet",
            _ => "",
        };
        Some(finding(
            state.name().to_owned(),
            format!(" is {}{health}", state.name()),
        ))
    }

    /// Why the task before this one failed, or this one did, and where, if it is about the node.
    fn failure(&self, newest: &Task, earlier: &[&Task]) -> String {
        let has_failed =
            |task: &Task| matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
        let failed = [newest]
            .into_iter()
            .chain(earlier.iter().rev().copied())
            .find(|task| has_failed(task));
        let Some(failed) = failed else {
            return rollout::cause_before(newest).to_owned();
        };
        let cause = rollout::cause(failed);
        match failed.node_id {
            Some(node) if failed.status.state == TaskState::Rejected && !cause.is_empty() => {
                format!("{cause} on {}", (self.node_name)(node))
            }
            _ => cause,
        }
    }

    /// How long a replacement will still be kept back, in whole seconds.
    fn next_try_in(&self, task: &Task) -> Option<Duration> {
        if task.desired_state != TaskState::Ready {
            return None;
        }
        let due = task.meta.created_at + rollout::restart_delay(task);
        let left = due.since(self.now);
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    fn name(&self, place: Slot) -> String {
        match place {
            Slot::Number(number) => format!("slot {number}"),
            Slot::Node(id) => format!("node {}", (self.node_name)(id)),
        }
    }
}

// === impl Grouped ===

impl Grouped {
    fn add(&mut self, finding: Finding) {
        let reason = finding.reason.clone();
        let (_, count) = self.0.entry(reason).or_insert((finding, 0));
        *count += 1;
    }

    /// In the order of places.
    fn told(self) -> impl Iterator<Item = String> {
        let mut all: Vec<_> = self.0.into_values().collect();
        all.sort_by_key(|(finding, _)| finding.place);
        let left_out = all.len().saturating_sub(FINDINGS_MAX);
        let more = (left_out > 0).then(|| format!("{left_out} more"));
        let texts = all.into_iter().take(FINDINGS_MAX);
        texts
            .map(|(finding, count)| match count {
                1 => finding.text,
                2 => format!("{} (and 1 other)", finding.text),
                count => format!("{} (and {} others)", finding.text, count - 1),
            })
            .chain(more)
    }
}

#[cfg(test)]
mod tests;
