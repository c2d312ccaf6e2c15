//! Times and durations.

use std::time::Duration;

use skep_model::Timestamp;

use crate::error::Problem;

/// Nanoseconds in a second.
const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// `time` on the wire.
pub(crate) fn to_timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}

/// `time` on the wire; the epoch stands for "never" and is left out.
pub(crate) fn to_timestamp_unless_zero(time: Timestamp) -> Option<prost_types::Timestamp> {
    (time != Timestamp::ZERO).then(|| to_timestamp(time))
}

/// The model's form of a time. Times before 1677 or after 2262, such as Go's zero time, are
/// clamped: they are only ever shown or compared.
pub(crate) fn timestamp(time: prost_types::Timestamp) -> Timestamp {
    // In 128 bits, because the seconds of the earliest time are out of range by themselves.
    let nanos = i128::from(time.seconds) * i128::from(NANOS_PER_SECOND) + i128::from(time.nanos);
    let earliest_or_latest = if nanos < 0 { i64::MIN } else { i64::MAX };
    Timestamp(i64::try_from(nanos).unwrap_or(earliest_or_latest))
}

/// The model's form of a time that may be absent, which means "never".
pub(crate) fn timestamp_or_zero(time: Option<prost_types::Timestamp>) -> Timestamp {
    time.map_or(Timestamp::ZERO, timestamp)
}

/// `duration` on the wire; more than `i64::MAX` seconds are clamped.
pub(crate) fn to_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).expect("nanoseconds below a second fit i32"),
    }
}

/// The model's form of a duration; a negative one is refused.
pub(crate) fn duration(duration: prost_types::Duration) -> Result<Duration, Problem> {
    let seconds =
        u64::try_from(duration.seconds).map_err(|_| Problem::OutOfRange(duration.seconds))?;
    let nanos = u32::try_from(duration.nanos)
        .ok()
        .filter(|_| duration.nanos < NANOS_PER_SECOND)
        .ok_or(Problem::OutOfRange(duration.nanos.into()))?;
    Ok(Duration::new(seconds, nanos))
}

/// The model's form of a duration that may be absent, which means `default`.
pub(crate) fn duration_or(
    value: Option<prost_types::Duration>,
    default: Duration,
) -> Result<Duration, Problem> {
    value.map_or(Ok(default), duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_and_malformed_durations_are_refused() {
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (0, NANOS_PER_SECOND),
            (i64::MIN, i32::MIN),
        ] {
            let wire = prost_types::Duration { seconds, nanos };
            assert!(duration(wire).is_err(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn times_out_of_range_are_clamped() {
        let year_one = prost_types::Timestamp {
            seconds: -62_135_596_800,
            nanos: 0,
        };
        assert_eq!(timestamp(year_one), Timestamp(i64::MIN));
        let never = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: i32::MAX,
        };
        assert_eq!(timestamp(never), Timestamp(i64::MAX));
    }

    #[test]
    fn the_first_and_the_last_time_survive() {
        for time in [Timestamp(i64::MIN), Timestamp(-1), Timestamp(i64::MAX)] {
            assert_eq!(timestamp(to_timestamp(time)), time);
        }
    }
}
