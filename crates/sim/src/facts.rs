//! What is true of the simulated cluster, kept apart from what its members believe.
//!
//! The committed log is decoded from its bytes and applied to a store of its own, entry by entry,
//! once a majority of disks holds the entry. Invariants compare the members with that.

use std::collections::BTreeMap;

use skep_manager::{
    command::{Answer, Command, CommandError},
    event::ToAgent,
};
use skep_model::{NodeDescription, NodeId, Task, TaskId, TaskStatus};
use skep_raft::{Entry, Ready, Restored};
use skep_store::{Change, Store};
use skep_wire::{SpecCache, log};

use crate::{
    event::{AgentIndex, ManagerIndex},
    executor::State,
    trace::hash_of,
};

/// Something that happened and that an invariant may have an opinion on.
#[derive(Debug)]
pub(crate) enum Observation<'a> {
    /// An entry was committed for the first time.
    Committed {
        index: u64,
        changes: &'a [Change],
        before: &'a Store,
        after: &'a Store,
    },
    /// A manager gave its store to readers.
    Published { index: u64, store: &'a Store },
    /// A manager started from its disk.
    Restored {
        last_index: u64,
        store: &'a Store,
        index: u64,
    },
    /// A manager at `index` sent to an agent.
    Sent {
        node: NodeId,
        message: &'a ToAgent,
        index: u64,
    },
    /// A client asked for something.
    Issued { request: u64, command: &'a Command },
    /// A manager at `index` answered a client.
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
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Term of each entry on each manager's disk.
    durable: Vec<BTreeMap<u64, u64>>,
    /// Hash of each committed entry.
    log: BTreeMap<u64, u64>,
    /// The store after each entry; cheap, because stores share what they have in common.
    stores: BTreeMap<u64, Store>,
    store: Store,
    index: u64,
    cache: SpecCache,
}

/// What a first commit changed.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) before: Store,
    pub(crate) after: Store,
    pub(crate) changes: Vec<Change>,
}

impl Facts {
    /// Facts about managers whose disks hold `disks`.
    pub(crate) fn new(disks: &[Restored]) -> Self {
        let terms = |restored: &Restored| {
            let entries = restored.entries.iter();
            entries.map(|entry| (entry.index, entry.term)).collect()
        };
        Self {
            durable: disks.iter().map(terms).collect(),
            ..Self::default()
        }
    }

    /// The committed state.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Index of the last entry committed.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// The committed state as of `index`, if there was an entry.
    pub(crate) fn store_at(&self, index: u64) -> Option<&Store> {
        self.stores.range(..=index).next_back().map(|(_, s)| s)
    }

    /// A manager's disk now holds this.
    pub(crate) fn note_durable(&mut self, manager: ManagerIndex, ready: &Ready) {
        let disk = &mut self.durable[manager];
        if let Some(first) = ready.entries.first() {
            drop(disk.split_off(&first.index));
        }
        for entry in &ready.entries {
            disk.insert(entry.index, entry.term);
        }
    }

    /// A manager holds `entry` to be committed. `None` when that was known; an error when it cannot
    /// be.
    pub(crate) fn commit(&mut self, entry: &Entry) -> Result<Option<Applied>, String> {
        let index = entry.index;
        let holds = |disk: &&BTreeMap<u64, u64>| disk.get(&index) == Some(&entry.term);
        let holder_count = self.durable.iter().filter(holds).count();
        if holder_count * 2 <= self.durable.len() {
            return Err(format!(
                "entry {index} is committed and on no majority's disks"
            ));
        }
        let hash = hash_of(&entry.data);
        if let Some(known) = self.log.get(&index) {
            let is_same = *known == hash;
            return if is_same {
                Ok(None)
            } else {
                Err(format!("entry {index} was committed with other content"))
            };
        }
        if index != self.index + 1 {
            return Err(format!("entry {index} is committed after {}", self.index));
        }
        self.log.insert(index, hash);
        self.index = index;
        let before = self.store.clone();
        let mut changes = Vec::new();
        if entry.is_command() {
            let decoded = log::decode_actions(&entry.data, &mut self.cache);
            let (_, actions) = decoded.map_err(|error| format!("entry {index}: {error}"))?;
            for action in &actions {
                let applied = self.store.apply(action);
                changes.push(applied.map_err(|error| format!("entry {index}: {error}"))?);
            }
        }
        self.stores.insert(index, self.store.clone());
        Ok(Some(Applied {
            before,
            after: self.store.clone(),
            changes,
        }))
    }
}
