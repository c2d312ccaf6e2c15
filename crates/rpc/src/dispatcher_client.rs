//! The agent's way to a dispatcher on another node.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use skep_agent::dispatcher::{DispatcherClient, MessageStream};
use skep_model::{
    SessionId,
    dispatch::{
        AssignmentsMessage, DispatchError, HeartbeatRequest, HeartbeatResponse, SessionMessage,
        SessionRequest, StatusUpdate, WeightedPeer,
    },
};
use skep_wire::proto::{self, dispatcher_client::DispatcherClient as WireClient};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::{Status, Streaming};

use crate::{
    client::Client,
    connection::Connection,
    convert::{DispatchErrorOf, dispatch_error},
    error::{ErrorChain, RpcError},
    join::deadline,
    limits::{CALL_TIMEOUT, RESPONSE_BYTES_MAX, SESSION_TIMEOUT, STREAM_QUEUE},
};

/// See the module's documentation. A session and all that belongs to it use one manager; the next session may use another.
#[derive(Debug)]
pub struct RemoteDispatcher {
    client: Client,
    current: Mutex<Option<Current>>,
}

/// The manager of the session opened last.
#[derive(Debug, Clone)]
struct Current {
    addr: Arc<str>,
    connection: Connection,
}

impl RemoteDispatcher {
    /// A dispatcher behind whichever manager `client` finds.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            current: Mutex::new(None),
        }
    }

    fn current(&self) -> Result<Current, DispatchError> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().ok_or(DispatchError::SessionInvalid)
    }

    fn set_current(&self, current: Option<Current>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// Waits for a call at the session's manager.
    async fn call<T>(
        &self,
        addr: &str,
        limit: std::time::Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, DispatchError> {
        let answer = deadline(addr, Instant::now() + limit, call).await;
        self.client.observe(addr, answer.as_ref().err());
        answer.map_err(|error| DispatchErrorOf::from(error).0)
    }
}

#[async_trait]
impl DispatcherClient for RemoteDispatcher {
    async fn session(
        &self,
        request: SessionRequest,
    ) -> Result<MessageStream<SessionMessage>, DispatchError> {
        self.set_current(None);
        let connected = self.client.connect().await;
        let (addr, connection) = connected.map_err(|error| DispatchErrorOf::from(error).0)?;
        let mut client = wire(&connection);
        let request = proto::SessionRequest::from(&request);
        let mut stream = self
            .call(&addr, SESSION_TIMEOUT, client.session(request))
            .await?;
        // The first message shows that this manager reaches the leader; until then the next one may be better.
        let first = match timeout(SESSION_TIMEOUT, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => {
                self.client.remotes().observe(&addr, false);
                return Err(DispatchError::Unavailable("the session ended".to_owned()));
            }
            Ok(Err(status)) => {
                self.client
                    .observe(&addr, Some(&RpcError::from(status.clone())));
                return Err(dispatch_error(&status));
            }
            Err(_) => {
                self.client.remotes().observe(&addr, false);
                return Err(DispatchError::Unavailable("no session message".to_owned()));
            }
        };
        let first = convert::<_, SessionMessage>(first)?;
        self.set_current(Some(Current {
            addr: addr.into(),
            connection,
        }));
        let (tx, rx) = mpsc::channel(STREAM_QUEUE);
        let _ = tx.try_send(Ok(first));
        // Ends with the stream, or when the agent drops the receiver.
        tokio::spawn(pump(stream, tx));
        Ok(rx)
    }

    async fn assignments(
        &self,
        session_id: SessionId,
    ) -> Result<MessageStream<AssignmentsMessage>, DispatchError> {
        let Current { addr, connection } = self.current()?;
        let request = proto::AssignmentsRequest {
            session_id: session_id.to_string(),
        };
        let mut client = wire(&connection);
        let call = client.assignments(request);
        let stream = self.call(&addr, CALL_TIMEOUT, call).await?;
        let (tx, rx) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(pump(stream, tx));
        Ok(rx)
    }

    async fn heartbeat(
        &self,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, DispatchError> {
        let Current { addr, connection } = self.current()?;
        let mut client = wire(&connection);
        let call = client.heartbeat(proto::HeartbeatRequest::from(request));
        convert(self.call(&addr, CALL_TIMEOUT, call).await?)
    }

    async fn update_statuses(&self, update: StatusUpdate) -> Result<(), DispatchError> {
        let Current { addr, connection } = self.current()?;
        let mut client = wire(&connection);
        let call = client.update_task_status(proto::UpdateTaskStatusRequest::from(&update));
        self.call(&addr, CALL_TIMEOUT, call).await.map(drop)
    }

    async fn managers_changed(&self, managers: Vec<WeightedPeer>) {
        self.client.remotes().replace(managers);
    }
}

fn wire(connection: &Connection) -> WireClient<Connection> {
    WireClient::new(connection.clone()).max_decoding_message_size(RESPONSE_BYTES_MAX)
}

fn convert<P, M: TryFrom<P, Error = skep_wire::Error>>(message: P) -> Result<M, DispatchError> {
    M::try_from(message).map_err(|error| {
        let problem = ErrorChain(&error).to_string();
        DispatchError::Unavailable(format!("malformed message of a manager: {problem}"))
    })
}

/// Carries a stream to the agent. Its end is an error: dispatchers never end a stream in good order.
async fn pump<P, M>(mut stream: Streaming<P>, tx: mpsc::Sender<Result<M, DispatchError>>)
where
    M: TryFrom<P, Error = skep_wire::Error>,
{
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = tx.closed() => return,
        };
        let message = match message {
            Ok(Some(message)) => convert(message),
            Ok(None) => Err(DispatchError::Unavailable("the stream ended".to_owned())),
            Err(status) => Err(dispatch_error(&status)),
        };
        let is_last = message.is_err();
        if tx.send(message).await.is_err() || is_last {
            return;
        }
    }
}
