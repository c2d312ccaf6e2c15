//! Ids, ages and image names in the words of docker's tables.

/// Characters of an id in a table.
const ID_LENGTH: usize = 12;

/// The part of an id that is shown.
pub(super) fn short_id(id: &str) -> &str {
    id.get(..ID_LENGTH).unwrap_or(id)
}

/// An image without its digest.
pub(super) fn image(reference: &str) -> &str {
    let end = reference.find('@').unwrap_or(reference.len());
    &reference[..end]
}

/// Seconds as people say them: `About a minute`.
pub(super) fn age(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let days = hours / 24;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if days < 14 => format!("{days} days"),
        () if days < 60 => format!("{} weeks", days / 7),
        () if days < 730 => format!("{} months", days / 30),
        () => format!("{} years", days / 365),
    }
}

/// The same with a capital.
pub(super) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_docker() {
        let hour = 3600;
        for (seconds, text) in [
            (-5, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (hour - 1, "59 minutes"),
            (hour, "About an hour"),
            (90 * 60, "2 hours"),
            (47 * hour, "47 hours"),
            (48 * hour, "2 days"),
            (14 * 24 * hour, "2 weeks"),
            (61 * 24 * hour, "2 months"),
            (800 * 24 * hour, "2 years"),
        ] {
            assert_eq!(age(seconds), text, "{seconds}");
        }
        assert_eq!(image("a/b:1@sha256:00"), "a/b:1");
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(capital("running"), "Running");
    }
}
