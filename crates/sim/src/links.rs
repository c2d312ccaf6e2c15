//! Which machines reach which, and what becomes of messages between managers.
//!
//! Messages between managers travel on their own: each may be lost, late, doubled or overtaken.
//! Real ones go over gRPC streams, which lose less; raft must bear all of it.

use std::{collections::BTreeSet, time::Duration};

use skep_model::Rng;
use skep_raft::{Message, MessageKind};

use crate::{
    event::{AgentIndex, Event, ManagerIndex, PeerNews},
    profile::{Profile, span},
    queue::Queue,
};

/// When at the latest a sender learns that a message could not be delivered.
const NEWS_MAX: Duration = Duration::from_secs(5);
/// When at the latest the others learn that a manager's process is gone, if they do at all.
const RESET_MAX: Duration = Duration::from_millis(80);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Links {
    rng: Rng,
    /// Machines that reach nobody and that nobody reaches.
    isolated: BTreeSet<AgentIndex>,
    /// Pairs of which the first does not reach the second.
    blocked: BTreeSet<(AgentIndex, AgentIndex)>,
    delay_max: Duration,
    /// Messages in a thousand that are lost.
    drops: u64,
    /// Messages in a hundred that arrive twice.
    repeats: u64,
}

impl Links {
    /// Links as `profile` has them.
    pub(crate) fn new(rng: Rng, profile: &Profile) -> Self {
        Self {
            rng,
            isolated: BTreeSet::new(),
            blocked: BTreeSet::new(),
            delay_max: profile.peer_delay_max,
            drops: profile.drops,
            repeats: profile.repeats,
        }
    }

    /// Everything arrives, and soon.
    pub(crate) fn calm(&mut self) {
        self.isolated.clear();
        self.blocked.clear();
        self.drops = 0;
        self.repeats = 0;
        self.delay_max = self.delay_max.min(Duration::from_millis(20));
    }

    /// Begins or ends the isolation of a machine.
    pub(crate) fn isolate(&mut self, machine: AgentIndex, is_isolated: bool) {
        if is_isolated {
            self.isolated.insert(machine);
        } else {
            self.isolated.remove(&machine);
        }
    }

    /// Begins or ends the loss of everything from one machine to another.
    pub(crate) fn block(&mut self, pair: (AgentIndex, AgentIndex), is_blocked: bool) {
        if is_blocked {
            self.blocked.insert(pair);
        } else {
            self.blocked.remove(&pair);
        }
    }

    /// Whether what one machine sends reaches the other.
    pub(crate) fn is_open(&self, from: AgentIndex, to: AgentIndex) -> bool {
        from == to
            || !self.isolated.contains(&from)
                && !self.isolated.contains(&to)
                && !self.blocked.contains(&(from, to))
    }

    /// Whether two machines can keep up a connection.
    pub(crate) fn is_connected(&self, one: AgentIndex, other: AgentIndex) -> bool {
        self.is_open(one, other) && self.is_open(other, one)
    }

    /// How long a request of one machine to another takes; none when it does not arrive.
    pub(crate) fn request(&mut self, from: AgentIndex, to: AgentIndex) -> Option<Duration> {
        let is_lost = self.rng.below(1000) < self.drops || !self.is_connected(from, to);
        let delay = span(&mut self.rng, self.delay_max);
        (!is_lost).then_some(delay)
    }

    /// Sends a raft message.
    pub(crate) fn send(
        &mut self,
        queue: &mut Queue,
        from: ManagerIndex,
        to: ManagerIndex,
        message: Message,
    ) {
        let raft_id = message.to;
        let is_snapshot = message.kind == MessageKind::Snapshot as i32;
        let mut news = |rng: &mut Rng, news: PeerNews| {
            let delay = span(rng, NEWS_MAX);
            let event = Event::PeerNews {
                manager: from,
                raft_id,
                news,
            };
            queue.after(delay, event);
        };
        let is_lost = self.rng.below(1000) < self.drops || !self.is_open(from, to);
        if is_lost {
            if is_snapshot {
                news(&mut self.rng, PeerNews::Snapshot(false));
            } else if self.rng.percent(30) {
                news(&mut self.rng, PeerNews::Unreachable);
            }
            return;
        }
        if is_snapshot {
            let is_known = self.is_open(to, from);
            news(&mut self.rng, PeerNews::Snapshot(is_known));
        }
        let count = 1 + u64::from(self.rng.percent(self.repeats));
        for _ in 0..count {
            let delay = span(&mut self.rng, self.delay_max);
            let message = Box::new(message.clone());
            queue.after(delay, Event::Raft { from, to, message });
        }
    }

    /// The process of a manager is gone: its connections are reset, as far as the others hear it.
    pub(crate) fn reset(
        &mut self,
        queue: &mut Queue,
        (gone, raft_id): (ManagerIndex, u64),
        others: impl Iterator<Item = ManagerIndex>,
    ) {
        for manager in others {
            if self.is_open(gone, manager) && self.rng.percent(70) {
                let delay = span(&mut self.rng, RESET_MAX);
                let event = Event::PeerNews {
                    manager,
                    raft_id,
                    news: PeerNews::Lost,
                };
                queue.after(delay, event);
            }
        }
    }
}
