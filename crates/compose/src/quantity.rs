//! Texts that are quantities: durations, bytes, CPUs; and command lines. The rules are those of Docker's libraries.

use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Units of durations. Go has those up to hours, compose days and weeks, too.
const UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
    ("w", 604_800 * NANOS_PER_SECOND),
];

/// `1m30s`, `1.5h`, `0`. At most what Go can hold, 292 years.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|char: char| !(char.is_ascii_digit() || char == '.'))?;
        let (number, tail) = rest.split_at(end);
        let end = tail
            .find(|char: char| char.is_ascii_digit() || char == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, factor) = UNITS.iter().find(|&&(name, _)| name == unit)?;
        nanos = nanos.checked_add(scaled(number, *factor)?)?;
        rest = tail;
    }
    let nanos = u64::try_from(nanos)
        .ok()
        .filter(|&nanos| i64::try_from(nanos).is_ok())?;
    Some(Duration::from_nanos(nanos))
}

/// `512`, `64k`, `1.5G`, `10 MB`, `1GiB`; all units are powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let end = text
        .find(|char: char| !(char.is_ascii_digit() || char == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let exponent = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = scaled(number, 1024_u128.pow(exponent))?;
    u64::try_from(bytes)
        .ok()
        .filter(|&bytes| i64::try_from(bytes).is_ok())
}

/// `0.5`: billionths of a CPU. Finer ones than that there are none.
pub(crate) fn nano_cpus(text: &str) -> Option<u64> {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    if fraction.trim_end_matches('0').len() > 9 {
        return None;
    }
    let nanos = scaled(text, NANOS_PER_SECOND)?;
    u64::try_from(nanos)
        .ok()
        .filter(|&nanos| i64::try_from(nanos).is_ok())
}

/// A decimal number times a factor, rounded down.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut value = whole.checked_mul(factor)?;
    let mut unit = factor;
    let mut rest: u128 = 0;
    // Digit by digit, so that long fractions cannot overflow; 18 digits are finer than any unit.
    for digit in fraction.bytes().take(18) {
        rest = rest
            .checked_mul(10)?
            .checked_add(u128::from(digit - b'0'))?;
        unit = unit.checked_mul(10)?;
    }
    if rest > 0 {
        let places = unit / factor;
        value = value.checked_add(rest.checked_mul(factor)? / places)?;
    }
    Some(value)
}

/// The words of a command line, as a shell without expansions splits it; `None` when a quote has no end.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' if word.is_none() => {
                // A comment, up to the end of its line.
                chars.by_ref().find(|&char| char == '\n');
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        char => word.push(char),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => word.push(chars.next()?),
                        char => word.push(char),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go_and_days() {
        let check = |text, millis| {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            )
        };
        check("0", 0);
        check("10s", 10_000);
        check("1m30s", 90_000);
        check("1.5h", 5_400_000);
        check(".5s", 500);
        check("1d", 86_400_000);
        check("2w", 1_209_600_000);
        check("100ms", 100);
        for text in [
            "",
            "10",
            "s",
            "1x",
            "-1s",
            "1.2.3s",
            "1s ",
            "99999999999h",
            "1e3s",
            ".",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_have_powers_of_1024() {
        for (text, expect) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1024),
            ("1.5M", 1_572_864),
            ("10 MB", 10_485_760),
            ("1GiB", 1 << 30),
            ("2tb", 2 << 40),
            ("1b", 1),
        ] {
            assert_eq!(bytes(text), Some(expect), "{text}");
        }
        for text in ["", "k", "-1", "1x", "1  k", "99999999P", "1kk"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        for (text, expect) in [
            ("0.5", 500_000_000),
            ("2", 2_000_000_000),
            ("0.000000001", 1),
            ("1.50", 1_500_000_000),
            (".1", 100_000_000),
        ] {
            assert_eq!(nano_cpus(text), Some(expect), "{text}");
        }
        for text in ["", "x", "-1", "0.0000000001", "1e3"] {
            assert_eq!(nano_cpus(text), None, "{text}");
        }
    }

    #[test]
    fn lines_are_split_as_a_shell_splits_them() {
        let check =
            |line: &str, expect: &[&str]| assert_eq!(words(line).unwrap(), expect, "{line}");
        check("a  b\tc\n", &["a", "b", "c"]);
        check(
            r#"sh -c 'echo "x y"' "a \"b\" $$c" d\ e ''"#,
            &["sh", "-c", "echo \"x y\"", "a \"b\" $$c", "d e", ""],
        );
        check("a # b\nc#d", &["a", "c#d"]);
        check("", &[]);
        assert_eq!(words("a 'b"), None);
        assert_eq!(words("a \"b"), None);
        assert_eq!(words("a \\"), None);
    }
}
