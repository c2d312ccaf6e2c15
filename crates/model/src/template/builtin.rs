//! Functions that every template has: those of Go's `text/template` but `call`, and Swarm's `join`.

use std::cmp::Ordering;

use super::{
    context::Context,
    print::{joined, printf, push_value},
    value::{Basic, Value},
};

const NAMES: [&str; 19] = [
    "and", "eq", "ge", "gt", "html", "index", "join", "js", "le", "len", "lt", "ne", "not", "or",
    "print", "printf", "println", "slice", "urlquery",
];

/// What a function takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    /// Arguments that must be there.
    pub(super) least: usize,
    /// More may follow.
    pub(super) is_open: bool,
    /// How many of them, from the first, must be strings.
    pub(super) texts: usize,
}

/// Whether `name` is one of them.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// What `name` takes; functions that are not known here take one string.
pub(super) fn signature(name: &str) -> Signature {
    let (least, is_open, texts) = match name {
        "print" | "println" | "html" | "js" | "urlquery" => (0, true, 0),
        "join" => (0, true, usize::MAX),
        "printf" => (1, true, 1),
        "and" | "or" | "eq" | "index" | "slice" => (1, true, 0),
        "not" | "len" => (1, false, 0),
        "ne" | "lt" | "le" | "gt" | "ge" => (2, false, 0),
        _ => (1, false, 1),
    };
    Signature {
        least,
        is_open,
        texts,
    }
}

/// Calls a function other than `and` and `or`, whose arguments fit its signature. Texts of more than
/// `bytes_max` bytes are refused.
pub(super) fn call<'a>(
    name: &str,
    arguments: &[Value<'a>],
    context: &Context,
    bytes_max: usize,
) -> Result<Value<'a>, String> {
    let too_long = || format!("result has more than {bytes_max} bytes");
    let text = match (name, arguments) {
        ("not", [value]) => return Ok(Value::Bool(!value.is_true())),
        ("len", [value]) => return length(value),
        ("index", [item, indexes @ ..]) => return index(item, indexes),
        ("slice", [item, indexes @ ..]) => return slice(item, indexes),
        ("eq", [first, others @ ..]) => return equal(first, others, context).map(Value::Bool),
        ("ne" | "lt" | "le" | "gt" | "ge", [a, b]) => {
            return compare(name, a, b, context).map(Value::Bool);
        }
        ("printf", [Value::Text(format), others @ ..]) => {
            printf(format, others, context, bytes_max).ok_or_else(too_long)?
        }
        ("println", values) => joined(values, context, true),
        ("html", values) => escaped(values, context, html),
        ("js", values) => escaped(values, context, js),
        ("urlquery", values) => escaped(values, context, url_query),
        ("join", values) => join(values)?,
        (_, values) => joined(values, context, false),
    };
    if text.len() > bytes_max {
        return Err(too_long());
    }
    Ok(Value::text(text))
}

