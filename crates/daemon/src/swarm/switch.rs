//! The agent's way to a dispatcher: the manager in its own process while that one leads, else one
//! on another node. Chosen anew for every session.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use skep_agent::dispatcher::{DispatcherClient, MessageStream};
use skep_model::{
    SessionId,
    dispatch::{
        AssignmentsMessage, DispatchError, HeartbeatRequest, HeartbeatResponse, SessionMessage,
        SessionRequest, StatusUpdate, WeightedPeer,
    },
};
use skep_rpc::RemoteDispatcher;

use super::{
    link::LocalDispatcher,
    member::{Active, Member},
};

/// How long a session waits for an election to end; asking another manager meanwhile is in vain.
const ELECTION_WAIT: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct SwitchDispatcher {
    member: Arc<Member>,
    remote: RemoteDispatcher,
    /// The session's dispatcher, when it is the own one.
    local: Mutex<Option<Arc<LocalDispatcher>>>,
}

impl SwitchDispatcher {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self {
            remote: RemoteDispatcher::new(member.client.clone()),
            member,
            local: Mutex::new(None),
        }
    }

    fn local(&self) -> Option<Arc<LocalDispatcher>> {
        let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.clone()
    }

    fn set_local(&self, local: Option<Arc<LocalDispatcher>>) {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner) = local;
    }

    /// The dispatcher in this process, if it leads.
    async fn leading(&self) -> Option<Arc<LocalDispatcher>> {
        let active = self.member.manager()?;
        if !leads_after_election(&active).await {
            return None;
        }
        let identity = self.member.identity();
        let dispatcher = LocalDispatcher::new(
            active.handle.clone(),
            identity.node_id,
            identity.addr().to_string(),
        );
        Some(Arc::new(dispatcher))
    }
}

/// Whether a manager leads, once it is known who does.
async fn leads_after_election(active: &Active) -> bool {
    let mut group = active.handle.group();
    let decided = async {
        loop {
            let is_other = group
                .borrow_and_update()
                .leader
                .is_some_and(|id| id != active.handle.view().group.own);
            if is_other || active.handle.view().is_leader || group.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(ELECTION_WAIT, decided).await;
    active.handle.view().is_leader
}

#[async_trait]
impl DispatcherClient for SwitchDispatcher {
    async fn session(
        &self,
        request: SessionRequest,
    ) -> Result<MessageStream<SessionMessage>, DispatchError> {
        self.set_local(None);
        let Some(local) = self.leading().await else {
            return self.remote.session(request).await;
        };
        let stream = local.session(request).await?;
        self.set_local(Some(local));
        Ok(stream)
    }

    async fn assignments(
        &self,
        session_id: SessionId,
    ) -> Result<MessageStream<AssignmentsMessage>, DispatchError> {
        match self.local() {
            Some(local) => local.assignments(session_id).await,
            None => self.remote.assignments(session_id).await,
        }
    }

    async fn heartbeat(
        &self,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, DispatchError> {
        match self.local() {
            Some(local) => local.heartbeat(request).await,
            None => self.remote.heartbeat(request).await,
        }
    }

    async fn update_statuses(&self, update: StatusUpdate) -> Result<(), DispatchError> {
        match self.local() {
            Some(local) => local.update_statuses(update).await,
            None => self.remote.update_statuses(update).await,
        }
    }

    async fn managers_changed(&self, managers: Vec<WeightedPeer>) {
        self.member.remotes().replace(managers);
    }
}
