//! What all members of the simulated world share: time, network, facts, invariants, the trace.

use std::fmt;

use skep_model::{NodeId, Timestamp, dispatch::SessionRequest};
use skep_raft::{Entry, Ready};

use crate::{
    bug::Bug,
    event::ManagerIndex,
    facts::{Facts, Observation},
    invariants::Invariant,
    network::Network,
    queue::Queue,
    trace::Trace,
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
    pub(crate) facts: Facts,
    pub(crate) invariants: Vec<Box<dyn Invariant>>,
    pub(crate) bug: Option<Bug>,
    /// Node of each agent.
    pub(crate) nodes: Vec<NodeId>,
    /// Life of each manager that runs.
    pub(crate) managers_up: Vec<Option<u64>>,
    /// The leader and its life, while known.
    pub(crate) leader: Option<(ManagerIndex, u64)>,
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

    /// A manager's disk holds what a ready asked for.
    pub(crate) fn durable(&mut self, manager: ManagerIndex, ready: &Ready) {
        self.facts.note_durable(manager, ready);
    }

    /// A manager holds an entry to be committed.
    pub(crate) fn committed(&mut self, entry: &Entry) {
        match self.facts.commit(entry) {
            Ok(None) => {}
            Ok(Some(applied)) => self.observe(&Observation::Committed {
                index: entry.index,
                changes: &applied.changes,
                before: &applied.before,
                after: &applied.after,
            }),
            Err(problem) => self.violate("committed-is-durable", &problem),
        }
    }

    /// The manager an agent connects to, and its life when it is up.
    pub(crate) fn manager_to_ask(&self) -> (ManagerIndex, Option<u64>) {
        if let Some((manager, life)) = self.leader {
            return (manager, Some(life));
        }
        let up = self.managers_up.iter().position(Option::is_some);
        let manager = up.unwrap_or(0);
        (manager, self.managers_up[manager])
    }

    /// What an agent's registration says; a bug may make it lie.
    pub(crate) fn register_request(&self, mut request: SessionRequest) -> SessionRequest {
        if self.bug == Some(Bug::OverstateCapacity) {
            request.description.resources.nano_cpus *= 2;
            request.description.resources.memory_bytes *= 2;
        }
        request
    }
}