fn length(value: &Value<'_>) -> Result<Value<'static>, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::Map(labels) => labels.entries.len(),
        Value::None => return Err("len of nil pointer".to_owned()),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Object(_) => {
            return Err(format!("len of type {}", value.type_name()));
        }
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index<'a>(item: &Value<'a>, indexes: &[Value<'a>]) -> Result<Value<'a>, String> {
    if matches!(item, Value::None) {
        return Err("index of untyped nil".to_owned());
    }
    indexes
        .iter()
        .try_fold(item.clone(), |item, index| match &item {
            Value::Text(text) => {
                let at = position(index)?;
                let byte = usize::try_from(at).ok().and_then(|at| text.get(at));
                let byte = byte.ok_or_else(|| format!("index out of range: {at}"))?;
                Ok(Value::Int(i64::from(*byte)))
            }
            Value::Map(labels) => match index {
                Value::Text(key) => Ok(labels.get(key).unwrap_or_else(|| Value::text(""))),
                Value::None => Err("value is nil; should be of type string".to_owned()),
                other => Err(format!(
                    "value has type {}; should be string",
                    other.type_name()
                )),
            },
            other => Err(format!("can't index item of type {}", other.type_name())),
        })
}

fn position(index: &Value<'_>) -> Result<i64, String> {
    match index {
        Value::Int(at) => Ok(*at),
        Value::None => Err("cannot index slice/array with nil".to_owned()),
        other => Err(format!(
            "cannot index slice/array with type {}",
            other.type_name()
        )),
    }
}

fn slice<'a>(item: &Value<'a>, indexes: &[Value<'a>]) -> Result<Value<'a>, String> {
    let text = match item {
        Value::Text(text) => text,
        Value::None => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    match indexes.len() {
        0..=2 => {}
        3 => return Err("cannot 3-index slice a string".to_owned()),
        more => return Err(format!("too many slice indexes: {more}")),
    }
    let mut bounds = [0, text.len()];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        let at = position(index)?;
        let at_in_text = usize::try_from(at).ok().filter(|at| *at <= text.len());
        *bound = at_in_text.ok_or_else(|| format!("index out of range: {at}"))?;
    }
    let [from, to] = bounds;
    let part = text.get(from..to);
    let part = part.ok_or_else(|| format!("invalid slice index: {from} > {to}"))?;
    Ok(Value::text(part))
}

fn equal(first: &Value<'_>, others: &[Value<'_>], context: &Context) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        let is_equal = match (first.basic(), other.basic()) {
            (None, None) => match (first, other) {
                (Value::None, Value::None) => true,
                (Value::None, _) | (_, Value::None) => false,
                _ => return Err(not_comparable(first, context)),
            },
            (a, b) if a != b => match (first, other) {
                (Value::None, _) | (_, Value::None) => false,
                _ => return Err("incompatible types for comparison".to_owned()),
            },
            _ => order(first, other) == Some(Ordering::Equal),
        };
        if is_equal {
            return Ok(true);
        }
    }
    Ok(false)
}

fn not_comparable(value: &Value<'_>, context: &Context) -> String {
    let mut shown = Vec::new();
    push_value(value, context, &mut shown);
    format!(
        "non-comparable type {}: {}",
        String::from_utf8_lossy(&shown),
        value.type_name()
    )
}

fn compare(name: &str, a: &Value<'_>, b: &Value<'_>, context: &Context) -> Result<bool, String> {
    if name == "ne" {
        return Ok(!equal(a, std::slice::from_ref(b), context)?);
    }
    let is_ordered = |kind: Option<Basic>| kind.is_some_and(|kind| kind != Basic::Bool);
    let (kind_a, kind_b) = (a.basic(), b.basic());
    if kind_a.is_none() || kind_b.is_none() || (kind_a == kind_b && !is_ordered(kind_a)) {
        return Err("invalid type for comparison".to_owned());
    }
    if kind_a != kind_b {
        return Err("incompatible types for comparison".to_owned());
    }
    let order = order(a, b);
    Ok(match name {
        "lt" => order == Some(Ordering::Less),
        "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        "gt" => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

/// Two values of one basic kind.
fn order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Swarm's `join`: the first argument between the others.
fn join(values: &[Value<'_>]) -> Result<Vec<u8>, String> {
    let texts = values.iter().filter_map(|value| match value {
        Value::Text(text) => Some(&text[..]),
        _ => None,
    });
    let texts: Vec<&[u8]> = texts.collect();
    let (separator, parts) = texts
        .split_first()
        .ok_or("runtime error: slice bounds out of range [1:0]")?;
    Ok(parts.join(*separator))
}

fn escaped(values: &[Value<'_>], context: &Context, escape: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    escape(&joined(values, context, false))
}

fn html(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'"' => out.extend(b"&#34;"),
            b'\'' => out.extend(b"&#39;"),
            b'&' => out.extend(b"&amp;"),
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            0 => out.extend("\u{fffd}".bytes()),
            other => out.push(*other),
        }
    }
    out
}

fn js(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'\\' | b'\'' | b'"' => out.extend([b'\\', *byte]),
            b'<' | b'>' | b'&' | b'=' | 0..=0x1f => {
                out.extend(format!("\\u{byte:04X}").bytes());
            }
            other => out.push(*other),
        }
    }
    out
}

fn url_query(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' => out.push(b'+'),
            b'-' | b'_' | b'.' | b'~' => out.push(*byte),
            byte if byte.is_ascii_alphanumeric() => out.push(*byte),
            byte => out.extend(format!("%{byte:02X}").bytes()),
        }
    }
    out
}
