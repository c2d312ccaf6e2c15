//! Sealing of stored records: XChaCha20-Poly1305, random nonce in front, bound to the place where the record is stored.

use std::fmt;

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use zeroize::Zeroizing;

use crate::key::KEY_BYTES;

const NONCE_BYTES: usize = 24;

/// Seals and opens records under one key.
#[derive(Clone)]
pub(crate) struct Sealer(XChaCha20Poly1305);

// === impl Sealer ===

impl Sealer {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// Nonce and ciphertext of `plain`, which only opens again at the same `place`.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the kernel gives random bytes");
        let payload = Payload {
            msg: plain,
            aad: place,
        };
        let text = self.0.encrypt(&XNonce::from(nonce), payload);
        let mut sealed = nonce.to_vec();
        sealed.extend(text.expect("records are far smaller than the cipher's limit"));
        sealed
    }

    /// The plain record; `None` if key, place or bytes are not those it was sealed with.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: text,
            aad: place,
        };
        self.0
            .decrypt(&XNonce::from(*nonce), payload)
            .ok()
            .map(Zeroizing::new)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_opens_only_with_its_key_and_place() {
        let sealer = Sealer::new(&[1; KEY_BYTES]);
        let sealed = sealer.seal(b"log\x001", b"entry");
        assert_eq!(
            **sealer.open(b"log\x001", &sealed).as_ref().unwrap(),
            b"entry"[..]
        );
        assert!(sealer.open(b"log\x002", &sealed).is_none());
        assert!(
            Sealer::new(&[2; KEY_BYTES])
                .open(b"log\x001", &sealed)
                .is_none()
        );
        assert!(sealer.open(b"log\x001", &sealed[..20]).is_none());
        for position in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[position] ^= 1;
            assert!(sealer.open(b"log\x001", &damaged).is_none());
        }
    }

    #[test]
    fn nonces_differ() {
        let sealer = Sealer::new(&[1; KEY_BYTES]);
        assert_ne!(sealer.seal(b"", b"x"), sealer.seal(b"", b"x"));
    }
}
