//! Durations as people write them on the command line.

use std::time::Duration;

/// Reads `90s`, `1h30m` and the like; not zero.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    let duration = parsed.and_then(|duration| Duration::try_from(duration).ok());
    let duration = duration.filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| format!("`{text}` is not a duration like 90s or 1h30m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_needed_and_nothing_is_negative() {
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "5", "-1h", "0s", "1 fortnight"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
