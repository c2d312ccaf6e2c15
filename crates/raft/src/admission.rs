//! Which messages of peers may reach raft-rs. It aborts on messages no correct member sends; a broken or hostile member
//! must not be able to stop us with one.

use crate::{
    entry::{Entry, EntryKind},
    message::{Message, MessageKind},
};

/// Terms and indexes above are refused: nothing honest gets there, and sums with them cannot overflow.
const NUMBER_MAX: u64 = u64::MAX / 4;

/// Why a message of a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inadmissible {
    /// It is addressed to another member, or has no sender.
    #[error("message is not between a peer and this member")]
    Address,
    /// Only a member itself may use this kind, or the kind is unknown.
    #[error("message kind `{0}` is not accepted from a peer")]
    Kind(i32),
    /// A term or an index is out of bounds.
    #[error("message has an impossible term or index")]
    Number,
    /// The entries are not a contiguous run of well-formed entries with sensible terms.
    #[error("message has malformed entries")]
    Entries,
    /// It says that entries are committed, or acknowledged, which this member does not have.
    #[error("message refers to entry `{index}` beyond the last one, `{last}`")]
    BeyondLog {
        /// The index it refers to.
        index: u64,
        /// Our last index.
        last: u64,
    },
    /// The snapshot is missing or has an impossible position or membership.
    #[error("message has a malformed snapshot")]
    Snapshot,
}

/// What must be known of the receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    pub(crate) id: u64,
    pub(crate) term: u64,
    pub(crate) last_index: u64,
}

/// Checks a message of a peer and says what kind it is.
pub(crate) fn admit(message: &Message, to: Receiver) -> Result<MessageKind, Inadmissible> {
    if message.to != to.id || message.from == to.id || message.from == 0 {
        return Err(Inadmissible::Address);
    }
    let kind = MessageKind::try_from(message.kind).map_err(|_| Inadmissible::Kind(message.kind))?;
    // raft-rs takes term 0 for "from myself".
    let numbers = [
        message.term,
        message.index,
        message.log_term,
        message.commit,
        message.reject_hint,
    ];
    if message.term == 0 || numbers.iter().any(|&number| number > NUMBER_MAX) {
        return Err(Inadmissible::Number);
    }
    match kind {
        MessageKind::Append => check_entries(message)?,
        MessageKind::Snapshot => check_snapshot(message)?,
        MessageKind::Heartbeat if message.term >= to.term => {
            check_known(message.commit, to.last_index)?;
        }
        MessageKind::AppendResponse if message.term == to.term && !message.reject => {
            check_known(message.index, to.last_index)?;
        }
        MessageKind::Heartbeat
        | MessageKind::AppendResponse
        | MessageKind::HeartbeatResponse
        | MessageKind::RequestVote
        | MessageKind::RequestVoteResponse
        | MessageKind::RequestPreVote
        | MessageKind::RequestPreVoteResponse
        | MessageKind::TimeoutNow => {}
        MessageKind::Hup
        | MessageKind::Beat
        | MessageKind::Propose
        | MessageKind::Unreachable
        | MessageKind::SnapStatus
        | MessageKind::CheckQuorum
        | MessageKind::TransferLeader
        | MessageKind::ReadIndex
        | MessageKind::ReadIndexResponse => return Err(Inadmissible::Kind(message.kind)),
    }
    Ok(kind)
}

/// Whether `entry` can stand in a log: a known kind, and a membership change that decodes.
pub(crate) fn is_well_formed(entry: &Entry) -> bool {
    match EntryKind::try_from(entry.kind) {
        Ok(EntryKind::Normal) => true,
        Ok(EntryKind::ConfChange) => entry.conf_change().is_some(),
        Ok(EntryKind::ConfChangeV2) | Err(_) => false,
    }
}

fn check_known(index: u64, last: u64) -> Result<(), Inadmissible> {
    if index > last {
        Err(Inadmissible::BeyondLog { index, last })
    } else {
        Ok(())
    }
}

fn check_entries(message: &Message) -> Result<(), Inadmissible> {
    let (mut index, mut term) = (message.index, message.log_term);
    // raft-rs finds term 0 beyond its log, and would take such entries for the next ones.
    if (index == 0) != (term == 0) {
        return Err(Inadmissible::Entries);
    }
    for entry in &message.entries {
        index += 1;
        let fits = entry.index == index && entry.term >= term && entry.term <= message.term;
        if !fits || !is_well_formed(entry) {
            return Err(Inadmissible::Entries);
        }
        term = entry.term;
    }
    Ok(())
}

fn check_snapshot(message: &Message) -> Result<(), Inadmissible> {
    let snapshot = message.snapshot.as_ref().ok_or(Inadmissible::Snapshot)?;
    let at = &snapshot.metadata;
    let sane = at.index != 0
        && at.index <= NUMBER_MAX
        && at.term != 0
        && at.term <= message.term
        && at.conf_state.is_simple()
        && !at.conf_state.voters.is_empty();
    if sane {
        Ok(())
    } else {
        Err(Inadmissible::Snapshot)
    }
}
