//! Keys of WireGuard: Curve25519. A private one never shows itself.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use defguard_boringtun::x25519;
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Which of a node's two devices a key belongs to. A key says it itself (the lowest bit of the public one), so nobody needs to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    Even,
    Odd,
}

/// A key others may know; one that can be used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_BYTES]);

/// A key nobody else may know.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PrivateKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    /// Made of the bytes once, because it takes some 50 µs.
    public: PublicKey,
}

// === impl Slot ===

impl Slot {
    pub(crate) const ALL: [Slot; 2] = [Slot::Even, Slot::Odd];

    pub(crate) fn other(self) -> Slot {
        match self {
            Slot::Even => Slot::Odd,
            Slot::Odd => Slot::Even,
        }
    }

    /// 0 or 1.
    pub(crate) fn index(self) -> usize {
        usize::from(self.number())
    }

    /// 0 or 1, as a byte.
    pub(crate) fn number(self) -> u8 {
        match self {
            Slot::Even => 0,
            Slot::Odd => 1,
        }
    }

    /// The device's interface.
    pub(crate) fn link(self) -> &'static str {
        match self {
            Slot::Even => "wg0",
            Slot::Odd => "wg1",
        }
    }

    /// The device's UDP port.
    pub(crate) fn port(self, base: u16) -> u16 {
        base.saturating_add(u16::from(self.number()))
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// None for the few values with which every secret is the same (points of low order): whoever names one as his key could be
    /// impersonated by anybody.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Option<PublicKey> {
        let secret = x25519::StaticSecret::from([1; KEY_BYTES]);
        let shared = secret.diffie_hellman(&x25519::PublicKey::from(bytes));
        shared.was_contributory().then_some(PublicKey(bytes))
    }

    /// One that is only looked for among good ones.
    pub(crate) fn to_find(bytes: [u8; KEY_BYTES]) -> PublicKey {
        PublicKey(bytes)
    }

    /// Its bytes, as on the wire.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    pub(crate) fn slot(&self) -> Slot {
        match self.0[0] & 1 {
            0 => Slot::Even,
            _ => Slot::Odd,
        }
    }

    /// In base64, as WireGuard's tools write it.
    pub(crate) fn to_text(self) -> String {
        STANDARD.encode(self.0)
    }

    pub(crate) fn from_text(text: &str) -> Option<PublicKey> {
        PublicKey::new(decode(text)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

// === impl PrivateKey ===

impl PrivateKey {
    /// A new one, whose public half belongs to `slot`.
    pub(crate) fn generate(slot: Slot) -> Result<PrivateKey, getrandom::Error> {
        loop {
            let mut bytes = Zeroizing::new([0; KEY_BYTES]);
            getrandom::fill(bytes.as_mut())?;
            let key = PrivateKey::new(bytes);
            // Every second one belongs there.
            if key.public.slot() == slot {
                return Ok(key);
            }
        }
    }

    fn new(mut bytes: Zeroizing<[u8; KEY_BYTES]>) -> PrivateKey {
        // What the protocol does with every key. The kernel keeps it so: given any other form of the key it has, it would take that for a new
        // one and end all sessions.
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        let public = x25519::PublicKey::from(&x25519::StaticSecret::from(*bytes));
        PrivateKey {
            bytes,
            public: PublicKey(public.to_bytes()),
        }
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.public
    }

    /// As the implementation wants it.
    pub(crate) fn secret(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(*self.bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes.as_ref()))
    }

    pub(crate) fn from_text(text: &str) -> Option<PrivateKey> {
        decode(text).map(|bytes| PrivateKey::new(Zeroizing::new(bytes)))
    }
}

/// Says whose it is, not what it is.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "private key of {}", self.public)
    }
}

fn decode(text: &str) -> Option<[u8; KEY_BYTES]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_the_slot_it_was_made_for() {
        for slot in Slot::ALL {
            let key = PrivateKey::generate(slot).unwrap();
            assert_eq!(key.public().slot(), slot);
            let read = PrivateKey::from_text(&key.to_text()).unwrap();
            assert_eq!(read, key);
            let public = key.public();
            assert_eq!(PublicKey::from_text(&public.to_text()), Some(public));
            assert!(!format!("{key:?}").contains(key.to_text().as_str()));
        }
    }

    #[test]
    fn keys_that_make_no_secret_are_refused() {
        let mut one = [0; KEY_BYTES];
        one[0] = 1;
        // 2^255 - 19, which is zero.
        let mut zero = [0xff; KEY_BYTES];
        (zero[0], zero[31]) = (0xed, 0x7f);
        for bytes in [[0; KEY_BYTES], one, zero] {
            assert_eq!(PublicKey::new(bytes), None);
        }
        assert_eq!(PrivateKey::from_text("c2hvcnQ="), None);
        assert_eq!(PublicKey::from_text("not base64"), None);
    }
}
