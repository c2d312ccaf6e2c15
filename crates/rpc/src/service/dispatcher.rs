//! Sessions of agents: each is one connection to the leader core, its messages sorted into the streams gRPC has for them.
//!
//! One task per session, which ends when the core closes the connection or the agent goes. Streams never end in good order:
//! an agent takes that for a mistake of the manager and starts over at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use skep_manager::{AgentConnection, event::ToAgent};
use skep_model::{
    NodeId, SessionId,
    dispatch::{
        AssignmentsMessage, DispatchError, HeartbeatResponse, SessionMessage, SessionRequest,
        StatusUpdate,
    },
};
use skep_wire::proto::{self, dispatcher_server};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, async_trait, codegen::BoxStream};

use crate::{
    convert::{malformed, status_of_dispatch},
    limits::{CALL_TIMEOUT, SESSION_TIMEOUT, STREAM_QUEUE},
    service::{caller, context, handle},
};

type Inbox = mpsc::Receiver<Result<ToAgent, DispatchError>>;
type Outcome<T> = Result<T, DispatchError>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Dispatcher {
    sessions: Sessions,
}

/// The newest session of each node; as many as there are nodes.
type Sessions = Arc<Mutex<BTreeMap<NodeId, Arc<Session>>>>;

#[derive(Debug)]
struct Session {
    id: SessionId,
    connection: AgentConnection,
    assignments: Mutex<Option<mpsc::Receiver<Outcome<AssignmentsMessage>>>>,
    heartbeats: tokio::sync::Mutex<mpsc::Receiver<Outcome<HeartbeatResponse>>>,
}

impl Dispatcher {
    /// The session `id` of the node that calls. Another node's is none.
    fn session(&self, node_id: NodeId, id: &str) -> Result<Arc<Session>, DispatchError> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(&node_id);
        let session = session.ok_or(DispatchError::NodeNotRegistered)?;
        if session.id.as_str() != id {
            return Err(DispatchError::SessionInvalid);
        }
        Ok(Arc::clone(session))
    }
}

#[async_trait]
impl dispatcher_server::Dispatcher for Dispatcher {
    async fn session(
        &self,
        request: Request<proto::SessionRequest>,
    ) -> Result<Response<BoxStream<proto::SessionMessage>>, Status> {
        let node_id = caller(&request)?;
        let addr = context(&request)?.caller.addr.clone();
        let handle = handle(&request)?;
        let request: SessionRequest = request.into_inner().try_into().map_err(malformed)?;
        let refused = |error| status_of_dispatch(&error);
        // The core keeps the host only: the port is the caller's, not one it listens on.
        let host = addr.rsplit_once(':').map_or(&*addr, |(host, _)| host);
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let mut connection = handle
            .connect(node_id, host, request)
            .await
            .map_err(refused)?;
        let inbox = connection.take_inbox();
        let mut inbox = inbox.ok_or_else(|| Status::internal("connection has no inbox"))?;
        let first = first_message(&mut inbox).await.map_err(refused)?;
        let (sessions_tx, sessions) = mpsc::channel(STREAM_QUEUE);
        let (assignments_tx, assignments) = mpsc::channel(STREAM_QUEUE);
        let (heartbeats_tx, heartbeats) = mpsc::channel(STREAM_QUEUE);
        let session = Arc::new(Session {
            id: first.session_id,
            connection,
            assignments: Mutex::new(Some(assignments)),
            heartbeats: tokio::sync::Mutex::new(heartbeats),
        });
        let _ = sessions_tx.try_send(Ok(SessionMessage::clone(&first)));
        let mut all = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(node_id, Arc::clone(&session));
        drop(all);
        let fan = Fan {
            sessions: Arc::clone(&self.sessions),
            node_id,
            session,
            sessions_tx,
            assignments_tx,
            heartbeats_tx,
        };
        // Ends when the core closes the connection or the agent drops its stream.
        tokio::spawn(fan.run(inbox));
        Ok(Response::new(stream::<SessionMessage, _>(sessions)))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let node_id = caller(&request)?;
        let session = self.session(node_id, &request.get_ref().session_id);
        let answer = async {
            let session = session?;
            // One at a time, so that each gets its own answer.
            let mut heartbeats = session.heartbeats.lock().await;
            // Answers to calls that were given up are for nobody.
            while heartbeats.try_recv().is_ok() {}
            session.connection.heartbeat().await?;
            let answer = timeout(CALL_TIMEOUT, heartbeats.recv()).await;
            let answer = answer.map_err(|_| unavailable("no answer in time"))?;
            answer.unwrap_or(Err(DispatchError::NodeNotRegistered))
        };
        let answer = answer.await.map_err(|error| status_of_dispatch(&error))?;
        Ok(Response::new(answer.into()))
    }

