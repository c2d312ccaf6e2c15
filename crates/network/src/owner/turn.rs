//! One turn: a batch of attaches and detaches of different endpoints, decided, saved, performed, answered.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{
    Attach, Dying, ENDPOINT_COUNT_MAX, Error, ErrorChain, Mode, Owner, Reply, Request, Turn, answer,
};
use crate::apply::ApplyError;
use crate::config::{Given, Layout};
use crate::conntrack::Forget;
use crate::endpoint::{EndpointInfo, check_id};
use crate::netns;
use crate::observe::is_bridge_filtered;
use crate::plan::{DesiredEndpoint, ObservedEndpoint, Step, plan_endpoint};
use crate::pool::{Pool, PoolError};
use crate::ports::{self, HostPort, Protocol};
use crate::rules::PortRule;
use crate::state::StateError;
use crate::sysctl;

/// Free ports tried for one request of port 0 before giving up: each attempt found a program of the node on the port.
const EPHEMERAL_ATTEMPT_COUNT_MAX: usize = 64;

/// How long an attach waits for its given address while an endpoint has it. The leader gives an address again when its task has
/// ended; the node then still has to take its container down.
const GIVEN_WAIT_MAX: Duration = Duration::from_secs(10);

/// How an attach was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    New,
    /// The same attachment exists; it is repaired if need be.
    Existing,
}

/// What is observed of an endpoint that is new.
fn nothing_observed(layout: &Layout) -> ObservedEndpoint<'static> {
    ObservedEndpoint {
        is_bridge_filtered: is_bridge_filtered(layout),
        ..ObservedEndpoint::default()
    }
}

// === impl Owner ===

impl Owner {
    /// Does a turn. Everyone who waits gets an answer, except when a test kills the owner in between.
    pub(super) fn commit(&mut self, turn: Turn) {
        if turn.ids.is_empty() {
            return;
        }
        let mut remove = BTreeSet::new();
        let mut forgotten = Vec::new();
        for (id, _) in &turn.detaches {
            self.cancel_parked(id);
            if let Some(endpoint) = self.forget(id) {
                remove.extend(endpoint.port_rules());
                forgotten.push((id.clone(), endpoint));
            }
        }
        let mut added = Vec::new();
        let mut existing = Vec::new();
        for attach in turn.attaches {
            match self.admit(&attach) {
                Ok(Admission::New) => added.push(attach),
                Ok(Admission::Existing) => existing.push(attach),
                Err(Error::Pool(PoolError::Taken(_))) if !self.is_parked(&attach.id) => {
                    self.parked.push((attach, Instant::now() + GIVEN_WAIT_MAX));
                }
                Err(error) => attach.fail(error),
            }
        }
        if !(added.is_empty() && forgotten.is_empty())
            && let Err(error) = self.save()
        {
            self.roll_back(forgotten, added, turn.detaches, &error);
        } else {
            self.perform_turn(&remove, added, existing, turn.detaches);
        }
    }

    /// The kernel's part of a turn, and the answers.
    fn perform_turn(
        &mut self,
        remove: &BTreeSet<PortRule>,
        added: Vec<Attach>,
        existing: Vec<Attach>,
        detaches: Vec<(String, Reply<()>)>,
    ) {
        let is_done = self.build(remove, &added).is_ok();
        let outcome = if is_done && existing.is_empty() {
            Ok(())
        } else {
            self.repair(&existing)
        };
        if self.is_killed() {
            return;
        }
        let ports = added
            .iter()
            .flat_map(|attach| self.udp_ports(&attach.id))
            .collect();
        self.forget_flows(&Forget {
            ports,
            ..Forget::default()
        });
        for (_, reply) in detaches {
            answer(reply, outcome.clone().map_err(Error::from));
        }
        let mut is_undone = false;
        for attach in added.into_iter().chain(existing) {
            let failure = match &outcome {
                Ok(()) => self.failures.remove(&attach.id),
                Err(error) => Some(Arc::clone(error)),
            };
            match failure {
                None => self.succeed(attach),
                Some(error) => {
                    warn!(endpoint.id = %attach.id, error = %ErrorChain(&error), "Endpoint not attached");
                    is_undone |= self.forget(&attach.id).is_some();
                    attach.fail(Error::Apply(error));
                }
            }
        }
        if is_undone {
            self.clean_up();
        }
    }

