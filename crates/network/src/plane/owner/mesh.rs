//! The owner's work for the routing mesh.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Owner, occupied};
use crate::error::ErrorChain;
use crate::plane::Error;
use crate::plane::desired::{Desired, Health};
use crate::plane::hands::ActionError;
use crate::plane::mesh::{self, Action, Means, Mesh, Published, PublishedPort, Wish};
use crate::plane::report::{Report, Scope, Step};
use crate::ports::HostPort;
use crate::sysctl;

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
        self.watch_for(new.map(|mesh| mesh.bridge.as_str()));
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.bridge != old.bridge)) {
            self.mesh = None;
            self.hold_ports(&BTreeMap::new(), report);
            if let Err(error) = self.hands.remove_mesh(&old.bridge) {
                report.fail(Scope::Mesh, error);
            }
        }
        let Some(new) = new else { return };
        if self.mesh.is_some() && old.is_some_and(|old| old == new) {
            return;
        }
        self.hold_ports(&new.ports, report);
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

    /// What this node is able to do.
    pub(super) fn means(&self) -> Means {
        Means {
            mtu: self.mtu_max,
            has_v6: sysctl::has_ipv6(),
        }
    }

    /// Holds published ports, so that a program of the node that wants one is told, and lets go of others. One that a program
    /// has already stays the program's on this node; it is tried again at each reconciliation.
    fn hold_ports(&mut self, ports: &BTreeMap<PublishedPort, Published>, report: &mut Report) {
        let name = |port: &PublishedPort| format!("{port:?}");
        let has_v6 = self.means().has_v6;
        let stale = self.held.iter().filter(|port| !ports.contains_key(port));
        for port in stale.copied().collect::<Vec<_>>() {
            self.reservations.release(&name(&port));
            self.held.remove(&port);
        }
        self.occupied.clear();
        for &port in ports.keys() {
            if self.held.contains(&port) {
                continue;
            }
            let wanted = HostPort {
                protocol: port.protocol,
                host_ip: port.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
                published: port.port,
                target: port.port,
            };
            match self.reservations.reserve(&name(&port), &[wanted], has_v6) {
                Ok(()) => drop(self.held.insert(port)),
                // The port is open on an address of other nodes.
                Err(error) if error.is_elsewhere() => {}
                Err(_) if occupied::is_occupied(&port) => {
                    self.occupied.insert(port);
                    report.warnings.push(occupied::warning(&port));
                }
                Err(error) => report.warnings.push(ErrorChain(&error).to_string()),
            }
        }
    }

    fn perform_mesh(
        &mut self,
        desired: &Desired,
        mesh: &Arc<Mesh>,
        report: &mut Report,
    ) -> Result<(), ActionError> {
        let mesh = occupied::without(mesh, &self.occupied);
        let wish = Wish::new(desired, &mesh, self.means());
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
        let mesh = occupied::without(mesh, &self.occupied);
        let wish = Wish::new(desired, &mesh, self.means());
        let state = self.hands.observe_mesh(&wish).map_err(Arc::new)?;
        let actions = mesh::plan(&wish, &state);
        Ok(actions.into_iter().map(Step::Mesh).collect())
    }
}

/// Ports whose flows may have to be forgotten, with what they lead to now: some task lost its place, the port is new, or nobody was
/// there in some family: the node itself was asked, and the kernel remembers that of datagrams as long as the client goes on.
fn doubtful(old: Option<&Arc<Mesh>>, new: &Mesh) -> BTreeMap<PublishedPort, Published> {
    let Some(old) = old else {
        return new.ports.clone();
    };
    let ports = old.ports.keys().chain(new.ports.keys());
    let changed = ports.filter_map(|port| {
        let (before, after) = (old.ports.get(port), new.ports.get(port));
        let loses = |before: &Published| {
            before.backends.iter().any(|(backend, health)| {
                let now = after.and_then(|after| after.backends.get(backend));
                now < Some(health)
            })
        };
        let opens = |before: &Published| {
            let has_ready = |published: &Published, is_v4: bool| {
                let mut backends = published.backends.iter();
                backends
                    .any(|(backend, health)| backend.is_ipv4() == is_v4 && *health == Health::Ready)
            };
            let opens = |is_v4| {
                !has_ready(before, is_v4) && after.is_some_and(|after| has_ready(after, is_v4))
            };
            opens(true) || opens(false)
        };
        let is_doubtful = before.is_none_or(|before| loses(before) || opens(before));
        is_doubtful.then(|| (*port, after.cloned().unwrap_or_default()))
    });
    changed.collect()
}
