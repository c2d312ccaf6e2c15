//! Raft messages of other managers, as SwarmKit sends them: one per call, snapshots in chunks.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use skep_manager::{Handle, StepRefused};
use skep_model::NodeId;
use skep_raft::{Message, MessageKind};
use skep_wire::member::Member;
use skep_wire::proto::{
    ProcessRaftMessageRequest, ProcessRaftMessageResponse, ResolveAddressRequest,
    ResolveAddressResponse, StreamRaftMessageRequest, StreamRaftMessageResponse, raft_server,
};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::{
    limits::{ADDR_BYTES_MAX, CALL_TIMEOUT, SNAPSHOT_BYTES_MAX, SNAPSHOTS_MAX},
    service::{caller, handle},
};

/// SwarmKit's managers compare this text, and stop when they read it.
pub(crate) const REMOVED: &str = "raft: member was removed from the cluster";

/// Metadata of calls with raft messages: where the sender listens. A receiver whose log is behind may not know it, and be the vote
/// that is missing.
pub(crate) const SENDER_ADDR: &str = "skep-addr";

/// Who sends raft messages.
pub(super) struct Sender {
    node_id: NodeId,
    addr: Option<String>,
}

impl Sender {
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let addr = request.metadata().get(SENDER_ADDR);
        let addr = addr.and_then(|addr| addr.to_str().ok());
        Ok(Self {
            node_id: caller(request)?,
            addr: addr
                .filter(|addr| addr.len() <= ADDR_BYTES_MAX)
                .map(str::to_owned),
        })
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Raft {
    snapshots: Arc<Semaphore>,
}

impl Default for Raft {
    fn default() -> Self {
        Self {
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        }
    }
}

#[async_trait]
impl raft_server::Raft for Raft {
    async fn process_raft_message(
        &self,
        request: Request<ProcessRaftMessageRequest>,
    ) -> Result<Response<ProcessRaftMessageResponse>, Status> {
        let (sender, handle) = (Sender::of(&request)?, handle(&request)?);
        let message = decode(request.into_inner().message)?;
        step(&handle, &sender, message).await?;
        Ok(Response::new(ProcessRaftMessageResponse {}))
    }

    async fn stream_raft_message(
        &self,
        request: Request<Streaming<StreamRaftMessageRequest>>,
    ) -> Result<Response<StreamRaftMessageResponse>, Status> {
        let (sender, handle) = (Sender::of(&request)?, handle(&request)?);
        let mut chunks = request.into_inner();
        let first = next(&mut chunks).await?;
        let first = first.ok_or_else(|| Status::invalid_argument("no message received"))?;
        let is_snapshot = first.kind == MessageKind::Snapshot as i32;
        let message = if is_snapshot {
            let permit = self.snapshots.try_acquire();
            let permit = permit
                .map_err(|_| Status::resource_exhausted("too many snapshots are under way"))?;
            check_sender(&handle, &sender, &first)?;
            let message = assemble(first, &mut chunks, SNAPSHOT_BYTES_MAX).await?;
            drop(permit);
            message
        } else {
            first
        };
        step(&handle, &sender, message).await?;
        Ok(Response::new(StreamRaftMessageResponse {}))
    }

    async fn resolve_address(
        &self,
        request: Request<ResolveAddressRequest>,
    ) -> Result<Response<ResolveAddressResponse>, Status> {
        let group = handle(&request)?.group();
        let raft_id = request.into_inner().raft_id;
        let group = group.borrow();
        let member = group.members.get(&raft_id);
        let member = member.ok_or_else(|| Status::not_found("member unknown"))?;
        let addr = member.member.addr.clone();
        Ok(Response::new(ResolveAddressResponse { addr }))
    }
}

/// The message in `bytes`.
pub(super) fn decode(bytes: Vec<u8>) -> Result<Message, Status> {
    Message::decode(Bytes::from(bytes))
        .map_err(|_| Status::invalid_argument("malformed raft message"))
}

/// Gives a message to the manager, if its sender may have sent it.
pub(super) async fn step(handle: &Handle, sender: &Sender, message: Message) -> Result<(), Status> {
    check_sender(handle, sender, &message)?;
    match handle.step(message).await {
        Ok(()) => Ok(()),
        Err(StepRefused::SenderRemoved) => Err(Status::not_found(REMOVED)),
        Err(refused @ StepRefused::Inadmissible) => {
            Err(Status::invalid_argument(refused.to_string()))
        }
        Err(refused @ StepRefused::Stopped) => Err(Status::unavailable(refused.to_string())),
    }
}

/// A manager sends raft messages of its own member only. A member not known yet may be new; raft judges what it says.
fn check_sender(handle: &Handle, sender: &Sender, message: &Message) -> Result<(), Status> {
    let group = handle.group();
    let group = group.borrow();
    if group.removed.contains(&message.from) {
        return Err(Status::not_found(REMOVED));
    }
    match (group.members.get(&message.from), &sender.addr) {
        (Some(known), _) if known.member.node_id != sender.node_id => {
            return Err(Status::permission_denied("message of another member"));
        }
        (None, Some(addr)) => handle.contact(Member {
            raft_id: message.from,
            node_id: sender.node_id,
            addr: addr.clone(),
        }),
        (Some(_), _) | (None, None) => {}
    }
    Ok(())
}

async fn next(chunks: &mut Streaming<StreamRaftMessageRequest>) -> Result<Option<Message>, Status> {
    let chunk = timeout(CALL_TIMEOUT, chunks.message()).await;
    let chunk = chunk.map_err(|_| Status::deadline_exceeded("no message in time"))??;
    chunk.map(|chunk| decode(chunk.message)).transpose()
}

/// The snapshot whose chunks begin with `first`. Each repeats the message around its piece of the data.
async fn assemble(
    mut first: Message,
    chunks: &mut Streaming<StreamRaftMessageRequest>,
    bytes_max: usize,
) -> Result<Message, Status> {
    let Some(second) = next(chunks).await? else {
        return Ok(first);
    };
    let malformed = || Status::invalid_argument("chunks of different messages");
    let whole = first.snapshot.as_mut().ok_or_else(malformed)?;
    let mut data = BytesMut::from(&*whole.data);
    let mut chunk = Some(second);
    while let Some(message) = chunk {
        let piece = message.snapshot.ok_or_else(malformed)?;
        if message.kind != first.kind || piece.metadata != whole.metadata {
            return Err(malformed());
        }
        if data.len() + piece.data.len() > bytes_max {
            return Err(Status::resource_exhausted("snapshot is too large"));
        }
        data.extend_from_slice(&piece.data);
        chunk = next(chunks).await?;
    }
    whole.data = data.freeze();
    Ok(first)
}