    fn udp_ports(&self, id: &str) -> impl Iterator<Item = u16> {
        let endpoint = self.desired.endpoints.get(id);
        let ports = endpoint.into_iter().flat_map(|endpoint| &endpoint.ports);
        ports
            .filter(|port| port.protocol == Protocol::Udp)
            .map(|port| port.published)
    }

    /// Saves what is left after failed attaches and removes their ports.
    fn clean_up(&mut self) {
        if let Err(error) = self.save() {
            warn!(error = %ErrorChain(&error), "State file not written");
        }
        if let Err(error) = self.reconcile() {
            warn!(error = %ErrorChain(&error), "Node network not repaired");
        }
    }

    /// Checks an attach and makes it part of the desired state.
    fn admit(&mut self, attach: &Attach) -> Result<Admission, Error> {
        let id = &attach.id;
        check_id(id)?;
        if let Some(endpoint) = self.desired.endpoints.get(id) {
            return if attach.mode.matches(endpoint) {
                Ok(Admission::Existing)
            } else {
                Err(Error::AlreadyAttached(id.clone()))
            };
        }
        let is_full = self.desired.endpoints.len() + self.dying.len() >= ENDPOINT_COUNT_MAX;
        if is_full || self.dying.contains_key(id) {
            self.reap();
        }
        if self.desired.endpoints.len() >= ENDPOINT_COUNT_MAX {
            return Err(Error::EndpointLimit);
        }
        let endpoint = match &attach.mode {
            Mode::None(_) => DesiredEndpoint {
                address: None,
                address6: None,
                ports: Vec::new(),
            },
            Mode::Node(request, _) => {
                let (address, address6) = self.grant_address(request.given)?;
                match self.grant_ports(id, &request.ports, address6.is_some()) {
                    Ok(ports) => DesiredEndpoint {
                        address: Some(address),
                        address6,
                        ports,
                    },
                    Err(error) => {
                        self.pool.release(address);
                        return Err(error);
                    }
                }
            }
        };
        self.desired.endpoints.insert(id.clone(), endpoint);
        Ok(Admission::New)
    }

    /// Chooses an address, or takes the given one, and its partner.
    fn grant_address(&mut self, given: Option<Given>) -> Result<(IpAddr, Option<Ipv6Addr>), Error> {
        let once = |pool: &mut Pool| match given {
            Some(given) => pool
                .reserve(given.v4.into())
                .map(|()| IpAddr::from(given.v4)),
            None => pool.allocate(),
        };
        let address = once(&mut self.pool).or_else(|error| {
            if let PoolError::Foreign(_) = error {
                return Err(error);
            }
            // An endpoint that is gone may have it.
            self.reap();
            once(&mut self.pool)
        })?;
        let granted = self.grant_partner(address, given);
        if granted.is_err() {
            self.pool.release(address);
        }
        Ok((address, granted?))
    }

    fn grant_partner(
        &mut self,
        address: IpAddr,
        given: Option<Given>,
    ) -> Result<Option<Ipv6Addr>, PoolError> {
        let (Some(subnet), IpAddr::V4(address)) = (self.desired.layout.v6, address) else {
            return Ok(None);
        };
        let Some(wanted) = given.and_then(|given| given.v6) else {
            return Ok(self.desired.layout.partner(address));
        };
        let gateway = self.desired.layout.gateway6();
        if !subnet.contains(&wanted) || gateway == Some(wanted.into()) {
            return Err(PoolError::Foreign(wanted.into()));
        }
        let mut dying = self.dying.values();
        if dying.any(|dying| dying.address6 == Some(wanted)) {
            self.reap();
        }
        let mut endpoints = self.desired.endpoints.values();
        if endpoints.any(|endpoint| endpoint.address6 == Some(wanted)) {
            return Err(PoolError::Taken(wanted.into()));
        }
        Ok(Some(wanted))
    }

