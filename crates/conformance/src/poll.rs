//! Waiting for a condition that tells its last state.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two looks. Shorter wastes the processor the daemon needs, longer wastes the suite's time.
const PERIOD: Duration = Duration::from_millis(40);

/// Looks until `look` gives a value.
///
/// # Panics
/// After `limit`, with what `look` said last.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(state) if start.elapsed() > limit => {
                panic!("not within {limit:?}: {what}; last state: {state}")
            }
            Err(_) => thread::sleep(PERIOD),
        }
    }
}
