//! The owner thread: keeps the node's value, plans, performs, remembers what it believes the kernel holds.
//!
//! What was performed without a failure is believed, so an update is compared with memory, not with the kernel. A failure ends
//! the belief in that network; reconciliation asks the kernel about everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::Error;
use super::balance::Vips;
use super::client;
use super::counters::{Counters, Ledgers};
use super::desired::{Container, Desired};
use super::encryption::Wanted;
use super::hands::{ActionError, Hands};
use super::mesh::{Published, PublishedPort};
use super::refusal::{self, Refusal};
use super::repairs::{Repair, Repairs};
use super::report::{Failure, Report, Scope, Step};
use super::sandbox::{self, Action, State, Wish};
use super::tunnels;
use crate::error::ErrorChain;
use crate::owner::LOOK_INTERVAL;
use crate::reservation::Reservations;
use crate::state::StateDir;

/// What VXLAN adds to a packet: outer Ethernet is not counted by the outer MTU, inner Ethernet is. IPv4 20, UDP 8, VXLAN 8,
/// Ethernet 14.
pub(crate) const OVERHEAD_V4: u32 = 50;

/// The same with an outer IPv6 header of 40.
pub(crate) const OVERHEAD_V6: u32 = 70;

/// Assumed of a data path whose address is on no interface (yet).
const MTU_FALLBACK: u32 = 1500;

mod clients;
mod counters;
mod encryption;
mod healing;
mod mesh;
mod occupied;

use healing::Suspicion;

