//! Patterns, the moments they name, and what is refused.

use super::*;

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().unwrap();
    Timestamp(i64::try_from(time.as_nanosecond()).unwrap())
}

fn schedule(pattern: &str, zone: &str) -> Schedule {
    Schedule::new(Pattern::parse(pattern).unwrap(), zone).unwrap()
}

/// The instants after `after`, in local time.
#[track_caller]
fn check((pattern, zone): (&str, &str), after: &str, expected: &[&str]) {
    let schedule = schedule(pattern, zone);
    let mut time = at(after);
    let mut found = Vec::new();
    for _ in expected {
        time = schedule.next_after(time).unwrap();
        found.push(schedule.local(time));
    }
    assert_eq!(found, expected);
}

#[test]
fn fields_are_sets() {
    check(
        ("30 2 * * *", "UTC"),
        "2026-03-01T02:30:00Z",
        &["2026-03-02T02:30:00+00:00", "2026-03-03T02:30:00+00:00"],
    );
    check(
        ("0,20-22/2,50/5 23 31 dec *", "UTC"),
        "2026-01-01T00:00:00Z",
        &[
            "2026-12-31T23:00:00+00:00",
            "2026-12-31T23:20:00+00:00",
            "2026-12-31T23:22:00+00:00",
            "2026-12-31T23:50:00+00:00",
            "2026-12-31T23:55:00+00:00",
            "2027-12-31T23:00:00+00:00",
        ],
    );
    check(
        ("0 0 * * 7", "UTC"),
        "2026-11-21T00:00:00Z",
        &["2026-11-22T00:00:00+00:00", "2026-11-29T00:00:00+00:00"],
    );
    check(
        ("0 0 29 2 *", "UTC"),
        "2096-03-01T00:00:00Z",
        &["2104-02-29T00:00:00+00:00"],
    );
    check(
        ("@weekly", "Asia/Kathmandu"),
        "2026-11-21T00:00:00Z",
        &["2026-11-22T00:00:00+05:45"],
    );
}

#[test]
fn two_day_fields_mean_either() {
    // The 13th, and every Friday.
    check(
        ("0 0 13 * fri", "UTC"),
        "2026-11-06T00:00:00Z",
        &["2026-11-13T00:00:00+00:00", "2026-11-20T00:00:00+00:00"],
    );
    // A Friday that is a 13th.
    check(
        ("0 0 13 * */5", "UTC"),
        "2026-11-14T00:00:00Z",
        &["2026-12-13T00:00:00+00:00"],
    );
}

#[test]
fn a_fixed_hour_that_is_missing_runs_at_the_end_of_the_gap() {
    // Clocks go from 2:00 to 3:00.
    check(
        ("15,45 2 * * *", "Europe/Berlin"),
        "2026-03-28T12:00:00Z",
        &[
            "2026-03-29T03:00:00+02:00",
            "2026-03-30T02:15:00+02:00",
            "2026-03-30T02:45:00+02:00",
        ],
    );
    // Half an hour is missing.
    check(
        ("15 2 * * *", "Australia/Lord_Howe"),
        "2026-10-03T00:00:00Z",
        &["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
    );
}

#[test]
fn a_fixed_hour_that_comes_twice_runs_once() {
    check(
        ("30 2 * * *", "Europe/Berlin"),
        "2026-10-24T12:00:00Z",
        &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
    );
}

#[test]
fn every_hour_goes_by_elapsed_time() {
    check(
        ("30 * * * *", "Europe/Berlin"),
        "2026-03-29T00:00:00Z",
        &["2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"],
    );
    check(
        ("*/30 * * * *", "America/New_York"),
        "2026-11-01T04:45:00Z",
        &[
            "2026-11-01T01:00:00-04:00",
            "2026-11-01T01:30:00-04:00",
            "2026-11-01T01:00:00-05:00",
            "2026-11-01T01:30:00-05:00",
            "2026-11-01T02:00:00-05:00",
        ],
    );
}

/// The oracle: every minute is asked whether local time matches.
#[test]
fn no_instant_is_left_out_or_made_up() {
    let cases = [
        ("*/7 * * * *", "Europe/Berlin"),
        ("5 */6 * * *", "Africa/Casablanca"),
        ("0 3,4,12 1-7 * mon", "America/Santiago"),
        ("59 * 25 10 *", "Europe/London"),
    ];
    for (pattern, zone) in cases {
        let schedule = schedule(pattern, zone);
        let parsed = schedule.pattern;
        // Half a year around the change of clocks in autumn, minute by minute.
        let (mut minute, end) = (at("2026-08-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        let mut next = schedule.next_after(minute).unwrap();
        while minute < end {
            minute = Timestamp(minute.0 + 60_000_000_000);
            let local = schedule.zone.to_datetime(to_jiff(minute).unwrap());
            let is_meant = parsed.has_day(local.date())
                && has(parsed.hours, local.hour())
                && has(parsed.minutes, local.minute());
            let fold = schedule.zone.to_ambiguous_timestamp(local).offset();
            let is_second = match fold {
                AmbiguousOffset::Fold { after, .. } => {
                    schedule.zone.to_offset(to_jiff(minute).unwrap()) == after
                }
                _ => false,
            };
            if is_meant && (parsed.is_every_hour() || !is_second) {
                assert_eq!(next, minute, "{pattern} in {zone}");
                next = schedule.next_after(minute).unwrap();
            } else {
                assert!(next > minute, "{pattern} in {zone} at {local}");
            }
        }
    }
}

#[test]
fn the_last_missed_instant_is_found() {
    let daily = schedule("0 2 * * *", "UTC");
    let now = at("2026-11-21T12:00:00Z");
    let last = |after| daily.last_between(at(after), now);
    assert_eq!(
        last("2026-11-20T02:00:00Z"),
        Some(at("2026-11-21T02:00:00Z"))
    );
    assert_eq!(last("2026-11-21T02:00:00Z"), None);
    assert_eq!(
        last("2026-11-01T02:00:00Z"),
        Some(at("2026-11-21T02:00:00Z"))
    );
    let often = schedule("* * * * *", "UTC");
    assert_eq!(
        often.last_between(at("2020-01-01T00:00:00Z"), now),
        Some(now)
    );
}

#[track_caller]
fn check_refused(pattern: &str, expected: &str) {
    assert_eq!(Pattern::parse(pattern).unwrap_err().to_string(), expected);
}

#[test]
fn what_is_no_pattern_is_refused() {
    let shape = Invalid::Shape.to_string();
    for pattern in ["", "* * * *", "* * * * * *", "@reboot", "@every 5m"] {
        check_refused(pattern, &shape);
    }
    check_refused(&"* ".repeat(300), &shape);
    check_refused("60 * * * *", "minute `60` is not within 0-59");
    check_refused("* 5-3 * * *", "hour `5-3` is not within 0-23");
    check_refused("*/0 * * * *", "minute `*/0` is not within 0-59");
    check_refused("+1 * * * *", "minute `+1` is not within 0-59");
    check_refused("1,,2 * * * *", "minute `1,,2` is not within 0-59");
    check_refused("* * * * funday", "day of week `funday` is not within 0-7");
    check_refused("0 0 30 2 *", "never happens");
    check_refused("0 0 31 4,6,9,11 *", "never happens");
}

#[test]
fn the_ends_of_time_do_no_harm() {
    let yearly = schedule("@yearly", "Europe/Berlin");
    assert!(yearly.next_after(Timestamp(i64::MIN)).is_some());
    assert_eq!(yearly.next_after(Timestamp(i64::MAX)), None);
}
