//! Three members under loss, reordering, duplication, partitions, slow and lost disk writes, crashes, snapshots, transfers and
//! membership changes. Safety after every event; then the faults stop and the group must agree on a new command.

use super::*;
use crate::memory_disk::Crash;

const MEMBERS: u64 = 3;

/// `SplitMix64`.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// A member whose disk writes take time.
struct Slow {
    node: Option<Node>,
    disk: MemoryDisk,
    writing: Option<u64>,
}

struct Chaos {
    rng: Rng,
    seed: u64,
    members: BTreeMap<u64, Slow>,
    wire: Vec<Message>,
    cut: BTreeSet<u64>,
    /// No more slow writes.
    is_calm: bool,
    /// The one entry ever handed out at an index, by anyone.
    committed: BTreeMap<u64, (u64, Vec<u8>)>,
    leaders: BTreeMap<u64, u64>,
    proposed: u64,
    trace: u64,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let founders = Group::new(MEMBERS, seed);
        let disks = founders.members.into_values().map(|member| member.disk);
        let mut chaos = Self {
            rng: Rng(seed),
            seed,
            members: BTreeMap::new(),
            wire: Vec::new(),
            cut: BTreeSet::new(),
            is_calm: false,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            proposed: 0,
            trace: 0,
        };
        for (id, disk) in (1..).zip(disks) {
            chaos.members.insert(
                id,
                Slow {
                    node: None,
                    disk,
                    writing: None,
                },
            );
            chaos.start(id);
        }
        chaos
    }

    fn start(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let restored = member.disk.restored().unwrap();
        member.node = Some(Node::new(Config::new(id, self.seed), &restored).unwrap());
        member.writing = None;
    }

    fn crash(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        member.disk.crash(if self.rng.one_in(2) {
            Crash::Lost
        } else {
            Crash::Kept
        });
        member.node = None;
    }

    /// Power fails for a moment, everywhere a write is under way.
    fn reboot(&mut self) {
        for id in 1..=MEMBERS {
            let member = &self.members[&id];
            if member.writing.is_some() && member.node.is_some() {
                self.crash(id);
                self.start(id);
            }
        }
    }

    /// Takes what is ready; the write begins, and may end at once or later.
    fn advance(&mut self, id: u64) {
        loop {
            let is_slow = !self.is_calm && self.rng.one_in(2);
            let member = self.members.get_mut(&id).unwrap();
            let Some(node) = &mut member.node else { return };
            if let Some(number) = member.writing {
                if is_slow {
                    return;
                }
                member.disk.finish();
                member.writing = None;
                let sent = node.persisted(number);
                self.send(sent);
                continue;
            }
            let Some(ready) = node.ready() else { return };
            if ready.must_write() {
                member.disk.begin(&ready).unwrap();
            }
            member.writing = Some(ready.number);
            self.check_committed(id, &ready);
            self.send(ready.messages);
        }
    }

    fn check_committed(&mut self, id: u64, ready: &Ready) {
        for entry in &ready.committed {
            let value = (entry.term, entry.data.to_vec());
            let first = self
                .committed
                .entry(entry.index)
                .or_insert_with(|| value.clone());
            assert_eq!(
                *first, value,
                "member {id} disagrees at {}, seed {}",
                entry.index, self.seed
            );
        }
        let node = self.members[&id].node.as_ref().unwrap();
        if node.is_leader() {
            let leader = *self.leaders.entry(node.term()).or_insert(id);
            assert_eq!(
                leader,
                id,
                "two leaders in term {}, seed {}",
                node.term(),
                self.seed
            );
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        for mut message in messages {
            for byte in message.encode_to_vec() {
                self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(1_099_511_628_211);
            }
            if message.wants_snapshot() {
                let disk = &mut self.members.get_mut(&message.from).unwrap().disk;
                message.attach_snapshot(disk.snapshot().unwrap().unwrap());
            }
            if self.rng.one_in(40) {
                self.wire.push(message.clone());
            }
            self.wire.push(message);
        }
    }

    fn deliver(&mut self, is_lossy: bool) {
        if self.wire.is_empty() {
            return;
        }
        // Mostly in order, sometimes not.
        let bound = if is_lossy { 4.min(self.wire.len()) } else { 1 };
        let position = self.rng.below(u64::try_from(bound).unwrap());
        let message = self.wire.remove(usize::try_from(position).unwrap());
        let is_lost = is_lossy && self.rng.one_in(20);
        let is_cut = self.cut.contains(&message.from) != self.cut.contains(&message.to);
        let (from, to) = (message.from, message.to);
        let is_snapshot = message.snapshot.is_some();
        let receiver = self
            .members
            .get_mut(&to)
            .and_then(|member| member.node.as_mut());
        let is_delivered = !is_lost && !is_cut && receiver.is_some();
        if let Some(node) = receiver.filter(|_| is_delivered) {
            let _ = node.step(message);
        }
        if is_snapshot && let Some(sender) = self.members.get_mut(&from).unwrap().node.as_mut() {
            sender.report_snapshot(to, is_delivered);
        }
        self.advance(to);
    }

    fn tick(&mut self) {
        for id in 1..=MEMBERS {
            if let Some(node) = &mut self.members.get_mut(&id).unwrap().node {
                node.tick();
            }
            self.advance(id);
        }
    }

    fn propose(&mut self, id: u64) {
        let Some(node) = &mut self.members.get_mut(&id).unwrap().node else {
            return;
        };
        for _ in 0..=self.rng.below(3) {
            self.proposed += 1;
            let _ = node.propose(self.proposed.to_be_bytes().to_vec());
        }
        self.advance(id);
    }

    fn snapshot(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let Some(node) = &mut member.node else { return };
        if member.writing.is_some() {
            return;
        }
        let Ok(snapshot) = node.snapshot_at(node.applied_index(), "state".into()) else {
            return;
        };
        member.disk.save_snapshot(&snapshot).unwrap();
        let to = crate::compaction_point(snapshot.index(), self.rng.below(6));
        member.disk.compact(to).unwrap();
        node.snapshot_saved(&snapshot.metadata, to);
    }

    /// Removes a member and, as it may be down or cut off, adds it again: ids are not reused in earnest, but raft allows it.
    fn change_members(&mut self, id: u64, other: u64) {
        let Some(node) = &mut self.members.get_mut(&id).unwrap().node else {
            return;
        };
        let kind = if node.members().contains(other) {
            ConfChangeKind::UpdateNode
        } else {
            ConfChangeKind::AddNode
        };
        let _ = node.propose_conf_change(&ConfChange::new(kind, other, "again"));
        if self.rng.one_in(3) {
            let _ = node.transfer(other);
        }
        self.advance(id);
    }

    fn event(&mut self) {
        let id = self.rng.below(MEMBERS) + 1;
        let other = self.rng.below(MEMBERS) + 1;
        match self.rng.below(1000) {
            0..600 => (0..5).for_each(|_| self.deliver(true)),
            600..800 => self.tick(),
            800..950 => self.propose(id),
            950..965 => self.snapshot(id),
            965..975 => self.change_members(id, other),
            975..979 => self.cut = BTreeSet::from([id, other]),
            979..985 => self.cut.clear(),
            985..987 => self.crash(id),
            987..993 => self.reboot(),
            _ if self.members[&id].node.is_none() => self.start(id),
            _ => {}
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.is_calm = true;
        for id in 1..=MEMBERS {
            if self.members[&id].node.is_none() {
                self.start(id);
            }
        }
    }

    fn run_quietly(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.tick();
            for _ in 0..self.wire.len().max(20) {
                self.deliver(false);
            }
        }
    }
}