/// A request to the owner thread.
#[derive(Debug)]
pub(crate) enum Command {
    Update {
        desired: Box<Desired>,
        reply: Reply<Report>,
    },
    Reconcile {
        reply: Reply<Report>,
    },
    Doctor {
        reply: Reply<Vec<String>>,
    },
    Repairs {
        reply: Reply<Vec<Repair>>,
    },
    Counters {
        reply: Reply<Counters>,
    },
    Remove {
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
    /// Makes the owner fail after some more actions.
    #[cfg(test)]
    Doom {
        actions: u32,
    },
    /// Makes the owner repair what tests break.
    #[cfg(test)]
    Heal,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// The node's value, and the hands that change the kernel.
#[derive(Debug)]
pub(crate) struct Owner {
    hands: Hands,
    dir: StateDir,
    suspicion: Suspicion,
    desired: Option<Arc<Desired>>,
    /// What was left out of it.
    refusals: Vec<Refusal>,
    repairs: Repairs,
    /// What sandboxes are believed to hold. A network without a belief is observed first.
    beliefs: BTreeMap<String, State>,
    /// Containers whose rules are believed to be as they should.
    clients: BTreeSet<String>,
    /// What is believed to be there for encrypted networks.
    tunnels: Option<Wanted>,
    /// What the node is believed to hold of the mesh.
    mesh: Option<super::mesh::State>,
    /// Published ports, held by sockets.
    reservations: Reservations,
    held: BTreeSet<PublishedPort>,
    /// Published ports that programs of the node have.
    occupied: BTreeSet<PublishedPort>,
    /// What was counted up to the last reading.
    ledgers: Ledgers,
    /// What may have flows to forget.
    doubts: Doubts,
    /// Deletions that wait until virtual addresses have changed.
    deferred: Vec<(String, Action)>,
    /// Networks whose sandbox is believed not to exist need no observation either.
    is_observed: bool,
    mtu_max: u32,
    /// MTU of the data path's interface.
    link_mtu: u32,
    warnings: Vec<String>,
}

/// Virtual addresses and ports whose backends changed, with what they lead to now.
#[derive(Debug, Default)]
struct Doubts {
    clients: BTreeMap<String, (Arc<Container>, Vips)>,
    ports: BTreeMap<PublishedPort, Published>,
}

/// Tells a caller, if it still waits.
fn answer<T>(reply: Reply<T>, outcome: Result<T, Error>) {
    // A caller that has gone away does not need its answer.
    let _ = reply.send(outcome);
}

// === impl Owner ===

impl Owner {
    /// The thread's body.
    pub(crate) fn run(run_dir: PathBuf, commands: &Receiver<Command>, ready: Reply<()>) {
        let mut owner = match Owner::open(run_dir) {
            Ok(owner) => owner,
            Err(error) => return answer(ready, Err(error)),
        };
        answer(ready, Ok(()));
        loop {
            let next = commands.recv_timeout(LOOK_INTERVAL);
            owner.heal();
            let command = match next {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match command {
                Command::Update { desired, reply } => answer(reply, owner.update(*desired)),
                Command::Reconcile { reply } => {
                    let outcome = owner.reconcile();
                    if let Ok(report) = &outcome {
                        owner.repairs.note(&report.steps, Instant::now());
                    }
                    answer(reply, outcome);
                }
                Command::Repairs { reply } => answer(reply, Ok(owner.repairs.list(Instant::now()))),
                Command::Doctor { reply } => answer(reply, owner.doctor()),
                Command::Counters { reply } => answer(reply, owner.counters()),
                Command::Remove { reply } => return answer(reply, owner.remove()),
                Command::Close { reply } => return answer(reply, Ok(())),
                #[cfg(test)]
                Command::Doom { actions } => owner.hands.actions_left = Some(actions),
                #[cfg(test)]
                Command::Heal => owner.suspicion.is_healing = true,
            }
            owner.forget_flows();
            owner.discard_own_changes();
        }
    }

    fn open(run_dir: PathBuf) -> Result<Owner, Error> {
        let dir = StateDir::open(&run_dir).map_err(Arc::new)?;
        let hands = Hands::open(&run_dir).map_err(Arc::new)?;
        Ok(Owner {
            hands,
            dir,
            suspicion: Suspicion::default(),
            desired: None,
            refusals: Vec::new(),
            repairs: Repairs::default(),
            beliefs: BTreeMap::new(),
            clients: BTreeSet::new(),
            tunnels: None,
            mesh: None,
            reservations: Reservations::default(),
            held: BTreeSet::new(),
            occupied: BTreeSet::new(),
            ledgers: Ledgers::default(),
            doubts: Doubts::default(),
            deferred: Vec::new(),
            is_observed: false,
            mtu_max: MTU_FALLBACK - OVERHEAD_V4,
            link_mtu: MTU_FALLBACK,
            warnings: Vec::new(),
        })
    }

    /// Takes a new value and performs what it changes.
    fn update(&mut self, mut desired: Desired) -> Result<Report, Error> {
        let old = self.desired.clone();
        if let Some(old) = old
            .as_ref()
            .filter(|old| desired.generation < old.generation)
        {
            return Err(Error::Stale {
                given: desired.generation,
                current: old.generation,
            });
        }
        self.refusals = refusal::sift(&mut desired, old.as_deref()).map_err(Error::Desired)?;
        if let Some(old) = &old {
            self.read_leaving(old, &desired);
        }
        self.desired = Some(Arc::new(desired));
        let (Some(old), Some(new), true) = (old, self.desired.clone(), self.is_observed) else {
            return self.reconcile();
        };
        if old.data_path != new.data_path || bridge_of(&old) != bridge_of(&new) {
            return self.reconcile();
        }
        let mut report = self.new_report();
        // Published ports first: who leaves must get no new connections, however long it takes to connect a new container.
        self.follow_mesh(old.mesh.as_ref(), &new, &mut report);
        self.follow_encryption(&new, &mut report);
        self.perform_networks(&new, &touched(&old, &new), &mut report);
        self.change_clients(&old, &new, &mut report);
        self.finish(&mut report)?;
        Ok(report)
    }

    /// Compares everything with the kernel and repairs it.
    fn reconcile(&mut self) -> Result<Report, Error> {
        self.beliefs.clear();
        self.clients.clear();
        self.tunnels = None;
        self.mesh = None;
        let Some(desired) = self.desired.clone() else {
            return Ok(Report::default());
        };
        let touched: BTreeSet<String> = desired.networks.keys().cloned().collect();
        self.observe_data_path(&desired)?;
        let mut report = self.new_report();
        self.is_observed = true;
        if let Err(error) = self.repair_tunnels(&desired, &mut report) {
            report.fail(Scope::Node, error);
        }
        self.follow_encryption(&desired, &mut report);
        self.perform_networks(&desired, &touched, &mut report);
        self.repair_clients(&desired, &mut report);
        self.follow_mesh(None, &desired, &mut report);
        self.finish(&mut report)?;
        if !report.steps.is_empty() {
            let (steps, failures) = (report.steps.len(), report.failures.len());
            info!(steps, failures, "Data plane repaired");
        }
        Ok(report)
    }

    /// Says what a reconciliation would do, without doing it.
    fn doctor(&mut self) -> Result<Vec<String>, Error> {
        let Some(desired) = self.desired.clone() else {
            return Ok(Vec::new());
        };
        self.observe_data_path(&desired)?;
        let mut findings = self.warnings.clone();
        let refusals = self.refusals.iter();
        findings.extend(refusals.map(Refusal::to_string));
        let mut steps = Vec::new();
        if let Some(action) =
            tunnels::plan(desired.data_path.port, bridge_of(&desired)).map_err(Arc::new)?
        {
            steps.push(Step::Node(action));
        }
        let (tunnels, silent) = self.examine_encryption(&desired)?;
        steps.extend(tunnels);
        findings.extend(silent);
        for (id, network) in &desired.networks {
            let wish = Wish::new(&desired, id, network, self.mtu_of(network));
            let state = self.observe(id, &wish).map_err(Arc::new)?;
            let actions = sandbox::plan(&wish, state.as_ref());
            steps.extend(
                actions
                    .into_iter()
                    .map(|action| Step::Network(id.clone(), action)),
            );
        }
        for (id, container) in &desired.containers {
            match self.hands.observe_client(id, &container.netns_path) {
                Ok(state) => {
                    let vips = client::vips(&desired, container);
                    let actions = client::plan(&state, &client::families(container), &vips);
                    let actions = actions.into_iter();
                    steps.extend(actions.map(|action| Step::Container(id.clone(), action)));
                }
                Err(error) => findings.push(format!("container {id}: {}", ErrorChain(&error))),
            }
        }
        steps.extend(self.examine_mesh(&desired)?);
        for id in self.orphans()? {
            steps.push(Step::Network(id, Action::DeleteSandbox));
        }
        findings.extend(super::doctor::findings(&steps));
        Ok(findings)
    }

    /// Takes everything away. Continues past failures and returns the first.
    fn remove(&mut self) -> Result<(), Error> {
        let mesh = self.desired.take().and_then(|desired| desired.mesh.clone());
        let mut report = Report::default();
        // Without a value there may be what an earlier process left.
        let bridges = match mesh {
            Some(mesh) => Ok(vec![mesh.bridge.clone()]),
            None => self.hands.meshes(),
        };
        let removed = bridges.and_then(|bridges| {
            let mut bridges = bridges.iter();
            bridges.try_for_each(|bridge| self.hands.remove_mesh(bridge))
        });
        if let Err(error) = removed {
            report.fail(Scope::Mesh, error);
        }
        let deleted = self.delete_networks(&mut report);
        if let Err(error) = self.hands.forget_tunnels() {
            report.fail(Scope::Encryption, error);
        }
        let rules = tunnels::remove().map_err(|error| Error::Action(Arc::new(error)));
        let files = self.dir.remove();
        if let Some(failure) = report.failures.into_iter().next() {
            return Err(Error::Action(failure.error));
        }
        deleted.and(rules)?;
        Ok(files.map_err(Arc::new)?)
    }

    fn new_report(&self) -> Report {
        let (mut failures, mut warnings) = (Vec::new(), self.warnings.clone());
        for refusal in &self.refusals {
            match refusal.scope.clone() {
                Some(scope) => failures.push(Failure {
                    scope,
                    error: Arc::new(ActionError::Refused(refusal.error.clone())),
                }),
                None => warnings.push(refusal.to_string()),
            }
        }
        Report {
            failures,
            generation: self
                .desired
                .as_ref()
                .map_or(0, |desired| desired.generation),
            warnings,
            ..Report::default()
        }
    }

    /// Finds what the data path carries.
    fn observe_data_path(&mut self, desired: &Desired) -> Result<(), Error> {
        self.warnings.clear();
        let address = desired.data_path.address;
        let found = self.hands.mtu_of(address).map_err(Arc::new)?;
        if found.is_none() {
            self.warnings
                .push(format!("data-path address {address} is on no interface"));
        }
        let overhead = if address.is_ipv4() {
            OVERHEAD_V4
        } else {
            OVERHEAD_V6
        };
        self.link_mtu = found.unwrap_or(MTU_FALLBACK);
        let carried = self.link_mtu.saturating_sub(overhead);
        self.mtu_max = carried.max(super::desired::MTU_MIN);
        if carried < self.mtu_max {
            self.warnings.push(format!(
                "data path {address} carries packets of {carried} bytes, fewer than overlays need"
            ));
        }
        for (id, network) in &desired.networks {
            if let Some(mtu) = network.mtu.filter(|&mtu| mtu > self.mtu_max) {
                self.warnings.push(format!(
                    "network `{id}` asks for MTU {mtu}, the data path carries {}",
                    self.mtu_max
                ));
            }
        }
        Ok(())
    }

    fn repair_tunnels(
        &mut self,
        desired: &Desired,
        report: &mut Report,
    ) -> Result<(), ActionError> {
        if let Some(action) = tunnels::plan(desired.data_path.port, bridge_of(desired))? {
            self.hands.count_action()?;
            self.hands.is_node_touched = true;
            tunnels::perform(&action)?;
            report.steps.push(Step::Node(action));
        }
        Ok(())
    }

    /// Does the steps of some networks; what fails is reported and does not stop the others.
    fn perform_networks(&mut self, desired: &Desired, ids: &BTreeSet<String>, report: &mut Report) {
        for id in ids {
            if let Some(network) = desired.networks.get(id) {
                let wish = Wish::new(desired, id, network, self.mtu_of(network));
                self.perform_network(id, wish, report);
            }
        }
    }

    fn perform_network(&mut self, id: &str, wish: Wish, report: &mut Report) {
        let state = match self.beliefs.remove(id) {
            Some(state) => Ok(Some(state)),
            None => self.observe(id, &wish),
        };
        let actions = match state {
            Ok(state) => sandbox::plan(&wish, state.as_ref()),
            Err(error) => return report.fail(Scope::Network(id.to_owned()), error),
        };
        let failure_count = report.failures.len();
        let mut failed = BTreeSet::new();
        for action in actions {
            let container = action.container().map(str::to_owned);
            if container.as_ref().is_some_and(|id| failed.contains(id)) {
                continue;
            }
            if let Action::DeleteOrphans(_) = action {
                self.deferred.push((id.to_owned(), action));
                continue;
            }
            debug!(network.id = %id, %action, "Overlay action");
            match (self.hands.perform(id, &action), container) {
                (Ok(()), _) => report.steps.push(Step::Network(id.to_owned(), action)),
                (Err(error), Some(container)) => {
                    failed.insert(container.clone());
                    report.fail(Scope::Container(container), error);
                }
                (Err(error), None) => {
                    report.fail(Scope::Network(id.to_owned()), error);
                    break;
                }
            }
        }
        for failure in report.failures.iter().skip(failure_count) {
            let Failure { scope, error } = failure;
            warn!(network.id = %id, %scope, error = %ErrorChain(error.as_ref()), "Overlay action failed");
        }
        if report.failures.len() == failure_count {
            self.beliefs.insert(id.to_owned(), wish.fulfilled());
        }
    }

    /// What the kernel holds of a network, with what lies inside its containers.
    fn observe(&mut self, id: &str, wish: &Wish) -> Result<Option<State>, ActionError> {
        let Some(mut state) = self.hands.observe(id)? else {
            return Ok(None);
        };
        for (link, port) in &wish.ports {
            if let Some(port_state) = state.ports.get_mut(link) {
                // A container that cannot be entered fails when its port is repaired.
                let seen = self.hands.observe_container(&port.netns_path);
                port_state.inside = seen.ok().and_then(|mut seen| seen.remove(&port.interface));
            }
        }
        Ok(Some(state))
    }

    /// Networks that have a sandbox and should not.
    fn orphans(&self) -> Result<Vec<String>, Error> {
        let desired = self.desired.as_ref();
        let is_wanted =
            |id: &String| desired.is_some_and(|desired| desired.networks.contains_key(id));
        let found = self.hands.sandboxes().map_err(Arc::new)?;
        Ok(found.into_iter().filter(|id| !is_wanted(id)).collect())
    }

    /// What comes last: what nobody needs is deleted.
    fn finish(&mut self, report: &mut Report) -> Result<(), Error> {
        for (id, action) in std::mem::take(&mut self.deferred) {
            match self.hands.perform(&id, &action) {
                Ok(()) => report.steps.push(Step::Network(id, action)),
                Err(error) => {
                    self.beliefs.remove(&id);
                    report.fail(Scope::Network(id), error);
                }
            }
        }
        self.delete_networks(report)?;
        self.finish_encryption(report);
        Ok(())
    }

    fn delete_networks(&mut self, report: &mut Report) -> Result<(), Error> {
        for id in self.orphans()? {
            self.beliefs.remove(&id);
            match self.hands.perform(&id, &Action::DeleteSandbox) {
                Ok(()) => report.steps.push(Step::Network(id, Action::DeleteSandbox)),
                Err(error) => report.fail(Scope::Network(id), error),
            }
        }
        Ok(())
    }
}

/// The bridge of the node's containers.
fn bridge_of(desired: &Desired) -> Option<&str> {
    desired.mesh.as_ref().map(|mesh| mesh.bridge.as_str())
}

/// Networks a new value changes: their own part, or a container on them.
fn touched(old: &Desired, new: &Desired) -> BTreeSet<String> {
    let mut touched = BTreeSet::new();
    let is_same_tunnel = old.tunnel == new.tunnel;
    for (id, network) in &new.networks {
        let is_same = |old: &Arc<_>| {
            let is_led_the_same = !network.is_encrypted || is_same_tunnel;
            is_led_the_same && (Arc::ptr_eq(old, network) || old == network)
        };
        if !old.networks.get(id).is_some_and(is_same) {
            touched.insert(id.clone());
        }
    }
    let ids: BTreeSet<&String> = old.containers.keys().chain(new.containers.keys()).collect();
    for id in ids {
        let (before, after) = (old.containers.get(id), new.containers.get(id));
        let is_same = match (before, after) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
            (None, _) | (_, None) => false,
        };
        if !is_same {
            let containers = before.into_iter().chain(after);
            touched.extend(containers.flat_map(|one| one.attachments.keys().cloned()));
        }
    }
    touched
}
