//! Elections that do not wait for the timeout: alone, or after the leader's connection was reset.
//!
//! A leader that dies by a signal has its connections reset by its kernel, long before raft's timeout.
//! Each follower that sees it asks for votes after a short, random pause. Nothing is risked: pre-vote
//! lets nobody raise the term who would not win, and those who still hear of the leader refuse.

use std::time::Duration;

use skep_model::{Rng, Timestamp};
use skep_raft::{Message, MessageKind};

use super::{Output, Replica};

/// Shortest pause: the other followers must have noticed the reset, too, or they refuse.
const PAUSE_MIN: Duration = Duration::from_millis(15);
/// Spread of the pause, so that followers seldom ask at the same moment.
const PAUSE_SPREAD_MILLIS: u64 = 60;
/// Attempts before the ordinary election timeout takes over (raft-rs' own pace is one a second).
const ATTEMPTS_MAX: u32 = 12;

/// How long a member that is not yet a voter by its own log waits for a leader before it asks the
/// others whether it is a member still.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Elections {
    /// When a member without a log asks again.
    probe_at: Option<Timestamp>,
    campaign_at: Option<Timestamp>,
    attempts: u32,
    /// The leader whose connection was reset.
    lost: Option<u64>,
}

impl Elections {
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.campaign_at
    }

    /// The leader's connection was reset.
    pub(super) fn leader_lost(&mut self, now: Timestamp, leader: u64, rng: &mut Rng) {
        if self.campaign_at.is_none() {
            self.attempts = 0;
            self.lost = Some(leader);
            self.schedule(now, rng);
        }
    }

    fn schedule(&mut self, now: Timestamp, rng: &mut Rng) {
        self.attempts += 1;
        let spread = Duration::from_millis(rng.below(PAUSE_SPREAD_MILLIS));
        self.campaign_at = (self.attempts <= ATTEMPTS_MAX).then(|| now + PAUSE_MIN + spread);
    }

    /// `leader` leads. Before the first attempt raft still names the lost one.
    pub(super) fn leader_found(&mut self, leader: u64) {
        if self.attempts > 1 || self.lost != Some(leader) {
            self.campaign_at = None;
        }
    }
}

impl Replica {
    /// A group of one need not wait for an election timeout. Called once after the start.
    pub fn campaign_alone(&mut self, out: &mut Vec<Output>) {
        // What is stored must be taken up first: it tells who the members are.
        self.progress(self.now, out);
        let is_alone = self.node.members().voters == [self.raft_config.id];
        if is_alone && let Err(error) = self.node.campaign() {
            tracing::warn!(error = %error, "Failed to campaign");
        }
    }

    /// A member that was removed before it got its first entry would wait for a leader for ever: it
    /// does not campaign, so nobody tells it. Anything it sends makes a member say so.
    pub(super) fn probe_if_forgotten(&mut self, out: &mut Vec<Output>) {
        let own = self.raft_config.id;
        let is_voter = self.node.members().voters.contains(&own);
        if is_voter || self.node.leader().is_some() {
            self.elections.probe_at = None;
            return;
        }
        let due = *self
            .elections
            .probe_at
            .get_or_insert(self.now + SILENCE_MAX);
        if self.now < due {
            return;
        }
        self.elections.probe_at = Some(self.now + SILENCE_MAX);
        let others = self.group.members.values().map(|status| &status.member);
        for to in others.filter(|member| member.raft_id != own) {
            // To a leader it says that this member is there; all others ignore it.
            let message = Message {
                kind: MessageKind::HeartbeatResponse as i32,
                to: to.raft_id,
                from: own,
                term: self.node.term().max(1),
                ..Message::default()
            };
            let to = to.clone();
            out.push(Output::Message { to, message });
        }
    }

    /// Asks for votes when the pause after the leader's loss is over.
    pub(super) fn campaign_if_due(&mut self) {
        let now = self.now;
        if self
            .elections
            .campaign_at
            .take_if(|at| *at <= now)
            .is_none()
        {
            return;
        }
        if self.node.is_leader() {
            return;
        }
        if self.is_writing {
            // A vote would wait for the write anyway.
            self.elections.schedule(now, &mut self.rng);
            return;
        }
        if let Err(error) = self.node.campaign() {
            tracing::debug!(error = %error, "Cannot campaign");
            self.elections.campaign_at = None;
            return;
        }
        self.elections.schedule(now, &mut self.rng);
    }
}
