//! Whether calls are under way on a connection, and since when none are.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

/// Calls under way on one connection.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<watch::Sender<usize>>);

/// One call under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Call(Arc<watch::Sender<usize>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Activity {
    pub(super) fn begin(&self) -> Call {
        self.0.send_modify(|count| *count += 1);
        Call(Arc::clone(&self.0))
    }

    /// Returns when no call was under way for `idle`.
    pub(super) async fn idle_for(&self, idle: Duration) {
        let mut count = self.0.subscribe();
        loop {
            let busy = count.wait_for(|count| *count > 0);
            if timeout(idle, busy).await.is_err() {
                return;
            }
            let _ = count.wait_for(|count| *count == 0).await;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_connection_is_idle_only_between_calls() {
        const IDLE: Duration = Duration::from_secs(10);
        let activity = Activity::default();
        let call = activity.begin();
        let busy = timeout(IDLE * 5, activity.idle_for(IDLE)).await;
        assert!(busy.is_err(), "a call is under way");
        drop(call);
        timeout(IDLE * 2, activity.idle_for(IDLE)).await.unwrap();
    }
}
