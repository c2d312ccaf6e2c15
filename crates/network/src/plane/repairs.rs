//! What was repaired lately without anybody asking, for people who wonder.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::doctor::findings;
use super::report::Step;

/// Repairs that are remembered. More at once is a broken node, and then the first ones tell why.
const REPAIR_COUNT_MAX: usize = 100;

/// How long they are remembered: who asks, asks about what was felt a moment ago.
const REPAIR_AGE_MAX: Duration = Duration::from_secs(600);

/// Something that was not as it should be and is again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// When it was repaired.
    pub at: Instant,
    /// What it was.
    pub text: String,
}

/// The last repairs, in order.
#[derive(Debug, Default)]
pub(crate) struct Repairs(VecDeque<Repair>);

// === impl Repairs ===

impl Repairs {
    pub(crate) fn note(&mut self, steps: &[Step], now: Instant) {
        self.forget(now);
        let free = REPAIR_COUNT_MAX - self.0.len();
        let texts = findings(steps).into_iter().take(free);
        self.0.extend(texts.map(|text| Repair { at: now, text }));
    }

    pub(crate) fn list(&mut self, now: Instant) -> Vec<Repair> {
        self.forget(now);
        self.0.iter().cloned().collect()
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |repair: &Repair| now.duration_since(repair.at) > REPAIR_AGE_MAX;
        while self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::MeshAction;

    #[test]
    fn repairs_are_remembered_for_a_while_and_not_without_limit() {
        let mut repairs = Repairs::default();
        let start = Instant::now();
        let step = Step::Mesh(MeshAction::CreateTunnel);
        repairs.note(std::slice::from_ref(&step), start);
        let texts: Vec<String> = repairs
            .list(start)
            .into_iter()
            .map(|one| one.text)
            .collect();
        assert_eq!(texts, ["mesh: the tunnel between nodes is missing"]);
        repairs.note(&vec![step; 2 * REPAIR_COUNT_MAX], start + REPAIR_AGE_MAX);
        assert_eq!(repairs.list(start + REPAIR_AGE_MAX).len(), REPAIR_COUNT_MAX);
        let later = start + REPAIR_AGE_MAX + Duration::from_secs(1);
        assert_eq!(repairs.list(later).len(), REPAIR_COUNT_MAX - 1);
        assert_eq!(repairs.list(later + REPAIR_AGE_MAX), []);
    }
}
