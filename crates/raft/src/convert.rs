//! Between our messages and raft-rs's, in memory. raft-rs's own codec is never used.

use raft::eraftpb;

use crate::{
    conf_change::{ConfChange, ConfChangeKind},
    entry::{Entry, EntryKind, HardState},
    message::{Message, MessageKind},
    snapshot::{ConfState, Snapshot, SnapshotMetadata},
};

pub(crate) fn entry_to_raft(entry: Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::default();
    out.set_entry_type(match entry.kind() {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => eraftpb::EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    });
    out.term = entry.term;
    out.index = entry.index;
    out.data = entry.data;
    out
}

pub(crate) fn entry_from_raft(entry: &eraftpb::Entry) -> Entry {
    let kind = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => EntryKind::Normal,
        eraftpb::EntryType::EntryConfChange => EntryKind::ConfChange,
        eraftpb::EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
    };
    Entry {
        kind: kind as i32,
        term: entry.term,
        index: entry.index,
        data: entry.data.clone(),
    }
}

pub(crate) fn hard_state_to_raft(state: HardState) -> eraftpb::HardState {
    let mut out = eraftpb::HardState::default();
    (out.term, out.vote, out.commit) = (state.term, state.vote, state.commit);
    out
}

pub(crate) fn hard_state_from_raft(state: &eraftpb::HardState) -> HardState {
    HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
    }
}

pub(crate) fn conf_state_to_raft(state: &ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState::from((state.voters.clone(), state.learners.clone()))
}

pub(crate) fn conf_state_from_raft(state: &eraftpb::ConfState) -> ConfState {
    let (mut voters, mut learners) = (state.voters.clone(), state.learners.clone());
    voters.sort_unstable();
    learners.sort_unstable();
    ConfState {
        voters,
        learners,
        ..ConfState::default()
    }
}

pub(crate) fn snapshot_to_raft(snapshot: Snapshot) -> eraftpb::Snapshot {
    let mut out = eraftpb::Snapshot {
        data: snapshot.data,
        ..eraftpb::Snapshot::default()
    };
    let metadata = out.mut_metadata();
    metadata.index = snapshot.metadata.index;
    metadata.term = snapshot.metadata.term;
    metadata.set_conf_state(conf_state_to_raft(&snapshot.metadata.conf_state));
    out
}

pub(crate) fn snapshot_from_raft(snapshot: &eraftpb::Snapshot) -> Snapshot {
    let metadata = snapshot.get_metadata();
    Snapshot {
        data: snapshot.data.clone(),
        metadata: SnapshotMetadata {
            conf_state: conf_state_from_raft(metadata.get_conf_state()),
            index: metadata.index,
            term: metadata.term,
        },
    }
}

/// The change as raft-rs numbers it; `None` for an update, which is not its business.
pub(crate) fn conf_change_to_raft(change: &ConfChange) -> Option<eraftpb::ConfChange> {
    let kind = match change.kind() {
        ConfChangeKind::AddNode => eraftpb::ConfChangeType::AddNode,
        ConfChangeKind::RemoveNode => eraftpb::ConfChangeType::RemoveNode,
        ConfChangeKind::AddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        ConfChangeKind::UpdateNode => return None,
    };
    let mut out = eraftpb::ConfChange::default();
    out.set_change_type(kind);
    out.node_id = change.node_id;
    Some(out)
}

pub(crate) fn message_to_raft(message: Message, kind: MessageKind) -> eraftpb::Message {
    let mut out = eraftpb::Message::default();
    out.set_msg_type(kind_to_raft(kind));
    out.to = message.to;
    out.from = message.from;
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    out.entries = message
        .entries
        .into_iter()
        .map(entry_to_raft)
        .collect::<Vec<_>>()
        .into();
    out.commit = message.commit;
    if let Some(snapshot) = message.snapshot {
        out.set_snapshot(snapshot_to_raft(snapshot));
    }
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context;
    out
}

