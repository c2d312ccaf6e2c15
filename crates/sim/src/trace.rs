//! The event log of a run: every line goes into a hash, and to a writer when one is wanted.
//!
//! Two runs did the same if their hashes are equal. Lines carry what was decided (hashes of log
//! entries, ids, states), so a difference anywhere shows.

use std::fmt::{self, Write as _};

use skep_model::Timestamp;

/// FNV-1a, 64 bits: no secret, no collision to fear, the same everywhere.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Hashes `bytes` into `hash`.
fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash
}

/// Hash of some bytes, e.g. of a log entry.
pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    fnv(FNV_OFFSET, bytes)
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    line: String,
    start: Timestamp,
    kept: Option<String>,
}

impl Trace {
    /// A log that begins at `start`; keeps its text when `is_kept`.
    pub(crate) fn new(start: Timestamp, is_kept: bool) -> Self {
        Self {
            hash: FNV_OFFSET,
            line: String::new(),
            start,
            kept: is_kept.then(String::new),
        }
    }

    /// Adds a line.
    pub(crate) fn log(&mut self, now: Timestamp, text: fmt::Arguments<'_>) {
        self.line.clear();
        let elapsed = now.since(self.start);
        // Writing to a string cannot fail.
        let _ = writeln!(self.line, "{:>12.6} {text}", elapsed.as_secs_f64());
        self.hash = fnv(self.hash, self.line.as_bytes());
        if let Some(kept) = &mut self.kept {
            kept.push_str(&self.line);
        }
    }

    /// Hash of all lines so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The text so far, if it was kept.
    pub(crate) fn take_text(&mut self) -> Option<String> {
        self.kept.take()
    }
}
