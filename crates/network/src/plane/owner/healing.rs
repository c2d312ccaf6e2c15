//! The owner's repair of what somebody broke, within seconds: only what was touched is compared with the kernel.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Owner;
use crate::error::ErrorChain;
use crate::netns;
use crate::owner::LOOK_INTERVAL;
use crate::plane::report::{Report, Scope};
use crate::rules::mesh_link;
use crate::watch::Interest;

/// How often containers' own tables and sandboxes' mounts are looked at: a question for each, some microseconds.
const CLIENT_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Repairs that fail are tried again at the next looks so many times, since the kernel may not be done with what was deleted; what
/// fails longer waits for the periodic reconciliation.
const RETRY_COUNT_MAX: u8 = 5;

/// What somebody else seems to have changed and is not repaired yet.
#[derive(Debug)]
pub(super) struct Suspicion {
    /// Off in tests that break something and want to be told of it.
    pub(super) is_healing: bool,
    is_node: bool,
    networks: BTreeSet<String>,
    containers: BTreeSet<String>,
    healed_at: Option<Instant>,
    clients_seen_at: Option<Instant>,
    /// Repairs in a row that failed in part.
    failed_count: u8,
}

// === impl Suspicion ===

impl Default for Suspicion {
    fn default() -> Suspicion {
        Suspicion {
            is_healing: !cfg!(test),
            is_node: false,
            networks: BTreeSet::new(),
            containers: BTreeSet::new(),
            healed_at: None,
            clients_seen_at: None,
            failed_count: 0,
        }
    }
}

// === impl Owner ===

impl Owner {
    /// What of the node's namespace is the plane's.
    pub(super) fn watch_for(&mut self, bridge: Option<&str>) {
        self.hands.watch.set_interest(Interest {
            links: bridge.map(mesh_link).into_iter().collect(),
            link_prefix: None,
            has_neighbours: true,
            rules_from: bridge.map(str::to_owned),
            tables: &["skep_mesh", "skep_tunnel"],
            is_everything: false,
        });
    }

    /// Repairs what somebody broke since the last look.
    pub(super) fn heal(&mut self) {
        if !self.suspicion.is_healing {
            return;
        }
        self.look();
        let Suspicion {
            is_node,
            networks,
            containers,
            healed_at,
            ..
        } = &self.suspicion;
        let is_due = healed_at.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL);
        let is_quiet = !is_node && networks.is_empty() && containers.is_empty();
        let (Some(desired), true, true) = (self.desired.clone(), self.is_observed, is_due) else {
            return;
        };
        if is_quiet || self.is_killed() {
            return;
        }
        let suspicion = std::mem::take(&mut self.suspicion);
        self.suspicion.is_healing = true;
        self.suspicion.clients_seen_at = suspicion.clients_seen_at;
        self.suspicion.healed_at = Some(Instant::now());
        // What was left out of the value is not to be repaired.
        let mut report = Report {
            failures: Vec::new(),
            ..self.new_report()
        };
        if suspicion.is_node {
            if let Err(error) = self.repair_tunnels(&desired, &mut report) {
                report.fail(Scope::Node, error);
            }
            self.mesh = None;
            self.follow_mesh(None, &desired, &mut report);
        }
        for id in &suspicion.networks {
            self.beliefs.remove(id);
        }
        self.perform_networks(&desired, &suspicion.networks, &mut report);
        for id in &suspicion.containers {
            if let Some(container) = desired.containers.get(id) {
                self.repair_client(id, container, &desired, &mut report);
            }
        }
        if let Err(error) = self.finish(&mut report) {
            warn!(error = %ErrorChain(&error), "Data plane not repaired");
        }
        self.forget_flows();
        self.discard_own_changes();
        log(&report);
        self.repairs.note(&report.steps, Instant::now());
        self.suspicion.failed_count = if report.failures.is_empty() {
            0
        } else {
            suspicion.failed_count.saturating_add(1)
        };
        let is_worth_retrying = (1..=RETRY_COUNT_MAX).contains(&self.suspicion.failed_count);
        if !report.steps.is_empty() || is_worth_retrying {
            // Who breaks something may go on while it is repaired.
            self.suspicion.is_node |= suspicion.is_node;
            self.suspicion.networks.extend(suspicion.networks);
            self.suspicion.containers.extend(suspicion.containers);
        }
    }

    /// Forgets what the last command caused, where it did anything.
    pub(super) fn discard_own_changes(&mut self) {
        let hands = &mut self.hands;
        if std::mem::take(&mut hands.is_node_touched) {
            hands.watch.discard();
        }
        for id in std::mem::take(&mut hands.touched) {
            if let Some(watch) = hands.watches.get_mut(&id) {
                watch.discard();
            }
        }
        hands.note_generations();
    }

    fn look(&mut self) {
        self.suspicion.is_node |= self.hands.watch.look();
        for (id, watch) in &mut self.hands.watches {
            if watch.look() {
                self.suspicion.networks.insert(id.clone());
            }
        }
        let seen_at = self.suspicion.clients_seen_at;
        if seen_at.is_some_and(|at| at.elapsed() < CLIENT_LOOK_INTERVAL) {
            return;
        }
        self.suspicion.clients_seen_at = Some(Instant::now());
        self.suspicion
            .containers
            .extend(self.hands.changed_clients());
        let sandboxes = self.beliefs.keys();
        let is_lost = |id: &&String| !netns::is_mounted(&self.hands.netns_path(id));
        self.suspicion
            .networks
            .extend(sandboxes.filter(is_lost).cloned());
    }

    #[cfg(test)]
    fn is_killed(&self) -> bool {
        self.hands.actions_left == Some(0)
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        reason = "only tests kill the owner between two actions"
    )]
    fn is_killed(&self) -> bool {
        false
    }
}

fn log(report: &Report) {
    if !report.steps.is_empty() {
        info!(steps = report.steps.len(), "Data plane repaired");
    }
    for failure in &report.failures {
        warn!(scope = %failure.scope, error = %ErrorChain(failure.error.as_ref()), "Data plane not repaired");
    }
}