    async fn update_task_status(
        &self,
        request: Request<proto::UpdateTaskStatusRequest>,
    ) -> Result<Response<proto::UpdateTaskStatusResponse>, Status> {
        let node_id = caller(&request)?;
        let session = self.session(node_id, &request.get_ref().session_id);
        let session = session.map_err(|error| status_of_dispatch(&error))?;
        let update = StatusUpdate::try_from(request.into_inner()).map_err(malformed)?;
        let stored = session.connection.report(update.updates).await;
        stored.map_err(|error| status_of_dispatch(&error))?;
        Ok(Response::new(proto::UpdateTaskStatusResponse {}))
    }

    async fn assignments(
        &self,
        request: Request<proto::AssignmentsRequest>,
    ) -> Result<Response<BoxStream<proto::AssignmentsMessage>>, Status> {
        let node_id = caller(&request)?;
        let session = self.session(node_id, &request.get_ref().session_id);
        let session = session.map_err(|error| status_of_dispatch(&error))?;
        let mut assignments = session
            .assignments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A second stream of one session would lack what the first one got: the agent must register again.
        let assignments = assignments.take();
        let assignments =
            assignments.ok_or_else(|| status_of_dispatch(&DispatchError::SessionInvalid))?;
        Ok(Response::new(stream::<AssignmentsMessage, _>(assignments)))
    }
}

/// The message that opens the session.
async fn first_message(inbox: &mut Inbox) -> Result<Arc<SessionMessage>, DispatchError> {
    let first = timeout(SESSION_TIMEOUT, inbox.recv()).await;
    let first = first.map_err(|_| unavailable("no session in time"))?;
    match first.ok_or_else(|| unavailable("the connection ended"))?? {
        ToAgent::Session(message) => Ok(message),
        ToAgent::Assignments(_) | ToAgent::Heartbeat(_) => {
            Err(unavailable("the connection did not begin with a session"))
        }
    }
}

/// A stream of what arrives in `messages`. The end of the channel without an error is told as one.
fn stream<M, P>(messages: mpsc::Receiver<Outcome<M>>) -> BoxStream<P>
where
    M: Send + 'static,
    P: for<'m> From<&'m M> + Send + 'static,
{
    let messages = ReceiverStream::new(messages);
    let messages = messages.map(|message| match message {
        Ok(message) => Ok(P::from(&message)),
        Err(error) => Err(status_of_dispatch(&error)),
    });
    let end = tokio_stream::once(Err(status_of_dispatch(&unavailable("the session ended"))));
    Box::pin(messages.chain(end))
}

fn unavailable(reason: &str) -> DispatchError {
    DispatchError::Unavailable(reason.to_owned())
}

/// Sorts the core's messages to one agent.
struct Fan {
    sessions: Sessions,
    node_id: NodeId,
    session: Arc<Session>,
    sessions_tx: mpsc::Sender<Outcome<SessionMessage>>,
    assignments_tx: mpsc::Sender<Outcome<AssignmentsMessage>>,
    heartbeats_tx: mpsc::Sender<Outcome<HeartbeatResponse>>,
}

impl Fan {
    async fn run(self, mut inbox: Inbox) {
        let reason = loop {
            let message = tokio::select! {
                message = inbox.recv() => message,
                () = self.sessions_tx.closed() => break None,
                () = self.assignments_tx.closed() => break None,
            };
            let is_taken = match message {
                Some(Ok(ToAgent::Session(message))) => {
                    let message = SessionMessage::clone(&message);
                    self.sessions_tx.send(Ok(message)).await.is_ok()
                }
                Some(Ok(ToAgent::Assignments(message))) => {
                    self.assignments_tx.send(Ok(message)).await.is_ok()
                }
                Some(Ok(ToAgent::Heartbeat(response))) => {
                    // Nobody waits for more than one.
                    let _ = self.heartbeats_tx.try_send(Ok(response));
                    true
                }
                Some(Err(reason)) => break Some(reason),
                None => break Some(unavailable("the manager is stopping")),
            };
            if !is_taken {
                break None;
            }
        };
        if let Some(reason) = reason {
            let _ = self.heartbeats_tx.try_send(Err(reason.clone()));
            let _ = self.assignments_tx.try_send(Err(reason.clone()));
            let _ = self.sessions_tx.try_send(Err(reason));
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        // A newer session of the node is not ours to forget.
        let is_ours = |known: &Arc<Session>| Arc::ptr_eq(known, &self.session);
        if sessions.get(&self.node_id).is_some_and(is_ours) {
            sessions.remove(&self.node_id);
        }
    }
}
