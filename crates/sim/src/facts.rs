//! What is true of the simulated cluster, kept apart from what its members believe.
//!
//! Every entry a member hands to its disk is kept with its bytes. The committed log is decoded from
//! those and applied to a store and a group of its own, entry by entry, once a majority of the
//! members' disks holds the entry. Invariants compare the members with that.

mod logs;
mod observation;

use std::collections::{BTreeMap, BTreeSet};

use skep_raft::{ConfChangeKind, Entry};
use skep_store::{Change, Store};
use skep_wire::{
    SpecCache, log,
    member::{Member, decode_member},
};

use self::logs::Logs;
pub(crate) use self::observation::Observation;
use crate::bug::{self, Bug};

/// The raft group after some entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupFact {
    /// Members by raft id.
    pub(crate) members: BTreeMap<u64, Member>,
    /// Former members.
    pub(crate) removed: BTreeSet<u64>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// What members' disks and memories hold.
    pub(crate) logs: Logs,
    /// Term of each committed entry.
    terms: BTreeMap<u64, u64>,
    /// The store after each entry; cheap, because stores share what they have in common.
    stores: BTreeMap<u64, Store>,
    /// The group after each change of it.
    groups: BTreeMap<u64, GroupFact>,
    store: Store,
    index: u64,
    cache: SpecCache,
    /// Requests that were committed, with the term they were proposed in.
    requests: BTreeSet<(u64, u64)>,
}

/// What a first commit changed.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) before: Store,
    pub(crate) after: Store,
    pub(crate) changes: Vec<Change>,
}

impl Facts {
    /// The committed state.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Index of the last entry committed.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Term of a committed entry.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        self.terms.get(&index).copied()
    }

    /// The committed state as of `index`, if there was an entry.
    pub(crate) fn store_at(&self, index: u64) -> Option<&Store> {
        self.stores.range(..=index).next_back().map(|(_, s)| s)
    }

    /// The group as of `index`.
    pub(crate) fn group_at(&self, index: u64) -> Option<&GroupFact> {
        self.groups.range(..=index).next_back().map(|(_, g)| g)
    }

    /// A member has applied what is beyond the last entry known to be committed: takes up the next
    /// one. An error when it cannot be committed.
    pub(crate) fn commit_next(
        &mut self,
        raft_id: u64,
        bug: Option<Bug>,
    ) -> Result<Applied, String> {
        let index = self.index + 1;
        let Some(entry) = self.logs.entry_of(raft_id, index).cloned() else {
            return Err(format!(
                "member {raft_id:x} applied {index}, which is not in its log"
            ));
        };
        self.check_majority(&entry)?;
        self.terms.insert(index, entry.term);
        self.index = index;
        let before = self.store.clone();
        let mut changes = Vec::new();
        if entry.is_command() {
            let decoded = log::decode_actions(&entry.data, &mut self.cache);
            let (request, mut actions) =
                decoded.map_err(|error| format!("entry {index}: {error}"))?;
            if request != 0 && !self.requests.insert((entry.term, request)) {
                return Err(format!(
                    "request {request:x} is committed twice, again by {index}"
                ));
            }
            bug::mislead(bug, &self.store, &mut actions);
            for action in &actions {
                let applied = self.store.apply(action);
                changes.push(applied.map_err(|error| format!("entry {index}: {error}"))?);
            }
        }
        self.change_group(&entry);
        self.stores.insert(index, self.store.clone());
        Ok(Applied {
            index,
            before,
            after: self.store.clone(),
            changes,
        })
    }

    /// A majority of the group's disks must hold it. An entry may be committed by the group as it
    /// was before the last change, when that is committed in the same moment.
    fn check_majority(&self, entry: &Entry) -> Result<(), String> {
        let (index, term) = (entry.index, entry.term);
        let mut groups = self.groups.range(..index).rev().take(2).peekable();
        if groups.peek().is_none() {
            // The entry that makes the group.
            return Ok(());
        }
        let mut counts = Vec::new();
        for (_, group) in groups {
            let members = group.members.keys();
            let holders = members.filter(|id| self.logs.is_durable(**id, index, term));
            let (held, all) = (holders.count(), group.members.len());
            if held * 2 > all {
                return Ok(());
            }
            counts.push(format!("{held} of {all}"));
        }
        let counts = counts.join(" or ");
        Err(format!("entry {index} is committed and on {counts} disks"))
    }

    fn change_group(&mut self, entry: &Entry) {
        let Some(change) = entry.conf_change() else {
            return;
        };
        let last = self.groups.values().next_back();
        let mut group = last.cloned().unwrap_or_default();
        let id = change.node_id;
        match change.kind() {
            ConfChangeKind::RemoveNode => {
                group.members.remove(&id);
                group.removed.insert(id);
            }
            ConfChangeKind::AddNode
            | ConfChangeKind::UpdateNode
            | ConfChangeKind::AddLearnerNode => {
                if let Ok(member) = decode_member(&change.context)
                    && !group.removed.contains(&id)
                {
                    group.members.insert(id, member);
                }
            }
        }
        self.groups.insert(entry.index, group);
    }
}
