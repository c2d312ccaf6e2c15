//! Identifiers and versions. Ids are Swarm's: 25 base-36 characters, held inline and `Copy`.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::rng::Rng;

/// Characters in an id (Swarm: 17 random bytes with the top bit set, base 36, cut to 25).
pub const ID_LENGTH: usize = 25;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A 25-character lower-case base-36 identifier.
///
/// Ordered as its text. Ids are the keys of every table, so comparing them is worth being fast.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id([u8; ID_LENGTH]);

/// The text was not a 25-character base-36 identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid identifier")]
pub struct InvalidId(pub String);

impl Id {
    /// Sorts before or with every id; a bound for range look-ups.
    pub const LOWEST: Self = Self([b'0'; ID_LENGTH]);
    /// Sorts after or with every id; a bound for range look-ups.
    pub const HIGHEST: Self = Self([b'z'; ID_LENGTH]);

    /// A fresh id from `rng`. 25 base-36 digits hold 129 bits; the generator supplies all of them.
    pub fn random(rng: &mut Rng) -> Self {
        let mut value = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        let mut digits = [b'0'; ID_LENGTH];
        for digit in digits.iter_mut().rev() {
            let index = usize::try_from(value % 36).expect("a remainder below 36 fits usize");
            *digit = DIGITS[index];
            value /= 36;
        }
        Self(digits)
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id holds base-36 characters")
    }

    /// The text as two numbers that compare as it does: its first and its last 16 bytes. That they
    /// overlap changes nothing, as the second only counts where the first are equal.
    fn halves(&self) -> (u128, u128) {
        const HALF: &str = "an id is longer than half of it";
        let head = self.0.first_chunk().expect(HALF);
        let tail = self.0.last_chunk().expect(HALF);
        (u128::from_be_bytes(*head), u128::from_be_bytes(*tail))
    }
}

impl Ord for Id {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.halves().cmp(&other.halves())
    }
}

impl PartialOrd for Id {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.chars().take(64).collect());
        let bytes: [u8; ID_LENGTH] = text.as_bytes().try_into().map_err(|_| invalid())?;
        if bytes
            .iter()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        {
            Ok(Self(bytes))
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Declares an id newtype; a macro because nine types need the same eight impls.
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Id);

        impl $name {
            /// A fresh id from `rng`.
            pub fn random(rng: &mut Rng) -> Self {
                Self(Id::random(rng))
            }

            /// The id's text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

id_type!(
    /// Identifies the cluster; also the organisation (`O`) of every node certificate.
    ClusterId
);
id_type!(
    /// Identifies a node; also the common name (`CN`) of its certificate.
    NodeId
);
id_type!(
    /// Identifies a network.
    NetworkId
);
id_type!(
    /// Identifies a service.
    ServiceId
);
id_type!(
    /// Identifies a task.
    TaskId
);
id_type!(
    /// Identifies an extension.
    ExtensionId
);
id_type!(
    /// Identifies a resource.
    ResourceId
);
id_type!(
    /// Identifies a secret.
    SecretId
);
id_type!(
    /// Identifies a config.
    ConfigId
);
id_type!(
    /// Identifies one registration of an agent with the dispatcher.
    SessionId
);

/// The raft commit index at the start of the transaction that last wrote an object.
///
/// Docker's API shows it as `Version.Index` and demands it back on update (optimistic lock).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version a service had when its spec last changed; a task carries the one it was made from.
pub type SpecVersion = Version;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse_back() {
        let mut rng = Rng::from_seed(7);
        for _ in 0..1000 {
            let id = Id::random(&mut rng);
            assert_eq!(id.as_str().parse::<Id>(), Ok(id));
        }
    }

    #[test]
    fn ids_are_ordered_as_their_texts() {
        let mut rng = Rng::from_seed(7);
        let mut ids = vec![Id::LOWEST, Id::HIGHEST];
        for _ in 0..5 {
            let id = Id::random(&mut rng);
            ids.push(id);
            // Neighbours that differ from it in one place.
            for place in 0..ID_LENGTH {
                for digit in [b'0', b'9', b'a', b'z'] {
                    let mut neighbour = id;
                    neighbour.0[place] = digit;
                    ids.push(neighbour);
                }
            }
        }
        for a in &ids {
            for b in &ids {
                assert_eq!(a.cmp(b), a.as_str().cmp(b.as_str()), "{a} {b}");
            }
        }
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in [
            "",
            "short",
            "ABCDEFGHIJKLMNOPQRSTUVWXY",
            "0123456789012345678901234é",
        ] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
