//! What the API of any manager uses: commands and reads that reach the leader, wherever it is.
//!
//! A command is sent once. It is repeated only while it certainly was not carried out: the leader could not be dialled, or refused
//! because it does not lead. Commands on stacks that may be carried out twice are repeated also when that is not known.

use std::{sync::Arc, time::Duration};

use skep_manager::{
    Handle, Published,
    command::{Answer, Code, Command, CommandError},
    core::NO_LEADER,
    group::{Group, MemberStatus},
};
use skep_model::Reachability;
use skep_wire::{
    member::Member,
    peer::{
        MemberState, ReadIndexRequest, ReadIndexResponse,
        member_state::Reachability as WireReachability, peer_client::PeerClient,
        stacks_client::StacksClient,
    },
    proto::control_client::ControlClient,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    channels::Channels,
    connection::Connection,
    convert::command_error,
    error::ErrorChain,
    limits::{COMMAND_TIMEOUT, RESPONSE_BYTES_MAX},
    security::Security,
};

mod commands;
mod stacks;

/// Wait before a leader that refused is looked for again, if nothing is heard before.
const RETRY: Duration = Duration::from_millis(100);

/// See the module's documentation. Clones share connections.
#[derive(Debug, Clone)]
pub struct Cluster {
    handle: Handle,
    channels: Arc<Channels>,
}

/// Where the leader is.
enum Leader {
    Here,
    At(String),
}

impl Cluster {
    /// The cluster that the manager behind `handle` is a member of.
    pub fn new(handle: Handle, security: Arc<Security>) -> Self {
        Self {
            handle,
            channels: Arc::new(Channels::new(security)),
        }
    }

    /// This node's manager.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Has the leader carry out a command; returns after its commit. Waits a while for a leader to be elected.
    ///
    /// # Errors
    /// The command was refused. `Unavailable` means that it was not carried out, `Aborted` and `DeadlineExceeded` that this is
    /// not known.
    pub async fn command(&self, command: Command) -> Result<Answer, CommandError> {
        let until = Instant::now() + COMMAND_TIMEOUT;
        let mut group = self.handle.group();
        let mut was_cut_off = false;
        loop {
            let result = match self.leader(&mut group, until).await {
                Ok(Leader::Here) => {
                    let work = self.handle.command(command.clone());
                    timeout_at(until, work)
                        .await
                        .unwrap_or_else(|_| Err(too_late()))
                }
                Ok(Leader::At(addr)) => Box::pin(self.send(&addr, &command, until)).await,
                Err(error) => return stacks::told(&command, Err(error), was_cut_off),
            };
            match result {
                Err(error) if self.is_worth_another(&error, until) => pause(&mut group).await,
                Err(error)
                    if error.code == Code::Aborted
                        && stacks::is_repeatable(&command)
                        && Instant::now() + RETRY < until =>
                {
                    tracing::info!(error = %error, "Leader lost under a command on a stack; trying again");
                    was_cut_off = true;
                    pause(&mut group).await;
                }
                result => return stacks::told(&command, result, was_cut_off),
            }
        }
    }

    /// The cluster's state, at least as new as every write acknowledged before the call, with the group as the leader sees it.
    ///
    /// # Errors
    /// There is no leader, or it does not answer.
    pub async fn view(&self) -> Result<Arc<Published>, CommandError> {
        let until = Instant::now() + COMMAND_TIMEOUT;
        let mut group = self.handle.group();
        loop {
            let result = match self.leader(&mut group, until).await? {
                Leader::Here => return Ok(self.handle.view()),
                Leader::At(addr) => self.read_through(&addr, until).await,
            };
            match result {
                // A read may be repeated whatever became of it.
                Err(error)
                    if matches!(error.code, Code::Unavailable | Code::Aborted)
                        && Instant::now() + RETRY < until =>
                {
                    pause(&mut group).await;
                }
                result => return result,
            }
        }
    }

    /// The leader, once one is known.
    async fn leader(
        &self,
        group: &mut watch::Receiver<Arc<Group>>,
        until: Instant,
    ) -> Result<Leader, CommandError> {
        loop {
            let view = self.handle.view();
            if view.is_leader {
                return Ok(Leader::Here);
            }
            if let Some(fault) = &view.fault {
                return Err(CommandError::new(Code::Unavailable, fault.clone()));
            }
            {
                let group = group.borrow_and_update();
                if let Some(leader) = group.leader()
                    && leader.member.raft_id != group.own
                {
                    return Ok(Leader::At(leader.member.addr.clone()));
                }
            }
            if Instant::now() + RETRY >= until {
                return Err(CommandError::new(Code::Unavailable, NO_LEADER));
            }
            pause(group).await;
        }
    }

    fn is_worth_another(&self, error: &CommandError, until: Instant) -> bool {
        error.code == Code::Unavailable
            && Instant::now() + RETRY < until
            && self.handle.view().fault.is_none()
    }

