//! Statuses on their way to the manager: the newest per task, one request at a time.
//!
//! A status goes out at once when no request is under way; what changes meanwhile is coalesced into
//! the next. No timer batches: an idle link has no reason to wait and a busy one batches by itself.

use std::{collections::BTreeMap, time::Duration};

use skep_model::{TaskId, TaskStatus, Timestamp, dispatch::STATUS_UPDATES_PER_REQUEST_MAX};

/// How long a report may take; then the session is given up. Swarm's limit for a session's first
/// answer; a report that is merely slow would otherwise keep newer statuses back.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The queue. What is in flight is not kept: when a request fails the session is lost, and the next
/// session starts with all statuses.
#[derive(Debug, Default)]
pub(super) struct StatusQueue {
    /// At most one status per task of this node, so bounded by the assignments.
    pending: BTreeMap<TaskId, TaskStatus>,
    in_flight_until: Option<Timestamp>,
}

// === impl StatusQueue ===

impl StatusQueue {
    /// Queues a status; it replaces an older one of the task.
    pub(super) fn push(&mut self, task: TaskId, status: TaskStatus) {
        self.pending.insert(task, status);
    }

    /// The task is no longer assigned: its status interests nobody.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.pending.remove(&task);
    }

    /// Without a session there is nothing to queue for and nothing in flight.
    pub(super) fn reset(&mut self) {
        self.pending.clear();
        self.in_flight_until = None;
    }

    /// The request in flight was answered.
    pub(super) fn on_answer(&mut self) {
        self.in_flight_until = None;
    }

    /// The next request's statuses, unless one is in flight or there is nothing to say.
    pub(super) fn next_batch(&mut self, now: Timestamp) -> Option<Vec<(TaskId, TaskStatus)>> {
        if self.in_flight_until.is_some() || self.pending.is_empty() {
            return None;
        }
        self.in_flight_until = Some(now + REPORT_TIMEOUT);
        let mut batch = Vec::new();
        while batch.len() < STATUS_UPDATES_PER_REQUEST_MAX
            && let Some(entry) = self.pending.pop_first()
        {
            batch.push(entry);
        }
        Some(batch)
    }

    /// When the request in flight is given up.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.in_flight_until
    }
}
