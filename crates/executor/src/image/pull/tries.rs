//! When a failed request is tried again.

use std::time::Duration;

use crate::image::{Error, error::Result};

/// First pause between tries; it doubles.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest pause, whatever the registry asks for.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How often a request may still be tried, and the pauses between.
pub(super) struct Tries {
    left: u32,
    pause: Duration,
}

// === impl Tries ===

impl Tries {
    pub(super) fn new(count: u32) -> Self {
        Self {
            left: count.saturating_sub(1),
            pause: BACKOFF_FIRST,
        }
    }

    /// Waits before the next try, or gives the error back if there is none.
    pub(super) async fn pause(&mut self, error: Error) -> Result<()> {
        let Some(pause) = self.next_pause(&error) else {
            return Err(error);
        };
        tracing::debug!(pause_ms = pause.as_millis(), %error, "Retrying registry request");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn next_pause(&mut self, error: &Error) -> Option<Duration> {
        let Error::Registry(error) = error else {
            return None;
        };
        if self.left == 0 || !error.is_transient() {
            return None;
        }
        self.left -= 1;
        let pause = self.pause;
        self.pause *= 2;
        let jittered = pause / 2 + pause.mul_f64(f64::from(random_byte()) / 510.0);
        Some(error.retry_after().unwrap_or(jittered).min(BACKOFF_MAX))
    }
}

fn random_byte() -> u8 {
    let mut byte = [0];
    // Without entropy all clients pause alike, which is no reason to fail.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