    async fn connect(&self, addr: &str) -> Result<Connection, CommandError> {
        let connection = self.channels.get(addr).await;
        // Nothing was sent.
        connection
            .map_err(|error| CommandError::new(Code::Unavailable, ErrorChain(&error).to_string()))
    }

    /// A connection to the leader, which may be this very node.
    pub(crate) async fn leader_connection(&self) -> Result<Connection, CommandError> {
        let until = Instant::now() + COMMAND_TIMEOUT;
        let mut group = self.handle.group();
        loop {
            let addr = match self.leader(&mut group, until).await? {
                Leader::At(addr) => addr,
                Leader::Here => {
                    let own = Arc::clone(&group.borrow());
                    let own = own.members.get(&own.own);
                    let own = own.ok_or_else(|| CommandError::new(Code::Unavailable, NO_LEADER))?;
                    own.member.addr.clone()
                }
            };
            match self.connect(&addr).await {
                Err(error) if self.is_worth_another(&error, until) => pause(&mut group).await,
                result => return result,
            }
        }
    }

    async fn send(
        &self,
        addr: &str,
        command: &Command,
        until: Instant,
    ) -> Result<Answer, CommandError> {
        let connection = self.connect(addr).await?;
        let cluster_id = self.channels.security().cluster_id();
        let call = async move {
            if stacks::is_of_stacks(command) {
                return stacks::call(StacksClient::new(connection), command).await;
            }
            let client =
                ControlClient::new(connection).max_decoding_message_size(RESPONSE_BYTES_MAX);
            commands::call(client, command, cluster_id).await
        };
        tokio::select! {
            answer = timeout_at(until, call) => {
                answer.unwrap_or_else(|_| Err(too_late()))
            }
            () = self.replaced(addr) => Err(leader_replaced()),
        }
    }

    /// Waits until this manager learns that the one at `addr` leads no more: whoever waits for its answer need not wait for the
    /// connection to time out.
    async fn replaced(&self, addr: &str) {
        let mut group = self.handle.group();
        let is_other = |group: &Arc<Group>| {
            group
                .leader()
                .is_none_or(|leader| leader.member.addr != addr)
        };
        let seen = group.wait_for(is_other).await.is_ok();
        if !seen {
            // The manager has stopped; its handle says so to whoever asks.
            std::future::pending::<()>().await;
        }
    }

    async fn read_through(
        &self,
        addr: &str,
        until: Instant,
    ) -> Result<Arc<Published>, CommandError> {
        let connection = self.connect(addr).await?;
        let mut client = PeerClient::new(connection);
        let answer = tokio::select! {
            answer = timeout_at(until, client.read_index(ReadIndexRequest {})) => answer,
            () = self.replaced(addr) => return Err(leader_replaced()),
        };
        let answer = match answer.map_err(|_| too_late())? {
            Ok(answer) => answer.into_inner(),
            // A manager of another kind leads: what is known here is all there is.
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                return Ok(self.handle.view());
            }
            Err(status) => return Err(command_error(&status)),
        };
        let applied = timeout_at(until, self.handle.wait_applied(answer.index)).await;
        applied.map_err(|_| too_late())??;
        let mut view = Published::clone(&self.handle.view());
        view.group = Arc::new(seen_by_leader(&view.group, answer));
        Ok(Arc::new(view))
    }
}

/// Waits until the group changes, but not for long.
async fn pause(group: &mut watch::Receiver<Arc<Group>>) {
    if let Ok(Err(_)) = timeout(RETRY, group.changed()).await {
        // The manager has stopped; its handle will say so.
        sleep(RETRY).await;
    }
}

fn leader_replaced() -> CommandError {
    CommandError::new(
        Code::Aborted,
        "the leader was lost while it carried out the request; it is not known whether it took effect",
    )
}

fn too_late() -> CommandError {
    CommandError::new(Code::DeadlineExceeded, "the leader did not answer in time")
}

/// The group with the leader's opinion of its members.
fn seen_by_leader(own: &Group, answer: ReadIndexResponse) -> Group {
    let mut group = own.clone();
    group.leader = Some(answer.leader);
    group.members = answer.members.into_iter().filter_map(member).collect();
    group
}

fn member(state: MemberState) -> Option<(u64, MemberStatus)> {
    let reachability = match state.reachability() {
        WireReachability::Unknown => Reachability::Unknown,
        WireReachability::Unreachable => Reachability::Unreachable,
        WireReachability::Reachable => Reachability::Reachable,
    };
    let member = Member {
        raft_id: state.raft_id,
        node_id: state.node_id.parse().ok()?,
        addr: state.addr,
    };
    Some((
        member.raft_id,
        MemberStatus {
            member,
            reachability,
        },
    ))
}
