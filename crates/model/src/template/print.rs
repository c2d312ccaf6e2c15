//! How values are printed: Go's `fmt`, as far as the values of templates need it. Few would look for a part
//! of it elsewhere.

use super::{context::Context, lex::first_char, value::Value};

/// Go's largest width and precision.
const WIDTH_MAX: usize = 1_000_000;
/// Decimal digits that a float can have after the point, but for zeros: the least one is 2^-1074.
const FLOAT_DIGITS_MAX: usize = 1074;
/// Digits after the point of `%e` and `%f`.
const PRECISION: usize = 6;

/// A text as `%q` shows it.
pub(super) fn quoted(text: &[u8]) -> String {
    let mut out = String::from("\"");
    let mut rest = text;
    while let Some((next, length)) = first_char(rest) {
        match next {
            '"' => out.push_str("\\\""),
            char::REPLACEMENT_CHARACTER if length == 1 => {
                out.push_str(&format!("\\x{:02x}", rest[0]));
            }
            next => push_escaped(next, &mut out),
        }
        rest = &rest[length..];
    }
    out.push('"');
    out
}

fn push_escaped(next: char, out: &mut String) {
    match next {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        next if next.is_control() && next.is_ascii() => {
            out.push_str(&format!("\\x{:02x}", u32::from(next)));
        }
        next if next.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(next))),
        next => out.push(next),
    }
}

/// A character as `%#U` shows it.
pub(super) fn code_point(next: char) -> String {
    let code = format!("U+{:04X}", u32::from(next));
    if next.is_control() {
        code
    } else {
        format!("{code} '{next}'")
    }
}

/// A value as `%v` shows it.
pub(super) fn push_value(value: &Value<'_>, context: &Context, out: &mut Vec<u8>) {
    match value {
        Value::None => out.extend(b"<nil>"),
        Value::Bool(value) => out.extend(value.to_string().bytes()),
        Value::Int(value) => out.extend(value.to_string().bytes()),
        Value::Float(value) => out.extend(shortest(*value).bytes()),
        Value::Text(text) => out.extend(&text[..]),
        Value::Map(labels) => {
            let entries = labels.entries.iter();
            let entries: Vec<_> = entries
                .map(|(key, value)| format!("{key}:{value}"))
                .collect();
            out.extend(format!("map[{}]", entries.join(" ")).bytes());
        }
        Value::Object(object) => object.push_to(context, out),
    }
}

