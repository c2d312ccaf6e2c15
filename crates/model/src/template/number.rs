//! Constants of a template: numbers, characters and strings as Go writes them.

use super::node::OperandKind;

/// A number or character constant.
///
/// # Errors
/// It looks like a number and is none, or one that does not fit.
pub(super) fn literal(text: &str) -> Result<OperandKind, String> {
    if text.starts_with('\'') {
        let value = unquote(text.as_bytes());
        let mut chars = value.as_deref().map(String::from_utf8_lossy);
        let chars = chars.as_mut().map(|value| value.chars());
        let Some((Some(only), None)) = chars.map(|mut chars| (chars.next(), chars.next())) else {
            return Err(format!("malformed character constant: {text}"));
        };
        return Ok(OperandKind::Int(
            i64::from(u32::from(only)),
            text.to_owned(),
        ));
    }
    if let Some(value) = integer(text) {
        let value = value.map_err(|()| format!("integer overflow: \"{text}\""))?;
        return Ok(OperandKind::Int(value, text.to_owned()));
    }
    let is_decimal = !text.contains(['x', 'X', '_', 'p', 'P']);
    let value = text.parse::<f64>().ok().filter(|_| is_decimal);
    let value = value.ok_or_else(|| format!("illegal number syntax: \"{text}\""))?;
    Ok(OperandKind::Float(value, text.to_owned()))
}

/// `None`: not an integer; `Some(Err)`: too large.
fn integer(text: &str) -> Option<Result<i64, ()>> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(digits) = lower.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (8, digits)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (2, digits)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, lower.as_str())
    } else {
        (10, lower.as_str())
    };
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let value = i128::from_str_radix(&digits, radix).map_err(|_| ());
    let signed = value.map(|value| if is_negative { -value } else { value });
    Some(signed.and_then(|value| i64::try_from(value).map_err(|_| ())))
}

/// What a quoted string or character stands for; `None`: not valid.
pub(super) fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let [quote, inner @ .., last] = text else {
        return None;
    };
    if quote != last {
        return None;
    }
    if *quote == b'`' {
        return Some(
            inner
                .iter()
                .copied()
                .filter(|byte| *byte != b'\r')
                .collect(),
        );
    }
    let mut rest = inner;
    let mut value = Vec::with_capacity(inner.len());
    while let [first, after @ ..] = rest {
        if *first == b'\\' {
            rest = escape(after, *quote, &mut value)?;
        } else {
            value.push(*first);
            rest = after;
        }
    }
    Some(value)
}

/// Takes what follows a backslash.
fn escape<'a>(text: &'a [u8], quote: u8, value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let [first, rest @ ..] = text else {
        return None;
    };
    let digits = |length: usize, radix: u32| {
        let digits = std::str::from_utf8(text.get(1..=length)?).ok()?;
        u32::from_str_radix(digits, radix).ok()
    };
    let mut push = |length: usize| {
        let code = digits(length, 16)?;
        let found = char::from_u32(code)?;
        value.extend(found.encode_utf8(&mut [0; 4]).as_bytes());
        rest.get(length..)
    };
    let byte = match first {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' => b'\\',
        b'\'' | b'"' if *first == quote => quote,
        b'u' => return push(4),
        b'U' => return push(8),
        b'x' => {
            value.push(u8::try_from(digits(2, 16)?).ok()?);
            return rest.get(2..);
        }
        b'0'..=b'7' => {
            let octal = std::str::from_utf8(text.get(..3)?).ok()?;
            value.push(u8::from_str_radix(octal, 8).ok()?);
            return text.get(3..);
        }
        _ => return None,
    };
    value.push(byte);
    Some(rest)
}