    /// Tries attaches again that wait for addresses.
    pub(super) fn unpark(&mut self) {
        for (attach, deadline) in std::mem::take(&mut self.parked) {
            let id = attach.id.clone();
            self.commit(Turn {
                ids: [id.clone()].into(),
                attaches: vec![attach],
                detaches: Vec::new(),
            });
            // One that waits again has not got more time.
            for (parked, until) in &mut self.parked {
                if parked.id == id {
                    *until = deadline;
                }
            }
        }
    }

    /// Gives up on attaches that have waited long enough.
    pub(super) fn expire_parked(&mut self) {
        let now = Instant::now();
        let is_due = |(_, deadline): &mut (Attach, Instant)| *deadline <= now;
        let due: Vec<_> = self.parked.extract_if(.., is_due).collect();
        for (attach, _) in due {
            attach.fail_taken();
        }
    }

    fn cancel_parked(&mut self, id: &str) {
        let is_it = |(attach, _): &mut (Attach, Instant)| attach.id == id;
        let cancelled: Vec<_> = self.parked.extract_if(.., is_it).collect();
        for (attach, _) in cancelled {
            attach.fail_taken();
        }
    }

    fn is_parked(&self, id: &str) -> bool {
        self.parked.iter().any(|(attach, _)| attach.id == id)
    }

    /// Chooses and reserves ports. A port chosen by us that a program of the node has is passed over.
    fn grant_ports(
        &mut self,
        id: &str,
        request: &[HostPort],
        has_v6: bool,
    ) -> Result<Vec<HostPort>, Error> {
        if request.is_empty() {
            return Ok(Vec::new());
        }
        let endpoints = self.desired.endpoints.values();
        let mut taken: BTreeSet<HostPort> = endpoints
            .flat_map(|endpoint| endpoint.ports.iter().copied())
            .collect();
        for _ in 0..EPHEMERAL_ATTEMPT_COUNT_MAX {
            let granted = ports::allocate(request, &taken, sysctl::ephemeral_ports(), has_v6)?;
            let Err(error) = self.reservations.reserve(id, &granted, has_v6) else {
                return Ok(granted);
            };
            let is_ours =
                |(asked, got): &(&HostPort, &HostPort)| asked.published == 0 && error.is_about(got);
            match request.iter().zip(&granted).find(is_ours) {
                Some((_, &got)) => taken.insert(got),
                None => return Err(error.into()),
            };
        }
        Err(ports::PortConflict::Exhausted.into())
    }

    /// Builds new endpoints one after the other, then changes all ports at once.
    fn build(&mut self, remove: &BTreeSet<PortRule>, added: &[Attach]) -> Result<(), ApplyError> {
        let mut steps = Vec::new();
        let mut add = BTreeSet::new();
        let nothing = nothing_observed(&self.desired.layout);
        for attach in added {
            plan_endpoint(&self.desired, &attach.id, &nothing, &mut steps);
            let endpoint = self.desired.endpoints.get(&attach.id);
            add.extend(endpoint.into_iter().flat_map(DesiredEndpoint::port_rules));
        }
        if !(remove.is_empty() && add.is_empty()) {
            steps.push(Step::ChangePorts {
                remove: remove.clone(),
                add,
            });
        }
        steps.iter().try_for_each(|step| self.kernel.perform(step))
    }

    /// What could not be built straight away is left to reconciliation, which also knows how to start from half an endpoint.
    fn repair(&mut self, existing: &[Attach]) -> Result<(), Arc<ApplyError>> {
        self.failures = self.reconcile()?.failures;
        for attach in existing {
            if !netns::is_mounted(&self.kernel.netns_path(&attach.id)) {
                self.rebuild(&attach.id)?;
            }
        }
        Ok(())
    }

