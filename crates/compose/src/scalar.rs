//! What an unquoted scalar means, by the rules of Go's `yaml.v3`, which decide what compose files mean elsewhere.
//!
//! They are neither YAML 1.1 nor 1.2: `0440` is octal, `yes` is a text, `1_000` a number, `1:30` a text. Dates stay texts
//! here, as no key of a compose file is one.

use crate::node::Value;

/// Longest text that is tried as a number; the largest are far shorter, and trying costs time.
const NUMBER_BYTES_MAX: usize = 64;

/// The value of a plain scalar.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
        _ => number(text).unwrap_or_else(|| Value::Text(text.to_owned())),
    }
}

/// The text Go prints for a scalar; `None` for null, lists and mappings.
pub(crate) fn print(value: &Value) -> Option<String> {
    match value {
        Value::Bool(is) => Some(is.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(print_float(*number)),
        Value::Text(text) => Some(text.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// `true`, `yes` and the like, as compose reads the text of a variable where it wants a truth value.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Option<Value> {
    let first = text.chars().next()?;
    if !(first.is_ascii_digit() || matches!(first, '+' | '-' | '.'))
        || text.len() > NUMBER_BYTES_MAX
    {
        return None;
    }
    let plain = text.replace('_', "");
    if first != '.'
        && let Some(number) = integer(&plain)
    {
        return Some(Value::Int(number));
    }
    is_float(&plain)
        .then(|| plain.parse().ok())
        .flatten()
        .map(Value::Float)
}

/// Go's `strconv.ParseInt` with base 0: a leading zero means octal.
fn integer(text: &str) -> Option<i128> {
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    let number = if is_negative { -number } else { number };
    (i128::from(i64::MIN)..=i128::from(u64::MAX))
        .contains(&number)
        .then_some(number)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => is_digits(fraction),
        Some((whole, fraction)) => is_digits(whole) && (fraction.is_empty() || is_digits(fraction)),
        None => is_digits(mantissa),
    };
    let is_exponent = exponent
        .is_none_or(|exponent| is_digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)));
    is_mantissa && is_exponent
}

/// Go's `%v`: the shortest digits, with an exponent below 1e-4 and from 1e6.
fn print_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Value) {
        assert_eq!(resolve(text), expect, "{text}");
    }

    #[test]
    fn numbers_are_those_of_go() {
        check("0440", Value::Int(0o440));
        check("0o440", Value::Int(0o440));
        check("0x1F", Value::Int(31));
        check("0b11", Value::Int(3));
        check("1_000", Value::Int(1000));
        check("-5", Value::Int(-5));
        check("+5", Value::Int(5));
        check("18446744073709551615", Value::Int(u64::MAX.into()));
        check(
            "18446744073709551616",
            Value::Float(18_446_744_073_709_551_616.0),
        );
        check("08", Value::Float(8.0));
        check("1.", Value::Float(1.0));
        check(".5", Value::Float(0.5));
        check("1e3", Value::Float(1000.0));
        check("-.inf", Value::Float(f64::NEG_INFINITY));
    }

    #[test]
    fn words_are_those_of_go() {
        check("", Value::Null);
        check("~", Value::Null);
        check("True", Value::Bool(true));
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "tRUE",
            "1:30",
            "0x",
            "-",
            "+",
            "1.2.3",
            "2020-01-01",
            ".",
            "1e",
            "0o",
            "--1",
            "0x-1",
        ] {
            check(text, Value::Text(text.to_owned()));
        }
    }

    #[test]
    fn numbers_print_as_go_prints_them() {
        for (text, expect) in [
            ("1.0", "1"),
            ("1e3", "1000"),
            ("1e5", "100000"),
            ("1e6", "1e+06"),
            ("1234567.5", "1.2345675e+06"),
            ("1e21", "1e+21"),
            ("0.00001", "1e-05"),
            ("0.5", "0.5"),
            ("010", "8"),
            ("1e20", "1e+20"),
            (".inf", "+Inf"),
        ] {
            assert_eq!(print(&resolve(text)).unwrap(), expect);
        }
    }

    #[test]
    fn truth_has_many_words() {
        assert_eq!(truth("Yes"), Some(true));
        assert_eq!(truth("off"), Some(false));
        assert_eq!(truth("1"), None);
    }
}
