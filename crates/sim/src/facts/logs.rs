//! What the members' logs hold, in memory and on disk, as the simulated disks saw it.

use std::collections::BTreeMap;

use skep_raft::{Entry, Ready, Restored};

use crate::trace::hash_of;

/// One member's log: term of each entry. Entries compacted away are still known here.
#[derive(Debug, Clone, Default)]
struct MemberLog {
    /// Everything up to here came as a snapshot.
    floor: u64,
    terms: BTreeMap<u64, u64>,
}

/// A member's log in memory and on disk.
#[derive(Debug, Default)]
struct Member {
    memory: MemberLog,
    disk: MemberLog,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    members: BTreeMap<u64, Member>,
    /// Every entry ever written, by index and term, with the term of the one before it.
    pool: BTreeMap<(u64, u64), (Entry, Option<u64>)>,
}

impl MemberLog {
    fn append(&mut self, ready: &Ready) {
        if let Some(snapshot) = &ready.snapshot {
            self.terms.clear();
            self.floor = snapshot.index();
            self.terms.insert(snapshot.index(), snapshot.metadata.term);
        }
        if let Some(first) = ready.entries.first() {
            drop(self.terms.split_off(&first.index));
        }
        let entries = ready.entries.iter();
        self.terms
            .extend(entries.map(|entry| (entry.index, entry.term)));
    }

    fn last(&self) -> (u64, u64) {
        let last = self.terms.last_key_value();
        last.map_or((self.floor, 0), |(index, term)| (*index, *term))
    }
}

impl Logs {
    /// A member starts with what is on its disk. An error when that is less than was written.
    pub(crate) fn restored(&mut self, raft_id: u64, restored: &Restored) -> Result<(), String> {
        let is_new = !self.members.contains_key(&raft_id);
        if is_new {
            let ready = Ready {
                snapshot: restored.snapshot.clone(),
                entries: restored.entries.clone(),
                ..Ready::default()
            };
            self.handed(raft_id, &ready)?;
            self.durable(raft_id, &ready);
        }
        let member = self.members.entry(raft_id).or_default();
        member.memory = member.disk.clone();
        let (last, _) = member.disk.last();
        let found = restored.last_index();
        if found != last {
            return Err(format!(
                "log of {raft_id:x} ends at {found}, {last} was written"
            ));
        }
        Ok(())
    }

    /// A member hands this to its disk. An error when two logs have the same entry and differ in it
    /// or before it.
    pub(crate) fn handed(&mut self, raft_id: u64, ready: &Ready) -> Result<(), String> {
        let member = self.members.entry(raft_id).or_default();
        member.memory.append(ready);
        for entry in &ready.entries {
            let before = entry.index.checked_sub(1);
            let before = before.and_then(|index| member.memory.terms.get(&index).copied());
            let key = (entry.index, entry.term);
            let Some((known, known_before)) = self.pool.get_mut(&key) else {
                self.pool.insert(key, (entry.clone(), before));
                continue;
            };
            if hash_of(&known.data) != hash_of(&entry.data) || known.kind != entry.kind {
                return Err(format!(
                    "entry {} of term {} has two contents",
                    key.0, key.1
                ));
            }
            match (*known_before, before) {
                (Some(one), Some(other)) if one != other => {
                    return Err(format!(
                        "entry {} of term {} follows term {one} and term {other}",
                        key.0, key.1
                    ));
                }
                (None, Some(_)) => *known_before = before,
                _ => {}
            }
        }
        Ok(())
    }

    /// A member's disk now holds this.
    pub(crate) fn durable(&mut self, raft_id: u64, ready: &Ready) {
        self.members.entry(raft_id).or_default().disk.append(ready);
    }

    /// What a member did not write is lost.
    pub(crate) fn forget_memory(&mut self, raft_id: u64) {
        if let Some(member) = self.members.get_mut(&raft_id) {
            member.memory = member.disk.clone();
        }
    }

    /// The entry a member has at `index`.
    pub(crate) fn entry_of(&self, raft_id: u64, index: u64) -> Option<&Entry> {
        let term = self.members.get(&raft_id)?.memory.terms.get(&index)?;
        self.pool.get(&(index, *term)).map(|(entry, _)| entry)
    }

    /// Whether a member's disk holds an entry, or a snapshot in its place.
    pub(crate) fn is_durable(&self, raft_id: u64, index: u64, term: u64) -> bool {
        self.members.get(&raft_id).is_some_and(|member| {
            let disk = &member.disk;
            index <= disk.floor || disk.terms.get(&index) == Some(&term)
        })
    }

    /// Whether a member's log, in memory, has an entry or a snapshot in its place.
    pub(crate) fn has(&self, raft_id: u64, index: u64, term: u64) -> bool {
        self.members.get(&raft_id).is_some_and(|member| {
            let log = &member.memory;
            index <= log.floor || log.terms.get(&index) == Some(&term)
        })
    }
}
