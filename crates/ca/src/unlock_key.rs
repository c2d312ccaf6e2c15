//! The unlock key of autolock as users see it: `SWMKEY-1-` and 32 bytes in unpadded base64.

use std::{fmt, str::FromStr};

use zeroize::Zeroizing;

const PREFIX: &str = "SWMKEY-1-";
const KEY_BYTES: usize = 32;
/// 32 bytes are 256 bits, 43 digits of 6 bits.
const KEY_DIGITS: usize = 43;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// An unlock key. `Display` gives it away; `Debug` does not.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey(Zeroizing<[u8; KEY_BYTES]>);

/// The text is no unlock key. It never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid unlock key")]
pub struct InvalidUnlockKey;

// === impl UnlockKey ===

impl UnlockKey {
    /// A new key from the kernel's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key).expect("the kernel gives random bytes");
        Self(key)
    }

    /// A key stored in the cluster.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself; for sealing only.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl FromStr for UnlockKey {
    type Err = InvalidUnlockKey;

    fn from_str(text: &str) -> Result<Self, InvalidUnlockKey> {
        let digits = text.strip_prefix(PREFIX).ok_or(InvalidUnlockKey)?;
        if digits.len() != KEY_DIGITS {
            return Err(InvalidUnlockKey);
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let mut written = key.iter_mut();
        let (mut bits, mut count) = (0_u32, 0);
        for digit in digits.bytes() {
            let value = DIGITS
                .iter()
                .position(|&known| known == digit)
                .ok_or(InvalidUnlockKey)?;
            bits = bits << 6 | u32::try_from(value).map_err(|_| InvalidUnlockKey)?;
            count += 6;
            if count >= 8 {
                count -= 8;
                let [.., byte] = (bits >> count).to_be_bytes();
                *written.next().ok_or(InvalidUnlockKey)? = byte;
                bits &= (1 << count) - 1;
            }
        }
        // Go is lenient with the two bits left over; two texts for one key help nobody.
        if bits != 0 {
            return Err(InvalidUnlockKey);
        }
        Ok(Self(key))
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        for chunk in self.0.chunks(3) {
            let padded = [
                chunk[0],
                chunk.get(1).copied().unwrap_or(0),
                chunk.get(2).copied().unwrap_or(0),
            ];
            let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
            for digit in 0..=chunk.len() {
                let value =
                    usize::try_from(bits >> (18 - 6 * digit) & 63).map_err(|_| fmt::Error)?;
                write!(f, "{}", char::from(DIGITS[value]))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_key() {
        let key = UnlockKey::from_bytes(std::array::from_fn(|index| u8::try_from(index).unwrap()));
        // Computed with Python's base64.
        let text = "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        assert_eq!(key.to_string(), text);
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "UnlockKey(..)");
        for wrong in [
            &text[1..],
            &text[..51],
            &format!("{text}="),
            &text.replace('h', "-"),
            &text.replace("h8", "h9"),
        ] {
            assert_eq!(wrong.parse::<UnlockKey>(), Err(InvalidUnlockKey), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn keys_survive_the_round_trip(bytes in any::<[u8; 32]>()) {
            let key = UnlockKey::from_bytes(bytes);
            prop_assert_eq!(key.to_string().parse::<UnlockKey>(), Ok(key));
        }
    }
}
