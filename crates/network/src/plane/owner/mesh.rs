//! The owner's work for the routing mesh.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Owner;
use crate::plane::Error;
use crate::plane::desired::{Desired, Health};
use crate::plane::hands::ActionError;
use crate::plane::mesh::{self, Action, Backends, Mesh, PublishedPort, Wish};
use crate::plane::report::{Report, Scope, Step};

// === impl Owner ===

impl Owner {
    /// Follows the mesh of a value; `old` is what was followed before, if it is known.
    pub(super) fn follow_mesh(
        &mut self,
        old: Option<&Arc<Mesh>>,
        desired: &Desired,
        report: &mut Report,
    ) {
        let new = desired.mesh.as_ref();
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.bridge != old.bridge)) {
            self.mesh = None;
            if let Err(error) = self.hands.remove_mesh(&old.bridge) {
                report.fail(Scope::Mesh, error);
            }
        }
        let Some(new) = new else { return };
        if self.mesh.is_some() && old.is_some_and(|old| old == new) {
            return;
        }
        let doubtful = doubtful(old, new);
        if let Err(error) = self.perform_mesh(desired, new, report) {
            report.fail(Scope::Mesh, error);
            return;
        }
        // A repair that found nothing to do leaves no flow astray.
        let is_changed = |step: &Step| matches!(step, Step::Mesh(_));
        if old.is_some() || report.steps.iter().any(is_changed) {
            self.doubts.ports.extend(doubtful);
        }
    }

    fn perform_mesh(
        &mut self,
        desired: &Desired,
        mesh: &Arc<Mesh>,
        report: &mut Report,
    ) -> Result<(), ActionError> {
        let wish = Wish::new(desired, mesh, self.mtu_max);
        let state = match self.mesh.take() {
            Some(state) => state,
            None => self.hands.observe_mesh(&wish)?,
        };
        for action in mesh::plan(&wish, &state) {
            // The table is made anew without elements.
            let empty = mesh::State::default();
            let is_new = report.steps.contains(&Step::Mesh(Action::ReplaceRules));
            let state = if is_new { &empty } else { &state };
            self.hands.perform_mesh(&wish, state, &action)?;
            report.steps.push(Step::Mesh(action));
        }
        self.mesh = Some(wish.fulfilled());
        Ok(())
    }

    /// What the mesh lacks.
    pub(super) fn examine_mesh(&mut self, desired: &Desired) -> Result<Vec<Step>, Error> {
        let Some(mesh) = &desired.mesh else {
            return Ok(Vec::new());
        };
        let wish = Wish::new(desired, mesh, self.mtu_max);
        let state = self.hands.observe_mesh(&wish).map_err(Arc::new)?;
        let actions = mesh::plan(&wish, &state);
        Ok(actions.into_iter().map(Step::Mesh).collect())
    }
}

/// Ports whose flows may have to be forgotten, with what they lead to now: some task lost its place, or the port is new.
fn doubtful(old: Option<&Arc<Mesh>>, new: &Mesh) -> BTreeMap<PublishedPort, Backends> {
    let Some(old) = old else {
        return new.ports.clone();
    };
    let ports = old.ports.keys().chain(new.ports.keys());
    let changed = ports.filter_map(|port| {
        let (before, after) = (old.ports.get(port), new.ports.get(port));
        let loses = |before: &Backends| {
            before.iter().any(|(backend, health)| {
                let now = after.and_then(|after| after.get(backend));
                now.is_none() || (now == Some(&Health::Leaving) && *health == Health::Ready)
            })
        };
        let is_doubtful = before.is_none_or(loses);
        is_doubtful.then(|| (*port, after.cloned().unwrap_or_default()))
    });
    changed.collect()
}
