//! Members of the raft group: `RaftMember`, the context of every change of membership.

use prost::Message;
use skep_model::NodeId;

use crate::{
    convert::{At, id},
    error::Error,
    proto,
};

/// One member of the raft group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its raft id, never used twice.
    pub raft_id: u64,
    /// The node it is.
    pub node_id: NodeId,
    /// Where it listens, `host:port`.
    pub addr: String,
}

/// The bytes of `member`.
pub fn encode_member(member: &Member) -> Vec<u8> {
    proto::RaftMember::from(member).encode_to_vec()
}

/// The member `bytes` encode.
pub fn decode_member(bytes: &[u8]) -> Result<Member, Error> {
    proto::RaftMember::decode(bytes)?.try_into()
}

impl From<&Member> for proto::RaftMember {
    fn from(value: &Member) -> Self {
        Self {
            raft_id: value.raft_id,
            node_id: value.node_id.to_string(),
            addr: value.addr.clone(),
            status: Some(proto::RaftMemberStatus::default()),
        }
    }
}

impl TryFrom<proto::RaftMember> for Member {
    type Error = Error;

    /// The status is a passing observation of whoever wrote it and is not kept.
    fn try_from(value: proto::RaftMember) -> Result<Self, Error> {
        Ok(Self {
            raft_id: value.raft_id,
            node_id: id(&value.node_id).at("node_id")?,
            addr: value.addr,
        })
    }
}
