//! Names for services whose creator gave none: `patient_otter_4821`.

use std::hash::{BuildHasher, RandomState};

const QUALITIES: [&str; 16] = [
    "amber", "brisk", "calm", "clever", "eager", "gentle", "honest", "keen", "lively", "mellow",
    "nimble", "patient", "quiet", "sturdy", "tidy", "witty",
];
const ANIMALS: [&str; 16] = [
    "badger", "beaver", "bee", "crane", "dormouse", "falcon", "gecko", "heron", "ibex", "lynx",
    "marten", "otter", "puffin", "raven", "swift", "wren",
];

/// A fresh name. Two services may draw the same; the second creation is then refused.
pub(crate) fn random() -> String {
    // The standard library's per-process random keys are randomness enough for a name.
    let bits = RandomState::new().hash_one(());
    let pick = |words: [&'static str; 16], shift: u32| words[(bits >> shift & 15) as usize];
    format!(
        "{}_{}_{}",
        pick(QUALITIES, 0),
        pick(ANIMALS, 4),
        (bits >> 8) % 10_000
    )
}
