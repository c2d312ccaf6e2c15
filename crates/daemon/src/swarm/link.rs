//! The agent's way to the manager in the same process: no network, the same messages.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use skep_agent::dispatcher::{DispatcherClient, MessageStream};
use skep_manager::{AgentConnection, Handle, event::ToAgent};
use skep_model::{
    NodeId, SessionId,
    dispatch::{
        AssignmentsMessage, DispatchError, HeartbeatRequest, HeartbeatResponse, SessionMessage,
        SessionRequest, StatusUpdate, WeightedPeer,
    },
};
use tokio::sync::mpsc;

/// Messages between manager and agent; the agent reads one at a time.
const QUEUE: usize = 16;

/// See the module's documentation.
pub(super) struct LocalDispatcher {
    handle: Handle,
    node_id: NodeId,
    addr: String,
    session: Mutex<Option<Session>>,
}

/// The session opened last.
struct Session {
    connection: Arc<AgentConnection>,
    assignments: Option<MessageStream<AssignmentsMessage>>,
    heartbeats: Arc<tokio::sync::Mutex<mpsc::Receiver<Result<HeartbeatResponse, DispatchError>>>>,
}

impl LocalDispatcher {
    pub(super) fn new(handle: Handle, node_id: NodeId, addr: String) -> Self {
        Self {
            handle,
            node_id,
            addr,
            session: Mutex::new(None),
        }
    }

    fn connection(&self) -> Result<Arc<AgentConnection>, DispatchError> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = session.as_ref().ok_or(DispatchError::SessionInvalid)?;
        Ok(Arc::clone(&session.connection))
    }
}

#[async_trait]
impl DispatcherClient for LocalDispatcher {
    async fn session(
        &self,
        request: SessionRequest,
    ) -> Result<MessageStream<SessionMessage>, DispatchError> {
        let mut connection = self
            .handle
            .connect(self.node_id, self.addr.clone(), request)
            .await?;
        let inbox = connection
            .take_inbox()
            .ok_or(DispatchError::SessionInvalid)?;
        let (sessions_tx, sessions) = mpsc::channel(QUEUE);
        let (assignments_tx, assignments) = mpsc::channel(QUEUE);
        let (heartbeats_tx, heartbeats) = mpsc::channel(QUEUE);
        let fan = Fan {
            sessions_tx,
            assignments_tx,
            heartbeats_tx,
        };
        // Ends when the dispatcher closes the connection or the agent drops its streams.
        tokio::spawn(fan.run(inbox));
        let session = Session {
            connection: Arc::new(connection),
            assignments: Some(assignments),
            heartbeats: Arc::new(tokio::sync::Mutex::new(heartbeats)),
        };
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        Ok(sessions)
    }

    async fn assignments(
        &self,
        _session_id: SessionId,
    ) -> Result<MessageStream<AssignmentsMessage>, DispatchError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = session.as_mut().ok_or(DispatchError::SessionInvalid)?;
        session
            .assignments
            .take()
            .ok_or(DispatchError::SessionInvalid)
    }

    async fn heartbeat(
        &self,
        _request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, DispatchError> {
        let (connection, heartbeats) = {
            let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let session = session.as_ref().ok_or(DispatchError::SessionInvalid)?;
            (
                Arc::clone(&session.connection),
                Arc::clone(&session.heartbeats),
            )
        };
        connection.heartbeat().await?;
        let mut heartbeats = heartbeats.lock().await;
        heartbeats
            .recv()
            .await
            .unwrap_or(Err(DispatchError::NodeNotRegistered))
    }

    async fn update_statuses(&self, update: StatusUpdate) -> Result<(), DispatchError> {
        self.connection()?.report(update.updates).await
    }

    async fn managers_changed(&self, _managers: Vec<WeightedPeer>) {
        // The only manager this link can reach is the one in its own process.
    }
}

/// Sorts the dispatcher's messages into the agent's streams.
struct Fan {
    sessions_tx: mpsc::Sender<Result<SessionMessage, DispatchError>>,
    assignments_tx: mpsc::Sender<Result<AssignmentsMessage, DispatchError>>,
    heartbeats_tx: mpsc::Sender<Result<HeartbeatResponse, DispatchError>>,
}

impl Fan {
    async fn run(self, mut inbox: mpsc::Receiver<Result<ToAgent, DispatchError>>) {
        while let Some(message) = inbox.recv().await {
            let is_taken = match message {
                Ok(ToAgent::Session(message)) => {
                    let message = SessionMessage::clone(&message);
                    self.sessions_tx.send(Ok(message)).await.is_ok()
                }
                Ok(ToAgent::Assignments(message)) => {
                    self.assignments_tx.send(Ok(message)).await.is_ok()
                }
                Ok(ToAgent::Heartbeat(response)) => {
                    self.heartbeats_tx.send(Ok(response)).await.is_ok()
                }
                Err(reason) => {
                    let _ = self.heartbeats_tx.try_send(Err(reason.clone()));
                    let _ = self.sessions_tx.send(Err(reason)).await;
                    return;
                }
            };
            if !is_taken {
                return;
            }
        }
    }
}
