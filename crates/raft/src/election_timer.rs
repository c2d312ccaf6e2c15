//! Election timeouts from a seed instead of the thread's random numbers.

use raft::{RawNode, Storage};

/// Replaces each timeout raft-rs draws by a hash of seed, id and the number of draws.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ElectionTimer {
    seed: u64,
    election_tick: u64,
    draw_count: u64,
    elapsed: usize,
    term: u64,
}

// === impl ElectionTimer ===

impl ElectionTimer {
    pub(crate) fn new(seed: u64, id: u64, election_tick: u32) -> Self {
        let seed = mix(seed ^ mix(id));
        Self {
            seed,
            election_tick: u64::from(election_tick),
            draw_count: 0,
            elapsed: 0,
            term: 0,
        }
    }

    /// To be called after everything that may have reset the timer.
    pub(crate) fn settle<S: Storage>(&mut self, node: &mut RawNode<S>) {
        let elapsed = node.raft.election_elapsed;
        if elapsed < self.elapsed || node.raft.term != self.term {
            self.draw_count += 1;
        }
        (self.elapsed, self.term) = (elapsed, node.raft.term);
        let extra = mix(self.seed.wrapping_add(self.draw_count)) % self.election_tick;
        let timeout = usize::try_from(self.election_tick + extra).unwrap_or(usize::MAX);
        node.raft.set_randomized_election_timeout(timeout);
    }
}

/// The output function of `SplitMix64`.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
