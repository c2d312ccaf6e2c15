//! Times in Docker's texts: RFC 3339 out; Unix seconds, RFC 3339 and durations in.

use std::time::Duration;

use skep_model::Timestamp;

/// Go's zero time, which stands for "never".
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// The current time.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp::ZERO.saturating_add(since)
}

/// RFC 3339 with as many fractional digits as needed (Go's `RFC3339Nano`); zero is [`NEVER`].
pub(crate) fn rfc3339_nano(time: Timestamp) -> String {
    if time == Timestamp::ZERO {
        return NEVER.to_owned();
    }
    let (mut text, nanos) = civil(time);
    if nanos > 0 {
        let digits = format!(".{nanos:09}");
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// RFC 3339 with exactly nine fractional digits, as log lines carry it.
pub(crate) fn rfc3339_nano_fixed(time: Timestamp) -> String {
    let (text, nanos) = civil(time);
    format!("{text}.{nanos:09}Z")
}

/// RFC 3339 without fraction.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    format!("{}Z", civil(time).0)
}

/// Date and time to the second without zone, and the nanoseconds.
///
/// Hand-made because a service list holds hundreds of times and must be encoded in a millisecond.
fn civil(time: Timestamp) -> (String, i32) {
    let (seconds, nanos) = time.to_parts();
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"),
        nanos,
    )
}

/// Reads a time as clients send it: `seconds[.nanoseconds]`, RFC 3339, or a Go duration before
/// `now` (`24h`). Empty and `0` are `None`.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Option<Timestamp>, InvalidTime> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let invalid = || InvalidTime(text.chars().take(64).collect());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse::<i64>()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        let digits: String = fraction
            .chars()
            .chain("000000000".chars())
            .take(9)
            .collect();
        let nanos = digits.parse().map_err(|_| invalid())?;
        return Ok(Some(Timestamp::from_parts(seconds, nanos)));
    }
    if let Some(duration) = parse_duration(text) {
        let nanos = i64::try_from(duration.as_nanos()).map_err(|_| invalid())?;
        return Ok(Some(Timestamp(now.0.saturating_sub(nanos))));
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| invalid())?;
    Ok(Some(Timestamp::from_parts(
        time.as_second(),
        time.subsec_nanosecond(),
    )))
}

/// The text is no time.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse value as time or duration: \"{0}\"")]
pub(crate) struct InvalidTime(String);

/// Reads a Go duration of hours, minutes and seconds with fractions (`1h30m`, `1.5s`, `10ms`).
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}

/// A duration in people's words, as Docker shows it: `About a minute`, `3 weeks`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The oracle is jiff.
        #[test]
        fn dates_agree_with_a_calendar_library(nanos in 0i64..i64::MAX) {
            let time = jiff::Timestamp::from_nanosecond(i128::from(nanos)).expect("in range");
            prop_assert_eq!(parse(&rfc3339_nano_fixed(Timestamp(nanos)), Timestamp::ZERO)
                .expect("valid"), Some(Timestamp(nanos)));
            if nanos != 0 {
                prop_assert_eq!(rfc3339_nano(Timestamp(nanos)), time.to_string());
            }
        }
    }

    #[test]
    fn all_forms_of_times_are_read() {
        let now = Timestamp::from_parts(100_000, 0);
        let check = |text: &str| parse(text, now).map_err(|error| error.to_string());
        assert_eq!(check(""), Ok(None));
        assert_eq!(
            check("1700000000"),
            Ok(Some(Timestamp::from_parts(1_700_000_000, 0)))
        );
        assert_eq!(
            check("5.25"),
            Ok(Some(Timestamp::from_parts(5, 250_000_000)))
        );
        assert_eq!(check("1h0m5s"), Ok(Some(Timestamp::from_parts(96_395, 0))));
        assert_eq!(
            check("1970-01-01T00:00:01Z"),
            Ok(Some(Timestamp::from_parts(1, 0)))
        );
        assert!(check("yesterday").is_err() && check("1.x").is_err());
    }

    #[test]
    fn durations_read_as_docker_shows_them() {
        let check = |seconds, text: &str| {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        };
        check(0, "Less than a second");
        check(59, "59 seconds");
        check(61, "About a minute");
        check(3599, "59 minutes");
        check(3601, "About an hour");
        check(7300, "2 hours");
        check(86_400 * 3, "3 days");
        check(86_400 * 15, "2 weeks");
        check(86_400 * 800, "2 years");
    }
}
