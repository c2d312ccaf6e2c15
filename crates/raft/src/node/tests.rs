//! Groups of members in memory: a wire that loses and cuts, disks that survive their member.

mod chaos;
mod elections;
mod hostile;
mod membership;
mod single;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message as _;

use super::*;
use crate::conf_change::{ConfChange, ConfChangeKind};
use crate::{memory_disk::MemoryDisk, storage::Storage as _};

/// A member, its disk, and the application: a list of commands.
struct Member {
    node: Node,
    disk: MemoryDisk,
    applied: Vec<Vec<u8>>,
}

/// Members joined by a wire on which every message is encoded and decoded.
struct Group {
    seed: u64,
    members: BTreeMap<u64, Member>,
    wire: VecDeque<Message>,
    /// Members that hear and are heard by nobody.
    isolated: BTreeSet<u64>,
    /// Everything ever sent, folded.
    trace: u64,
}

impl Member {
    fn start(id: u64, seed: u64, mut disk: MemoryDisk) -> Self {
        let restored = disk.restored().unwrap();
        let node = Node::new(Config::new(id, seed), &restored).unwrap();
        let mut member = Self {
            node,
            disk,
            applied: Vec::new(),
        };
        if let Some(snapshot) = &restored.snapshot {
            member.load(&snapshot.data);
        }
        member
    }

    fn load(&mut self, data: &[u8]) {
        self.applied = data
            .split(|&byte| byte == b',')
            .map(<[u8]>::to_vec)
            .collect();
    }

    /// Does all that is ready; gives the messages to send.
    fn pump(&mut self) -> Vec<Message> {
        let mut sent = Vec::new();
        while let Some(ready) = self.node.ready() {
            sent.extend(ready.messages.iter().cloned());
            self.disk.write(&ready).unwrap();
            sent.extend(self.node.persisted(ready.number));
            if let Some(snapshot) = &ready.snapshot {
                self.load(&snapshot.data);
            }
            let commands = ready.committed.iter().filter(|entry| entry.is_command());
            self.applied
                .extend(commands.map(|entry| entry.data.to_vec()));
        }
        for message in sent.iter_mut().filter(|message| message.wants_snapshot()) {
            message.attach_snapshot(self.disk.snapshot().unwrap().unwrap());
        }
        sent
    }

    fn take_snapshot(&mut self, kept: u64) {
        let data = self.applied.join(&b',');
        let snapshot = self
            .node
            .snapshot_at(self.node.applied_index(), data.into())
            .unwrap();
        self.disk.save_snapshot(&snapshot).unwrap();
        let to = crate::compaction_point(snapshot.index(), kept);
        self.disk.compact(to).unwrap();
        self.node.snapshot_saved(&snapshot.metadata, to);
    }
}

impl Group {
    /// A group of `count` members with ids from 1, led by 1, everything applied.
    fn new(count: u64, seed: u64) -> Self {
        let mut disk = MemoryDisk::new();
        disk.bootstrap(&Restored::new_group(1, "one")).unwrap();
        let mut group = Self {
            seed,
            members: BTreeMap::from([(1, Member::start(1, seed, disk))]),
            wire: VecDeque::new(),
            isolated: BTreeSet::new(),
            trace: 0,
        };
        group.settle();
        group.node(1).campaign().unwrap();
        group.settle();
        for id in 2..=count {
            group.join(id);
        }
        group
    }

    fn join(&mut self, id: u64) {
        let leader = self.leader().unwrap();
        let change = ConfChange::new(ConfChangeKind::AddNode, id, format!("member {id}"));
        self.node(leader).propose_conf_change(&change).unwrap();
        self.members
            .insert(id, Member::start(id, self.seed, MemoryDisk::new()));
        self.settle();
        self.run(3);
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.members.get_mut(&id).unwrap().node
    }

    fn leader(&self) -> Option<u64> {
        let leads = |member: &&Member| member.node.is_leader();
        let leaders = self.members.values().filter(leads);
        leaders
            .max_by_key(|member| member.node.term())
            .map(|member| member.node.id())
    }

    /// Delivers until nothing is said any more.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            for member in self.members.values_mut() {
                self.wire.extend(member.pump());
            }
            let Some(message) = self.wire.pop_front() else {
                return;
            };
            self.deliver(message);
        }
        panic!("the members never stop talking");
    }

    fn deliver(&mut self, message: Message) {
        let bytes = message.encode_to_vec();
        for &byte in &bytes {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(1_099_511_628_211);
        }
        if self.isolated.contains(&message.from) || self.isolated.contains(&message.to) {
            return;
        }
        if let Some(member) = self.members.get_mut(&message.to) {
            let _ = member.node.step(Message::decode(&bytes[..]).unwrap());
        }
    }

    /// Lets `ticks` pass.
    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for member in self.members.values_mut() {
                member.node.tick();
            }
            self.settle();
        }
    }

    /// Lets time pass until someone leads.
    #[track_caller]
    fn elect(&mut self) -> u64 {
        for _ in 0..200 {
            self.run(1);
            let reachable = |&id: &u64| !self.isolated.contains(&id);
            if let Some(leader) = self.leader().filter(reachable) {
                return leader;
            }
        }
        panic!("no leader after 200 ticks: {:?}", self.nodes());
    }

    fn propose(&mut self, command: &str) {
        let leader = self.leader().unwrap();
        self.node(leader).propose(command.into()).unwrap();
        self.settle();
    }

    #[track_caller]
    fn check_applied(&self, id: u64, commands: &[&str]) {
        let applied: Vec<_> = self.members[&id]
            .applied
            .iter()
            .map(|data| String::from_utf8_lossy(data))
            .collect();
        assert_eq!(applied, commands, "applied by {id}");
    }

    fn restart(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        self.members
            .insert(id, Member::start(id, self.seed, member.disk));
        self.settle();
    }

    fn nodes(&self) -> Vec<&Node> {
        self.members.values().map(|member| &member.node).collect()
    }
}
