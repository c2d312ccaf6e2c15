//! How the agent reaches a dispatcher. Implemented in process, next to a manager, and over gRPC.
//!
//! The implementation chooses the manager, connects and converts; the agent decides when to
//! register, beat and report. Calls are dropped when their session is over or their time is up, so
//! every method must be safe to drop at any await.

use async_trait::async_trait;
use skep_model::{
    SessionId,
    dispatch::{
        AssignmentsMessage, DispatchError, HeartbeatRequest, HeartbeatResponse, SessionMessage,
        SessionRequest, StatusUpdate, WeightedPeer,
    },
};
use tokio::sync::mpsc;

/// Messages a dispatcher streams. An `Err` or the end of the channel ends the session; dropping the
/// receiver closes the stream. Senders wait when the channel is full: the agent reads one message at
/// a time, so a small capacity does.
pub type MessageStream<T> = mpsc::Receiver<Result<T, DispatchError>>;

/// A client of whichever manager currently answers.
#[async_trait]
pub trait DispatcherClient: Send + Sync + 'static {
    /// Opens a session. May choose another manager than the last session had.
    async fn session(
        &self,
        request: SessionRequest,
    ) -> Result<MessageStream<SessionMessage>, DispatchError>;

    /// Opens the stream of assignments of the session, at the same manager.
    async fn assignments(
        &self,
        session_id: SessionId,
    ) -> Result<MessageStream<AssignmentsMessage>, DispatchError>;

    /// Says that the agent is alive.
    async fn heartbeat(
        &self,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, DispatchError>;

    /// Reports observed states.
    async fn update_statuses(&self, update: StatusUpdate) -> Result<(), DispatchError>;

    /// All managers there are, never empty: remember them for later sessions and restarts.
    async fn managers_changed(&self, managers: Vec<WeightedPeer>);
}
