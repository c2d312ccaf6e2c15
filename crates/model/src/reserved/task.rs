//! What the leader notes on tasks for itself and for people, as labels: it must outlive the leader.

use crate::{id::TaskId, object::Task, state::TaskState};

/// On a replacement made while the task it replaces serves on, to move that one elsewhere: its id.
pub const MOVES: &str = "skep.moves";
/// Beside [`MOVES`]: why, for people. The reason of the task that is replaced, once it is.
pub const MOVE_REASON: &str = "skep.moves.reason";
/// Why the leader told a task to stop; shown as its message.
pub const REASON: &str = "skep.reason";

/// The task that `task` was made to replace on another node.
pub fn moved_by(task: &Task) -> Option<TaskId> {
    if task.annotations.labels.is_empty() {
        return None;
    }
    task.annotations.labels.get(MOVES)?.parse().ok()
}

/// The message to show: for a task that was told to stop for a reason of the leader's, that.
pub fn shown_message(task: &Task) -> &str {
    let reason = task.annotations.labels.get(REASON);
    let is_stopped = task.desired_state > TaskState::Running;
    match reason.filter(|_| is_stopped) {
        Some(reason) => reason,
        None => &task.status.message,
    }
}
