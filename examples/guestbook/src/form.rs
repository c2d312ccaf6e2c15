//! What browsers send of a form: `name=value&…`, escaped.

/// A field of a form.
pub(crate) fn field(body: &[u8], name: &str) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let mut fields = body.split('&').filter_map(|field| field.split_once('='));
    let (_, value) = fields.find(|(key, _)| *key == name)?;
    Some(unescape(value))
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%');
        let hex = hex.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        rest = match hex {
            Some(byte) => {
                bytes.push(byte);
                &after[2..]
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_unescaped() {
        let body = b"a=1&text=caf%C3%A9+%26+100%25+%zz%";
        assert_eq!(field(body, "text").as_deref(), Some("café & 100% %zz%"));
        assert_eq!(field(body, "b"), None);
    }
}
