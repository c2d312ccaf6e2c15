//! When a node's certificate is renewed. Pure; [`Life`](super::life::Life) does it.

use std::time::Duration;

use skep_ca::NodeCertificate;
use skep_model::Timestamp;

/// First pause after a failed renewal that time made due; Swarm's value.
const RETRY_TIMED: Duration = Duration::from_secs(5);
/// First pause after a failed renewal that the cluster asked for: somebody waits for it.
const RETRY_ASKED: Duration = Duration::from_secs(1);
/// Longest pause; Swarm's value.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    due_at: Timestamp,
    is_asked: bool,
    failures: u32,
}

impl Schedule {
    /// The schedule of a new certificate; `random` spreads nodes.
    pub(super) fn new(certificate: &NodeCertificate, random: u64) -> Self {
        Self {
            due_at: skep_ca::renewal_time(certificate, random),
            is_asked: false,
            failures: 0,
        }
    }

    /// The schedule of a certificate that does not hold any more.
    pub(super) fn overdue(now: Timestamp) -> Self {
        Self {
            due_at: now,
            is_asked: false,
            failures: 0,
        }
    }

    /// The cluster wants the node to have another certificate now.
    pub(super) fn ask(&mut self, now: Timestamp) {
        if !self.is_asked {
            self.is_asked = true;
            self.failures = 0;
        }
        self.due_at = self.due_at.min(now);
    }

    /// A renewal failed.
    pub(super) fn failed(&mut self, now: Timestamp) {
        let first = if self.is_asked {
            RETRY_ASKED
        } else {
            RETRY_TIMED
        };
        let pause = first.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        self.due_at = now + pause.min(RETRY_MAX);
    }

    /// When the next renewal is due.
    pub(super) fn due_at(&self) -> Timestamp {
        self.due_at
    }
}

#[cfg(test)]
mod tests {
    use skep_ca::Subject;
    use skep_model::{ClusterId, NodeId, Rng, Role};

    use super::*;

    fn schedule() -> Schedule {
        let mut rng = Rng::from_seed(1);
        let certificate = NodeCertificate {
            subject: Subject {
                node_id: NodeId::random(&mut rng),
                role: Role::Worker,
                cluster_id: ClusterId::random(&mut rng),
            },
            not_before: Timestamp::ZERO,
            not_after: Timestamp::ZERO + Duration::from_secs(100_000),
        };
        Schedule::new(&certificate, 7)
    }

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn time_makes_a_renewal_due_between_50_and_80_percent() {
        let due = schedule().due_at().since(Timestamp::ZERO);
        assert!((50_000..=80_000).contains(&due.as_secs()), "{due:?}");
    }

    #[test]
    fn failures_back_off_from_five_seconds_to_an_hour() {
        let mut schedule = schedule();
        let pauses: Vec<u64> = (0..12)
            .map(|_| {
                schedule.failed(NOW);
                schedule.due_at().since(NOW).as_secs()
            })
            .collect();
        assert_eq!(
            pauses,
            [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
        );
    }

    #[test]
    fn what_the_cluster_asks_for_is_due_at_once_and_again_soon() {
        let mut schedule = schedule();
        schedule.failed(NOW);
        schedule.ask(NOW);
        assert_eq!(schedule.due_at(), NOW);
        schedule.failed(NOW);
        assert_eq!(schedule.due_at().since(NOW).as_secs(), 1);
        schedule.ask(NOW);
        assert_eq!(
            schedule.due_at(),
            NOW,
            "asked again, e.g. with a new reason"
        );
        schedule.failed(NOW);
        assert_eq!(schedule.due_at().since(NOW).as_secs(), 2);
    }
}
