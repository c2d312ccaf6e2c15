//! The owner's work inside containers: virtual addresses. Fast for those believed to be in order, thorough for the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, warn};

use super::Owner;
use crate::error::ErrorChain;
use crate::nfnl::Family;
use crate::plane::balance::Vips;
use crate::plane::client::{self, Action, Delta};
use crate::plane::desired::{Container, Desired};
use crate::plane::mesh;
use crate::plane::report::{Report, Scope, Step};

// === impl Owner ===

impl Owner {
    /// Follows a new value: what changed on a network is written once and sent to all its containers.
    pub(super) fn change_clients(&mut self, old: &Desired, new: &Desired, report: &mut Report) {
        self.forget_clients(new);
        let deltas = new.networks.iter().filter_map(|(id, network)| {
            let delta = Delta::between(old.networks.get(id)?, network)?;
            Some((id.as_str(), delta))
        });
        let deltas: BTreeMap<&str, Delta> = deltas.collect();
        for (id, container) in &new.containers {
            let is_same = |before: &Arc<Container>| {
                Arc::ptr_eq(before, container) || before.attachments == container.attachments
            };
            if !self.clients.contains(id) || !old.containers.get(id).is_some_and(is_same) {
                self.repair_client(id, container, new, report);
                continue;
            }
            let networks = container.attachments.keys();
            for delta in networks.filter_map(|network| deltas.get(network.as_str())) {
                if self.change_client(id, container, delta, report) && !delta.doubtful.is_empty() {
                    self.doubt(id, container, delta.doubtful.clone());
                }
            }
        }
        self.set_views(new);
    }

    /// Notes virtual addresses of a container that may have flows to forget.
    fn doubt(&mut self, id: &str, container: &Arc<Container>, vips: Vips) {
        if !vips.is_empty() {
            let doubt = self.doubts.clients.entry(id.to_owned());
            let (_, noted) = doubt.or_insert_with(|| (Arc::clone(container), Vips::new()));
            noted.extend(vips);
        }
    }

    /// Deletes flows that lead to what is gone. Walking the kernel's flows is slow, so nobody waits for it: it happens after an
    /// answer and before the next command.
    pub(super) fn forget_flows(&mut self) {
        for (id, (container, vips)) in std::mem::take(&mut self.doubts.clients) {
            match self.hands.forget_flows(&id, &container, &vips) {
                Ok(count) => debug!(endpoint.id = %id, count, "Flows to lost backends deleted"),
                Err(error) => {
                    debug!(endpoint.id = %id, error = %ErrorChain(&error), "Flows not deleted");
                }
            }
        }
        let ports = std::mem::take(&mut self.doubts.ports);
        if !ports.is_empty() {
            let is_doomed = |flow: &_| mesh::is_doomed(flow, &ports);
            for family in [Family::V4, Family::V6] {
                let start = Instant::now();
                match self.hands.flows.forget_flows(family, is_doomed) {
                    Ok(count) => {
                        debug!(count, took = ?start.elapsed(), "Flows to lost tasks deleted")
                    }
                    Err(error) => debug!(error = %ErrorChain(&error), "Flows not deleted"),
                }
            }
        }
    }

    /// Repairs the rules of every container.
    pub(super) fn repair_clients(&mut self, desired: &Desired, report: &mut Report) {
        self.forget_clients(desired);
        for (id, container) in &desired.containers {
            self.repair_client(id, container, desired, report);
        }
        self.set_views(desired);
    }

    /// What containers can ask for. One that is not served yet gets it when it is.
    fn set_views(&self, desired: &Desired) {
        for (id, container) in &desired.containers {
            self.hands
                .names
                .set_view(id, client::view(desired, container));
        }
    }

    fn forget_clients(&mut self, desired: &Desired) {
        let is_here = |id: &String| desired.containers.contains_key(id);
        self.clients.retain(is_here);
        self.hands.clients.retain(|id, _| is_here(id));
        self.hands.generations.retain(|id, _| is_here(id));
        self.hands
            .names
            .retain(|id| desired.containers.contains_key(id));
    }

    /// Whether the change was made; if not, the container has been repaired instead, or its failure reported.
    fn change_client(
        &mut self,
        id: &str,
        container: &Arc<Container>,
        delta: &Delta,
        report: &mut Report,
    ) -> bool {
        if let Err(error) = self.hands.change_client(id, container, delta) {
            warn!(endpoint.id = %id, error = %ErrorChain(&error), "Container is not as it was left");
            self.clients.remove(id);
            if let Some(desired) = self.desired.clone() {
                self.repair_client(id, container, &desired, report);
            }
            return false;
        }
        if !delta.vips.is_empty() {
            let vips = delta.vips.clone();
            let action = Action::Balance { vips };
            report.steps.push(Step::Container(id.to_owned(), action));
        }
        true
    }

    pub(super) fn repair_client(
        &mut self,
        id: &str,
        container: &Arc<Container>,
        desired: &Desired,
        report: &mut Report,
    ) {
        let vips = client::vips(desired, container);
        match self.hands.repair_client(id, container, &vips) {
            Ok(actions) => {
                self.clients.insert(id.to_owned());
                // Where nothing differed no flow can lead astray.
                if !actions.is_empty() {
                    self.doubt(id, container, vips);
                }
                let actions = actions.into_iter();
                let steps = actions.map(|action| Step::Container(id.to_owned(), action));
                report.steps.extend(steps);
            }
            Err(error) => {
                self.clients.remove(id);
                report.fail(Scope::Container(id.to_owned()), error);
            }
        }
    }
}