pub(crate) fn message_from_raft(message: &eraftpb::Message) -> Message {
    Message {
        kind: kind_from_raft(message.get_msg_type()) as i32,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(entry_from_raft).collect(),
        commit: message.commit,
        snapshot: message.snapshot.as_ref().map(snapshot_from_raft),
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.clone(),
    }
}

fn kind_to_raft(kind: MessageKind) -> eraftpb::MessageType {
    use raft::eraftpb::MessageType as Out;
    match kind {
        MessageKind::Hup => Out::MsgHup,
        MessageKind::Beat => Out::MsgBeat,
        MessageKind::Propose => Out::MsgPropose,
        MessageKind::Append => Out::MsgAppend,
        MessageKind::AppendResponse => Out::MsgAppendResponse,
        MessageKind::RequestVote => Out::MsgRequestVote,
        MessageKind::RequestVoteResponse => Out::MsgRequestVoteResponse,
        MessageKind::Snapshot => Out::MsgSnapshot,
        MessageKind::Heartbeat => Out::MsgHeartbeat,
        MessageKind::HeartbeatResponse => Out::MsgHeartbeatResponse,
        MessageKind::Unreachable => Out::MsgUnreachable,
        MessageKind::SnapStatus => Out::MsgSnapStatus,
        MessageKind::CheckQuorum => Out::MsgCheckQuorum,
        MessageKind::TransferLeader => Out::MsgTransferLeader,
        MessageKind::TimeoutNow => Out::MsgTimeoutNow,
        MessageKind::ReadIndex => Out::MsgReadIndex,
        MessageKind::ReadIndexResponse => Out::MsgReadIndexResp,
        MessageKind::RequestPreVote => Out::MsgRequestPreVote,
        MessageKind::RequestPreVoteResponse => Out::MsgRequestPreVoteResponse,
    }
}

fn kind_from_raft(kind: eraftpb::MessageType) -> MessageKind {
    use raft::eraftpb::MessageType as In;
    match kind {
        In::MsgHup => MessageKind::Hup,
        In::MsgBeat => MessageKind::Beat,
        In::MsgPropose => MessageKind::Propose,
        In::MsgAppend => MessageKind::Append,
        In::MsgAppendResponse => MessageKind::AppendResponse,
        In::MsgRequestVote => MessageKind::RequestVote,
        In::MsgRequestVoteResponse => MessageKind::RequestVoteResponse,
        In::MsgSnapshot => MessageKind::Snapshot,
        In::MsgHeartbeat => MessageKind::Heartbeat,
        In::MsgHeartbeatResponse => MessageKind::HeartbeatResponse,
        In::MsgUnreachable => MessageKind::Unreachable,
        In::MsgSnapStatus => MessageKind::SnapStatus,
        In::MsgCheckQuorum => MessageKind::CheckQuorum,
        In::MsgTransferLeader => MessageKind::TransferLeader,
        In::MsgTimeoutNow => MessageKind::TimeoutNow,
        In::MsgReadIndex => MessageKind::ReadIndex,
        In::MsgReadIndexResp => MessageKind::ReadIndexResponse,
        In::MsgRequestPreVote => MessageKind::RequestPreVote,
        In::MsgRequestPreVoteResponse => MessageKind::RequestPreVoteResponse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_kind_survives_the_round_trip() {
        for number in 0..=18 {
            let kind = MessageKind::try_from(number).unwrap();
            assert_eq!(kind_from_raft(kind_to_raft(kind)), kind);
        }
    }

    #[test]
    fn an_update_never_reaches_raft() {
        let update = ConfChange::new(ConfChangeKind::UpdateNode, 7, "addr");
        assert_eq!(conf_change_to_raft(&update), None);
        let learner = ConfChange::new(ConfChangeKind::AddLearnerNode, 7, "");
        let learner = conf_change_to_raft(&learner).unwrap();
        assert_eq!(
            learner.get_change_type(),
            eraftpb::ConfChangeType::AddLearnerNode
        );
    }
}