    /// Makes an endpoint anew whose namespace lost its mount point: whoever attaches it again has no container in it.
    fn rebuild(&mut self, id: &str) -> Result<(), Arc<ApplyError>> {
        let endpoint = self.desired.endpoints.get(id);
        let address = endpoint.and_then(|endpoint| endpoint.address);
        let names = address
            .map(|address| self.desired.link_name(address))
            .into_iter()
            .collect();
        let mut steps = vec![Step::DeleteLinks { names }];
        let nothing = nothing_observed(&self.desired.layout);
        plan_endpoint(&self.desired, id, &nothing, &mut steps);
        steps
            .iter()
            .try_for_each(|step| self.kernel.perform(step))
            .map_err(Arc::new)
    }

    fn succeed(&self, attach: Attach) {
        let endpoint = &self.desired.endpoints[&attach.id];
        match (attach.mode, self.info(&attach.id, endpoint)) {
            (Mode::Node(_, reply), EndpointInfo::Attached(attachment)) => {
                answer(reply, Ok(attachment));
            }
            (Mode::None(reply), EndpointInfo::None { netns_path }) => answer(reply, Ok(netns_path)),
            (Mode::Node(..), EndpointInfo::None { .. })
            | (Mode::None(_), EndpointInfo::Attached(_)) => {
                unreachable!("an endpoint is admitted in its own mode");
            }
        }
    }

    /// The state file could not be written: nothing happens to the kernel, and memory goes back to what the file says.
    fn roll_back(
        &mut self,
        forgotten: Vec<(String, DesiredEndpoint)>,
        added: Vec<Attach>,
        detaches: Vec<(String, Reply<()>)>,
        error: &Arc<StateError>,
    ) {
        for attach in added {
            if let Some(Dying {
                address: Some(address),
                ..
            }) = self
                .forget(&attach.id)
                .and_then(|_| self.dying.remove(&attach.id))
            {
                self.pool.release(address);
            }
            attach.fail(Error::State(Arc::clone(error)));
        }
        for (id, endpoint) in forgotten {
            self.dying.remove(&id);
            let has_v6 = endpoint.address6.is_some();
            if let Err(error) = self.reservations.reserve(&id, &endpoint.ports, has_v6) {
                warn!(endpoint.id = %id, error = %ErrorChain(&error), "Published port is used by a program of the node");
            }
            self.desired.endpoints.insert(id, endpoint);
        }
        for (_, reply) in detaches {
            answer(reply, Err(Error::State(Arc::clone(error))));
        }
    }
}

// === impl Attach ===

impl Attach {
    fn fail(self, error: Error) {
        match self.mode {
            Mode::Node(_, reply) => answer(reply, Err(error)),
            Mode::None(reply) => answer(reply, Err(error)),
        }
    }

    /// The given address is an endpoint's, and stays it.
    fn fail_taken(self) {
        let address = match &self.mode {
            Mode::Node(Request { given, .. }, _) => given.map(|given| given.v4.into()),
            Mode::None(_) => None,
        };
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        self.fail(PoolError::Taken(address).into());
    }
}

// === impl Mode ===

impl Mode {
    /// Whether an endpoint is what this request would have made.
    fn matches(&self, endpoint: &DesiredEndpoint) -> bool {
        match self {
            Mode::None(_) => endpoint.address.is_none(),
            Mode::Node(Request { ports, given }, _) => {
                let is_given = given.is_none_or(|given| {
                    endpoint.address == Some(given.v4.into())
                        && given
                            .v6
                            .is_none_or(|v6| endpoint.address6.is_none_or(|ip| ip == v6))
                });
                let is_grant = |(asked, got): (&HostPort, &HostPort)| {
                    asked == got
                        || (asked.published == 0
                            && HostPort {
                                published: got.published,
                                ..*asked
                            } == *got)
                };
                endpoint.address.is_some()
                    && is_given
                    && ports.len() == endpoint.ports.len()
                    && ports.iter().zip(&endpoint.ports).all(is_grant)
            }
        }
    }
}
