//! When the next run of a scheduled job begins, from the stored service and the time alone.

use skep_model::{
    Service, Timestamp,
    reserved::service::schedule::{JobPolicy, heeded_until},
};

/// What the schedule says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its instants pass unheeded.
    Suspended,
    /// There is no schedule, or no instant left.
    Never,
    /// Not before this instant.
    Later(Timestamp),
    /// For this instant, the latest that was missed.
    Now(Timestamp),
}

pub(super) fn due(service: &Service, policy: &JobPolicy, now: Timestamp) -> Due {
    let Some(schedule) = &policy.schedule else {
        return Due::Never;
    };
    if policy.is_suspended {
        return Due::Suspended;
    }
    let heeded = heeded_until(service);
    let patience = i64::try_from(policy.starting_deadline.as_nanos()).unwrap_or(i64::MAX);
    // An instant just that late still counts, hence one nanosecond more.
    let earliest = Timestamp(now.0.saturating_sub(patience).saturating_sub(1));
    match schedule.last_between(heeded.max(earliest), now) {
        Some(missed) => Due::Now(missed),
        None => schedule
            .next_after(heeded.max(now))
            .map_or(Due::Never, Due::Later),
    }
}
