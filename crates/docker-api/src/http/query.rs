//! Query strings, read as Go's `net/url` and Docker's form functions read them.

use crate::error::{ApiError, Result};

/// The decoded pairs of a query string, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `text`. Pairs that are not valid are dropped, as Go does.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'));
        Self(
            pairs
                .filter_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((percent_decode(key, true)?, percent_decode(value, true)?))
                })
                .collect(),
        )
    }

    /// The first value of `key`; empty when it is missing.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value)
    }

    /// All values of `key`.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Whether `key` occurs at all.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// A lenient flag: everything but empty, `0`, `no`, `false` and `none` is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.text(key).trim();
        !["", "0", "no", "false", "none"]
            .iter()
            .any(|no| value.eq_ignore_ascii_case(no))
    }

    /// A lenient flag that is `default` when the key is missing.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        if self.has(key) {
            self.flag(key)
        } else {
            default
        }
    }

    /// A strict flag as `strconv.ParseBool` reads it; missing or empty is false.
    pub(crate) fn strict_flag(&self, key: &str) -> Result<bool> {
        match self.text(key) {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            value => Err(ApiError::invalid(format!(
                "invalid value for {key}: {value}"
            ))),
        }
    }

    /// The object version a write is based on; `noun` names the object in the refusal.
    pub(crate) fn version(&self, noun: &str) -> Result<skep_model::Version> {
        let text = self.text("version");
        text.parse().map(skep_model::Version).map_err(|_| {
            ApiError::invalid(format!(
                "invalid {noun} version '{text}': strconv.ParseUint: parsing \"{text}\": invalid \
                 syntax"
            ))
        })
    }

    /// A size of a terminal.
    pub(crate) fn cells(&self, key: &str, noun: &str) -> Result<u16> {
        let text = self.text(key);
        text.parse().map_err(|_| {
            ApiError::invalid(format!("invalid resize {noun} \"{text}\": invalid syntax"))
        })
    }
}

/// Decodes `%XX` (and `+` as a space when `plus`); `None` when an escape or the UTF-8 is broken.
pub(crate) fn percent_decode(text: &str, plus: bool) -> Option<String> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
                u8::try_from(value).ok()?
            }
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Escapes `text` as Go's `url.QueryEscape`.
pub(crate) fn query_escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => {
                out.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    let digit = char::from_digit(u32::from(nibble), 16).unwrap_or('0');
                    out.push(digit.to_ascii_uppercase());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_in_order() {
        let query = Query::parse("a=1&b=x%20y&a=2&c&bad=%zz&d=p+q");
        assert_eq!(query.text("a"), "1");
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.text("b"), "x y");
        assert_eq!(query.text("d"), "p q");
        assert!(query.has("c") && !query.has("bad"));
    }

    #[test]
    fn flags_read_as_docker_reads_them() {
        let query = Query::parse("a=1&b=True&c=no&d=&e=NONE&f=whatever");
        assert!(query.flag("a") && query.flag("b") && query.flag("f"));
        assert!(!query.flag("c") && !query.flag("d") && !query.flag("e") && !query.flag("g"));
        assert!(query.flag_or("g", true));
        assert!(query.strict_flag("b").expect("true"));
        assert!(query.strict_flag("f").is_err());
    }

    #[test]
    fn escaping_is_undone_by_decoding() {
        let text = "com.docker/x=ü &+%";
        let mut escaped = String::new();
        query_escape(text, &mut escaped);
        assert_eq!(percent_decode(&escaped, true).as_deref(), Some(text));
    }
}
