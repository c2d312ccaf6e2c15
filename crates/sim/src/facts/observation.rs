//! What invariants get to see.

use std::{collections::BTreeMap, sync::Arc};

use skep_manager::{
    command::{Answer, Command, CommandError},
    event::ToAgent,
    group::Group,
};
use skep_model::{NodeDescription, NodeId, Task, TaskId, TaskStatus, stack::StackSpec};
use skep_store::{Change, Store};

use crate::{
    event::{AgentIndex, ManagerIndex},
    executor::State,
    facts::Applied,
};

/// Something that happened and that an invariant may have an opinion on.
#[derive(Debug)]
pub(crate) enum Observation<'a> {
    /// An entry was committed for the first time.
    Committed(&'a Applied),
    /// A manager gave its store to readers.
    Published {
        manager: ManagerIndex,
        index: u64,
        store: &'a Store,
        /// None: the store is another one, from a snapshot.
        changes: Option<&'a Arc<Vec<Change>>>,
    },
    /// A manager started from its disk.
    Restored {
        manager: ManagerIndex,
        store: &'a Store,
        index: u64,
    },
    /// A member leads a term, by raft's account.
    Leads { raft_id: u64, term: u64 },
    /// A member gives its vote away.
    Votes {
        raft_id: u64,
        term: u64,
        candidate: u64,
    },
    /// A member has applied everything up to `index` and has this group.
    Group {
        raft_id: u64,
        index: u64,
        group: &'a Group,
    },
    /// A manager that has applied `index`, or one of those up to `next`, sent to an agent.
    Sent {
        node: NodeId,
        message: &'a ToAgent,
        index: u64,
        next: u64,
    },
    /// A node was given a certificate.
    Certificate { node: NodeId, chain: &'a [u8] },
    /// A client asked for something.
    Issued { request: u64, command: &'a Command },
    /// A manager that has applied `index` answered a client.
    Replied {
        request: u64,
        result: &'a Result<Answer, CommandError>,
        index: u64,
    },
    /// A node is described like this from now on.
    Described {
        node: NodeId,
        description: &'a NodeDescription,
    },
    /// An agent reports a task's status.
    Reported {
        agent: AgentIndex,
        task: TaskId,
        status: &'a TaskStatus,
    },
    /// A container came into being or started.
    Container {
        node: NodeId,
        task: &'a Task,
        state: State,
    },
    /// All is calm, and a client has deployed a document again that somebody deployed in the storm: the state that
    /// came of it.
    Redeployed {
        spec: &'a StackSpec,
        store: &'a Store,
    },
    /// All is calm and as wished: stores of the managers that run, by raft id.
    Converged {
        managers: &'a BTreeMap<u64, (u64, Store)>,
    },
}

impl<'a> Observation<'a> {
    /// What an entry changed, if that is what happened.
    pub(crate) fn committed(&self) -> Option<&'a Applied> {
        match self {
            Self::Committed(applied) => Some(applied),
            _ => None,
        }
    }
}