/// Go's `Sprint`: spaces between two of which neither is a string. `Sprintln`: between all.
pub(super) fn joined(values: &[Value<'_>], context: &Context, is_line: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut was_text = true;
    for (index, value) in values.iter().enumerate() {
        let is_text = matches!(value, Value::Text(_));
        if index > 0 && (is_line || !(is_text || was_text)) {
            out.push(b' ');
        }
        push_value(value, context, &mut out);
        was_text = is_text;
    }
    if is_line {
        out.push(b'\n');
    }
    out
}

/// What stands between `%` and the verb.
#[derive(Default, Clone, Copy)]
struct Flags {
    has_plus: bool,
    is_left: bool,
    has_sharp: bool,
    has_space: bool,
    has_zeros: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Go's `Sprintf`. `None`: longer than `bytes_max`.
pub(super) fn printf(
    format: &[u8],
    arguments: &[Value<'_>],
    context: &Context,
    bytes_max: usize,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = format;
    let mut arguments = arguments.iter();
    while let Some(percent) = rest.iter().position(|byte| *byte == b'%') {
        out.extend(&rest[..percent]);
        rest = &rest[percent + 1..];
        let flags = read_flags(&mut rest, &mut arguments, &mut out);
        let Some((verb, length)) = first_char(rest) else {
            out.extend(b"%!(NOVERB)");
            break;
        };
        rest = &rest[length..];
        match (verb, arguments.as_slice().first()) {
            ('%', _) => out.push(b'%'),
            (verb, None) => out.extend(format!("%!{verb}(MISSING)").bytes()),
            (verb, Some(value)) => {
                arguments.next();
                push_formatted(verb, flags, value, context, &mut out);
            }
        }
        if out.len() > bytes_max {
            return None;
        }
    }
    out.extend(rest);
    if arguments.len() > 0 {
        let shown = arguments.map(|value| {
            let mut text = Vec::new();
            push_value(value, context, &mut text);
            format!("{}={}", value.type_name(), String::from_utf8_lossy(&text))
        });
        let shown: Vec<String> = shown.collect();
        out.extend(format!("%!(EXTRA {})", shown.join(", ")).bytes());
    }
    (out.len() <= bytes_max).then_some(out)
}

fn read_flags(
    rest: &mut &[u8],
    arguments: &mut std::slice::Iter<'_, Value<'_>>,
    out: &mut Vec<u8>,
) -> Flags {
    let mut flags = Flags::default();
    while let Some(flag) = rest.first() {
        match flag {
            b'+' => flags.has_plus = true,
            b'-' => flags.is_left = true,
            b'#' => flags.has_sharp = true,
            b' ' => flags.has_space = true,
            b'0' => flags.has_zeros = true,
            _ => break,
        }
        *rest = &rest[1..];
    }
    match read_number(rest, arguments) {
        Ok(Some(width)) if width < 0 => {
            flags.is_left = true;
            flags.width = usize::try_from(width.unsigned_abs()).ok();
        }
        Ok(width) => flags.width = width.and_then(|width| usize::try_from(width).ok()),
        Err(()) => out.extend(b"%!(BADWIDTH)"),
    }
    if let Some(after) = rest.strip_prefix(b".") {
        *rest = after;
        match read_number(rest, arguments) {
            Ok(digits) => {
                flags.precision = Some(digits.and_then(|d| usize::try_from(d).ok()).unwrap_or(0));
            }
            Err(()) => out.extend(b"%!(BADPREC)"),
        }
    }
    flags.has_zeros &= !flags.is_left;
    flags
}

/// Digits, or `*` for an argument.
fn read_number(
    rest: &mut &[u8],
    arguments: &mut std::slice::Iter<'_, Value<'_>>,
) -> Result<Option<i64>, ()> {
    let is_fitting = |number: &i64| {
        usize::try_from(number.unsigned_abs()).is_ok_and(|number| number <= WIDTH_MAX)
    };
    if let Some(after) = rest.strip_prefix(b"*") {
        *rest = after;
        return match arguments.next() {
            Some(Value::Int(number)) if is_fitting(number) => Ok(Some(*number)),
            _ => Err(()),
        };
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, after) = rest.split_at(digits);
    *rest = after;
    if number.is_empty() {
        return Ok(None);
    }
    let number = std::str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok());
    number.filter(is_fitting).map(Some).ok_or(())
}

fn push_formatted(
    verb: char,
    flags: Flags,
    value: &Value<'_>,
    context: &Context,
    out: &mut Vec<u8>,
) {
    if verb == 'T' {
        return pad(value.type_name().as_bytes(), flags, out);
    }
    let formatted = match (value, verb) {
        (Value::Map(labels), 's' | 'q' | 'x' | 'X' | 'v') => {
            let mut inner = b"map[".to_vec();
            for (index, (key, value)) in labels.entries.iter().enumerate() {
                if index > 0 {
                    inner.push(b' ');
                }
                push_formatted(verb, flags, &Value::text(key), context, &mut inner);
                inner.push(b':');
                push_formatted(verb, flags, &Value::text(value), context, &mut inner);
            }
            inner.push(b']');
            out.extend(inner);
            return;
        }
        (Value::Text(text), verb) => format_text(text, verb, flags),
        (Value::Int(value), verb) => format_int(*value, verb, flags),
        (Value::Float(value), verb) => format_float(*value, verb, flags),
        (Value::Bool(_), 't' | 'v') | (Value::None | Value::Object(_), 'v') => {
            let mut text = Vec::new();
            push_value(value, context, &mut text);
            Some(text)
        }
        (Value::None | Value::Bool(_) | Value::Map(_) | Value::Object(_), _) => None,
    };
    match formatted {
        Some(text) => pad(&text, flags, out),
        None => {
            let mut text = Vec::new();
            if !matches!(value, Value::None) {
                text.extend(format!("{}=", value.type_name()).bytes());
            }
            push_value(value, context, &mut text);
            out.extend(format!("%!{verb}(").bytes());
            out.extend(text);
            out.push(b')');
        }
    }
}

fn format_text(text: &[u8], verb: char, flags: Flags) -> Option<Vec<u8>> {
    let cut = |text: &[u8]| match flags.precision {
        None => text.to_vec(),
        Some(most) => {
            let lossy = String::from_utf8_lossy(text);
            lossy.chars().take(most).collect::<String>().into_bytes()
        }
    };
    match verb {
        'v' if flags.has_sharp => Some(quoted(text).into_bytes()),
        's' | 'v' => Some(cut(text)),
        'q' if flags.has_sharp && !text.contains(&b'`') => {
            Some([b"`", &cut(text)[..], b"`"].concat())
        }
        'q' => Some(quoted(&cut(text)).into_bytes()),
        'x' => Some(
            text.iter()
                .flat_map(|byte| format!("{byte:02x}").into_bytes())
                .collect(),
        ),
        'X' => Some(
            text.iter()
                .flat_map(|byte| format!("{byte:02X}").into_bytes())
                .collect(),
        ),
        _ => None,
    }
}

fn format_int(value: i64, verb: char, flags: Flags) -> Option<Vec<u8>> {
    let size = value.unsigned_abs();
    let character = || {
        let found = u32::try_from(value).ok().and_then(char::from_u32);
        found.unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    let (prefix, mut digits) = match verb {
        'd' | 'v' => ("", format!("{size}")),
        'b' => ("0b", format!("{size:b}")),
        'o' => ("0", format!("{size:o}")),
        'O' => ("", format!("0o{size:o}")),
        'x' => ("0x", format!("{size:x}")),
        'X' => ("0X", format!("{size:X}")),
        'c' => return Some(character().to_string().into_bytes()),
        'q' => {
            let mut text = String::new();
            match character() {
                '\'' => text.push_str("\\'"),
                other => push_escaped(other, &mut text),
            }
            return Some(format!("'{text}'").into_bytes());
        }
        'U' if flags.has_sharp => return Some(code_point(character()).into_bytes()),
        'U' => return Some(format!("U+{size:04X}").into_bytes()),
        _ => return None,
    };
    let sign = sign(value < 0, flags);
    let prefix = if flags.has_sharp { prefix } else { "" };
    let zeros = match (flags.precision, flags.width) {
        (Some(precision), _) => precision,
        (None, Some(width)) if flags.has_zeros => width.saturating_sub(sign.len()),
        (None, _) => 0,
    };
    if digits.len() < zeros {
        digits = format!("{}{digits}", "0".repeat(zeros - digits.len()));
    }
    Some(format!("{sign}{prefix}{digits}").into_bytes())
}

fn sign(is_negative: bool, flags: Flags) -> &'static str {
    match is_negative {
        true => "-",
        false if flags.has_plus => "+",
        false if flags.has_space => " ",
        false => "",
    }
}

fn format_float(value: f64, verb: char, flags: Flags) -> Option<Vec<u8>> {
    let size = value.abs();
    let precision = flags.precision.unwrap_or(PRECISION);
    let digits = match verb {
        'f' | 'F' => fixed(size, precision),
        'e' => exponent(&scientific(size, precision)),
        'E' => exponent(&scientific(size, precision)).to_uppercase(),
        'g' | 'v' => general(size, flags.precision),
        'G' => general(size, flags.precision).to_uppercase(),
        _ => return None,
    };
    let sign = sign(value.is_sign_negative(), flags);
    let zeros = match flags.width {
        Some(width) if flags.has_zeros => width.saturating_sub(sign.len() + digits.len()),
        _ => 0,
    };
    Some(format!("{sign}{}{digits}", "0".repeat(zeros)).into_bytes())
}

/// With so many digits after the point. Rust writes 65,535 at most; beyond [`FLOAT_DIGITS_MAX`] all are zeros.
fn fixed(size: f64, precision: usize) -> String {
    let exact = precision.min(FLOAT_DIGITS_MAX);
    let zeros = match size.is_finite() {
        true => precision - exact,
        false => 0,
    };
    format!("{size:.exact$}{}", "0".repeat(zeros))
}

/// The same with an exponent.
fn scientific(size: f64, precision: usize) -> String {
    let exact = precision.min(FLOAT_DIGITS_MAX);
    let digits = format!("{size:.exact$e}");
    match digits.split_once('e') {
        Some((mantissa, power)) => format!("{mantissa}{}e{power}", "0".repeat(precision - exact)),
        None => digits,
    }
}

fn shortest(value: f64) -> String {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    format!("{sign}{}", general(value.abs(), None))
}

/// `%g`: with an exponent when that is below -4 or not below the precision, 6 for the shortest form.
fn general(size: f64, precision: Option<usize>) -> String {
    let scientific = match precision {
        None => format!("{size:e}"),
        // Zeros at the end are cut off below.
        Some(precision) => scientific(size, precision.saturating_sub(1).min(FLOAT_DIGITS_MAX)),
    };
    let Some((mantissa, power)) = scientific.split_once('e') else {
        return scientific;
    };
    let power: i64 = power.parse().unwrap_or(0);
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    let digits = mantissa.len() - usize::from(mantissa.contains('.'));
    let most = match precision {
        None => 6,
        Some(precision) => i64::try_from(precision.max(1)).unwrap_or(i64::MAX),
    };
    if power < -4 || power >= most {
        return exponent(&format!("{mantissa}e{power}"));
    }
    let after = i64::try_from(digits).unwrap_or(0) - 1 - power;
    format!("{size:.*}", usize::try_from(after).unwrap_or(0))
}

/// Go's exponents have a sign and two digits.
fn exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((mantissa, power)) => match power.strip_prefix('-') {
            Some(power) => format!("{mantissa}e-{power:0>2}"),
            None => format!("{mantissa}e+{power:0>2}"),
        },
        None => text.to_owned(),
    }
}

fn pad(text: &[u8], flags: Flags, out: &mut Vec<u8>) {
    let length = String::from_utf8_lossy(text).chars().count();
    let missing = flags.width.unwrap_or(0).saturating_sub(length);
    let filler = if flags.has_zeros { b'0' } else { b' ' };
    let padding = std::iter::repeat_n(filler, missing);
    if flags.is_left {
        out.extend(text);
        out.extend(padding);
    } else {
        out.extend(padding);
        out.extend(text);
    }
}
