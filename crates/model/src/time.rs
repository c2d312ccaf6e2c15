//! Wall-clock time as data: nanoseconds since the Unix epoch. Nothing here reads a clock.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// Nanoseconds since 1970-01-01T00:00:00Z; good until the year 2262.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The Unix epoch; in stored objects it stands for "never set", as Go's zero time does.
    pub const ZERO: Self = Self(0);

    /// The later of what `duration` after `self` is and the representable maximum.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// Whole seconds and the remaining nanoseconds, as protobuf's `Timestamp` wants them.
    pub fn to_parts(self) -> (i64, i32) {
        let nanos = i32::try_from(self.0.rem_euclid(1_000_000_000))
            .expect("a remainder below 1e9 fits i32");
        (self.0.div_euclid(1_000_000_000), nanos)
    }

    /// From whole seconds and nanoseconds; saturates outside the representable range.
    pub fn from_parts(seconds: i64, nanos: i32) -> Self {
        Self(
            seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(i64::from(nanos)),
        )
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = self.to_parts();
        write!(f, "{seconds}.{nanos:09}s")
    }
}
