//! Elements of DER, as far as copying a certificate with another issuer needs them.

pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const INTEGER: u8 = 0x02;

/// One element.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    /// With tag and length.
    pub(crate) whole: &'a [u8],
    pub(crate) content: &'a [u8],
}

/// The elements in `bytes`, if these are nothing but well-formed elements with tags of one byte.
pub(crate) fn elements(mut bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut all = Vec::new();
    while let [tag, length, ..] = *bytes {
        let (header, length) = match length {
            0..=0x7f => (2, usize::from(length)),
            0x81..=0x83 => {
                let count = usize::from(length & 0x7f);
                let digits = bytes.get(2..2 + count)?;
                let length = digits
                    .iter()
                    .fold(0, |length, &digit| length << 8 | usize::from(digit));
                (2 + count, length)
            }
            _ => return None,
        };
        let (whole, rest) = bytes.split_at_checked(header + length)?;
        all.push(Element {
            tag,
            whole,
            content: &whole[header..],
        });
        bytes = rest;
    }
    bytes.is_empty().then_some(all)
}

/// An element of `parts` one after another.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut whole = vec![tag];
    let digits = content.len().to_be_bytes();
    match u8::try_from(content.len()) {
        Ok(length @ 0..=0x7f) => whole.push(length),
        Ok(_) | Err(_) => {
            let zeros = digits.iter().take_while(|&&digit| digit == 0).count();
            let digits = &digits[zeros..];
            whole
                .push(0x80 | u8::try_from(digits.len()).expect("a length has eight bytes at most"));
            whole.extend(digits);
        }
    }
    whole.extend(content);
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_elements_are_refused() {
        for broken in [
            &[0x30][..],
            &[0x30, 1],
            &[0x30, 0x80],
            &[0x30, 0x82, 1],
            &[0x30, 0x84, 0, 0, 0, 0],
            &[0x30, 0x83, 0xff, 0xff, 0xff, 0],
        ] {
            assert!(elements(broken).is_none(), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn elements_survive_the_round_trip(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..4)) {
            let bytes: Vec<u8> = contents.iter().flat_map(|content| element(OCTET_STRING, &[content])).collect();
            let read = elements(&bytes).unwrap();
            prop_assert_eq!(read.iter().map(|element| element.content.to_vec()).collect::<Vec<_>>(), contents);
            prop_assert_eq!(read.iter().map(|element| element.whole).collect::<Vec<_>>().concat(), bytes);
        }

        #[test]
        fn reading_never_panics(bytes in any::<Vec<u8>>()) {
            let _ = elements(&bytes);
        }
    }
}
