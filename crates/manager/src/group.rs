//! The raft group as this manager knows it: members with their addresses, former members, leader.
//!
//! Membership follows from the log alone (changes of membership carry the member, snapshots the
//! whole list); reachability is what the leader observes and is not replicated.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{NodeId, Reachability};
use skep_raft::{ConfChange, ConfChangeKind};
use skep_wire::{
    member::{Member, decode_member},
    snapshot::Membership,
};

/// One member and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who and where.
    pub member: Member,
    /// Whether the leader hears of it; unknown on followers, but for the leader.
    pub reachability: Reachability,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// This manager's raft id.
    pub own: u64,
    /// The leader's raft id, while one is known.
    pub leader: Option<u64>,
    /// All members by raft id.
    pub members: BTreeMap<u64, MemberStatus>,
    /// Raft ids of former members; none is used again.
    pub removed: BTreeSet<u64>,
}

impl Group {
    /// A group of which only `members` are known yet.
    pub fn new(own: u64, members: Vec<Member>) -> Self {
        let mut group = Self {
            own,
            ..Self::default()
        };
        for member in members {
            group.insert(member);
        }
        group
    }

    /// The leader, while one is known.
    pub fn leader(&self) -> Option<&MemberStatus> {
        self.members.get(&self.leader?)
    }

    /// Whether this manager leads.
    pub fn is_led_by_own(&self) -> bool {
        self.leader == Some(self.own)
    }

    /// The member that runs on a node.
    pub fn by_node(&self, node_id: NodeId) -> Option<&MemberStatus> {
        self.members
            .values()
            .find(|status| status.member.node_id == node_id)
    }

    /// Members without their state.
    pub fn list(&self) -> Vec<Member> {
        self.members
            .values()
            .map(|status| status.member.clone())
            .collect()
    }

    /// Whether the members that remain reachable without `raft_id` are a quorum of those that
    /// remain (SwarmKit's `CanRemoveMember`).
    pub fn is_quorate_without(&self, raft_id: u64) -> bool {
        let remaining = || self.members.iter().filter(|(id, _)| **id != raft_id);
        let reachable = remaining()
            .filter(|(id, status)| {
                **id == self.own || status.reachability == Reachability::Reachable
            })
            .count();
        let count = remaining().count();
        count > 0 && reachable > count / 2
    }

    /// Takes up a committed change of membership; false when it changes nothing.
    pub(crate) fn apply(&mut self, change: &ConfChange) -> bool {
        let id = change.node_id;
        match change.kind() {
            ConfChangeKind::RemoveNode => {
                let is_news = self.removed.insert(id);
                self.members.remove(&id).is_some() || is_news
            }
            ConfChangeKind::AddNode
            | ConfChangeKind::UpdateNode
            | ConfChangeKind::AddLearnerNode => match decode_member(&change.context) {
                Ok(member) if member.raft_id == id => self.insert(member),
                Ok(_) | Err(_) => false,
            },
        }
    }

    /// Replaces the membership by a snapshot's.
    pub(crate) fn restore(&mut self, membership: Membership) {
        let old = std::mem::take(&mut self.members);
        self.removed = membership.removed.into_iter().collect();
        for member in membership.members {
            let id = member.raft_id;
            self.insert(member);
            if let (Some(new), Some(old)) = (self.members.get_mut(&id), old.get(&id)) {
                new.reachability = old.reachability;
            }
        }
    }

    /// What a snapshot tells of the group.
    pub(crate) fn membership(&self) -> Membership {
        Membership {
            members: self.list(),
            removed: self.removed.iter().copied().collect(),
        }
    }

    fn insert(&mut self, member: Member) -> bool {
        if self.removed.contains(&member.raft_id) {
            return false;
        }
        let id = member.raft_id;
        let reachability = self
            .members
            .get(&id)
            .map_or(Reachability::Unknown, |old| old.reachability);
        let status = MemberStatus {
            member,
            reachability,
        };
        self.members.insert(id, status.clone()).as_ref() != Some(&status)
    }
}

#[cfg(test)]
mod tests {
    use skep_model::Rng;
    use skep_wire::member::encode_member;

    use super::*;

    fn member(raft_id: u64) -> Member {
        Member {
            raft_id,
            node_id: NodeId::random(&mut Rng::from_seed(raft_id)),
            addr: format!("192.0.2.{raft_id}:2377"),
        }
    }

    fn group(count: u64, reachable: u64) -> Group {
        let mut group = Group::new(1, (1..=count).map(member).collect());
        for (id, status) in &mut group.members {
            if *id <= reachable {
                status.reachability = Reachability::Reachable;
            }
        }
        group
    }

    #[test]
    fn a_member_leaves_only_if_the_rest_stays_a_quorum() {
        assert!(group(3, 3).is_quorate_without(3));
        assert!(!group(3, 2).is_quorate_without(2), "1 of 2 is left");
        assert!(
            group(3, 2).is_quorate_without(3),
            "the lost one is the one removed"
        );
        assert!(group(2, 2).is_quorate_without(2));
        assert!(!group(1, 1).is_quorate_without(1));
    }

    #[test]
    fn changes_of_membership_are_followed_and_removed_ids_stay_removed() {
        let mut group = group(1, 1);
        let add = |id| ConfChange::new(ConfChangeKind::AddNode, id, encode_member(&member(id)));
        assert!(group.apply(&add(2)));
        assert!(!group.apply(&add(2)), "replayed");
        let moved = Member {
            addr: "192.0.2.99:1".to_owned(),
            ..member(2)
        };
        let update = ConfChange::new(ConfChangeKind::UpdateNode, 2, encode_member(&moved));
        assert!(group.apply(&update));
        assert_eq!(group.by_node(moved.node_id).unwrap().member, moved);
        assert!(group.apply(&ConfChange::new(ConfChangeKind::RemoveNode, 2, Vec::new())));
        assert!(!group.apply(&add(2)), "a removed id never returns");
        assert_eq!(group.membership().removed, [2]);
    }

    #[test]
    fn a_snapshot_replaces_members_and_keeps_what_is_known_of_them() {
        let mut group = group(2, 2);
        group.restore(Membership {
            members: vec![member(2), member(3)],
            removed: vec![1],
        });
        assert_eq!(group.members.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(group.members[&2].reachability, Reachability::Reachable);
        assert_eq!(group.members[&3].reachability, Reachability::Unknown);
    }

    #[test]
    fn a_malformed_member_is_ignored() {
        let mut group = group(1, 1);
        let change = ConfChange::new(ConfChangeKind::AddNode, 5, vec![0xff, 0xff]);
        assert!(!group.apply(&change));
        let other = ConfChange::new(ConfChangeKind::AddNode, 5, encode_member(&member(6)));
        assert!(!group.apply(&other));
    }
}
