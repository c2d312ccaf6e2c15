//! The way to one peer: dials, keeps a stream, dials again.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use skep_manager::Handle;
use skep_raft::{Message, MessageKind};
use skep_wire::{
    member::Member,
    peer::{MessagesAck, RaftMessage, peer_client::PeerClient},
    proto::{StreamRaftMessageRequest, raft_client::RaftClient},
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use crate::{
    connection::{Connection, DialError},
    convert::is_not_executed,
    error::ErrorChain,
    limits::{PEER_BACKOFF, PEER_IDLE, RAFT_CALL_TIMEOUT, REQUEST_BYTES_MAX, STREAM_QUEUE},
    security::Security,
    service::{REMOVED, SENDER_ADDR},
    transport::{dropped, snapshot},
};

/// One peer's link. Its task ends when its queue does, or when nothing was sent for long.
pub(super) struct Link {
    handle: Handle,
    security: Arc<Security>,
    member: Member,
    queue: mpsc::Receiver<Message>,
    /// This node's identity: a new one needs a new connection.
    identity: watch::Receiver<u64>,
    /// Snapshots under way; at most one.
    snapshots: JoinSet<()>,
    /// Whether the last attempt failed, so that each outage is logged once.
    is_down: bool,
}

/// Why a connection is given up.
enum End {
    /// Nothing more is to be sent.
    Idle,
    /// This node has a new identity.
    Renewed,
    /// The peer does not know the stream.
    NoStream,
    /// The peer listens, and its manager does not run yet.
    NotReady,
    /// The connection or the stream broke.
    Lost(String),
}

impl Link {
    pub(super) fn new(
        handle: Handle,
        security: Arc<Security>,
        member: Member,
        queue: mpsc::Receiver<Message>,
    ) -> Self {
        let identity = security.changes();
        Self {
            handle,
            security,
            member,
            queue,
            identity,
            snapshots: JoinSet::new(),
            is_down: false,
        }
    }

    pub(super) async fn run(mut self) {
        let (shortest, longest) = PEER_BACKOFF;
        let mut wait = shortest;
        loop {
            self.identity.mark_unchanged();
            let end = match self.dial().await {
                Ok(connection) => {
                    self.up();
                    wait = shortest;
                    match self.stream(&connection).await {
                        End::NoStream => self.call_each(&connection).await,
                        end => end,
                    }
                }
                Err(error) => {
                    if error.is_refused() {
                        self.handle.peer_lost(self.member.raft_id);
                    }
                    self.down(&ErrorChain(&error).to_string());
                    if self.rest(wait).await.is_err() {
                        return;
                    }
                    wait = (wait * 2).min(longest);
                    continue;
                }
            };
            match end {
                End::Idle => return,
                End::Renewed | End::NoStream => {}
                End::NotReady => {
                    self.handle.report_unreachable(self.member.raft_id);
                    if self.rest(wait).await.is_err() {
                        return;
                    }
                }
                End::Lost(reason) => {
                    self.handle.peer_lost(self.member.raft_id);
                    self.down(&reason);
                    if self.rest(shortest).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn dial(&self) -> Result<Connection, DialError> {
        let addr = &self.member.addr;
        let identity = self.security.current();
        let connection = Connection::dial(identity.target(addr)?).await?;
        let node_id = connection.peer().map(|peer| peer.subject.node_id);
        if node_id != Some(self.member.node_id) {
            let source = std::io::Error::other("another node answers at this address");
            let addr = addr.clone();
            return Err(DialError::Connect { addr, source });
        }
        Ok(connection)
    }

    /// Sends what comes over one stream, until something ends it.
    async fn stream(&mut self, connection: &Connection) -> End {
        let (tx, rx) = mpsc::channel(STREAM_QUEUE);
        let mut client =
            PeerClient::new(connection.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        let opened = client.messages(self.signed(ReceiverStream::new(rx)));
        let mut answers = match timeout(RAFT_CALL_TIMEOUT, opened).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return self.refused(&status).await,
            Err(_) => return End::Lost("no answer in time".to_owned()),
        };
        loop {
            tokio::select! {
                message = timeout(PEER_IDLE, self.queue.recv()) => match message {
                    Ok(Some(message)) => self.put(connection, &tx, message).await,
                    Ok(None) | Err(_) => return End::Idle,
                },
                status = ended(&mut answers) => return self.refused(&status).await,
                () = connection.closed() => return End::Lost("connection was lost".to_owned()),
                _ = self.identity.changed() => return End::Renewed,
                Some(_) = self.snapshots.join_next() => {}
            }
        }
    }

    /// A call that says where this manager listens.
    fn signed<T>(&self, messages: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(messages);
        let group = self.handle.group();
        let group = group.borrow();
        let own = group.members.get(&group.own);
        if let Some(addr) = own.and_then(|own| own.member.addr.parse().ok()) {
            request.metadata_mut().insert(SENDER_ADDR, addr);
        }
        request
    }

    /// One message into the stream. When the peer does not read fast enough it is dropped.
    async fn put(
        &mut self,
        connection: &Connection,
        tx: &mpsc::Sender<RaftMessage>,
        message: Message,
    ) {
        if message.kind == MessageKind::Snapshot as i32 {
            self.start_snapshot(connection, message).await;
            return;
        }
        let message = RaftMessage {
            message: message.encode_to_vec(),
        };
        if let Err(TrySendError::Full(_)) = tx.try_send(message) {
            self.handle.report_unreachable(self.member.raft_id);
        }
    }

    /// Sends what comes with a call each, as SwarmKit does.
    async fn call_each(&mut self, connection: &Connection) -> End {
        loop {
            let message = tokio::select! {
                message = timeout(PEER_IDLE, self.queue.recv()) => match message {
                    Ok(Some(message)) => message,
                    Ok(None) | Err(_) => return End::Idle,
                },
                () = connection.closed() => return End::Lost("connection was lost".to_owned()),
                _ = self.identity.changed() => return End::Renewed,
                Some(_) = self.snapshots.join_next() => continue,
            };
            if message.kind == MessageKind::Snapshot as i32 {
                self.start_snapshot(connection, message).await;
                continue;
            }
            let request = StreamRaftMessageRequest {
                message: message.encode_to_vec(),
            };
            let mut client = RaftClient::new(connection.clone());
            let call = client.stream_raft_message(self.signed(tokio_stream::once(request)));
            match timeout(RAFT_CALL_TIMEOUT, call).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) if status.code() == Code::InvalidArgument => {}
                Ok(Err(status)) => return self.refused(&status).await,
                Err(_) => return End::Lost("no answer in time".to_owned()),
            }
        }
    }

    /// Snapshots go their own way, so that heartbeats pass them.
    async fn start_snapshot(&mut self, connection: &Connection, message: Message) {
        if !self.snapshots.is_empty() {
            dropped(&self.handle, &message).await;
            return;
        }
        let (handle, raft_id) = (self.handle.clone(), self.member.raft_id);
        let connection = connection.clone();
        self.snapshots.spawn(async move {
            let bytes = message.snapshot.as_ref().map_or(0, |it| it.data.len());
            let sent = snapshot::send(connection, message).await;
            handle.report_snapshot(raft_id, sent.is_ok()).await;
            match sent {
                Ok(()) => info!(raft.id = raft_id, bytes, "Snapshot sent to a manager"),
                Err(status) => {
                    let reason = status.message();
                    warn!(
                        raft.id = raft_id,
                        bytes, reason, "Snapshot not sent to a manager"
                    );
                }
            }
        });
    }

    async fn refused(&self, status: &Status) -> End {
        if status.code() == Code::Unimplemented {
            return End::NoStream;
        }
        if is_not_executed(status) {
            return End::NotReady;
        }
        if status.code() == Code::NotFound && status.message() == REMOVED {
            self.handle.expelled().await;
        }
        End::Lost(status.message().to_owned())
    }

    /// Waits, and drops what would be stale by then. `Err` when nothing more will come.
    async fn rest(&mut self, wait: Duration) -> Result<(), ()> {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                message = self.queue.recv() => match message {
                    Some(message) => {
                        dropped(&self.handle, &message).await;
                        self.handle.report_unreachable(self.member.raft_id);
                    }
                    None => return Err(()),
                },
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    fn up(&mut self) {
        if self.is_down {
            info!(
                raft.id = self.member.raft_id,
                addr = self.member.addr,
                "Manager is reachable"
            );
        }
        self.is_down = false;
    }

    fn down(&mut self, reason: &str) {
        let (raft_id, addr) = (self.member.raft_id, &self.member.addr);
        self.handle.report_unreachable(raft_id);
        if self.is_down {
            debug!(
                raft.id = raft_id,
                addr, reason, "Manager is still unreachable"
            );
        } else {
            warn!(raft.id = raft_id, addr, reason, "Manager is unreachable");
        }
        self.is_down = true;
    }
}

/// Why the peer ended the stream.
async fn ended(answers: &mut Streaming<MessagesAck>) -> Status {
    loop {
        match answers.message().await {
            Ok(Some(MessagesAck {})) => {}
            Ok(None) => return Status::unavailable("the stream ended"),
            Err(status) => return status,
        }
    }
}
