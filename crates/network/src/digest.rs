//! A short name for a text: equal for equal texts on every version of Skep.

/// FNV-1a, 64 bits: names a text, promises nothing against an adversary.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
