//! Join tokens: the digest of the root bundle, which the joiner checks, and a secret, which the manager checks.

use std::{fmt, hint::black_box, str::FromStr};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::base36;

/// Random bytes in a token's secret.
pub const SECRET_BYTES: usize = 16;

const PREFIX: &str = "SWMTKN";
const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;

/// A join token, `SWMTKN-1-<digest>-<secret>`. `Display` gives the secret away; `Debug` does not.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    text: Zeroizing<String>,
    digest: [u8; 32],
}

/// Why a text is no join token. It never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJoinToken {
    /// Wrong prefix, number of parts, length, or digits.
    #[error("invalid join token")]
    Format,
    /// A token of a cluster that insists on FIPS cryptography.
    #[error("join token requires a FIPS node")]
    Fips,
}

// === impl JoinToken ===

impl JoinToken {
    /// The token of the cluster whose root certificates are `bundle`, exactly those bytes, with a random secret.
    #[must_use]
    pub fn new(bundle: &[u8], secret: &[u8; SECRET_BYTES]) -> Self {
        let digest = <[u8; 32]>::from(Sha256::digest(bundle));
        let secret = Zeroizing::new(base36::encode(secret, SECRET_DIGITS));
        let digits = base36::encode(&digest, DIGEST_DIGITS);
        let text = Zeroizing::new(format!("{PREFIX}-1-{digits}-{}", *secret));
        Self { text, digest }
    }

    /// The token with a secret from the kernel's random numbers.
    #[must_use]
    pub fn generate(bundle: &[u8]) -> Self {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut *secret).expect("the kernel gives random bytes");
        Self::new(bundle, &secret)
    }

    /// Whether `bundle` are the root certificates this token was made for.
    #[must_use]
    pub fn matches_bundle(&self, bundle: &[u8]) -> bool {
        self.digest == <[u8; 32]>::from(Sha256::digest(bundle))
    }

    /// The token as the user sees and passes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;

    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        let parts: Vec<&str> = text.splitn(6, '-').collect();
        let (digest, secret, is_fips) = match parts[..] {
            [PREFIX, "1", digest, secret] => (digest, secret, false),
            [PREFIX, "2", fips @ ("0" | "1"), digest, secret] => (digest, secret, fips == "1"),
            _ => return Err(InvalidJoinToken::Format),
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        let is_sized = digest.len() == DIGEST_DIGITS && secret.len() == SECRET_DIGITS;
        if !is_sized || !secret.bytes().all(is_digit) {
            return Err(InvalidJoinToken::Format);
        }
        let digest = base36::decode(digest).ok_or(InvalidJoinToken::Format)?;
        if is_fips {
            return Err(InvalidJoinToken::Fips);
        }
        Ok(Self {
            text: Zeroizing::new(text.to_owned()),
            digest,
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// `RootCa.ca_cert_hash` of a bundle: `sha256:` and hexadecimal digits.
#[must_use]
pub fn bundle_hash(bundle: &[u8]) -> String {
    let digest = Sha256::digest(bundle);
    digest.iter().fold("sha256:".to_owned(), |text, byte| {
        text + &format!("{byte:02x}")
    })
}

/// Whether two secrets (tokens, unlock keys) are equal, in a time that depends on their lengths only.
#[must_use]
pub fn is_same_secret(left: &str, right: &str) -> bool {
    let differences = left
        .bytes()
        .zip(right.bytes())
        .fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    left.len() == right.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUNDLE: &[u8] = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    /// Computed with Python's integers and hashlib.
    const TOKEN: &str =
        "SWMTKN-1-36woy3tx1wz6xwxhrp3j3aayz6ijqxoh5gdq314wxttyhgfh29-000avh9he7dy896m08s18udxr";

    fn secret() -> [u8; SECRET_BYTES] {
        std::array::from_fn(|index| u8::try_from(index).unwrap())
    }

    #[test]
    fn known_token() {
        let token = JoinToken::new(BUNDLE, &secret());
        assert_eq!(token.as_str(), TOKEN);
        assert_eq!(token.to_string(), TOKEN);
        assert_eq!(TOKEN.parse(), Ok(token));
        let hash = "sha256:8010bfcee1842b2a4ce8f67c3e9455f0188f7a15bf39ec61a26feb75cd785821";
        assert_eq!(bundle_hash(BUNDLE), hash);
    }

    #[track_caller]
    fn check(text: &str, expected: InvalidJoinToken) {
        assert_eq!(text.parse::<JoinToken>(), Err(expected), "{text}");
    }

    #[test]
    fn other_texts_are_refused() {
        let body = &TOKEN["SWMTKN-1-".len()..];
        for text in [
            "",
            "SWMTKN",
            &TOKEN[1..],
            &TOKEN[..TOKEN.len() - 1],
            &format!("{TOKEN}0"),
            &format!("{TOKEN}-0"),
            &format!("SWMTKN-3-{body}"),
            &format!("SWMTKN-2-2-{body}"),
            &TOKEN.to_uppercase(),
            &TOKEN.replace('h', "é"),
            &format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25)),
        ] {
            check(text, InvalidJoinToken::Format);
        }
        check(&format!("SWMTKN-2-1-{body}"), InvalidJoinToken::Fips);
        let optional: JoinToken = format!("SWMTKN-2-0-{body}").parse().unwrap();
        assert!(optional.matches_bundle(BUNDLE));
    }

    #[test]
    fn secrets_do_not_show_and_differ() {
        let token = JoinToken::generate(BUNDLE);
        assert_eq!(format!("{token:?}"), "JoinToken(..)");
        assert!(!is_same_secret(
            token.as_str(),
            JoinToken::generate(BUNDLE).as_str()
        ));
        assert!(is_same_secret(token.as_str(), token.as_str()));
        assert!(!is_same_secret(token.as_str(), ""));
        assert!(!is_same_secret("", token.as_str()));
    }

    proptest! {
        #[test]
        fn tokens_survive_the_round_trip(bundle in any::<Vec<u8>>(), secret in any::<[u8; 16]>()) {
            let token = JoinToken::new(&bundle, &secret);
            let parsed: JoinToken = token.to_string().parse().unwrap();
            prop_assert!(parsed.matches_bundle(&bundle));
            prop_assert!(!parsed.matches_bundle(&[&bundle[..], b"\n"].concat()));
            prop_assert_eq!(parsed, token);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,120}") {
            let _ = text.parse::<JoinToken>();
        }

        #[test]
        fn damaged_tokens_are_other_tokens_or_none(at in 0..TOKEN.len(), replacement in any::<char>()) {
            let mut characters: Vec<char> = TOKEN.chars().collect();
            characters[at] = replacement;
            let damaged: String = characters.into_iter().collect();
            if let Ok(token) = damaged.parse::<JoinToken>() {
                prop_assert_eq!(token.as_str(), &damaged);
                let is_digest = (9..59).contains(&at) && damaged != TOKEN;
                prop_assert_eq!(token.matches_bundle(BUNDLE), !is_digest);
            }
        }

        #[test]
        fn comparison_is_equality(left in "[ab]{0,4}", right in "[ab]{0,4}") {
            prop_assert_eq!(is_same_secret(&left, &right), left == right);
        }
    }
}
