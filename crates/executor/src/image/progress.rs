//! What a pull tells while it runs: the objects of Docker's JSON stream.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// One object of the stream: `id`, `status`, `progressDetail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullEvent {
    /// A layer's short digest, or the tag on the first line.
    pub id: Option<String>,
    /// The words.
    pub status: String,
    /// How far it is.
    pub progress: Option<Progress>,
}

/// `progressDetail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Where the events of one layer go.
#[derive(Debug, Clone)]
pub(crate) struct LayerProgress {
    id: String,
    events: mpsc::Sender<PullEvent>,
}

/// Lets through one figure for every hundredth of the whole.
#[derive(Debug)]
pub(crate) struct Throttle {
    next: AtomicU64,
    step: u64,
}

/// A small layer is not worth more figures than this many bytes apart.
const STEP_BYTES_MIN: u64 = 512 << 10;

// === impl PullEvent ===

impl PullEvent {
    pub(crate) fn status(status: impl Into<String>) -> Self {
        Self {
            id: None,
            status: status.into(),
            progress: None,
        }
    }

    pub(crate) fn of(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            status: status.into(),
            progress: None,
        }
    }
}

// === impl LayerProgress ===

impl LayerProgress {
    pub(crate) fn new(id: String, events: mpsc::Sender<PullEvent>) -> Self {
        Self { id, events }
    }

    /// Tells a change of state. Waits for a slow listener; one that went away is no reason to stop.
    pub(crate) async fn tell(&self, status: &str) {
        let _ = self.events.send(PullEvent::of(&self.id, status)).await;
    }

    /// Tells a figure, unless the listener is busy.
    pub(crate) fn figure(&self, status: &str, progress: Progress) {
        let event = PullEvent {
            progress: Some(progress),
            ..PullEvent::of(&self.id, status)
        };
        let _ = self.events.try_send(event);
    }
}

// === impl Throttle ===

impl Throttle {
    pub(crate) fn new(total: u64) -> Self {
        Self {
            next: AtomicU64::new(0),
            step: (total / 100).max(STEP_BYTES_MIN),
        }
    }

    /// Whether this figure should be told.
    pub(crate) fn pass(&self, current: u64) -> bool {
        if current < self.next.load(Ordering::Relaxed) {
            return false;
        }
        self.next.store(current + self.step, Ordering::Relaxed);
        true
    }
}
