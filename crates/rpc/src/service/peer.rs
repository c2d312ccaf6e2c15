//! What Skep's managers say to each other beyond SwarmKit's protocol.

use skep_model::Reachability;
use skep_wire::peer::{
    MemberState, MessagesAck, RaftMessage, ReadIndexRequest, ReadIndexResponse,
    member_state::Reachability as WireReachability, peer_server,
};
use tonic::{Request, Response, Status, Streaming, async_trait, codegen::BoxStream};

use crate::{
    convert::{no_leader, status_of_command},
    service::{
        handle,
        raft::{Sender, decode, step},
    },
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Peer;

#[async_trait]
impl peer_server::Peer for Peer {
    async fn messages(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<BoxStream<MessagesAck>>, Status> {
        let (sender, handle) = (Sender::of(&request)?, handle(&request)?);
        let mut messages = request.into_inner();
        // Reads while the answer is polled, so a dropped connection ends it.
        let end = async move {
            loop {
                let message = match messages.message().await {
                    Ok(Some(message)) => decode(message.message),
                    Ok(None) => return Status::aborted("the stream ended"),
                    Err(status) => return status,
                };
                let stepped = match message {
                    Ok(message) => step(&handle, &sender, message).await,
                    Err(status) => Err(status),
                };
                match stepped {
                    // One message that is out of place does not spoil the stream.
                    Ok(()) => {}
                    Err(status) if status.code() == tonic::Code::InvalidArgument => {}
                    Err(status) => return status,
                }
            }
        };
        let end = futures_util::stream::once(async move { Err(end.await) });
        Ok(Response::new(Box::pin(end)))
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexResponse>, Status> {
        let handle = handle(&request)?;
        let index = handle.read_index().map_err(status_of_command)?;
        let view = handle.view();
        if !view.is_leader {
            return Err(no_leader());
        }
        let group = &view.group;
        let members = group.members.values().map(|status| MemberState {
            raft_id: status.member.raft_id,
            node_id: status.member.node_id.to_string(),
            addr: status.member.addr.clone(),
            reachability: to_wire(status.reachability).into(),
        });
        Ok(Response::new(ReadIndexResponse {
            index,
            leader: group.own,
            members: members.collect(),
        }))
    }
}

fn to_wire(reachability: Reachability) -> WireReachability {
    match reachability {
        Reachability::Unknown => WireReachability::Unknown,
        Reachability::Unreachable => WireReachability::Unreachable,
        Reachability::Reachable => WireReachability::Reachable,
    }
}
