//! What all members of the simulated world share: time, network, facts, invariants, the trace.

use std::{collections::BTreeMap, fmt};

use skep_manager::{Joined, command::CommandError};
use skep_model::{
    NodeId, Timestamp,
    dispatch::{DispatchError, SessionRequest},
};
use skep_raft::Message;

use crate::{
    bug::Bug,
    event::{AgentIndex, ConnectionNumber, Down, Event, ManagerIndex},
    facts::{Facts, Observation},
    invariants::Invariant,
    links::Links,
    meter::Meter,
    network::Network,
    queue::Queue,
    trace::Trace,
    vault::Leak,
};

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: String,
    /// How.
    pub problem: String,
    /// When, in virtual nanoseconds since the start.
    pub at_nanos: u128,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) queue: Queue,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) links: Links,
    pub(crate) facts: Facts,
    pub(crate) invariants: Vec<Box<dyn Invariant>>,
    pub(crate) bug: Option<Bug>,
    /// What managers cost, when that is measured.
    pub(crate) meter: Meter,
    /// Node of each machine.
    pub(crate) nodes: Vec<NodeId>,
    /// Life of each manager that runs.
    pub(crate) managers_up: Vec<Option<u64>>,
    /// The machine each manager takes to lead; itself when it does.
    pub(crate) leaders_known: Vec<Option<ManagerIndex>>,
    /// Certificates made but not yet committed.
    pub(crate) leak: Leak,
    /// Which machine waits for which request of its own.
    pub(crate) enrolments: BTreeMap<u64, AgentIndex>,
    pub(crate) start: Timestamp,
    pub(crate) violation: Option<Violation>,
}

impl Context {
    /// The virtual time.
    pub(crate) fn now(&self) -> Timestamp {
        self.queue.now()
    }

    /// Adds a line to the trace.
    pub(crate) fn trace(&mut self, text: fmt::Arguments<'_>) {
        self.trace.log(self.queue.now(), text);
    }

    /// An invariant is broken; the first one counts.
    pub(crate) fn violate(&mut self, invariant: &str, problem: &str) {
        self.trace(format_args!("VIOLATION of {invariant}: {problem}"));
        let at_nanos = self.now().since(self.start).as_nanos();
        self.violation.get_or_insert_with(|| Violation {
            invariant: invariant.to_owned(),
            problem: problem.to_owned(),
            at_nanos,
        });
    }

    /// Asks every invariant.
    pub(crate) fn observe(&mut self, observation: &Observation<'_>) {
        let mut found = Vec::new();
        for invariant in &mut self.invariants {
            if let Err(problem) = invariant.observe(&self.facts, observation) {
                found.push((invariant.name(), problem));
            }
        }
        for (name, problem) in found {
            self.violate(name, &problem);
        }
    }

    /// A member has applied everything up to `index`.
    pub(crate) fn applied(&mut self, raft_id: u64, index: u64) {
        while self.facts.index() < index && self.violation.is_none() {
            match self.facts.commit_next(raft_id, self.bug) {
                Ok(applied) => {
                    self.trace(format_args!("entry {} is committed", applied.index));
                    self.observe(&Observation::Committed(&applied));
                }
                Err(problem) => self.violate("committed-is-durable", &problem),
            }
        }
    }

    /// What an agent's registration says; a bug may make it lie.
    pub(crate) fn register_request(&self, mut request: SessionRequest) -> SessionRequest {
        if self.bug == Some(Bug::OverstateCapacity) {
            request.description.resources.nano_cpus *= 2;
            request.description.resources.memory_bytes *= 2;
        }
        request
    }

    /// Sends to an agent.
    pub(crate) fn down(&mut self, number: ConnectionNumber, message: Down) {
        let links = &self.links;
        self.network.down(&mut self.queue, links, number, message);
    }

    /// A manager ends a connection.
    pub(crate) fn close(&mut self, number: ConnectionNumber, reason: DispatchError) {
        let links = &self.links;
        self.network
            .close_manager(&mut self.queue, links, number, reason);
    }

    /// Sends a raft message to the manager of another machine.
    pub(crate) fn send_to_peer(&mut self, from: ManagerIndex, to: ManagerIndex, message: Message) {
        self.links.send(&mut self.queue, from, to, message);
    }

    /// The answer to a machine that joins goes on its way.
    pub(crate) fn joined(
        &mut self,
        from: ManagerIndex,
        request: u64,
        result: Result<Joined, CommandError>,
    ) {
        let Some(machine) = self.enrolments.get(&request).copied() else {
            return;
        };
        if let Some(delay) = self.links.request(from, machine) {
            let event = Event::Joined {
                machine,
                request,
                result,
            };
            self.queue.after(delay, event);
        }
    }

    /// A manager's process is gone.
    pub(crate) fn manager_died(&mut self, manager: ManagerIndex, raft_id: u64) {
        self.leaders_known[manager] = None;
        let links = &self.links;
        self.network.manager_died(&mut self.queue, links, manager);
        let up = self.managers_up.iter().enumerate();
        let others = up
            .filter(|(_, life)| life.is_some())
            .map(|(other, _)| other);
        self.links
            .reset(&mut self.queue, (manager, raft_id), others);
    }
}
