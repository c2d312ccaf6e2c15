//! How many queries one container may ask: so many a second, and so many at once after a pause. Pure; time is an argument.

use std::time::{Duration, Instant};

/// Queries a second. A busy proxy that resolves for every request asks some hundred; one core answers a hundred thousand.
const RATE: u32 = 2000;

/// Queries after a pause.
const BURST: u32 = 4000;

/// Counts queries of one container.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

// === impl Bucket ===

impl Bucket {
    pub(crate) fn new(now: Instant) -> Bucket {
        Bucket {
            tokens: f64::from(BURST),
            filled_at: now,
        }
    }

    /// Whether one more query is allowed.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled_at);
        self.filled_at = now;
        let filled = self.tokens + since.as_secs_f64() * f64::from(RATE);
        self.tokens = filled.min(f64::from(BURST));
        let is_allowed = self.tokens >= 1.0;
        if is_allowed {
            self.tokens -= 1.0;
        }
        is_allowed
    }

    /// How long it takes until one more is allowed.
    pub(crate) fn pause() -> Duration {
        Duration::from_secs(1) / RATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_then_a_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert_eq!((0..10_000).filter(|_| bucket.take(start)).count(), 4000);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..10_000).filter(|_| bucket.take(later)).count(), 2000);
        // A long pause is worth one burst, and a clock that goes back nothing.
        let later = later + Duration::from_secs(60);
        assert_eq!((0..10_000).filter(|_| bucket.take(later)).count(), 4000);
        assert!(!bucket.take(start));
    }
}