/// Gives the trace of all messages and how much was committed.
fn run(seed: u64) -> (u64, usize) {
    let mut chaos = Chaos::new(seed);
    for _ in 0..6_000 {
        chaos.event();
    }
    chaos.heal();
    chaos.run_quietly(150);
    let leads = |member: &Slow| member.node.as_ref().is_some_and(Node::is_leader);
    let leader = *chaos
        .members
        .iter()
        .find(|(_, member)| leads(member))
        .expect("a leader")
        .0;
    let node = chaos
        .members
        .get_mut(&leader)
        .unwrap()
        .node
        .as_mut()
        .unwrap();
    let at = node.propose(b"the end".into()).unwrap();
    chaos.run_quietly(20);
    for (id, member) in &chaos.members {
        let node = member.node.as_ref().unwrap();
        assert!(
            node.applied_index() >= at.index,
            "seed {seed}: {id} is behind: {node:?}"
        );
    }
    assert_eq!(chaos.committed[&at.index].1, b"the end");
    (chaos.trace, chaos.committed.len())
}

#[test]
fn members_agree_whatever_happens() {
    let mut committed = 0;
    for seed in 0..SEEDS {
        committed += run(seed).1;
    }
    let wanted = usize::try_from(SEEDS).unwrap() * 100;
    assert!(committed > wanted, "{committed} entries were committed");
}

#[test]
fn chaos_is_decided_by_its_seed() {
    assert_eq!(run(77), run(77));
    assert_ne!(run(77), run(78));
}

/// Enough for a push; `sim` hunts more.
const SEEDS: u64 = 20;
