//! Big numbers in base 36 with a fixed number of digits, as Go's `big.Int.Text(36)` padded with zeros.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// `bytes`, a big-endian number, in `width` digits. It must fit.
pub(crate) fn encode(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u16;
        for byte in &mut number {
            let value = remainder << 8 | u16::from(*byte);
            *byte =
                u8::try_from(value / 36).expect("a remainder below 36 keeps the quotient a byte");
            remainder = value % 36;
        }
        *digit = DIGITS[usize::from(remainder)];
    }
    debug_assert!(
        number.iter().all(|&byte| byte == 0),
        "the number fits its digits"
    );
    String::from_utf8(digits).expect("digits are ASCII")
}

/// The number in `N` big-endian bytes; `None` if a digit is wrong (upper case is) or it does not fit.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0_u8; N];
    for character in text.bytes() {
        let digit = DIGITS.iter().position(|&digit| digit == character)?;
        let mut carry = u16::try_from(digit).ok()?;
        for byte in number.iter_mut().rev() {
            let value = u16::from(*byte) * 36 + carry;
            *byte = value.to_be_bytes()[1];
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_fit_their_width() {
        assert_eq!(
            encode(&[0xff; 32], 50),
            "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof"
        );
        assert_eq!(encode(&[0xff; 16], 25), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(decode::<16>(&"z".repeat(25)), None);
        assert_eq!(decode::<16>("A"), None);
    }

    proptest! {
        #[test]
        fn numbers_survive_the_round_trip(number in any::<[u8; 16]>()) {
            let text = encode(&number, 25);
            prop_assert_eq!(text.len(), 25);
            prop_assert_eq!(decode(&text), Some(number));
            // An independent oracle: 128-bit arithmetic of the language.
            prop_assert_eq!(u128::from_str_radix(&text, 36).unwrap(), u128::from_be_bytes(number));
        }
    }
}
